"""What the driver knows of its run from second to second, told to Ray's metrics."""

from __future__ import annotations

import logging
from collections.abc import Callable

from adrs_ray.ledger import RunStatus
from cluster.evaluation import Evaluation
from cluster.metrics import Meters
from cluster.pools import AnyPool

METER_INTERVAL_S = 1.0
SLOTS_PER_S = 256
"""Slots asked in a second: with more of them meters are told less often."""

_log = logging.getLogger(__name__)


class Metering:
    """Keeps the last status, and the meters."""

    def __init__(
        self,
        run: str,
        capacity: int,
        pool: AnyPool | None,
        evaluation: Evaluation,
        show: Callable[[RunStatus], None],
        tell: Callable[[str], None],
    ) -> None:
        self._meters = Meters(run, capacity)
        self._pool = pool
        self._evaluation = evaluation
        self._show = show
        self._tell = tell
        self._turn_problem: str | None = None
        self._last: RunStatus | None = None
        self._mirror_error = ""

    @property
    def interval_s(self) -> float:
        """Between two looks."""
        return max(METER_INTERVAL_S, len(self._evaluation.directory.actors) / SLOTS_PER_S)

    def on_status(self, status: RunStatus) -> None:
        """Called with every new status; shows it."""
        self._last = status
        if status.mirror_error and status.mirror_error != self._mirror_error:
            _log.warning("the mirror does not take uploads (%s): the run goes on here", status.mirror_error)
        self._mirror_error = status.mirror_error
        self._show(status)

    def ended(self, island: int) -> int:
        """Candidates of an island in a terminal state, as last heard."""
        if self._last is None or island not in self._last.islands:
            return 0
        return self._last.islands[island].candidates

    async def look(self) -> None:
        """Tell the meters what is new."""
        if self._last is None:
            return
        pool_stats = [] if self._pool is None else self._pool.stats()
        turns = self._evaluation.turn_stats()
        self._meters.update(self._last, pool_stats, await self._evaluation.slot_stats(), turns)
        problem = None if turns is None else turns.problem
        if problem is not None and problem != self._turn_problem:
            self._tell(problem)
        self._turn_problem = problem

    def summary(self) -> str | None:
        """What sharing GPUs with engines has cost, in words; None where nothing was shared."""
        turns = self._evaluation.turn_stats()
        if turns is None or turns.turns == 0:
            return None
        return (
            f"engines slept {turns.turns} times for {turns.candidates} measurements on their GPUs: "
            f"{turns.swap_s:.1f} s to sleep and wake each time, {turns.asleep_s:.0f} s without models in all"
        )
