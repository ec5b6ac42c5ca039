"""Programs of OpenEvolve checkpoint folders: the best first, distinct, whatever else lies there."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrs_ray.errors import UsageError
from adrs_ray.openevolve_checkpoint import checkpoint_programs, is_checkpoint, read_checkpoint


def saved(folder: Path, programs: dict[str, Any]) -> Path:
    """A checkpoint folder; each program is a dict, or the raw text of its file."""
    (folder / "programs").mkdir(parents=True)
    (folder / "metadata.json").write_text(json.dumps({"last_iteration": 5, "islands": [list(programs)]}))
    for name, data in programs.items():
        text = data if isinstance(data, str) else json.dumps({"id": name, "language": "python", **data})
        (folder / "programs" / f"{name}.json").write_text(text, encoding="utf-8")
    return folder


def test_programs_come_best_first_and_as_many_as_asked(tmp_path: Path) -> None:
    folder = saved(
        tmp_path / "checkpoint_5",
        {
            "a": {"code": "x = 1", "metrics": {"combined_score": 0.2, "time": 99.0}, "generation": 0},
            "b": {"code": "x = 2", "metrics": {"combined_score": 0.9}},
            "c": {"code": "x = 3", "metrics": {"speed": 1.0, "quality": 0.0, "note": "odd", "valid": True}},
            "d": {"code": "x = 4", "metrics": {}},
        },
    )
    assert is_checkpoint(folder)
    programs = checkpoint_programs(folder)
    assert [each.id for each in programs] == ["b", "c", "a", "d"]
    assert [each.score for each in programs] == [0.9, pytest.approx(2 / 3), 0.2, None]
    assert programs[0].source == "x = 2"
    assert [each.id for each in checkpoint_programs(folder, count=2)] == ["b", "c"]


def test_an_output_folder_gives_its_latest_checkpoint(tmp_path: Path) -> None:
    for number in (9, 100, 20):
        saved(tmp_path / "checkpoints" / f"checkpoint_{number}", {"p": {"code": f"x = {number}"}})
    (tmp_path / "checkpoints" / "checkpoint_500").mkdir()  # cut short: nothing in it
    for folder in (tmp_path, tmp_path / "checkpoints"):
        assert is_checkpoint(folder)
        assert checkpoint_programs(folder)[0].source == "x = 100"


def test_programs_that_differ_in_layout_only_count_once(tmp_path: Path) -> None:
    programs = {
        "worse": {"code": "x = 1  # first", "metrics": {"combined_score": 1.0}},
        "better": {"code": '"""Doc."""\nx = 1\n', "metrics": {"combined_score": 2.0}},
    }
    found = read_checkpoint(saved(tmp_path / "checkpoint_1", programs))
    assert [each.id for each in found.programs] == ["better"]
    assert (found.skipped, found.duplicates) == (0, 1)


def test_what_is_no_python_program_is_skipped_and_counted(tmp_path: Path) -> None:
    programs = {
        "good": {"code": "x = 1"},
        "rust": {"code": "x = 1", "language": "rust"},
        "broken": {"code": "def f(:"},
        "long": {"code": "x = 1\n" * 50_000},
        "empty": {"code": "  \n"},
        "number": {"code": 7},
        "surrogate": '{"id": "s", "code": "x = \'\\ud800\'", "language": "python"}',
        "list": "[1, 2]",
        "torn": '{"id": "torn", "code": "x',
        "deep": "[" * 100_000,
    }
    found = read_checkpoint(saved(tmp_path / "checkpoint_1", programs))
    assert [each.id for each in found.programs] == ["good"]
    assert found.skipped == len(programs) - 1


def test_scores_that_are_no_finite_numbers_say_nothing(tmp_path: Path) -> None:
    programs = {
        "nan": {"code": "x = 1", "metrics": {"combined_score": math.nan}},
        "huge": {"code": "x = 2", "metrics": {"combined_score": 10**400, "other": 0.5}},
        "texts": {"code": "x = 3", "metrics": ["combined_score"]},
    }
    scores = {each.id: each.score for each in checkpoint_programs(saved(tmp_path / "checkpoint_1", programs))}
    assert scores == {"nan": None, "huge": 0.5, "texts": None}


def test_an_id_that_is_no_name_gives_way_to_that_of_the_file(tmp_path: Path) -> None:
    folder = saved(tmp_path / "checkpoint_1", {"p1": {"code": "x = 1", "id": "../../etc\x1b[2J"}})
    assert checkpoint_programs(folder)[0].id == "p1"


@pytest.mark.parametrize("make", ["nothing", "file", "empty", "run"])
def test_a_foreign_folder_is_refused_in_one_line_that_says_what_is_expected(tmp_path: Path, make: str) -> None:
    folder = tmp_path / "given"
    if make == "file":
        folder.write_text("x = 1")
    elif make != "nothing":
        folder.mkdir()
    if make == "run":
        (folder / "journal.db").write_bytes(b"")
    assert not is_checkpoint(folder)
    with pytest.raises(UsageError, match=r"no OpenEvolve checkpoint.*programs/\*\.json") as refused:
        checkpoint_programs(folder)
    assert "\n" not in str(refused.value)


def test_a_checkpoint_without_any_program_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "checkpoint_1", {"rust": {"code": "fn main() {}", "language": "rust"}})
    with pytest.raises(UsageError, match="no Python program among its 1 files"):
        read_checkpoint(folder)


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(code=_JSON, language=_JSON, metrics=_JSON, name=_JSON)
@settings(max_examples=100, deadline=None)
def test_no_file_makes_it_raise(
    tmp_path_factory: pytest.TempPathFactory, code: Any, language: Any, metrics: Any, name: Any
) -> None:
    folder = tmp_path_factory.mktemp("hostile") / "checkpoint_1"
    hostile = {"id": name, "code": code, "language": language, "metrics": metrics}
    found = read_checkpoint(saved(folder, {"good": {"code": "x = 1"}, "hostile": hostile}))
    assert "good" in [each.id for each in found.programs]
    assert found.skipped + found.duplicates + len(found.programs) == 2
    assert all(each.score is None or math.isfinite(each.score) for each in found.programs)
