"""What models may cost: reservations and settled usage never exceed a limit, whatever comes back and in which order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.budget import Spending
from adrs_ray.candidate import Usage
from adrs_ray.config import BudgetConfig

SHARES = st.floats(0, 1)
REQUESTS = st.tuples(st.integers(0, 400), st.integers(0, 400), st.floats(0, 3), st.floats(0, 9))


def usage(tokens_in: int, tokens_out: int, usd: float, gpu_s: float) -> Usage:
    return Usage(tokens_in=tokens_in, tokens_out=tokens_out, usd=usd, gpu_s=gpu_s)


def part(worst: Usage, share: float) -> Usage:
    return usage(int(worst.tokens_in * share), int(worst.tokens_out * share), worst.usd * share, worst.gpu_s * share)


@given(
    st.integers(1, 3000),
    st.floats(0.1, 20),
    st.floats(0.1, 60),
    st.lists(st.tuples(REQUESTS, SHARES, st.integers(0, 6))),
)
def test_spent_and_reserved_never_exceed_a_limit(tokens, usd, gpu_s, steps):
    """Requests come, and are answered at a part of their worst cost in any order."""
    spending = Spending(BudgetConfig(max_tokens=tokens, max_usd=usd, max_gpu_s=gpu_s))
    under_way: dict[str, Usage] = {}
    for number, (figures, share, answers) in enumerate(steps):
        worst = usage(*figures)
        refusal = spending.refusal(worst)
        if refusal is None:
            spending.reserve(f"0-{number}/0", worst)
            under_way[f"0-{number}/0"] = worst
        else:
            assert any(name in refusal for name in ("max_tokens", "max_usd", "max_gpu_s"))
        for name in sorted(under_way)[:answers]:
            spending.settle(name, part(under_way.pop(name), share))
        open_ones = under_way.values()
        assert spending.open_requests == len(under_way)
        assert spending.tokens + sum(u.tokens for u in open_ones) <= tokens
        assert spending.usd + sum(u.usd for u in open_ones) <= usd + 1e-9
        assert spending.gpu_s + sum(u.gpu_s for u in open_ones) <= gpu_s + 1e-9


@given(st.lists(st.tuples(st.integers(0, 5), REQUESTS), max_size=40))
def test_a_request_is_counted_once_however_often_its_answer_is_told(steps):
    spending = Spending(BudgetConfig())
    first: dict[int, Usage] = {}
    for number, figures in steps:
        told = usage(*figures)
        spending.reserve(f"{number}/0", usage(1000, 1000, 5.0, 10.0))
        spending.settle(f"{number}/0", told)
        first.setdefault(number, told)
        assert spending.open_requests == 0
    assert spending.tokens == sum(u.tokens for u in first.values())
    assert spending.usd == pytest.approx(sum(u.usd for u in first.values()))
    assert spending.gpu_s == pytest.approx(sum(u.gpu_s for u in first.values()))


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans(), REQUESTS), max_size=60))
def test_told_again_from_the_journal_it_says_the_same(steps):
    """A view that sees every event, some of them twice, is equal to one that sees each once."""
    live, replayed = Spending(BudgetConfig()), Spending(BudgetConfig())
    for number, answered, figures in steps:
        for spending in (live, replayed, replayed):
            if answered:
                spending.settle(f"{number}/0", usage(*figures))
            else:
                spending.reserve(f"{number}/0", usage(*figures))
    assert (live.tokens, live.usd, live.gpu_s) == (replayed.tokens, replayed.usd, replayed.gpu_s)
    assert live.open_requests == replayed.open_requests


def test_without_limits_nothing_is_refused_and_a_raised_one_lets_go_on():
    assert Spending(BudgetConfig()).refusal(usage(10**9, 10**9, 1e9, 1e9)) is None
    spending = Spending(BudgetConfig(max_usd=1.0))
    spending.reserve("0-0/0", usage(1, 1, 0.9, 0))
    refusal = spending.refusal(usage(1, 1, 0.2, 0))
    assert refusal is not None
    assert "budget.max_usd 1: 0.9 dollars are spent or reserved, the next may cost 0.2" in refusal
    spending.settle("0-0/0", usage(1, 1, 0.5, 0))
    assert spending.refusal(usage(1, 1, 0.2, 0)) is None
    spending.set_budget(BudgetConfig(max_usd=0.6))
    assert spending.refusal(usage(1, 1, 0.2, 0)) is not None
    spending.set_budget(BudgetConfig(max_usd=2.0))
    assert spending.refusal(usage(1, 1, 1.5, 0)) is None
