"""The task moe_placement in this process: what is told and asked, what is refused, splits, references, scores."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrs_ray.case_checks import overlaps
from adrs_ray.evaluator.codec import decode, encode
from adrs_ray.private_import import import_private
from adrs_ray.task import (
    SPLITS,
    Case,
    CaseResult,
    Combined,
    InvalidOutput,
    MalformedOutput,
    RewardHacking,
    load_task,
    repository_root,
)
from gpu_eval.batched_lpt import hierarchical, without_groups
from gpu_eval.serving import ServingResult
from gpu_eval.serving_reference import deepseek_decision_s, deepseek_every_window
from gpu_eval.shapes import EXPERT_SIZES, Shape

TASK = load_task("moe_placement")
ADAPTER = import_private(TASK.folder, "adapter")
GAME = import_private(TASK.folder, "game")
JUDGE = import_private(TASK.folder, "judge")
MEASURING = import_private(TASK.folder, "measuring")
REFERENCE = import_private(TASK.folder, "reference")
SCENARIO = import_private(TASK.folder, "scenario")
SCENARIOS = import_private(TASK.folder, "splits").SCENARIOS
MODEL = TASK.judge_of("model")

SHAPE = Shape(2, 8, 12, 4, 2, 2)
PREFILL = SCENARIO.Scenario("small-prefill", "heavy", SHAPE, "prefill", 6, 20, 7, "small", tokens_per_gpu=2048)
DECODE = SCENARIO.Scenario("small-decode", "trt", SHAPE, "decode", 6, 40, 8, "small")
SMALL = dict.fromkeys(SPLITS, (PREFILL, DECODE))


def program(name: str | None) -> str:
    return TASK.programs()[str(name)].read_text()


def played(source: str, scenario: Any, heard: Callable[[dict[str, Any]], None] = lambda message: None) -> Any:
    """What the referee makes of a program, in the form in which the judge gets it."""
    loaded = ADAPTER.load(source)
    game = GAME.play(scenario)
    message = next(game)
    while True:
        heard(message)
        try:
            message = game.send(ADAPTER.act(loaded, message))
        except StopIteration as end:
            return end.value


def play(source: str, scenario: Any, heard: Callable[[dict[str, Any]], None] = lambda message: None) -> ServingResult:
    result: ServingResult = GAME.restored(played(source, scenario, heard))
    return result


def judged(source: str, scenarios: Any = SMALL, split: str = "train") -> Combined:
    judge = JUDGE.Simulated(scenarios)
    results = [
        CaseResult(case.id, judge.score(case, played(source, case.hidden)), 0.25, 0.5) for case in judge.cases(split)
    ]
    return judge.combine(results)


def answering(expression: str, init: str = "config") -> str:
    """A program that answers `expression` in window 2 and otherwise nothing."""
    return (
        "import numpy as np\n\n\ndef init(config):\n    config['window'] = -1\n"
        f"    return {init}\n\n\ndef step(state, load_window, placement):\n    state['window'] += 1\n"
        f"    if state['window'] == 2:\n        return {expression}\n    return state, None\n"
    )


def test_the_program_runs_no_line_before_the_way_to_it_was_measured() -> None:
    heard = []
    play(program("never"), PREFILL, lambda message: heard.append(sorted(message)))
    first = heard.index(["config"])
    assert first == GAME.NULL_ROUNDS
    assert heard[:first] == [["load_window", "null", "placement"]] * first
    assert heard[first + 1 :] == [["load_window", "placement"]] * 5
    loaded = ADAPTER.load("raise KeyError('too early')")
    window = {"load_window": np.ones((1, 2, 8), int), "placement": np.ones((2, 12), int)}
    assert ADAPTER.act(loaded, {**window, "null": True})["placement"] is window["placement"]
    with pytest.raises(KeyError, match="too early"):
        ADAPTER.act(loaded, {"config": {}})


def test_a_decision_is_the_round_less_the_way_there_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that runs while others act: 1 s on the way, odd rounds apart, 100 s in init, 3 s in a step."""
    now, rounds = [0.0], []

    def heard(message: dict[str, Any]) -> None:
        rounds.append(message)
        took = {"null": 1.0, "config": 100.0}
        now[0] += next((took[name] for name in took if name in message), 3.0) + (50.0 if len(rounds) in (1, 4) else 0.0)

    monkeypatch.setattr(GAME.time, "perf_counter", lambda: now[0])
    result = play(program("never"), PREFILL, heard)
    assert result.decision_seconds.tolist() == [2.0] * 5


def test_a_program_is_told_one_window_at_a_time_and_no_loads_before() -> None:
    messages: list[dict[str, Any]] = []
    play(program("never"), PREFILL, messages.append)
    trace = SCENARIO.trace_of(PREFILL)
    config = next(message["config"] for message in messages if "config" in message)
    assert all(isinstance(value, int | float | str) for value in config.values())
    assert (config["layers"], config["windows"], config["phase"]) == (2, 5, "prefill")
    assert config["bytes_per_expert"] == EXPERT_SIZES["small"].weights * 2
    rounds = [message for message in messages if message.keys() == {"load_window", "placement"}]
    for window, message in enumerate(rounds):
        np.testing.assert_array_equal(message["load_window"], trace.samples[window])
        np.testing.assert_array_equal(message["placement"], SCENARIO.initial_placement(PREFILL))
    for message in messages[: GAME.NULL_ROUNDS]:
        np.testing.assert_array_equal(message["load_window"], trace.samples[0])


def test_decisions_take_what_the_clock_of_the_referee_says() -> None:
    slow = program("never").replace("return state, None", "time.sleep(0.03)\n    return state, None")
    result = play("import time\n" + slow, PREFILL)
    assert result.decision_seconds.min() > 0.02


@pytest.mark.parametrize(
    ("expression", "error", "says"),
    [
        (
            "state, np.zeros_like(placement)",
            InvalidOutput,
            "window 2: layer 0, expert 1: expected in at least one slot",
        ),
        ("state, placement + 99", InvalidOutput, "window 2: layer 0: slot 0 holds expert"),
        ("state, placement - 99", InvalidOutput, "expected 0 to 7"),
        ("state, placement[:, :4]", MalformedOutput, "window 2: the placement is 2x4, expected 2x12"),
        ("state, placement[None]", MalformedOutput, "1x2x12"),
        ("state, placement * 1.0", MalformedOutput, "window 2: the placement is float64"),
        ("state, placement > 2", MalformedOutput, "is bool"),
        ("state, placement.astype(np.uint64) + np.uint64(2**63)", InvalidOutput, "layer 0: slot 0 holds expert"),
        ("state, placement.tolist()", MalformedOutput, "window 2: step returned a list as placement"),
        ("state", MalformedOutput, r"window 2: step returned a dict, expected \(state, placement\)"),
        ("(state,)", MalformedOutput, "step returned a tuple of 1"),
        ("state, None, None, None", MalformedOutput, "step returned a tuple of 4"),
        ("None", MalformedOutput, "step returned a NoneType"),
        (
            "state, placement, np.zeros(placement.shape)",
            InvalidOutput,
            "window 2: layer 0, expert 0: its shares sum to 0",
        ),
        ("state, None, np.full(placement.shape, np.nan)", InvalidOutput, "has the share nan"),
        ("state, None, np.full(placement.shape, -1.0)", InvalidOutput, "has the share -1"),
        ("state, placement, 0.5", MalformedOutput, "step returned a float as split"),
        ("state, placement, placement", MalformedOutput, "the split is an array of int64"),
        ("state, placement, np.ones((2, 3))", MalformedOutput, r"the split is \[2, 3\], expected \[2, 12\]"),
    ],
)
def test_what_is_no_answer_is_refused_by_window_layer_and_expert(expression: str, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        play(answering(expression), PREFILL)


@pytest.mark.parametrize(
    "answer", [None, 7, "text", [], {"placement": None}, {"placement": None, "split": None, "s": 1}]
)
def test_answers_that_no_adapter_gives_are_malformed(answer: Any) -> None:
    game = GAME.play(PREFILL)
    next(game)
    for _ in range(GAME.NULL_ROUNDS + 1):
        game.send(None)
    with pytest.raises(MalformedOutput, match=r"^window 0: "):
        game.send(answer)


def test_other_integers_and_splits_of_other_floats_are_fine() -> None:
    for expression in (
        "state, placement.astype(np.int16)",
        "state, placement.astype(np.uint8)",
        "state, np.asfortranarray(placement)",
        "state, None, (1 / np.array([np.bincount(row)[row] for row in placement])).astype(np.float32)",
    ):
        assert play(answering(expression), PREFILL).fetched == 0


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x = 1", "defines no init and no step: it must define"),
        ("def step(state, load_window, placement):\n    return state, None\n", "defines no init: it"),
        ("def init(config):\n    pass\n\n\nstep = 3\n", "defines no step: it"),
    ],
)
def test_a_program_without_entries_says_so(source: str, says: str) -> None:
    with pytest.raises(ADAPTER.InterfaceError, match=says):
        play(source, PREFILL)
    with pytest.raises(SyntaxError):
        ADAPTER.load("def init(:")


def test_the_state_that_comes_back_is_the_next_ones() -> None:
    source = (
        "def init(config):\n    return 0\n\n\ndef step(state, load_window, placement):\n"
        "    assert (load_window.shape, placement.shape) == ((2, 2, 8), (2, 12))\n"
        "    assert state < 5\n    return state + 1, None\n"
    )
    play(source, PREFILL)
    with pytest.raises(AssertionError):
        play(source.replace("state < 5", "state < 4"), PREFILL)


def test_what_the_judge_gets_are_plain_values_and_say_the_same() -> None:
    raw = played(program("incremental_split"), PREFILL)
    again = GAME.restored(decode(encode(raw)))
    for name, value in raw.items():
        np.testing.assert_equal(getattr(again, name) if name != "splits" else list(again.splits), value)


def test_never_moving_saves_nothing_and_is_what_others_are_held_against() -> None:
    combined = judged(program("never"))
    assert combined.score == combined.metrics["saved_prefill"] == combined.metrics["saved_decode"] == 0.0
    assert combined.metrics["ratio_never"] == 1.0
    assert combined.metrics["fetched_gib"] == combined.metrics["changes"] == combined.metrics["stall_share"] == 0.0
    assert set(combined.metrics) | {"cpu_growth", "model_error", "measured_rows"} == set(TASK.spec.metrics)
    assert all(scenario.id in combined.artifacts["cases"] for scenario in SMALL["train"])


def test_the_score_is_the_stated_equation() -> None:
    result = play(program("global_every"), PREFILL)
    modelled = REFERENCE.reference(PREFILL)
    metrics = JUDGE.figures(PREFILL, result, modelled)
    never_s = modelled.never.seconds
    assert metrics["saved"] == pytest.approx((never_s - result.seconds) / (never_s - modelled.ideal_s))
    assert metrics["seconds"] == pytest.approx(result.seconds)
    assert metrics["oracle_ratio"] == pytest.approx(result.seconds / modelled.oracle_s)
    assert modelled.ideal_s < modelled.oracle_s < never_s


def test_one_bad_case_does_not_outweigh_all_others() -> None:
    awful = replace(play(program("never"), PREFILL), window_seconds=np.array([1e9]))
    assert JUDGE.figures(PREFILL, awful, REFERENCE.reference(PREFILL))["saved"] == -1.0


def test_phases_weigh_alike_however_many_cases_they_have() -> None:
    judge = JUDGE.Simulated({"train": (PREFILL, replace(PREFILL, id="second"), DECODE)})
    base = dict(judge.score(judge.cases("train")[0], played(program("never"), PREFILL)))
    cases = (("small-prefill", 0.2), ("second", 0.4), ("small-decode", -0.5))
    combined = judge.combine([CaseResult(name, {**base, "saved": saved}, 0.1, 0.1) for name, saved in cases])
    assert combined.score == combined.metrics["saved"] == pytest.approx((0.3 - 0.5) / 2)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_seeds_stand_between_the_trivial_and_the_best_human(split: str) -> None:
    """On a few windows and layers of each case, so that it takes seconds."""
    short = {
        split: tuple(
            replace(scenario, windows=14, shape=replace(scenario.shape, layers=4)) for scenario in SCENARIOS[split]
        )
    }
    names = (TASK.spec.trivial, "weak", "strong", TASK.spec.best_human)
    trivial, weak, strong, human = (judged(program(name), short, split).score for name in names)
    assert 0.0 == trivial < min(weak, strong) < max(weak, strong) < human < 0.9


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    shape=st.sampled_from([Shape(1, 5, 6, 2), Shape(2, 4, 4, 1), Shape(2, 6, 8, 8, 2, 3), Shape(1, 4, 16, 4, 4, 4)]),
    phase=st.sampled_from(["prefill", "decode"]),
    regime=st.sampled_from(["adrs", "trt", "heavy"]),
    change=st.sampled_from(["none", "reversed", "silent", "one_hot"]),
    seed=st.integers(0, 1000),
)
def test_no_program_of_ours_takes_less_than_the_bound(shape, phase, regime, change, seed) -> None:
    scenario = SCENARIO.Scenario("tiny", regime, shape, phase, 5, 10, seed, "small", 256, change=change, layout="plain")
    ideal_s = REFERENCE.reference(scenario).ideal_s
    for name in TASK.programs():
        assert play(program(name), scenario).seconds >= ideal_s * (1 - 1e-12)


def test_programs_of_fixed_rules_decide_by_them() -> None:
    shapes = (SHAPE, Shape(2, 9, 12, 4, 2, 3), Shape(3, 16, 24, 4, 2, 4))
    for scenario in (replace(each, shape=shape) for each in (PREFILL, DECODE) for shape in shapes):
        loads = SCENARIO.trace_of(scenario).samples[1]
        grouped = hierarchical if scenario.phase == "prefill" else without_groups
        for name, rule in (("deepseek_every", grouped), ("global_every", without_groups)):
            loaded = ADAPTER.load(program(name))
            ADAPTER.act(loaded, {"config": SCENARIO.told(scenario)})
            placement = SCENARIO.initial_placement(scenario)
            answer = ADAPTER.act(loaded, {"load_window": loads, "placement": placement})
            np.testing.assert_array_equal(answer["placement"], rule(loads.sum(axis=0), scenario.shape))


def test_the_reference_decides_as_fast_on_every_machine() -> None:
    assert deepseek_decision_s(Shape(58, 256, 288, 32, 4, 8)) == pytest.approx(0.04)
    config, costs = PREFILL.config, PREFILL.costs
    result = deepseek_every_window(SCENARIO.trace_of(PREFILL), config, costs, SCENARIO.initial_placement(PREFILL))
    assert set(result.decision_seconds.tolist()) == {deepseek_decision_s(SHAPE)}


def test_splits_share_no_case_and_have_both_phases() -> None:
    cases = {split: MODEL.cases(split) for split in SPLITS}
    assert overlaps(cases) == []
    every = [case for split in SPLITS for case in cases[split]]
    assert len({case.seed for case in every}) == len({case.id for case in every}) == len(every)
    assert len({case.public for case in every}) == len(every)
    for split in SPLITS:
        assert {case.hidden.phase for case in cases[split]} == {"prefill", "decode"}
        assert [case.id.split("-")[0] for case in cases[split]] == [split] * len(cases[split])
    assert {scenario.regime for scenario in SCENARIOS["test"]} == {"adrs", "steady", "trt", "heavy", "decode"}


def test_the_odd_traces_are_as_odd_as_they_say() -> None:
    base = replace(PREFILL, windows=8)
    plain, back, silent, hot = (
        SCENARIO.trace_of(replace(base, change=change)).samples for change in ("none", "reversed", "silent", "one_hot")
    )
    np.testing.assert_array_equal(back[:4], plain[:4])
    np.testing.assert_array_equal(back[4:], plain[4:, :, :, ::-1])
    assert silent[:, :, 0].sum() == silent[4].sum() == 0 < silent[0, :, 1].sum()
    assert (hot.max(axis=3) > 0.5 * hot.sum(axis=3)).all()
    assert len({int(window[0, 0].argmax()) for window in hot}) == 4
    np.testing.assert_array_equal(SCENARIO.initial_placement(replace(base, layout="plain"))[0], [*range(8), *range(4)])
    np.testing.assert_array_equal(SCENARIO.initial_placement(base), without_groups(plain[0].sum(axis=0), SHAPE))


@pytest.mark.parametrize("scenario", SCENARIOS["stress"], ids=lambda scenario: scenario.id)
def test_every_baseline_survives_the_stress_split(scenario: Any) -> None:
    short = replace(scenario, windows=min(scenario.windows, 4), shape=replace(scenario.shape, layers=2))
    for name in ("deepseek_every", "global_every", "incremental_split", "medium", "strong", "weak"):
        assert np.isfinite(play(program(name), short).seconds), name


def test_every_stage_has_the_same_cases() -> None:
    for stage in ("measured", "final"):
        for split in SPLITS:
            assert [(c.id, c.public) for c in TASK.judge_of(stage).cases(split)] == [
                (c.id, c.public) for c in MODEL.cases(split)
            ]
    assert TASK.spec.limits.device_memory_mb == 0, "programs see no GPU"


def test_the_untrusted_side_imports_nothing_of_ours() -> None:
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(repository_root() / 'adrs_ray')!r})\n"
        "from pathlib import Path\n"
        "from private_import import import_private\n"
        f"adapter = import_private(Path({str(TASK.folder)!r}), 'adapter')\n"
        "for part in ('judge', 'game', 'splits', 'scenario', 'gpu_eval', 'adrs_ray', 'torch'):\n"
        "    print([m for m in sys.modules if part in m.split('.')], end='')\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]" * 7


def test_judging_by_the_model_needs_no_torch() -> None:
    code = (
        "import sys\nfrom adrs_ray.task import load_task\n"
        "print(load_task('moe_placement').judge_of('final').cases('train')[0].id, 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=repository_root()
    )
    assert done.stdout == "train-prefill-steady False\n"


@pytest.mark.torch
@pytest.mark.parametrize("mode", ["screening", "final"])
def test_the_measuring_stages_run_on_a_cpu_with_tiny_experts(mode: str) -> None:
    pytest.importorskip("torch")
    rows = MEASURING.Rows(windows=2, layers=2, budget_s=60.0, mode=mode)
    measurer = MEASURING.Measurer(rows, device="cpu", size=EXPERT_SIZES["tiny"], precision="fp32")
    judge = JUDGE.Measured(measurer, {"train": (replace(PREFILL, tokens_per_gpu=64), DECODE)})
    results = []
    for case in judge.cases("train"):
        metrics = judge.score(case, played(program("incremental_split"), case.hidden))
        assert metrics["measured_rows"] == 4
        assert metrics["never_baseline_s"] > metrics["bound_s"] > 0
        results.append(CaseResult(case.id, metrics, 0.1, 0.1))
    combined = judge.combine(results)
    assert "score_bound" not in combined.metrics
    assert set(combined.metrics) <= set(TASK.spec.metrics)
    assert combined.score >= -1.0


@pytest.mark.torch
def test_a_device_that_is_not_there_is_told_in_one_line() -> None:
    pytest.importorskip("torch")
    measurer = MEASURING.Measurer(MEASURING.SCREENING, device="cuda:77")
    result = play(program("never"), PREFILL)
    with pytest.raises(ValueError, match=r"^device 'cuda:77': torch sees \d+ CUDA devices here$"):
        measurer.measure(PREFILL, result, result)


def test_measured_seconds_are_the_models_times_what_it_missed() -> None:
    result = play(program("incremental"), PREFILL)
    modelled = REFERENCE.reference(PREFILL)
    pair = MEASURING.Pair(candidate=1.5, never=2.0, rows=3, model_error=0.4)
    metrics = JUDGE.figures(PREFILL, result, modelled, pair)
    total_s = 1.5 * result.window_seconds.sum() + result.stall_seconds
    assert metrics["seconds"] == pytest.approx(total_s)
    never_s = 2 * modelled.never.seconds
    assert metrics["saved"] == pytest.approx((never_s - total_s) / (never_s - 2 * modelled.ideal_s))
    same = JUDGE.figures(PREFILL, result, modelled, MEASURING.Pair(1.0, 1.0, 3, 0.0))
    assert same == pytest.approx(JUDGE.figures(PREFILL, result, modelled))


def test_more_than_the_bound_is_not_believed() -> None:
    judge = JUDGE.Simulated(SMALL)
    case: Case = judge.cases("train")[0]
    raw = played(program("never"), PREFILL)
    impossible = {**raw, "window_seconds": raw["window_seconds"] * 0.1}
    with pytest.raises(RewardHacking, match="less than the proven"):
        judge.score(case, impossible)
