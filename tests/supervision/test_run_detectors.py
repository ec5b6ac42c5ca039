"""Each run detector fires on a history with its problem, says why, and stays silent beside it."""

from __future__ import annotations

import numpy as np
import pytest

from adrs_ray.config import BudgetConfig, HealthConfig
from adrs_ray.supervision.detectors.run import budget_forecast, misaligned_objective, model_gone_bad, overfitting
from adrs_ray.supervision.health import examine_run
from adrs_ray.supervision.history import Best, RequestResult, RunHistory, Spending
from tests.supervision.test_island_detectors import fired


def run(**changes: object) -> RunHistory:
    values: dict[str, object] = {
        "bests": (),
        "metrics": {"makespan": "min", "quality": "max"},
        "spent": Spending(100, 1.0, 100_000, 10.0, 100.0),
        "earlier": Spending(50, 0.5, 50_000, 5.0, 50.0),
        "limits": BudgetConfig(max_candidates=1000),
    }
    return RunHistory(**(values | changes))  # type: ignore[arg-type]


def requests(model: str, *parts: tuple[int, int]) -> list[RequestResult]:
    """(failed, all) per stretch, failures spread over it."""
    return [
        RequestResult(model, (i * failed) % count >= failed, "429\ntoo many")
        for failed, count in parts
        for i in range(count)
    ]


def test_requests_are_spread_as_said():
    assert [sum(not r.ok for r in requests("m", (failed, 20))) for failed in (0, 7, 12, 20)] == [0, 7, 12, 20]


def test_a_model_that_fails_more_than_it_did_has_gone_bad():
    finding = fired(model_gone_bad(run(requests=requests("small", (3, 60), (14, 20)))))
    assert finding.subject == "small"
    assert "14 of its last 20 requests (70 %) failed, 3 of 60 before" in finding.evidence
    assert finding.evidence.endswith("429 too many")


def test_a_model_that_fails_more_than_others_has_gone_bad_and_the_worst_is_named():
    history = run(requests=requests("a", (14, 20)) + requests("b", (0, 20)) + requests("c", (17, 20)))
    assert fired(model_gone_bad(history)).subject == "c"


def test_a_model_that_never_works_has_gone_bad():
    assert fired(model_gone_bad(run(requests=requests("small", (20, 20))))).figures["requests_before"] == 0


@pytest.mark.parametrize(
    "results",
    [
        requests("small", (30, 60), (12, 20)),
        requests("small", (0, 60), (8, 20)),
        requests("small", (9, 9)),
        requests("small", (13, 20)) + requests("strong", (12, 20)),
        [],
    ],
    ids=["as always", "seldom", "few", "as the other", "none"],
)
def test_a_model_as_it_always_was_is_not_bad(results):
    assert model_gone_bad(run(requests=results)) is None


def test_the_limit_that_ends_the_run_first_is_named_with_when():
    limits = BudgetConfig(max_candidates=1000, max_usd=3.0, max_tokens=800_000, max_wall_s=900.0)
    finding = fired(budget_forecast(run(limits=limits)))
    assert finding.subject == "max_usd"
    assert "at 0.01 dollars per candidate budget.max_usd 3 ends the run at about 300 of 1000" in finding.evidence
    assert finding.figures["left_s"] == 200


def test_what_is_spent_already_ends_the_run_now():
    limits = BudgetConfig(max_candidates=1000, max_tokens=90_000)
    assert fired(budget_forecast(run(limits=limits))).figures["candidates"] == 100


@pytest.mark.parametrize(
    "changes",
    [
        {"limits": BudgetConfig(max_candidates=1000, max_usd=6.0, max_wall_s=500.0)},
        {"limits": BudgetConfig(max_candidates=1000)},
        {"limits": BudgetConfig(max_candidates=1000, max_usd=1.1), "earlier": Spending(95, 0.5, 0, 0.0, 0.0)},
        {"limits": BudgetConfig(max_candidates=1000, max_usd=1.1), "earlier": Spending(50, 1.0, 0, 0.0, 0.0)},
        {"limits": BudgetConfig(max_candidates=1000, max_usd=1.1), "earlier": Spending(50, 1 - 2**-53, 0, 0.0, 0.0)},
    ],
    ids=["enough", "no limits", "rate unknown", "nothing used", "next to nothing used"],
)
def test_a_budget_that_reaches_far_enough_is_no_finding(changes):
    assert budget_forecast(run(**changes)) is None


def bests(train: list[float], validation: list[float | None], metrics: list[dict] | None = None) -> list[Best]:
    told = metrics or [{}] * len(train)
    return [
        Best(f"c{n}", score, told[n], held_out, judged=True)
        for n, (score, held_out) in enumerate(zip(train, validation, strict=True))
    ]


@pytest.mark.parametrize("validation", [[5.0, 4.9, 5.0, 4.0, 4.5], [5.0, None, None, 4.0, 4.5], [5.0, *[None] * 4]])
def test_train_up_and_validation_not_is_overfitting(validation):
    finding = fired(overfitting(run(bests=bests([1.0, 2.0, 3.0, 4.0, 5.0], validation))))
    assert "train went from 1 to 5" in finding.evidence


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        ([1.0, 2.0, 3.0, 4.0, 5.0], [5.0, 4.0, 5.5, 4.0, 4.0]),
        ([1.0, 2.0, 3.0, 4.0], [5.0, 4.0, 3.0, 2.0]),
        ([1.0] * 5, [5.0, 4.0, 3.0, 2.0, 1.0]),
        ([1.0, 2.0, 3.0, 4.0, 5.0], [None, 4.0, 3.0, 2.0, 1.0]),
    ],
    ids=["once better", "too few", "train stands still", "the first failed"],
)
def test_validation_that_follows_or_says_nothing_is_no_overfitting(train, validation):
    assert overfitting(run(bests=bests(train, validation))) is None


def test_bests_that_were_not_judged_do_not_count():
    judged = bests([1.0, 2.0, 3.0, 4.0, 5.0], [5.0, 4.0, 4.0, 4.0, 4.0])
    between = [*judged[:4], Best("x", 4.5, {}), judged[4]]
    assert overfitting(run(bests=between)) is not None
    assert overfitting(run(bests=[*judged[:4], Best("x", 4.5, {})])) is None


def test_a_validation_that_follows_with_noise_is_seldom_called_overfitting():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(200):
        train = np.cumsum(rng.exponential(1.0, 12))
        alarms += overfitting(run(bests=bests(list(train), list(train + rng.normal(0, 1.0, 12))))) is not None
    assert alarms <= 10  # 5 % at noise as large as the steps


def followed(**metrics: list[float]) -> list[Best]:
    told = [dict(zip(metrics, values, strict=True)) for values in zip(*metrics.values(), strict=True)]
    return bests([float(n) for n in range(len(told))], [None] * len(told), told)


RISE = [1.0, 2.0, 3.0, 4.0, 6.0, 5.0, 7.0, 8.0]


def test_a_metric_that_gets_worse_as_the_score_rises_is_misaligned():
    finding = fired(misaligned_objective(run(bests=followed(makespan=RISE, quality=RISE))))
    assert finding.subject == "makespan"
    assert "makespan, which should be low, went from 1 to 8" in finding.evidence
    finding = fired(misaligned_objective(run(bests=followed(quality=RISE[::-1], makespan=RISE[::-1]))))
    assert finding.subject == "quality"


@pytest.mark.parametrize(
    "values",
    [RISE[::-1], [2.0] * 8, [100 + n / 100 for n in range(8)], [1.0, 9.0, 2.0, 8.0, 3.0, 7.0, 4.0, 6.0], RISE[:7]],
    ids=["better", "constant", "slightly", "to and fro", "few"],
)
def test_a_metric_that_does_not_clearly_get_worse_is_not_misaligned(values):
    assert misaligned_objective(run(bests=followed(makespan=values))) is None


def test_metrics_that_are_no_numbers_or_missing_are_passed_over():
    assert misaligned_objective(run(bests=followed(makespan=[*RISE[:7], float("nan")], other=RISE[::-1]))) is None


def test_metrics_that_wander_are_seldom_called_misaligned():
    rng = np.random.default_rng(0)
    alarms = sum(
        misaligned_objective(run(bests=followed(makespan=list(rng.normal(5, 2, 8)), quality=list(rng.normal(5, 2, 8)))))
        is not None
        for _ in range(1000)
    )
    assert alarms <= 15  # two metrics at 0.2 % each give 4


def test_findings_come_in_a_fixed_order_and_none_when_switched_off():
    sick = run(
        requests=requests("small", (20, 20)),
        limits=BudgetConfig(max_candidates=1000, max_usd=2.0),
        bests=[
            Best(best.candidate, best.score, best.metrics, -best.score, judged=True) for best in followed(makespan=RISE)
        ],
    )
    names = [finding.detector for finding in examine_run(sick, HealthConfig())]
    assert names == ["model_gone_bad", "budget_forecast", "overfitting", "misaligned_objective"]
    assert examine_run(sick, HealthConfig(enabled=False)) == ()
    assert examine_run(run(), HealthConfig()) == ()
