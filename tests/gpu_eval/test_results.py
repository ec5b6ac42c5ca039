"""The format of results: what is written is what is read, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_eval.results import Interval, RankLatency, Results, from_json, read_results, to_json
from tests.gpu_eval.example_results import eplb_results, eplb_row, moe_results

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("make", [eplb_results, moe_results])
def test_what_is_written_is_what_is_read(make: Callable[[], Results]) -> None:
    assert from_json(to_json(make())) == make()


def changed(change: Callable[[Any], object]) -> str:
    plain = json.loads(to_json(eplb_results()))
    change(plain)
    return json.dumps(plain)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda plain: plain.update(format=2), "format of the results is not 1"),
        (lambda plain: plain.pop("format"), "not a results file"),
        (lambda plain: plain.update(bench="speed"), "results.bench: 'speed', expected one of eplb, moe_placement"),
        (lambda plain: plain.update(extra=1), "results: unknown `'extra'`"),
        (lambda plain: plain.pop("date"), "results: `date` is missing"),
        (lambda plain: plain["eplb"][1].update(source="both"), r"results.eplb\[1\].source: 'both'"),
        (lambda plain: plain["eplb"][0].update(next_balance="high"), r"eplb\[0\].next_balance: 'high', expected float"),
        (lambda plain: plain["eplb"][0].update(next_balance=float("nan")), r"eplb\[0\].next_balance: nan"),
        (lambda plain: plain["eplb"][0].update(next_balance=10**400), "expected a finite number or null"),
        (lambda plain: plain["eplb"][0].update(duplicates=True), "duplicates: True, expected int"),
        (lambda plain: plain["eplb"][0].update(duplicates=1.5), "duplicates: 1.5, expected int"),
        (lambda plain: plain["eplb"][0].update(grouped=1), "grouped: 1, expected bool"),
        (lambda plain: plain["eplb"][0].update(host_ms=[1, 2, 3]), "host_ms: .*, expected an object"),
        (lambda plain: plain["eplb"][0]["host_ms"].pop("low"), "host_ms: `low` is missing"),
        (lambda plain: plain.update(eplb={}), "results.eplb: {}, expected a list"),
        (lambda plain: plain.update(environment=[]), r"results.environment: \[\], expected an object"),
        (lambda plain: plain.update(bench="moe_placement"), "moe_placement hold rows of the other one"),
    ],
)
def test_what_is_no_results_file_is_refused_in_one_line(change: Callable[[Any], object], line: str) -> None:
    with pytest.raises(ValueError, match=line) as caught:
        from_json(changed(change))
    assert "\n" not in str(caught.value)


@given(JSON)
def test_any_json_in_the_place_of_a_row_is_a_row_or_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"results\.eplb"):
        from_json(changed(lambda plain: plain.update(eplb=[value])))


@pytest.mark.parametrize("text", ["", "[" * 100_000, "[]", "nonsense", "1", "null"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not JSON|not a results file"):
        from_json(text)


def test_reading_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(ValueError, match=r"results\.json: No such file"):
        read_results(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"results\.json: "):
        read_results(path)
    path.write_text(to_json(moe_results()))
    assert read_results(path) == moe_results()


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (replace(eplb_row("x"), next_balance=float("nan")), "next_balance: nan"),
        (replace(eplb_row("x"), host_ms=Interval(1, 2, float("inf"))), "host_ms.high: inf"),
        (replace(eplb_row("x"), duplicates=np.int64(3)), "duplicates: np.int64"),  # type: ignore[arg-type]
    ],
)
def test_what_the_format_does_not_allow_is_not_written(row: Any, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        to_json(replace(eplb_results(), eplb=(row,)))


def test_rank_latencies_are_a_matrix() -> None:
    for seconds in ((), ((),), ((1.0,), (1.0, 2.0))):
        with pytest.raises(ValueError, match="as many ranks in every layer"):
            RankLatency(
                program="x",
                source="generated",
                regime="trt",
                shape="s",
                phase="decode",
                stage="model",
                seconds=seconds,
            )
