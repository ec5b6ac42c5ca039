"""Rules, bounds and Uniform Progress of the task spot_multi against slow versions, on random small markets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrs_ray.private_import import import_private
from adrs_ray.task import Case, InvalidOutput, MalformedOutput

from .literal_spot_multi import FOLDER, MARKET, Policy, drive, least_cost, literal_run, played

RULES = import_private(FOLDER, "rules")
PUBLIC_RULES = import_private(FOLDER, "public_rules")
BOUND = import_private(FOLDER, "bound")
JUDGE = import_private(FOLDER, "judge")

ZONES = ("oak-1a", "oak-1b", "elm-2a", "elm-2b")
NONE, SPOT, ON_DEMAND = 0, 1, 2

few = settings(max_examples=30, derandomize=True, deadline=None)


def scenario_of(
    available: list[str],
    duration_s: int,
    deadline_ticks: int,
    restart_s: int = 25,
    gap_s: int = 10,
    zones: tuple[str, ...] = ZONES,
    prices: Any = None,
    on_demand: Any = None,
    transfer_s: int = 17,
    egress_usd: float = 0.25,
) -> Any:
    """A scenario of rows of `#` (spot) and `.` (none)."""
    table = np.array([[sign == "#" for sign in row] for row in available])
    names = zones[: len(available)]
    market = MARKET.Market(
        names,
        table,
        np.full(table.shape, 36.0) if prices is None else np.asarray(prices, dtype=np.float64),
        np.full(len(names), 108.0) if on_demand is None else np.asarray(on_demand, dtype=np.float64),
    )
    migration = MARKET.Migration(checkpoint_gb=1.0, egress_usd_per_gb=egress_usd, bandwidth_gbit_s=8.0 / transfer_s)
    assert migration.transfer_s == transfer_s
    job = MARKET.Job(gap_s, duration_s, deadline_ticks * gap_s, restart_s)
    return MARKET.Scenario("random/0", job, market, migration)


@st.composite
def scenarios(draw: st.DrawFn, most_ticks: int = 40, most_zones: int = 4) -> Any:
    gap = draw(st.sampled_from([7, 10]))
    restart = draw(st.sampled_from([0, 6, 14, 25]))
    zones = draw(st.integers(1, most_zones))
    need = draw(st.integers(2, most_ticks // 2))
    duration = max(1, need * gap - restart - draw(st.integers(0, gap - 1)))
    ticks = -(-(duration + restart) // gap) + draw(st.integers(0, most_ticks // 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    stay = rng.uniform(0.5, 0.95)
    flips = rng.random((zones, ticks)) > stay
    table = (np.cumsum(flips, axis=1) + rng.integers(0, 2, (zones, 1))) % 2 == 0
    rows = ["".join(".#"[int(up)] for up in row) for row in table]
    prices = np.round(rng.uniform(20.0, 60.0, (zones, ticks)), 2)
    return scenario_of(
        rows, duration, ticks, restart, gap, prices=prices, on_demand=np.round(rng.uniform(90.0, 120.0, zones), 2),
        transfer_s=draw(st.sampled_from([1, 9, 31])), egress_usd=draw(st.sampled_from([0.0, 0.05, 0.5])),
    )  # fmt: skip


def erratic(seed: int, zones: int) -> Policy:
    """Does anything, but keeps at what it did long enough to get somewhere."""
    rng = np.random.default_rng(seed)
    choice = [0, NONE]

    def policy(observation: list[float]) -> tuple[int, int]:
        if rng.random() < 0.2:
            choice[:] = [int(rng.integers(zones)), int(rng.integers(3))]
        return choice[0], choice[1]

    return policy


@few
@given(scenarios(), st.integers(0, 2**32 - 1))
def test_runs_are_those_of_the_literal_simulator(scenario: Any, seed: int) -> None:
    zones = len(scenario.market.zones)
    seen: list[list[float]] = []
    told: list[list[float]] = []

    def noting(policy: Policy, into: list[list[float]]) -> Policy:
        def note(observation: list[float]) -> tuple[int, int]:
            into.append(observation)
            return policy(observation)

        return note

    ledger = played(RULES.play, scenario, noting(erratic(seed, zones), seen))
    literal = literal_run(scenario, noting(erratic(seed, zones), told))
    np.testing.assert_array_equal(np.array(seen), np.array(told))
    assert ledger.cost == pytest.approx(literal["cost"], rel=1e-12)
    counts = (ledger.finish_tick, ledger.launches, ledger.moves, ledger.asked_ticks)
    assert counts == (literal["finish"], literal["launches"], literal["moves"], literal["asked"])
    assert ledger.finish_tick * scenario.job.gap_s <= scenario.job.deadline_s
    assert BOUND.lower_bound(scenario) <= ledger.cost


@few
@given(scenarios(most_ticks=10, most_zones=3))
def test_the_bound_is_below_the_cheapest_of_all_runs(scenario: Any) -> None:
    best = least_cost(scenario)
    assert 0.3 * best < BOUND.lower_bound(scenario) <= best


def test_the_bound_is_exact_where_nothing_is_lost() -> None:
    scenario = scenario_of(["#" * 30, "." * 30], duration_s=155, deadline_ticks=30)
    assert BOUND.lower_bound(scenario) == pytest.approx(18 * 0.1)
    assert least_cost(scenario) == pytest.approx(18 * 0.1)


@few
@given(scenarios(most_zones=1))
def test_the_kernel_of_uniform_progress_is_the_baseline_program(scenario: Any) -> None:
    source = (FOLDER / "baselines" / "uniform_progress.py").read_text()
    ledger = drive(JUDGE, source, Case("random/0", 0, None, JUDGE.Hidden(scenario, False)))
    assert BOUND.uniform_progress_costs(scenario) == [pytest.approx(ledger.cost, rel=1e-12)]


def script(*steps: tuple[int, int]) -> Policy:
    """These decisions in turn, then the last one again and again."""

    def policy(observation: list[float]) -> tuple[int, int]:
        return steps[min(int(observation[0]), len(steps) - 1)]

    return policy


ALL_UP = ["#" * 60] * 4


@pytest.mark.parametrize(
    ("steps", "launches", "moves", "egress"),
    [
        ([(0, SPOT)], 1, 0, 0.0),
        ([(0, SPOT)] * 9 + [(1, SPOT)], 2, 1, 0.0),  # another zone of the region: a restart
        ([(0, SPOT)] * 9 + [(2, SPOT)], 2, 1, 0.25),  # another region: a restart, a transfer and its price
        ([(0, SPOT)] * 2 + [(2, SPOT)], 2, 1, 0.0),  # no work done yet, so nothing to transfer
        ([(0, SPOT)] * 9 + [(2, SPOT)] * 2 + [(0, SPOT)], 3, 2, 0.25),  # back before any work there: it is still here
        ([(0, SPOT)] * 9 + [(2, SPOT)] * 9 + [(0, SPOT)], 3, 2, 0.5),
        ([(0, SPOT)] * 9 + [(0, ON_DEMAND)], 2, 0, 0.0),
        ([(0, SPOT)] * 9 + [(0, NONE), (0, SPOT)], 2, 0, 0.0),
    ],
)
def test_what_is_a_launch_and_what_it_costs(
    steps: list[tuple[int, int]], launches: int, moves: int, egress: float
) -> None:
    scenario = scenario_of(ALL_UP, duration_s=300, deadline_ticks=60)
    ledger = played(RULES.play, scenario, script(*steps))
    assert (ledger.launches, ledger.moves, ledger.egress) == (launches, moves, pytest.approx(egress))
    assert ledger.cost == pytest.approx(ledger.spot_ticks * 0.1 + ledger.on_demand_ticks * 0.3 + egress)


def test_a_move_takes_restart_and_transfer() -> None:
    scenario = scenario_of(ALL_UP, duration_s=300, deadline_ticks=60)
    at_home = played(RULES.play, scenario, script((0, SPOT)))
    moved = played(RULES.play, scenario, script(*[(0, SPOT)] * 9, (2, SPOT)))
    assert at_home.finish_tick == 33  # 325 s
    assert moved.finish_tick == 37  # 325 s + 25 s + 17 s


def test_each_gap_is_billed_where_and_when_it_ran() -> None:
    prices = np.arange(1.0, 81.0).reshape(2, 40) * 3600
    scenario = scenario_of(
        ["#" * 40] * 2, duration_s=3, deadline_ticks=40, restart_s=0, gap_s=1, prices=prices, egress_usd=0.0
    )
    ledger = played(RULES.play, scenario, script((0, SPOT), (1, SPOT), (0, SPOT)))
    assert ledger.cost == pytest.approx(1 + 42 + 3)


def test_the_guarantee_closes_the_hole_of_lost_spot() -> None:
    """Spot that is lost in the critical zone: publicly the guarantee asks for it once more, and the run is late."""
    scenario = scenario_of(["#" * 12 + "." * 28], duration_s=152, deadline_ticks=21)
    ledger = played(RULES.play, scenario, script((0, SPOT)))
    assert (ledger.asked_ticks, ledger.spot_ticks, ledger.on_demand_ticks, ledger.finish_tick) == (3, 12, 9, 21)
    assert played(PUBLIC_RULES.play, scenario, script((0, SPOT))).finish_tick == 22


def test_the_guarantee_does_not_move_the_job() -> None:
    """A launch far from the checkpoint shortly before the critical zone is given up when it cannot be in time."""
    scenario = scenario_of(ALL_UP, duration_s=300, deadline_ticks=36, transfer_s=95)
    ledger = played(RULES.play, scenario, script(*[(0, SPOT)] * 20, (2, ON_DEMAND)))
    assert ledger.finish_tick <= 36
    assert ledger.launches == 3


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (np.array([4, 1]), InvalidOutput, r"zone 4 does not exist: there are 0\.\.3"),
        (np.array([-1, 1]), InvalidOutput, "zone -1"),
        (np.array([0, 3]), InvalidOutput, "request 3"),
        (np.array([0, -1]), InvalidOutput, "request -1"),
        (np.array([0, 1, 0]), MalformedOutput, "expected int64"),
        (np.array([[0, 1]]), MalformedOutput, "expected int64"),
        (np.array([0.0, 1.0]), MalformedOutput, "expected int64"),
        (np.array([True, False]), MalformedOutput, "expected int64"),
        ([0, 1], MalformedOutput, "a decision is a list"),
        (None, MalformedOutput, "a decision is a NoneType"),
        ("_step returned str 'SPOT'", MalformedOutput, "^_step returned str 'SPOT'$"),
    ],
)
def test_what_is_no_decision_is_refused(action: Any, error: type[Exception], message: str) -> None:
    game = RULES.play(scenario_of(ALL_UP, duration_s=300, deadline_ticks=60))
    next(game)
    with pytest.raises(error, match=message):
        game.send(action)


def test_scenarios_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="even on demand"):
        scenario_of(ALL_UP, duration_s=590, deadline_ticks=60)
    with pytest.raises(ValueError, match="60 ticks of trace, 70 to the deadline"):
        scenario_of(ALL_UP, duration_s=300, deadline_ticks=70)
    with pytest.raises(ValueError, match="prices must be positive"):
        scenario_of(["#" * 60], duration_s=300, deadline_ticks=60, prices=np.zeros((1, 60)))
    with pytest.raises(ValueError, match="names of their own"):
        scenario_of(["#" * 60] * 2, duration_s=300, deadline_ticks=60, zones=("oak-1a", "oak-1a"))


def test_regions_are_zones_without_their_letter() -> None:
    names = ["us-east-1a_v100_1", "us-west-2b", "alder-1c", "north", "eu-north-1"]
    assert [MARKET.region_of(name) for name in names] == ["us-east-1", "us-west-2", "alder-1", "north", "eu-north-1"]
    migration = MARKET.Migration()
    assert (migration.egress_usd, migration.transfer_s) == (pytest.approx(0.42), 34)
