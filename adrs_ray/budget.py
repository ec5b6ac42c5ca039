"""When to stop: the purse that grants candidates, what models may cost, and the rules that end a run early. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from adrs_ray.candidate import Usage
from adrs_ray.config import BudgetConfig


class Purse:
    """Grants candidates to islands in blocks, never more than the limit.

    Every granted candidate ends in exactly one terminal state, so `settled + outstanding <= limit` at all times and a
    run that drains ends with exactly `limit` terminal candidates unless it is stopped before.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._settled = 0
        self._outstanding: Counter[int] = Counter()
        self._closed = False

    @property
    def limit(self) -> int:
        """Terminal candidates at the end of the run."""
        return self._limit

    def set_limit(self, limit: int) -> None:
        """Another limit while the run goes on; below what is settled and granted already, nothing more is granted."""
        self._limit = limit

    @property
    def remaining(self) -> int:
        """Candidates that can still be granted; 0 once closed."""
        return 0 if self._closed else max(0, self._limit - self._settled - self._outstanding.total())

    @property
    def outstanding(self) -> int:
        """Granted, not yet terminal."""
        return self._outstanding.total()

    def offer(self, want: int) -> int:
        """How many of `want` could be granted now."""
        return max(0, min(want, self.remaining))

    def grant(self, island: int, count: int) -> None:
        """`count` candidates are the island's to try."""
        self._outstanding[island] += count

    def reopen(self, island: int, pending: int) -> None:
        """An island starts (again): what it was granted before lapses, `pending` candidates are under way."""
        self._outstanding[island] = pending

    def lapse(self, under_way: Mapping[int, int]) -> None:
        """A new writer took the run over: no island holds more than the candidates it has under way."""
        self._outstanding = Counter(under_way)

    def settle(self, island: int) -> None:
        """A candidate of an island reached a terminal state."""
        self._settled += 1
        if self._outstanding[island] > 0:
            self._outstanding[island] -= 1

    def close(self) -> None:
        """No further grants: the run drains."""
        self._closed = True


class Spending:
    """What requests to models cost and may still cost: `spent + reserved` never exceeds a limit.

    A request reserves its worst cost before it is sent and settles at its real one, or at the worst when it is lost.
    """

    def __init__(self, budget: BudgetConfig) -> None:
        self._budget = budget
        self._reserved: dict[str, Usage] = {}
        self._settled: set[str] = set()
        self.tokens = 0
        self.usd = 0.0
        self.gpu_s = 0.0

    def set_budget(self, budget: BudgetConfig) -> None:
        self._budget = budget

    @property
    def open_requests(self) -> int:
        """Requests that are under way."""
        return len(self._reserved)

    def refusal(self, worst: Usage) -> str | None:
        """Which limit a request that costs `worst` could break, in words; None when it fits."""
        reserved = self._reserved.values()
        budget = self._budget
        for name, limit, spent, more, unit in (
            ("max_tokens", budget.max_tokens, self.tokens + sum(u.tokens for u in reserved), worst.tokens, "tokens"),
            ("max_usd", budget.max_usd, self.usd + sum(u.usd for u in reserved), worst.usd, "dollars"),
            ("max_gpu_s", budget.max_gpu_s, self.gpu_s + sum(u.gpu_s for u in reserved), worst.gpu_s, "GPU-seconds"),
        ):
            if limit is not None and spent + more > limit:
                return f"budget.{name} {limit:g}: {spent:g} {unit} are spent or reserved, the next may cost {more:g}"
        return None

    def reserve(self, request: str, worst: Usage) -> None:
        """A request is about to be sent."""
        if request not in self._settled:
            self._reserved[request] = worst

    def settle(self, request: str, usage: Usage) -> None:
        """It was answered, or lost. Counted once."""
        self._reserved.pop(request, None)
        if request not in self._settled:
            self._settled.add(request)
            self.tokens += usage.tokens
            self.usd += usage.usd
            self.gpu_s += usage.gpu_s


@dataclass(frozen=True, slots=True)
class Progress:
    """What the stop rules look at."""

    candidates: int
    wall_s: float
    best_score: float | None
    since_best: int
    """Terminal candidates since the best train score last rose."""
    exhausted: str | None = None
    """Why no further request to a model can be paid for, in words."""


def stop_reason(progress: Progress, budget: BudgetConfig) -> str | None:
    """Why the run should stop now, in words, or None. The candidate limit itself is the purse's."""
    if progress.candidates >= budget.max_candidates:
        return f"all {budget.max_candidates} candidates are done"
    if budget.max_wall_s is not None and progress.wall_s >= budget.max_wall_s:
        return f"the wall time of {budget.max_wall_s:g} s is used up"
    if (
        budget.target_score is not None
        and progress.best_score is not None
        and progress.best_score >= budget.target_score
    ):
        return f"the target score {budget.target_score:g} is reached"
    if budget.patience is not None and progress.since_best >= budget.patience:
        return f"no better candidate among the last {progress.since_best}"
    return progress.exhausted
