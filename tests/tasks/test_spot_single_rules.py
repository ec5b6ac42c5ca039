"""The rules of spot_single: recorded values of the public simulator, the kernel against a literal one, the optimum."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrs_ray.private_import import import_private
from adrs_ray.task import Case, CaseResult, Combined, InvalidOutput, Task, load_task

from . import literal_spot_single as literal

SOUND, PUBLIC = load_task("spot_single"), load_task("spot_single", "paper")
ADAPTER = import_private(SOUND.folder, "adapter")
GAME = import_private(SOUND.folder, "game")
KERNEL = import_private(SOUND.folder, "kernel")
POLICIES = import_private(SOUND.folder, "policies")
TRACES = import_private(SOUND.folder, "traces")
BASELINES = {name: path.read_text() for name, path in SOUND.baselines().items()}
EXAMPLES = settings(max_examples=30, deadline=None, derandomize=True)

NEVER = """
from sky_spot.utils import ClusterType

def _step(state, last_cluster_type, has_spot):
    return ClusterType.NONE
"""
ALTERNATING = """
from sky_spot.utils import ClusterType

def _step(state, last_cluster_type, has_spot):
    if state.env.tick % 2 == 0:
        return ClusterType.ON_DEMAND
    return ClusterType.SPOT if has_spot else ClusterType.NONE
"""
PROGRAMS = {
    "always_OD": BASELINES["on_demand"],
    "never": NEVER,
    "spot_wait": BASELINES["spot_else_wait"],
    "spot_OD": BASELINES["spot_else_on_demand"],
    "alt": ALTERNATING,
    "greedy": BASELINES["greedy"],
    "UP": BASELINES["uniform_progress_shipped"],
}

RECORDED_ROWS = [
    ("us-west-2a_k80_1-0", 52, 0.02, "always_OD", 147.3900000000002, 289, 0, 289, 0),
    ("us-west-2a_k80_1-0", 52, 0.02, "spot_wait", 46.87098333333329, 307, 289, 0, 18),
    ("us-west-2a_k80_1-0", 52, 0.02, "greedy", 46.87098333333329, 307, 289, 0, 18),
    ("us-west-2a_k80_1-0", 52, 0.02, "UP", 46.87098333333329, 307, 289, 0, 18),
    ("us-west-2a_k80_1-0", 52, 0.02, "spot_OD", 52.59823333333328, 290, 274, 16, 0),
    ("us-west-2a_k80_1-0", 52, 0.02, "alt", 125.56741666666716, 311, 95, 216, 0),
    ("us-west-2b_v100_1-0", 52, 0.4, "spot_wait", 146.27620000000024, 312, 12, 283, 17),
    ("us-west-2b_v100_1-0", 52, 0.4, "greedy", 146.27620000000024, 309, 12, 283, 14),
    ("us-west-2b_v100_1-0", 52, 0.4, "UP", 139.64226666666707, 312, 56, 256, 0),
    ("us-west-2b_v100_1-0", 52, 0.4, "never", 148.4100000000002, 312, 0, 291, 21),
    ("us-west-2a_v100_1-107", 70, 0.2, "spot_wait", 137.11571666666705, 421, 53, 252, 116),
    ("us-west-2a_v100_1-107", 70, 0.2, "greedy", 137.48698333333374, 418, 49, 254, 115),
    ("us-west-2a_v100_1-107", 70, 0.2, "UP", 93.23998333333293, 365, 229, 110, 26),
    ("us-west-2a_v100_1-107", 70, 0.2, "alt", 184.2936666666662, 420, 20, 355, 45),
    ("us-west-2b_k80_1-0", 92, 0.4, "UP", 178.26549999999966, 552, 30, 340, 182),
    ("us-west-2b_k80_1-0", 92, 0.4, "greedy", 141.54550000000032, 550, 30, 268, 252),
    ("us-west-2b_v100_1-294", 92, 0.02, "UP", 96.44461666666679, 531, 167, 136, 228),
    ("us-west-2b_k80_1-9", 70, 0.4, "spot_OD", 141.25229999999976, 412, 198, 214, 0),
    ("us-west-2a_v100_1-238", 52, 0.02, "UP", 94.82278333333322, 313, 157, 136, 20),
]
"""Trace, deadline h, overhead h, strategy, dollars, finish tick, gaps on spot, on-demand and idle."""


def play(task: Task, source: str, case: Case) -> Any:
    """The final state of a case's runs, in this process."""
    program, game = ADAPTER.load(source), task.referee(case)  # type: ignore[misc]
    try:
        observation = next(game)
        while True:
            observation = game.send(ADAPTER.act(program, observation))
    except StopIteration as end:
        return end.value


def judged(task: Task, source: str, split: str) -> Combined:
    cases = task.judge.cases(split)  # type: ignore[arg-type]
    return task.judge.combine([CaseResult(c.id, task.judge.score(c, play(task, source, c)), 0.25, 0.5) for c in cases])


def needs_recorded() -> None:
    if SOUND.split_note("test"):
        pytest.skip("needs spot_single.json.gz: set ADRS_DATA_DIR or run `adrs data pull spot_single`")


@pytest.mark.parametrize("row", RECORDED_ROWS, ids=lambda row: f"{row[0]}-{row[1]}-{row[2]}-{row[3]}")
def test_recorded_runs_of_the_public_simulator(row: tuple[Any, ...]) -> None:
    needs_recorded()
    trace, deadline_h, overhead_h, strategy, dollars, finish, *gaps = row
    (case,) = (case for case in PUBLIC.judge.cases("test") if case.id == trace)
    at = TRACES.SETTINGS.index((deadline_h * 3600, round(overhead_h * 3600)))
    state = play(PUBLIC, PROGRAMS[strategy], case)[at]
    assert state[KERNEL.COST] == pytest.approx(dollars, rel=1e-12)
    counted = (KERNEL.FINISH, KERNEL.SPOT_GAPS, KERNEL.ON_DEMAND_GAPS, KERNEL.IDLE_GAPS)
    assert [state[column] for column in counted] == [finish, *gaps]


@pytest.mark.parametrize(
    ("policy", "mean", "std", "late"),
    [("UP_SHIPPED", 94.677149, 41.060342, 21), ("UP", 92.064282, 35.910514, 0)],
)
def test_recorded_aggregates_of_the_public_simulator(policy: str, mean: float, std: float, late: int) -> None:
    """Of the judge's own Uniform Progress, which another test holds against the baseline programs."""
    needs_recorded()
    cases = PUBLIC.judge.cases("test")
    states = [policy_state(getattr(POLICIES, policy), case) for case in cases]
    costs = np.concatenate([state[:, KERNEL.COST] for state in states])
    assert costs.mean() == pytest.approx(mean, abs=6e-7)
    assert costs.std() == pytest.approx(std, abs=6e-7)
    assert sum(GAME.late_runs(case, state) for case, state in zip(cases, states, strict=True)) == late


def policy_state(policy: int, case: Case) -> Any:
    jobs = np.ascontiguousarray(np.stack([case.public["deadlines"], case.public["overheads"]], axis=1))
    clock = np.array([case.public["gap_seconds"], case.public["task_seconds"]])
    state = POLICIES.fresh_state(len(jobs))
    POLICIES.play(policy, case.hidden["available"], jobs, clock, GAME.PRICES, False, state)
    return state


def test_always_on_demand_costs_by_overhead() -> None:
    metrics = judged(SOUND, BASELINES["on_demand"], "train").metrics
    for overhead, dollars in (("0.02", 147.39), ("0.2", 147.90), ("0.4", 148.41)):
        for deadline in (52, 70, 92):
            assert metrics[f"cost_d{deadline}_o{overhead}"] == pytest.approx(dollars)
    assert metrics["saved"] == 0


TRACE = st.lists(st.tuples(st.booleans(), st.integers(1, 9)), min_size=1, max_size=30).map(
    lambda spells: [has_spot for has_spot, length in spells for _ in range(length)]
)
OVERHEADS = st.sampled_from([0.0, 72.0, 300.0, 600.0, 720.0, 1440.0, 2000.0])


def small_case(spots: list[bool], overheads: list[float], slack: int, mended: bool, work: int = 24) -> Case:
    """A job of `work` gaps of 600 s, with as much slack in gaps for each overhead, on a trace that is long enough."""
    jobs = tuple(((work + math.ceil(d / 600) + slack) * 600.0, d) for d in overheads)
    longest = int(max(deadline for deadline, _ in jobs) / 600)
    available = np.array((spots + [False] * (longest + 2))[: longest + 2])
    return GAME.make_case(TRACES.Trace("t", 1, available, jobs, task_s=work * 600.0), mended)  # type: ignore[no-any-return]


@EXAMPLES
@given(TRACE, st.lists(OVERHEADS, min_size=1, max_size=4), st.integers(0, 20), st.booleans(), st.data())
def test_kernel_and_literal_simulator_agree(
    spots: list[bool], overheads: list[float], slack: int, mended: bool, data: st.DataObject
) -> None:
    case = small_case(spots, overheads, slack, mended)
    wishes = data.draw(st.lists(st.lists(st.integers(0, 2), min_size=80, max_size=80), min_size=4, max_size=4))
    available = case.hidden["available"]

    def wish(run: int, tick: int, rest: float) -> int:
        return 0 if rest <= 1e-3 and tick >= len(available) - 1 else wishes[run][tick]

    game = GAME.play(case, mended)
    done = np.zeros(len(overheads))
    try:
        seen = next(game)
        seen = game.send(len(overheads))
        while True:
            done += seen[:, KERNEL.WORK]
            tick = int(seen[0, KERNEL.TICK])
            rest = case.public["task_seconds"] - done
            seen = game.send(np.array([wish(run, tick, rest[run]) for run in range(len(overheads))], np.uint8))
    except StopIteration as end:
        state = end.value
    for run, (deadline, overhead) in enumerate(zip(case.public["deadlines"], overheads, strict=True)):
        expected = literal.simulate(
            available.tolist(),
            literal.Run(float(deadline), overhead, 600.0, case.public["task_seconds"]),
            lambda book, last, has_spot, run=run: wish(run, book.tick, book.rest),  # type: ignore[misc]
            mended,
        )
        billed = expected.history[: expected.finish + 1]
        assert state[run, KERNEL.COST] == expected.cost
        assert state[run, KERNEL.FINISH] == expected.finish
        assert state[run, KERNEL.LAUNCHES] == expected.launches
        assert state[run, KERNEL.RESCUED] == expected.rescued
        assert state[run, KERNEL.SPOT_GAPS] == billed.count(literal.SPOT)
        assert state[run, KERNEL.ON_DEMAND_GAPS] == billed.count(literal.ON_DEMAND)
        assert state[run, KERNEL.IDLE_GAPS] == billed.count(literal.NONE) - 1
        if mended:
            assert expected.finish * 600 <= deadline


@EXAMPLES
@given(
    st.lists(st.booleans(), min_size=12, max_size=12),
    OVERHEADS,
    st.integers(1, 6),
    st.integers(0, 5),
)
def test_the_optimum_is_the_cheapest_of_all_schedules(
    spots: list[bool], overhead: float, work: int, slack: int
) -> None:
    case = small_case(spots, [overhead], slack, True, work)
    found = case.hidden["optimum"][0]
    problem = (case.hidden["available"].tolist(), float(case.public["deadlines"][0]), overhead, 600.0, work * 600.0)
    assert found == pytest.approx(literal.cheapest(*problem, guarantee=False), rel=1e-12)
    assert found <= literal.cheapest(*problem, guarantee=True) + 1e-9


@EXAMPLES
@given(TRACE, st.integers(0, 20))
def test_no_program_is_cheaper_than_the_optimum_nor_late(spots: list[bool], slack: int) -> None:
    case = small_case(spots, [72.0, 720.0, 1440.0], slack, True)
    for source in BASELINES.values():
        state = play(SOUND, source, case)
        assert np.all(state[:, KERNEL.COST] >= case.hidden["optimum"] - 1e-9)
        assert GAME.late_runs(case, state) == 0


@EXAMPLES
@given(TRACE, st.integers(0, 20), st.booleans())
def test_what_the_judge_holds_runs_against_are_the_baselines(spots: list[bool], slack: int, mended: bool) -> None:
    case = small_case(spots, [72.0, 720.0, 1440.0], slack, mended)
    task = SOUND if mended else PUBLIC
    for name, key in (
        ("on_demand", "on_demand"),
        ("uniform_progress", "up"),
        ("uniform_progress_shipped", "up_shipped"),
    ):
        costs = play(task, BASELINES[name], case)[:, KERNEL.COST]
        assert costs.tolist() == case.hidden[key].tolist()


def test_the_guarantee_of_the_public_rules_has_a_hole_that_is_mended() -> None:
    (case,) = (case for case in SOUND.judge.cases("stress") if case.id == "stress-vanishing")
    trace = next(t for t in import_private(SOUND.folder, "splits").traces("stress") if t.id == case.id)
    public = GAME.make_case(trace, mended=False)
    shipped = BASELINES["uniform_progress_shipped"]
    assert GAME.late_runs(public, play(PUBLIC, shipped, public)) == 5
    assert GAME.late_runs(case, play(SOUND, shipped, case)) == 0


def test_a_state_with_a_late_run_is_refused() -> None:
    case = SOUND.judge.cases("train")[0]
    state = play(SOUND, BASELINES["greedy"], case)
    for late in (-1.0, 313.0):
        state[0, KERNEL.FINISH] = late
        with pytest.raises(InvalidOutput, match="1 of 9 runs missed the deadline"):
            SOUND.judge.score(case, state)


def test_spot_after_the_end_of_the_trace_ends_a_public_run() -> None:
    """A run of 92 hours that is a tick late and still asks for spot when it is done."""
    case = small_case([], [72.0], 0, mended=False)
    available = case.hidden["available"]
    short = Case(case.id, case.seed, case.public, {**case.hidden, "available": available[:-1]})
    asks_for_spot = NEVER.replace("ClusterType.NONE", "ClusterType.SPOT")
    with pytest.raises(InvalidOutput, match="asked for spot after the end of the trace"):
        play(PUBLIC, asks_for_spot, short)
    assert play(PUBLIC, NEVER, short)[0, KERNEL.FINISH] * 600 == case.public["deadlines"][0]


@pytest.mark.parametrize(
    ("trace", "message"),
    [
        (lambda: TRACES.Trace("x", 1, np.ones(400, bool), ((48.2 * 3600, 1440.0),)), "do not fit before the deadline"),
        (lambda: TRACES.Trace("x", 1, np.ones(312, bool), ((52 * 3600.0, 72.0),)), "must go on for a gap"),
    ],
)
def test_traces_that_make_no_case(trace: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GAME.make_case(trace(), True)


def test_traces_are_read_from_the_recorded_file_in_order() -> None:
    needs_recorded()
    cases = SOUND.judge.cases("test")
    assert len(cases) == 120
    assert [case.id for case in cases[:3]] == ["us-west-2a_k80_1-0", "us-west-2a_k80_1-107", "us-west-2a_k80_1-117"]
    shares = [np.mean([case.hidden["available"].mean() for case in cases[i : i + 30]]) for i in range(0, 120, 30)]
    assert shares == pytest.approx([0.946, 0.197, 0.667, 0.519], abs=6e-4)
