"""The task telemetry_repair in this process: cases, the score against a literal one, what the judge refuses."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrs_ray.private_import import import_private
from adrs_ray.task import (
    SPLITS,
    Case,
    CaseResult,
    Combined,
    InvalidOutput,
    MalformedOutput,
    Task,
    UsageError,
    load_task,
    repository_root,
)

from .literal_telemetry import loss, telemetry_of

TASK = load_task("telemetry_repair")
ADAPTER = import_private(TASK.folder, "adapter")
NETWORK = import_private(TASK.folder, "network")
FAMILIES = {"dropped", "scaled", "correlated_dropped", "correlated_scaled"}

TRAIN_SUMS = [247733.350235063, 203579.451922263, 264505.455226012, 277503.356258888]
"""Of all readings of each case."""

HANDS_BACK = "def run_repair(telemetry, topology):\n    return telemetry\n"


@pytest.fixture
def without_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("ADRS_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "adrs-ray" / "data"


def run(source: str, case: Case) -> dict[str, Any]:
    random.seed(case.seed)
    np.random.seed(case.seed)
    answers: dict[str, Any] = ADAPTER.run(ADAPTER.load(source), case.public)
    return answers


def judged(task: Task, source: str, split: str) -> Combined:
    cases = task.judge.cases(split)  # type: ignore[arg-type]
    return task.judge.combine([CaseResult(c.id, task.judge.score(c, run(source, c)), 0.25, 0.5) for c in cases])


def changing(statement: str) -> str:
    """A program that hands back the telemetry after `statement`, which may change `fields` of interface `name`."""
    return (
        "def run_repair(telemetry, topology):\n"
        "    name, fields = next(iter(telemetry.items()))\n"
        f"    {statement}\n"
        "    return telemetry\n"
    )


@pytest.fixture(scope="module")
def train() -> list[Case]:
    return list(TASK.judge.cases("train"))


@pytest.mark.parametrize("split", SPLITS)
def test_programs_are_in_order_on_every_split(split: str) -> None:
    programs = TASK.programs() if split in ("train", "validation") else TASK.seeds()
    programs |= {name: TASK.baselines()[name] for name in ("identity", "likelihood")}
    scores = {name: judged(TASK, path.read_text(), split).score for name, path in programs.items()}
    assert scores["identity"] == pytest.approx(0.0, abs=1e-12)
    assert 0.0 < scores["weak"] < scores["medium"] < scores["strong"] < scores["likelihood"] < 1.0
    assert TASK.spec.best_human is not None
    assert max(scores, key=lambda name: scores[name]) == TASK.spec.best_human
    assert TASK.seed_source == TASK.seeds()["medium"].read_text()


def test_there_are_three_seeds_with_marks_and_three_hints() -> None:
    assert set(TASK.seeds()) == set(TASK.hints()) == {"weak", "medium", "strong"}
    for path in TASK.seeds().values():
        source = path.read_text()
        assert (
            source.index("# EVOLVE-BLOCK-START") < source.index("def run_repair") < source.index("# EVOLVE-BLOCK-END")
        )


@pytest.mark.parametrize("split", SPLITS)
def test_metrics_are_the_declared_ones(split: str) -> None:
    declared = set(TASK.spec.metrics)
    for scoring in ("sound", "paper"):
        if scoring == "paper" and (split != "test" or TASK.split_note("test")):
            continue
        found = set(judged(load_task("telemetry_repair", scoring), HANDS_BACK, split).metrics)  # type: ignore[arg-type]
        assert found <= declared
        if scoring == "sound":
            assert declared - found <= {"cpu_growth"}
            assert TASK.spec.headline in found


def test_cpu_growth_is_told_where_sizes_differ() -> None:
    assert "cpu_growth" in judged(TASK, HANDS_BACK, "stress").metrics


def test_splits_are_the_same_every_time_and_differ_from_each_other() -> None:
    first = {split: [c.public["readings"].tobytes() for c in TASK.judge.cases(split)] for split in SPLITS}
    assert first == {split: [c.public["readings"].tobytes() for c in TASK.judge.cases(split)] for split in SPLITS}
    cases = [case for split in SPLITS for case in TASK.judge.cases(split)]
    assert len({c.id for c in cases}) == len({c.seed for c in cases}) == len(cases)
    true = [row.tobytes() for case in cases for row in case.hidden.snapshots.truth]
    assert len(set(true)) == len(true)


def test_generated_counters_have_not_changed() -> None:
    """Scores of different machines and releases are comparable only on equal counters."""
    sums = [float(case.public["readings"].sum()) for case in TASK.judge.cases("train")]
    assert sums == pytest.approx(TRAIN_SUMS, rel=1e-9)


def test_every_group_has_all_families_and_corrupted_counters_in_reach() -> None:
    for split in SPLITS:
        groups: dict[float, list[Any]] = {}
        for case in TASK.judge.cases(split):
            groups.setdefault(case.hidden.idle_loss, []).append(case.hidden)
        assert len(groups) == {"test": 3, "stress": 6}.get(split, 4)
        for idle_loss, parts in groups.items():
            assert {family for part in parts for family in part.snapshots.families} == FAMILIES
            assert 0.02 < fmean(part.corrupted.mean() for part in parts) < 0.8
            assert 0.0 < fmean(part.oracle_loss for part in parts) < idle_loss < 1.0


def test_snapshots_in_one_process_say_nothing_about_each_other() -> None:
    """A program that read the other snapshots of a case from the adapter's frames could guess what was lost in one."""
    truths = [case.hidden.snapshots.truth for split in ("train", "validation") for case in TASK.judge.cases(split)]

    def apart(a: Any, b: Any) -> float:
        return float(np.median(np.abs(np.log((a + 0.01) / (b + 0.01)))))

    within = fmean(apart(truth[i], truth[i + 1]) for truth in truths for i in range(len(truth) - 1))
    between = fmean(apart(a[i], b[i]) for a, b in pairwise(truths) for i in range(len(a)))
    assert within == pytest.approx(between, rel=0.15)


@pytest.mark.parametrize("split", ["test", "stress"])
def test_snapshots_that_resemble_each_other_have_a_process_each(split: str) -> None:
    """The score is that of judging them together, which used to be how they were handed out."""
    cases = TASK.judge.cases(split)  # type: ignore[arg-type]
    assert all(len(case.public["readings"]) == 1 for case in cases)
    hands_zeros = HANDS_BACK.replace("return", "[f.update(rx_rate=0.0) for f in telemetry.values()]\n    return")
    losses: dict[float, list[float]] = {}
    for case in cases:
        truth = telemetry_of(case.hidden.snapshots.truth[0].tolist(), case.public)
        reading, _ = ADAPTER._inputs(case.public, 0)
        losses.setdefault(case.hidden.idle_loss, []).append(loss([reading], [truth]))
        for fields in reading.values():
            fields["rx_rate"] = 0.0
        expected = 1.0 - loss([reading], [truth]) / case.hidden.idle_loss
        assert TASK.judge.score(case, run(hands_zeros, case))["improvement"] == pytest.approx(expected, abs=1e-9)
    for idle_loss, parts in losses.items():
        assert idle_loss == pytest.approx(fmean(parts), abs=1e-12)


def test_readings_are_truth_but_for_noise_where_nothing_was_hit() -> None:
    for split in SPLITS:
        for case in TASK.judge.cases(split):
            snapshots = case.hidden.snapshots
            intact = ~snapshots.hit
            np.testing.assert_allclose(snapshots.readings[intact], snapshots.truth[intact], rtol=0.02 + 1e-12)
            for row, family in enumerate(snapshots.families):
                hit = snapshots.hit[row]
                readings, truth = snapshots.readings[row][hit], snapshots.truth[row][hit]
                if family.endswith("dropped"):
                    assert not readings.any()
                else:
                    factor = (readings / np.where(truth > 0.0, truth, 1.0))[truth > 0.0]
                    assert (((factor >= 0.49) & (factor <= 0.82)) | ((factor >= 1.17) & (factor <= 1.54))).all()
                if family.startswith("correlated"):
                    routers = set(snapshots.network.local[hit].tolist())
                    assert hit.sum() == np.isin(snapshots.network.local, list(routers)).sum()


def test_true_counters_of_both_ends_agree_and_every_link_is_told_by_both() -> None:
    for split in SPLITS:
        for case in TASK.judge.cases(split):
            network, truth = case.hidden.snapshots.network, case.hidden.snapshots.truth
            assert (network.peer[network.peer] == np.arange(network.size)).all()
            opposite = truth[:, network.peer, ::-1]
            assert (np.abs(truth - opposite) <= 0.041 * np.maximum(truth, opposite) + 1e-3).all()
            public = case.public
            names = dict(zip(public["interfaces"], public["connected_to"], strict=True))
            assert all(names[names[name]] == name for name in names)
            assert sorted(n for interfaces in public["topology"].values() for n in interfaces) == sorted(names)


def test_generated_flow_is_conserved_once_demands_are_counted() -> None:
    """Where nothing starts or ends, what a router receives is what it sends."""
    backbone = NETWORK.abilene()
    demands = np.zeros(backbone.sources.size)
    routers = list(backbone.network.routers)
    ends = {routers.index("STTLng"), routers.index("WASHng")}
    for demand, pair in enumerate(zip(backbone.sources.tolist(), backbone.targets.tolist(), strict=True)):
        demands[demand] = 10.0 if set(pair) == ends else 0.0
    sent = backbone.routes @ demands
    received = sent[backbone.network.peer]
    for router in range(len(routers)):
        own = backbone.network.local == router
        assert sent[own].sum() == received[own].sum() == (10.0 if router in ends else sent[own].sum())


def test_without_the_recorded_file_the_test_split_is_generated_and_says_so(without_data: Path) -> None:
    assert "generated" in (TASK.split_note("test") or "")
    assert TASK.split_note("train") is None
    assert [case.id for case in TASK.judge.cases("test")] == [
        f"test-generated-{i}-{j}" for i in range(3) for j in range(10)
    ]
    with pytest.raises(UsageError, match="adrs data pull telemetry_repair"):
        load_task("telemetry_repair", "paper").judge.cases("test")


def test_a_wrong_recorded_file_is_refused(without_data: Path) -> None:
    (without_data / "telemetry").mkdir(parents=True)
    (without_data / "telemetry" / "evaluation_rows_30.csv.gz").write_bytes(b"")
    with pytest.raises(UsageError, match="is not the expected file: sha256"):
        TASK.judge.cases("test")


REPAIRED = st.one_of(
    st.floats(0.0, 2_000.0),
    st.tuples(st.just(0.0), st.floats(0.0, 2_000.0), st.floats(0.0, 1.0)),
    st.sampled_from(["own", "truth", "missing"]),
)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), kinds=st.lists(REPAIRED, min_size=1, max_size=12), gone=st.floats(0.0, 0.5))
def test_the_judge_equals_the_literal_one(seed: int, kinds: list[Any], gone: float) -> None:
    case = TASK.judge.cases("train")[seed % 4]
    snapshots = case.hidden.snapshots
    rng = random.Random(seed)
    truths = [telemetry_of(row.tolist(), case.public) for row in snapshots.truth]
    readings = [telemetry_of(row.tolist(), case.public) for row in snapshots.readings]
    answers = []
    for truth, reading in zip(truths, readings, strict=True):
        answer: dict[str, dict[str, Any]] = {}
        for name in truth:
            if rng.random() < gone:
                continue
            answer[name] = {"interface_status": rng.choice(["up", "down", ("up", "up", 1.0)])}
            for rate in ("rx_rate", "tx_rate"):
                kind = rng.choice(kinds)
                if kind != "missing":
                    answer[name][rate] = (
                        {"own": reading, "truth": truth}[kind][name][rate] if isinstance(kind, str) else kind
                    )
        answers.append(answer)
    raw = collected(case, answers)
    expected = 1.0 - loss(answers, truths) / loss(readings, truths)
    found = TASK.judge.score(case, raw)["improvement"]
    assert found == pytest.approx(expected, abs=1e-9)
    assert found <= 1.0


def collected(case: Case, answers: list[dict[str, Any]]) -> dict[str, Any]:
    """What the adapter makes of these answers."""
    program = ADAPTER.load(
        "import sys\ndef run_repair(telemetry, topology):\n    return sys.modules['_answers'].pop(0)\n"
    )
    sys.modules["_answers"] = list(answers)  # type: ignore[assignment]
    try:
        raw: dict[str, Any] = ADAPTER.run(program, case.public)
        return raw
    finally:
        del sys.modules["_answers"]


def test_the_truth_scores_one_and_no_answer_is_above() -> None:
    for case in TASK.judge.cases("train"):
        truths = [telemetry_of(row.tolist(), case.public) for row in case.hidden.snapshots.truth]
        metrics = TASK.judge.score(case, collected(case, truths))
        assert metrics["improvement"] == 1.0
        assert metrics["counter_accuracy"] == metrics["detected"] == metrics["status_accuracy"] == 1.0
        assert metrics["false_alarms"] == metrics["brier"] == 0.0


def test_being_right_more_often_never_costs(train: list[Case]) -> None:
    """Under the Brier score alone, an answer that is surely wrong would beat one that is right half of the time."""

    def confidence_loss(q: float) -> float:
        return 0.1 * (1.0 - q) + 0.1 * q * (1.0 - q)

    losses = [confidence_loss(q) for q in np.linspace(0.0, 1.0, 101)]
    assert losses == sorted(losses, reverse=True)
    case = train[0]
    truths = [telemetry_of(row.tolist(), case.public) for row in case.hidden.snapshots.truth]
    near, far = (
        [
            {
                name: {**f, "rx_rate": (0, f["rx_rate"] * off, sure), "tx_rate": (0, f["tx_rate"] * off, sure)}
                for name, f in t.items()
            }
            for t in truths
        ]
        for off, sure in ((1.049, 0.5), (1.051, 0.0))
    )
    right, wrong = (TASK.judge.score(case, collected(case, answers))["improvement"] for answers in (near, far))
    assert right > wrong


def test_a_counter_that_is_not_returned_counts_as_wrong(train: list[Case]) -> None:
    nothing = "def run_repair(telemetry, topology):\n    return {}\n"
    metrics = TASK.judge.score(train[0], run(nothing, train[0]))
    assert metrics["counter_accuracy"] == metrics["status_accuracy"] == 0.0
    assert metrics["brier"] == metrics["not_close"] == 1.0
    assert metrics["improvement"] == pytest.approx(1.0 - 1.0 / train[0].hidden.idle_loss)
    identity = TASK.judge.score(train[0], run(HANDS_BACK, train[0]))["improvement"]
    for statement in ("del telemetry[name]", "del fields['rx_rate']", "del fields['interface_status']"):
        assert TASK.judge.score(train[0], run(changing(statement), train[0]))["improvement"] < identity


@pytest.mark.parametrize(
    ("statement", "error", "message"),
    [
        ("fields['rx_rate'] = float('nan')", MalformedOutput, "rx_rate: a counter is nan, expected a finite number"),
        ("fields['tx_rate'] = float('inf')", MalformedOutput, "tx_rate: a counter is inf"),
        ("fields['tx_rate'] = 10 ** 400", MalformedOutput, "tx_rate: a counter is inf"),
        ("fields['rx_rate'] = (0.0, 1.0, float('nan'))", MalformedOutput, "a confidence is nan"),
        ("fields['rx_rate'] = 'much'", MalformedOutput, "rx_rate is str 'much', expected a number"),
        ("fields['rx_rate'] = None", MalformedOutput, "rx_rate is NoneType None"),
        ("fields['rx_rate'] = True", MalformedOutput, "rx_rate is bool True"),
        ("fields['rx_rate'] = (1.0, 2.0)", MalformedOutput, "rx_rate is tuple"),
        ("fields['rx_rate'] = (1.0, 2.0, 'sure')", MalformedOutput, "rx_rate's confidence is str 'sure'"),
        ("fields['interface_status'] = 1", MalformedOutput, "interface_status is int 1, expected 'up' or 'down'"),
        ("telemetry[name] = 3.0", MalformedOutput, "is float 3.0, expected a dict of its fields"),
        ("return [telemetry]", MalformedOutput, "run_repair returned list"),
        ("return None", MalformedOutput, "run_repair returned NoneType None"),
        ("fields['rx_rate'] = -1e-9", InvalidOutput, "rx_rate: a counter is -1e-09, expected 0 or more"),
        ("fields['rx_rate'] = (0.0, 1.0, 1.5)", InvalidOutput, r"a confidence is 1\.5, expected 0\.\.1"),
        ("fields['tx_rate'] = (0.0, 1.0, -0.1)", InvalidOutput, r"a confidence is -0\.1, expected 0\.\.1"),
        ("fields['interface_status'] = 'UP'", InvalidOutput, "interface_status is neither up nor down"),
        ("telemetry['extra'] = dict(fields)", InvalidOutput, "interfaces that do not exist: snapshot 0: 'extra'"),
        ("telemetry[7] = dict(fields)", InvalidOutput, "interfaces that do not exist: snapshot 0: 7"),
    ],
)
def test_answers_that_are_refused(train: list[Case], statement: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TASK.judge.score(train[0], run(changing(statement), train[0]))


@pytest.mark.parametrize(
    "statement",
    [
        "fields['rx_rate'] = (None, fields['rx_rate'], 1.0)",
        "fields['rx_rate'] = [9.0, fields['rx_rate'], 1]",
        "fields['rx_rate'] = __import__('numpy').float64(fields['rx_rate'])",
        "fields['rx_rate'] = __import__('numpy').where(True, fields['rx_rate'], 0.0)",  # an array without axes
        "fields['interface_status'] = ('down', 'up', 0.3)",
        "fields['why'] = object()",
        "telemetry = {name: telemetry[name] for name in reversed(telemetry)}",
        "topology.clear()",
    ],
)
def test_answers_that_are_taken_as_they_are_meant(train: list[Case], statement: str) -> None:
    assert TASK.judge.score(train[0], run(changing(statement), train[0]))["improvement"] == pytest.approx(0.0)


@pytest.mark.parametrize("change", ["none", "shape", "dtype", "given", "status", "unknown", "missing", "list", "array"])
def test_raw_outputs_that_no_adapter_makes_are_refused(train: list[Case], change: str) -> None:
    raw: Any = run(HANDS_BACK, train[0])
    if change == "none":
        raw = None
    elif change == "shape":
        raw["values"] = raw["values"][:, :1]
    elif change == "dtype":
        raw["status"] = raw["status"].astype(float)
    elif change == "given":
        raw["given"][0, 0, 0] = 7
    elif change == "status":
        raw["status"][0, 0] = 9
    elif change == "unknown":
        raw["unknown"] = "nothing"
    elif change == "missing":
        del raw["malformed"]
    elif change == "array":  # whose truth value is an error
        raw["malformed"] = np.zeros(3)
    else:
        raw["values"] = raw["values"].tolist()
    with pytest.raises((MalformedOutput, InvalidOutput)):
        TASK.judge.score(train[0], raw)


@pytest.mark.parametrize("names", [["x" * 10] * 100_000, [[0] * 100_000], ["x" * 100_000]])
def test_a_forged_flood_of_unknown_names_is_cut(train: list[Case], names: list[Any]) -> None:
    """All of them used to stand in the verdict, megabytes of it."""
    raw = {**run(HANDS_BACK, train[0]), "unknown": names}
    with pytest.raises(InvalidOutput) as caught:
        TASK.judge.score(train[0], raw)
    assert len(str(caught.value)) < 400


@pytest.mark.filterwarnings("error")
def test_forged_figures_neither_warn_nor_count_where_none_are_given(train: list[Case]) -> None:
    case = train[0]
    nothing = TASK.judge.score(case, run("def run_repair(telemetry, topology):\n    return {}\n", case))
    raw = run(HANDS_BACK, case)
    raw["given"][...], raw["status"][...] = 0, 0
    raw["values"][...], raw["confidence"][...] = np.nan, -np.inf
    assert TASK.judge.score(case, raw) == nothing
    raw["given"][...], raw["values"][...], raw["confidence"][...] = 1, 1.7e308, 1.7e308
    assert TASK.judge.score(case, raw)["counter_accuracy"] == 0.0


def test_each_snapshot_gets_inputs_and_globals_of_its_own(train: list[Case]) -> None:
    source = (
        "calls = []\n"
        "def run_repair(telemetry, topology):\n"
        "    calls.append(1)\n"
        "    assert len(calls) == 1 and len(telemetry) == 30 and len(topology) == 12\n"
        "    assert 'changed' not in next(iter(telemetry.values()))\n"
        "    answer = {name: dict(fields) for name, fields in telemetry.items()}\n"
        "    for fields in telemetry.values():\n"
        "        fields['changed'] = True\n"
        "    topology.clear()\n"
        "    return answer\n"
    )
    for case in train:
        assert TASK.judge.score(case, run(source, case))["improvement"] == 0.0


def test_candidates_see_the_documented_fields_and_no_more(train: list[Case]) -> None:
    assert set(train[0].public) == {
        "readings", "up", "interfaces", "connected_to", "local_router", "remote_router", "topology",
    }  # fmt: skip
    fields = "{'interface_status', 'rx_rate', 'tx_rate', 'connected_to', 'local_router', 'remote_router'}"
    run(changing(f"assert all(set(f) == {fields} for f in telemetry.values())"), train[0])


def test_a_program_without_entry_says_so(train: list[Case]) -> None:
    with pytest.raises(ADAPTER.InterfaceError, match="run_repair"):
        run("run_repair = 3", train[0])


def test_a_relabelled_network_is_the_same_network() -> None:
    network = NETWORK.abilene().network
    renamed, order = network.relabelled(5)
    assert set(renamed.interfaces).isdisjoint(network.interfaces)
    assert (order[renamed.peer] == network.peer[order]).all()
    assert (renamed.local == network.local[order]).all()


def test_networks_with_a_lone_interface_are_refused() -> None:
    with pytest.raises(ValueError, match="interface A_to_B has nothing at its other end"):
        NETWORK.Network.of([("A", "B")])
    with pytest.raises(ValueError, match="twice"):
        NETWORK.Network.of([("A", "B"), ("A", "B"), ("B", "A")])


def test_the_untrusted_side_imports_neither_the_judge_nor_the_system() -> None:
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(repository_root() / 'adrs_ray')!r})\n"
        "from pathlib import Path\n"
        "from private_import import import_private\n"
        f"import_private(Path({str(TASK.folder)!r}), 'adapter')\n"
        "names = ('judge', 'paper', 'splits', 'recorded', 'traffic', 'perturbation')\n"
        "print([m for m in sys.modules if m.startswith('adrs_ray') or m.rpartition('.')[2] in names])\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
