"""The public scoring of telemetry_repair: recorded figures, a literal version of it, and the conversion of its data."""

from __future__ import annotations

import csv
import gzip
import io
import json
from typing import Any

import pytest

from adrs_ray.private_import import import_private
from adrs_ray.task import Case, DataFile, UsageError, data_file, load_task

from .literal_telemetry import public_readings, public_score, telemetry_of
from .test_telemetry_repair import ADAPTER, HANDS_BACK, TASK, collected, run

PAPER = load_task("telemetry_repair", scoring="paper")
CONVERT = import_private(TASK.folder, "convert")

TUPLES = """
def run_repair(telemetry, topology):
    return {
        name: {**fields, **{key: (fields[key], fields[key], 1.0) for key in ("rx_rate", "tx_rate", "interface_status")}}
        for name, fields in telemetry.items()
    }
"""
ONE_INTERFACE = """
def run_repair(telemetry, topology):
    best, found = None, None
    for name, fields in telemetry.items():
        peer = telemetry[fields["connected_to"]]
        off = abs(fields["rx_rate"] - peer["tx_rate"]) / max(fields["rx_rate"], peer["tx_rate"], 1e-9)
        if fields["rx_rate"] > 0 and (best is None or off < best):
            best, found = off, name
    return {found: telemetry[found]}
"""
NOTHING = "def run_repair(telemetry, topology):\n    return {}\n"

GOLDEN = {
    "tuples": (TUPLES, 0.8381069161068669, 0.830966308255748, 0.8244109245752795),
    "plain": (HANDS_BACK, 0.8732247311918111, 0.830966308255748, 1.0),
    "max": (TASK.baselines()["max_own_peer"].read_text(), 0.9447650238373179, 0.9415213997241955, 0.9431198702208563),
    "nothing": (NOTHING, 0.25, 0.0, 1.0),
}
"""Program, public score, its parts for counters and confidences; recorded from the public evaluator."""
FIRST_SNAPSHOT = {
    "tuples": 0.8312028826119622,
    "plain": 0.8645362159452954,
    "max": 0.9893111349462331,
    "nothing": 0.25,
}


@pytest.fixture(scope="module")
def public_cases() -> list[Case]:
    if TASK.split_note("test"):
        pytest.skip("needs evaluation_rows_30.csv.gz: set ADRS_DATA_DIR or run `adrs data pull telemetry_repair`")
    return list(PAPER.judge.cases("test"))


@pytest.mark.parametrize("name", GOLDEN)
def test_programs_have_the_recorded_public_scores(public_cases: list[Case], name: str) -> None:
    source, combined, counter, confidence = GOLDEN[name]
    scores = [PAPER.judge.score(case, run(source, case)) for case in public_cases]
    means = {key: sum(s[key] for s in scores) / 3 for key in scores[0]}
    assert means["public_score"] == pytest.approx(combined, abs=1e-9)
    assert means["counter_accuracy"] == pytest.approx(counter, abs=1e-9)
    assert means["public_confidence"] == pytest.approx(confidence, abs=1e-9)
    assert means["status_accuracy"] == 1.0


@pytest.mark.parametrize("name", FIRST_SNAPSHOT)
def test_the_first_snapshot_has_the_recorded_score(public_cases: list[Case], name: str) -> None:
    case = first_snapshot(public_cases[0])
    found = PAPER.judge.score(case, run(GOLDEN[name][0], case))
    assert found["public_score"] == pytest.approx(FIRST_SNAPSHOT[name], abs=1e-9)


def first_snapshot(case: Case) -> Case:
    public = {**case.public, "readings": case.public["readings"][:1], "up": case.public["up"][:1]}
    return Case(case.id, case.seed, public, case.hidden[:1])


def test_readings_and_scores_equal_those_of_the_literal_version(public_cases: list[Case]) -> None:
    public = public_cases[0].public
    truths = [telemetry_of(row.tolist(), case.public) for case in public_cases for row in case.hidden]
    readings = public_readings(truths, public["topology"])
    found = [telemetry_of(row.tolist(), public) for case in public_cases for row in case.public["readings"]]
    assert found == readings
    source = TASK.seeds()["strong"].read_text()
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    literal = [
        public_score(namespace["run_repair"](r, public["topology"]), t) for r, t in zip(readings, truths, strict=True)
    ]
    scores = [PAPER.judge.score(case, run(source, case)) for case in public_cases]
    names = ("public_score", "counter_accuracy", "status_accuracy", "public_confidence")
    for i, name in enumerate(names):
        assert sum(s[name] for s in scores) / 3 == pytest.approx(sum(row[i] for row in literal) / 30, abs=1e-12)


def test_public_faults_are_kept_and_ours_are_without_them(public_cases: list[Case]) -> None:
    """One consistent interface is worth more than any repair there, and far below doing nothing here."""
    publicly = [PAPER.judge.score(case, run(ONE_INTERFACE, case))["public_score"] for case in public_cases]
    assert sum(publicly) / 3 > 0.99
    soundly = [TASK.judge.score(case, run(ONE_INTERFACE, case))["improvement"] for case in TASK.judge.cases("test")]
    assert max(soundly) < -1.0


def test_the_public_confidences_are_credited_by_its_formula(public_cases: list[Case]) -> None:
    case = first_snapshot(public_cases[0])
    truth = telemetry_of(case.hidden[0].tolist(), case.public)
    for factor in (1.0, 1.3, 2.0, -1.0):
        for confidence in (-0.5, 0.0, 0.29, 0.3, 0.5, 0.71, 1.0, 3.0):
            answer = {
                name: {
                    **fields,
                    "rx_rate": (0.0, fields["rx_rate"] * factor, confidence),
                    "tx_rate": (0.0, fields["tx_rate"], confidence),
                }
                for name, fields in truth.items()
            }
            found = PAPER.judge.score(case, collected(case, [answer]))
            expected = public_score(answer, truth)
            assert [found["public_score"], found["public_confidence"]] == pytest.approx([expected[0], expected[3]])


def test_other_splits_and_missing_data_are_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="scoring `paper` has the split test only, not train"):
        PAPER.judge.cases("train")


def test_hidden_truth_is_not_in_what_candidates_see(public_cases: list[Case]) -> None:
    for case in public_cases:
        assert set(case.public) == set(TASK.judge.cases("train")[0].public)
        assert ADAPTER._inputs(case.public, 0)[0].keys() == set(case.public["interfaces"])


HEADER = [
    "",
    "timestamp",
    "low_A_egress_to_B",
    "low_A_ingress_from_B",
    "low_B_egress_to_A",
    "low_B_ingress_from_A",
    "x",
]


def public_csv(rows: int = 40) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(HEADER)
    for row in range(rows):
        cell = {"ground_truth": row + 0.25, "perturbed": None, "corrected": None, "confidence": None}
        seen = {**cell, "perturbed": row + 0.5}
        writer.writerow([700 + row, f"day {row}", cell, seen, cell, cell, ""])
    return text.getvalue().encode()


def test_the_conversion_keeps_the_drawn_rows_and_can_be_read(tmp_path: Any) -> None:
    packed = CONVERT.convert("telemetry/evaluation_rows_30.csv.gz", public_csv())
    assert packed == CONVERT.convert("telemetry/evaluation_rows_30.csv.gz", public_csv())
    assert packed[:9] == bytes.fromhex("1f8b08000000000002")  # no name, no time, best compression
    table = list(csv.reader(io.StringIO(gzip.decompress(packed).decode())))
    assert table[0] == ["file_row", "orig_index", *HEADER[1:]]
    assert [int(row[0]) for row in table[1:6]] == [7, 1, 17, 15, 14]
    assert all(int(row[1]) == 700 + int(row[0]) for row in table[1:])
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(packed)
    network, counters = import_private(TASK.folder, "recorded").read(path)
    assert network.interfaces == ("A_to_B", "B_to_A")
    assert counters.shape == (30, 2, 2)
    assert counters[0].tolist() == [[7.5, 7.25], [7.25, 7.25]]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\xff\xfe", "is no CSV"),
        (b"", "has no column timestamp"),
        (b"a,b\n1,2\n", "has no column timestamp"),
        (public_csv(39), "has 39 rows, expected 40"),
    ],
)
def test_what_is_not_the_public_file_is_not_converted(raw: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CONVERT.convert("telemetry/evaluation_rows_30.csv.gz", raw)


def test_the_conversion_gives_the_bytes_of_the_recorded_file() -> None:
    path = data_file(recorded_file())
    if path is None:
        pytest.skip("needs evaluation_rows_30.csv.gz: set ADRS_DATA_DIR or run `adrs data pull telemetry_repair`")
    table = list(csv.reader(io.StringIO(gzip.decompress(path.read_bytes()).decode())))
    source: list[list[str]] = [[""] * (len(table[0]) - 1)] * 40
    for row in table[1:]:
        source[int(row[0])] = row[1:]
    text = io.StringIO()
    csv.writer(text).writerows([["", *table[0][2:]], *(row or [""] for row in source)])
    assert CONVERT.convert(recorded_file().file, text.getvalue().encode()) == path.read_bytes()


def recorded_file() -> DataFile:
    return TASK.spec.data[0]


@pytest.mark.parametrize(
    "content", [b"no gzip", gzip.compress(b""), gzip.compress(b"low_A_egress_to_B\n{}\n")], ids=["text", "empty", "row"]
)
def test_a_file_of_another_content_is_one_line(tmp_path: Any, content: bytes) -> None:
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="does not hold recorded snapshots"):
        import_private(TASK.folder, "recorded").read(path)


def test_recorded_links_are_the_published_abilene(public_cases: list[Case]) -> None:
    network = import_private(TASK.folder, "network").abilene().network
    assert json.loads(json.dumps(network.public)) == {key: public_cases[0].public[key] for key in network.public}


def test_the_readme_shows_the_comparison_that_the_script_prints(public_cases: list[Case]) -> None:
    comparison = import_private(TASK.folder, "comparison").comparison(TASK.folder)
    assert "\n".join(comparison) in (TASK.folder / "README.md").read_text()
