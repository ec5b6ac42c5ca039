"""The task eplb without torch: problems, transport, the equation of the score, goldens of recorded loads."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrs_ray.private_import import import_private
from adrs_ray.task import SPLITS, CaseResult, RewardHacking, Split, data_file, load_task
from gpu_eval.balance import gpu_balance, group_violations, slot_balance
from gpu_eval.bounds import gpu_bound
from gpu_eval.shapes import SHAPES, Shape

TASK = load_task("eplb")
HOST = TASK.in_stage("host")
GAME, PROBLEMS, ODD, RECORDED, SCORING, TRANSPORT, CONVERT = (
    import_private(TASK.folder, name)
    for name in ("game", "problems", "odd", "recorded", "scoring", "transport", "convert")
)
Transport = TRANSPORT.Transport


def recorded_windows() -> tuple[Any, ...]:
    path = data_file(TASK.spec.data[0])
    if path is None:
        pytest.skip("needs eplb_deepseek_loads.npz: set ADRS_DATA_DIR or run `adrs data pull eplb`")
    return tuple(RECORDED.windows(path))


def one_each_then_the_first(layers: int) -> Any:
    """Expert e in slot e, experts 0..31 in slots 256..287 as well."""
    return np.tile(np.concatenate([np.arange(256), np.arange(32)]), (layers, 1))


def result(case: str, **metrics: float) -> CaseResult:
    """Of a case of 2 ms per call and 2 ms of the baseline, unless said otherwise."""
    usual = dict.fromkeys(SCORING._MEANS, 0.9) | {
        "round_ms": 2.0,
        "told_ms": 2.0,
        "round_calls": 1.0,
        "round_mb": 0.0,
        "baseline_ms": 2.0,
    }
    return CaseResult(case, {**usual, **metrics}, 0.1, 0.2)


NO_TRANSPORT = {"transport_round_us": 0.0, "transport_call_us": 0.0, "transport_mb_us": 0.0}


def test_cases_are_the_same_each_time_and_no_two_splits_share_an_input() -> None:
    seen: dict[str, str] = {}
    for split in SPLITS:
        cases = HOST.judge.cases(split)
        assert [case.public for case in cases] == [case.public for case in HOST.judge.cases(split)]
        for case in cases:
            assert seen.setdefault(case.public, case.id) == case.id
    windows = [
        each.now.tobytes() for split in SPLITS for problem in PROBLEMS.problems(split) for each in problem.transitions
    ]
    assert len(set(windows)) == len(windows)


def test_both_stages_have_the_same_cases() -> None:
    for split in SPLITS:
        device, host = (TASK.judge_of(stage).cases(split) for stage in ("device", "host"))
        assert [(case.id, case.public) for case in device] == [(case.id, case.public) for case in host]


def test_train_has_all_five_shapes_and_held_out_splits_have_others() -> None:
    def sizes(split: Split) -> set[tuple[int, ...]]:
        return {(p.shape.layers, p.shape.experts, p.shape.slots, p.shape.gpus) for p in PROBLEMS.problems(split)}

    known = {(s.layers, s.experts, s.slots, s.gpus) for s in SHAPES}
    assert sizes("train") == known
    for split in ("validation", "test", "stress"):
        assert sizes(split) - known
    assert {p.grouped for p in PROBLEMS.problems("train")} == {True, False}


@pytest.mark.parametrize("number", range(len(PROBLEMS.problems("validation"))))
def test_fresh_inputs_are_as_skewed_and_of_no_use_to_who_has_seen_the_others(number: int) -> None:
    problem = PROBLEMS.problems("validation")[number]
    fresh = PROBLEMS.fresh(problem, 4, np.random.default_rng(5))
    assert fresh.dtype == np.int64
    assert fresh.shape == (4, problem.shape.layers, problem.shape.experts)
    assert fresh.min() >= 0
    windows = [each.now for each in problem.transitions]

    def spread(loads: Any) -> float:
        return float(np.log1p(loads).std(axis=-1).mean())

    assert spread(fresh) == pytest.approx(np.mean([spread(window) for window in windows]), rel=0.15)
    for one in fresh:
        for other in windows:
            assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.5


def test_judged_windows_are_among_the_calls_of_quick_programs_and_all_there_is_for_slow_ones() -> None:
    problem = PROBLEMS.problems("validation")[5]
    windows = [each.now for each in problem.transitions]

    def plan(call_s: float, seed: int) -> list[tuple[Any, Mapping[int, int]]]:
        return list(GAME._plan(problem, call_s, np.random.default_rng(seed)))

    places = set()
    for seed in range(20):
        rounds = plan(1e-3, seed)
        assert len(rounds) == GAME.ROUNDS
        judged = {index: (number, place) for number, (_, told) in enumerate(rounds) for place, index in told.items()}
        assert sorted(judged) == [0, 1]
        for index, (number, place) in judged.items():
            assert (rounds[number][0][place] == windows[index]).all()
        places.add(tuple(judged.values()))
    assert len(places) > 10
    assert all(len(inputs) == GAME.MOST_CALLS for inputs, _ in plan(1e-6, 1))
    slow = plan(10.0, 1)
    assert [len(inputs) for inputs, _ in slow] == [1, 1]
    assert sorted(told[0] for _, told in slow) == [0, 1]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.floats(0, 1e-3), st.floats(1e-6, 1e-4), st.floats(1e-5, 1e-2))
def test_what_a_round_costs_is_found_from_rehearsals(round_s: float, call_s: float, mb_s: float) -> None:
    true = Transport(round_s, call_s, mb_s)
    forms = [(1, 0.1), (8, 0.9), (1, 0.5), (8, 4.0), (2, 3.0)]
    found = TRANSPORT.fit([TRANSPORT.Rehearsal(n, mb, true.seconds(n, mb)) for n, mb in forms])
    for calls, megabytes in forms:
        assert found.seconds(calls, megabytes) == pytest.approx(true.seconds(calls, megabytes), rel=1e-6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(0, 1e-2), st.floats(1e-5, 1.0), st.integers(1, 8), st.floats(0, 2))
def test_a_clock_that_lies_gains_a_tenth_of_the_transport_at_most(
    carried: float, calls_s: float, calls: int, lie: float
) -> None:
    transport = Transport(carried, 0.0, 0.0)
    passed = carried + calls_s
    honest = TRANSPORT.seconds_per_call(transport, passed, calls, 0.0, calls_s)
    told = TRANSPORT.seconds_per_call(transport, passed, calls, 0.0, lie * calls_s)
    assert honest == pytest.approx(calls_s / calls)
    assert told >= honest - 0.1 * carried / calls - 1e-12
    assert told <= passed / calls


def test_a_clock_that_tells_no_time_at_all_is_reward_hacking() -> None:
    honest = result("train-0", round_ms=400.0, told_ms=399.0, **NO_TRANSPORT)
    liar = {"round_ms": 400.0, "told_ms": 1.0}
    HOST.judge.combine([honest, result("train-1", **liar)])  # one slip may be the machine's
    with pytest.raises(RewardHacking, match=r"clock does not tell the time: train-1: 1\.0 ms told, 400\.0 ms passed"):
        HOST.judge.combine([honest, result("train-1", **liar), result("train-2", **liar)])


def test_the_equation_of_the_score() -> None:
    cases = [result("train-0", quality=0.8, **NO_TRANSPORT), result("train-1", quality=0.6)]
    combined = HOST.judge.combine(cases)
    assert combined.metrics["time_credit"] == pytest.approx(2 / 3)
    assert combined.score == combined.metrics["combined"] == pytest.approx(0.97 * 0.7 + 0.03 * 2 / 3)
    assert combined.metrics["host_ms"] == pytest.approx(2.0)
    assert combined.metrics["score_bound"] == 1.0
    stated = f"Score = {1 - SCORING.TIME_WEIGHT:g} x Q + {SCORING.TIME_WEIGHT:g} x T"
    assert stated in TASK.spec.statement
    assert "device_ms" in TASK.judge_of("device").combine(cases).metrics


def test_credit_for_time() -> None:
    assert SCORING.credit(2e-3, 2e-3, 2e-4) == pytest.approx(2 / 3)
    assert SCORING.credit(2e-2, 2e-3, 2e-4) == pytest.approx(1 / 3)
    assert SCORING.credit(0.3, 2e-3, 2e-4) == 0.0
    assert SCORING.credit(1e-6, 2e-3, 2e-4) == SCORING.credit(2e-4, 2e-3, 2e-4) == pytest.approx(1.0)
    assert SCORING.credit(1e-6, 20.0, 2e-4) == 1.0
    assert (TASK.judge_of("host").floor_s, TASK.judge_of("device").floor_s) == (200e-6, 50e-6)  # type: ignore[attr-defined]


def test_a_better_but_slower_balancer_wins_and_speed_alone_does_not() -> None:
    def score(quality: float, ms: float) -> float:
        return HOST.judge.combine([result("train-0", quality=quality, round_ms=ms, told_ms=ms, **NO_TRANSPORT)]).score

    assert score(0.87, 8.0) > score(0.86, 2.0)
    assert score(0.86, 2.0) > score(0.85, 0.5)
    assert score(0.86, 2.0) > score(0.86, 4.0) > score(0.86, 400.0)
    assert score(0.35, 0.001) < score(0.80, 400.0)


def test_recorded_and_odd_cases_stay_out_of_each_others_columns() -> None:
    ordinary = result("test-0", quality=0.5, **NO_TRANSPORT)
    recorded = result("test-recorded", quality=0.9, next_window_balance=0.77)
    combined = HOST.judge.combine([ordinary, recorded])
    assert combined.metrics["quality"] == 0.5
    assert combined.metrics["next_window_balance"] == 0.9
    assert combined.metrics["recorded_next_window_balance"] == 0.77
    assert combined.metrics["recorded_leaderboard_formula"] == pytest.approx(90 * 0.77 + 5)
    assert combined.metrics["recorded_leaderboard_coverage"] == 0.0
    odd = CaseResult("stress-odd", {"quality": 0.1}, 0.1, 0.2)
    combined = HOST.judge.combine([result("stress-0", quality=0.5, **NO_TRANSPORT), odd])
    assert combined.metrics["quality"] == pytest.approx(0.3)
    assert "leaderboard_formula" in combined.metrics
    assert set(combined.metrics) <= set(TASK.spec.metrics)


def test_the_leaderboards_formula() -> None:
    assert SCORING.leaderboard_formula(0.8, 0.001) == pytest.approx(72 + 10)
    assert SCORING.leaderboard_formula(0.8, 0.1) == pytest.approx(72 + 0.1 - 2)
    assert SCORING.leaderboard_formula(0.8, 5.0) == pytest.approx(72 + 0.002 - 20)


def test_needless_duplicates_cost_and_unavoidable_ones_do_not() -> None:
    shape = Shape(1, 4, 8, 2)
    window = np.ones((1, 4), np.int64)
    problem = PROBLEMS.Problem("small", shape, (PROBLEMS.transition(window, window, shape),))
    clean = np.array([[0, 1, 2, 3, 0, 1, 2, 3]])
    wasteful = np.array([[0, 0, 1, 1, 2, 2, 3, 3]])
    figures = [SCORING._transition(problem, problem.transitions[0], placed) for placed in (clean, wasteful)]
    assert [one["quality"] for one in figures] == [1.0, 0.75]
    assert [one["duplicates"] for one in figures] == [0.0, 50.0]
    alone = PROBLEMS.Problem("one GPU", Shape(1, 4, 6, 1), problem.transitions)
    assert SCORING._transition(alone, problem.transitions[0], np.array([[0, 1, 2, 3, 0, 1]]))["quality"] == 1.0


def test_who_places_unjudged_inputs_carelessly_is_found_out_and_who_ignores_loads_is_not() -> None:
    problem = PROBLEMS.problems("train")[0]

    def played(judged: list[float], fresh: list[float]) -> Any:
        one = GAME.Played(judged_ratio=judged, fresh_ratio=fresh)
        one.rounds = [GAME.Round(1, 0.1, 1e-3, 1e-3)]
        one.yardstick_s = [1e-3]
        one.placements = {0: one_each_then_the_first(58), 1: one_each_then_the_first(58)}
        return one

    with pytest.raises(RewardHacking, match=r"inputs that only cost time are placed 0\.100 worse"):
        SCORING.figures(problem, played([1.0, 1.0], [0.9, 0.9, 0.901]))
    SCORING.figures(problem, played([0.6, 0.6], [0.45, 0.55, 0.5, 0.6]))
    SCORING.figures(problem, played([0.99, 1.01], [1.0, 0.995, 1.002]))


def test_knowing_the_next_window_is_not_enough_to_pass_the_bound() -> None:
    for split in SPLITS:
        for problem in PROBLEMS.problems(split):
            for each in problem.transitions:
                for window, bound in ((each.now, each.now_bound), (each.following, each.following_bound)):
                    assert 0 < bound <= 1
                    assert bound == gpu_bound(window, problem.shape, problem.grouped)


def test_odd_inputs_are_what_they_say() -> None:
    odd = {each.name: each for each in ODD.odd_inputs()}
    assert len(odd) == len(ODD.odd_inputs())
    refused = [each for each in odd.values() if each.shape is None]
    assert len(refused) == 9
    for each in odd.values():
        finite = bool(np.isfinite(each.weight).all() and each.weight.min() >= 0)
        slots, groups, nodes, gpus = each.sizes
        experts = each.weight.shape[1]
        divides = not (slots % gpus or gpus % nodes or experts % groups) and slots >= experts
        overflows = each.dtype == "float16" and bool(each.weight.max() > 65504)
        assert (each.shape is not None) == (finite and divides and not overflows), each.name
        if each.shape is not None:
            assert (each.shape.slots, each.shape.groups, each.shape.nodes, each.shape.gpus) == each.sizes
            assert each.weight.shape == (each.shape.layers, each.shape.experts)


def test_balance_on_recorded_loads_is_what_is_published() -> None:
    windows = recorded_windows()
    assert len(windows) == 8
    assert windows[0].shape == (58, 256)
    placed = one_each_then_the_first(58)
    assert slot_balance(placed, windows[1]) == pytest.approx(0.15436807152985518, rel=1e-6)
    assert gpu_balance(placed, windows[1], 32) == pytest.approx(0.495452397133768, rel=1e-6)
    problem = RECORDED.recorded_problem()
    assert (problem.source, len(problem.transitions)) == ("recorded", 7)
    assert group_violations(placed, problem.shape).any()


def test_the_archive_of_snapshots_becomes_the_file() -> None:
    windows = recorded_windows()
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, window in zip(CONVERT.NAMES, windows, strict=True):
            counts = np.concatenate([np.zeros((3, 256), np.int64), window])
            text = json.dumps({"logical_count": counts.tolist()}).encode()
            member = tarfile.TarInfo(f"SGLang-reproduce-main/attachment_ep_statistics/{name}.json")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    file = TASK.spec.data[0]
    path = data_file(file)
    assert path is not None
    assert CONVERT.convert(file.file, raw.getvalue()) == path.read_bytes()


@pytest.mark.parametrize("raw", [b"", b"no tar", b"PK\x03\x04"])
def test_what_is_no_archive_is_refused_in_a_line(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"no tar archive|has no attachment_ep_statistics"):
        CONVERT.convert("eplb_deepseek_loads.npz", raw)


def test_texts_name_the_numbers_that_count() -> None:
    readme = (TASK.folder / "README.md").read_text()
    for text in (TASK.spec.statement, readme):
        assert re.search(r"0\.97", text)
        assert re.search(r"0\.03", text)
        assert "200 us" in text
        assert "50 us" in text


def test_baselines_are_the_librarys_own() -> None:
    library = Path(TASK.folder).parent.parent / "gpu_eval" / "baselines"
    for name, path in TASK.baselines().items():
        if name != "spread":
            assert path.resolve() == (library / f"{name}.py").resolve()
