"""One GPU for engines and candidates: the engines sleep while a batch of candidates is measured on their devices.

It lives in the driver, beside the pool that it puts to sleep. Islands send it their GPU jobs over the wire: they are
few, and only here is it known how many wait in all. No job runs while an engine is awake; none is lost when the pool
does not sleep or wake at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from adrs_ray.candidate import Verdict
from adrs_ray.errors import RunError, one_line
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.generator.routing import PoolView
from cluster.wire import Address, WireServer

_log = logging.getLogger(__name__)

Places = Sequence[tuple[str, Sequence[str]]]
"""Of each replica: Ray's id of its node, and its devices as CUDA_VISIBLE_DEVICES names them."""

TURN_BATCHES = 2
"""Batches that one turn may measure, with what arrives meanwhile; then the engines have their turn."""
IDLE_S = 6.0
"""Engines without a request for so long while jobs wait: islands wait for verdicts, so the turn begins."""
LOOK_S = 1.0
"""How often it is looked whether engines are idle."""
RETRY_S = (1.0, 30.0)
"""Between attempts to put the pool to sleep or wake it: at first, and at most."""
GIVE_UP_S = 600.0
"""How long the pool may refuse to sleep, or have no GPU for a turn, before the run ends."""
TRIES = 10
"""Turns in which slots may refuse one job: each time the engines, and with them the slots, may have moved."""
CLOSE_S = 5.0
"""How long engines that sleep are waited for at the end: most are ended right after."""


class SleepingPool(Protocol):
    """What is needed of `cluster.model_pool.ModelPool`. Both may be called again after they failed."""

    async def sleep(self) -> object:
        """When it returns no engine runs, and their memory is free."""
        ...

    async def wake(self) -> object:
        """When it returns all engines answer."""
        ...

    def view(self) -> PoolView:
        """Its servers, with the load that they told last."""
        ...

    def gpus(self) -> Places:
        """Where its replicas are now."""
        ...


class TurnSlots(Protocol):
    """Slots on the devices of engines."""

    def lacks(self, places: Places) -> str | None:
        """Why no job can run on those places, one line; None when one can."""
        ...

    async def evaluate(self, job: EvaluationJob, places: Places) -> Verdict:
        """On one of those places. Raises RunError when none of them takes it now: they may have been lost."""
        ...


@dataclass(frozen=True, slots=True)
class TurnStats:
    """What sharing has cost so far."""

    turns: int = 0
    candidates: int = 0
    """Measured in these turns."""
    waiting: int = 0
    asleep_s: float = 0.0
    """Without models: from the order to sleep until they answer again."""
    to_sleep_s: float = 0.0
    to_wake_s: float = 0.0
    problem: str | None = None
    """One line while the pool does not sleep or wake, or has no GPU for a turn."""

    @property
    def swap_s(self) -> float:
        """Seconds that one turn costs beside its measurements."""
        return (self.to_sleep_s + self.to_wake_s) / self.turns if self.turns else 0.0

    @property
    def candidates_per_turn(self) -> float:
        return self.candidates / self.turns if self.turns else 0.0


@dataclass
class _Waiting:
    job: EvaluationJob
    since: float
    refused: int = 0
    """Turns in which no slot took it."""
    error: str = ""
    """Of the last of these."""
    verdict: asyncio.Future[Verdict] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class GpuTurns:
    """Collects GPU jobs of all islands and measures them in turns, for the driver's event loop."""

    def __init__(self, pool: SleepingPool, slots: TurnSlots, batch: int, wait_s: float) -> None:
        """A turn begins when `batch` jobs wait, the first of them has waited `wait_s`, or the engines are idle."""
        self._pool = pool
        self._slots = slots
        self._batch = batch
        self._wait_s = wait_s
        self._queue: deque[_Waiting] = deque()
        self._known: dict[tuple[str, str, str, int], _Waiting] = {}
        self._arrived = asyncio.Event()
        self._server = WireServer(self, ["evaluate"])
        self._loop: asyncio.Task[None] | None = None
        self._asleep = False
        self._stats = TurnStats()

    async def start(self, host: str) -> Address:
        """Where islands send their jobs."""
        self._loop = asyncio.create_task(self._go_round())
        return await self._server.start(host)

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        """As `adrs_ray.evaluator.Evaluator`. A job that is under way already, for an island that was replaced
        meanwhile, is not measured twice. Raises RunError when the pool or the slots refuse for good."""
        key = (job.candidate, job.stage, job.split, job.repeat)
        waiting = self._known.get(key)
        if waiting is None:
            waiting = self._known[key] = _Waiting(job, time.monotonic())
            waiting.verdict.add_done_callback(lambda _: self._known.pop(key, None))
            self._queue.append(waiting)
            self._arrived.set()
        return await asyncio.shield(waiting.verdict)

    def stats(self) -> TurnStats:
        return replace(self._stats, waiting=len(self._known))

    async def close(self) -> None:
        """End; engines that sleep are woken, for a pool may outlive the run. Takes `CLOSE_S` at most for that."""
        await self._server.close()
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        for waiting in list(self._known.values()):
            waiting.verdict.cancel()
        if self._asleep:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CLOSE_S):
                    await self._pool.wake()
            self._asleep = False

    async def _go_round(self) -> None:
        lacking_since: float | None = None
        while True:
            await self._gathered()
            # Engines that have just been lost have no GPUs now, and will have some: jobs wait for that.
            lack = self._slots.lacks(self._pool.gpus()) or await self._turn()
            if lack is None:
                lacking_since = None
                continue
            self._stats = replace(self._stats, problem=lack)
            now = time.monotonic()
            lacking_since = lacking_since or now
            if now - lacking_since >= GIVE_UP_S:
                self._refuse(RunError(f"no turn on the GPUs of engines for {now - lacking_since:.0f} s: {lack}"))
                lacking_since = None
            await asyncio.sleep(RETRY_S[0])

    async def _turn(self) -> str | None:
        """Why nothing was measured though jobs wait, one line; None when the turn has done what it could."""
        begun = time.monotonic()
        lack: str | None = None
        # From the first try on: whatever became of it, they are woken before anybody counts on them.
        self._asleep = True
        slept = await self._insist(self._pool.sleep, GIVE_UP_S)
        self._add(to_sleep_s=time.monotonic() - begun)
        if not slept:
            self._refuse(RunError(f"the models do not sleep, so that no GPU is free: {self._stats.problem}"))
        else:
            places = list(self._pool.gpus())
            lack = self._slots.lacks(places)
            if lack is None:
                measured, lack = await self._measure(places)
                self._add(turns=1, candidates=measured)
        waking = time.monotonic()
        await self._insist(self._pool.wake, None)
        self._asleep = False
        self._add(to_wake_s=time.monotonic() - waking, asleep_s=time.monotonic() - begun)
        return lack

    async def _gathered(self) -> None:
        """Until a batch waits, the first has waited long enough, or the engines have nothing to do anyhow."""
        busy_at = time.monotonic()
        while len(self._queue) < self._batch:
            now = time.monotonic()
            if not (self._queue and self._idle()):
                busy_at = now
            left = None
            if self._queue:
                left = min(self._queue[0].since + self._wait_s, busy_at + IDLE_S) - now
                if left <= 0:
                    return
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if left is None else min(left, LOOK_S)):
                    await self._arrived.wait()

    def _idle(self) -> bool:
        """Whether every model has a server and none has a request: requests to one that was lost wait for another."""
        servers = self._pool.view().servers.values()
        return bool(servers) and all(each and not any(server.load for server in each) for each in servers)

    async def _insist(self, act: Callable[[], Awaitable[object]], give_up_s: float | None) -> bool:
        """Do it again until it is done; False when it never was for `give_up_s`."""
        begun, pause = time.monotonic(), RETRY_S[0]
        while True:
            try:
                await act()
            except Exception as error:  # whatever the pool meets: the engines' state is unknown, and asked for again
                if not isinstance(error, RunError):
                    _log.warning("the pool does not change its sleep", exc_info=True)
                line = one_line(error)
                self._stats = replace(self._stats, problem=line)
            else:
                self._stats = replace(self._stats, problem=None)
                return True
            if give_up_s is not None and time.monotonic() - begun >= give_up_s:
                return False
            await asyncio.sleep(pause)
            pause = min(2 * pause, RETRY_S[1])

    async def _measure(self, places: Places) -> tuple[int, str | None]:
        """All that waits and what arrives meanwhile, within bounds, until a job is refused.

        How many jobs it was; where it was none, why.
        """
        under_way: set[asyncio.Task[None]] = set()
        back: list[_Waiting] = []
        begun = 0
        try:
            while True:
                self._arrived.clear()
                while self._queue and not back and begun < TURN_BATCHES * self._batch:
                    under_way.add(asyncio.create_task(self._one(self._queue.popleft(), places, back)))
                    begun += 1
                if not under_way:
                    measured = begun - len(back)
                    return measured, back[0].error if back and not measured else None
                arrival = asyncio.create_task(self._arrived.wait())
                await asyncio.wait([*under_way, arrival], return_when=asyncio.FIRST_COMPLETED)
                arrival.cancel()
                under_way = {task for task in under_way if not task.done()}
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
            self._queue.extendleft(sorted(back, key=lambda waiting: waiting.since, reverse=True))

    async def _one(self, waiting: _Waiting, places: Places, back: list[_Waiting]) -> None:
        """Measure it; a job that is refused joins `back`."""
        try:
            verdict = await self._slots.evaluate(waiting.job, places)
        except RunError as error:
            waiting.refused, waiting.error = waiting.refused + 1, str(error)
            if waiting.refused < TRIES:
                back.append(waiting)
            elif not waiting.verdict.done():
                waiting.verdict.set_exception(error)
        except Exception as error:  # the boundary of this task: it is raised where evaluate() is awaited
            if not waiting.verdict.done():
                waiting.verdict.set_exception(error)
        else:
            if not waiting.verdict.done():
                waiting.verdict.set_result(verdict)

    def _refuse(self, error: RunError) -> None:
        while self._queue:
            self._queue.popleft().verdict.set_exception(error)

    def _add(self, **more: float) -> None:
        self._stats = replace(self._stats, **{name: getattr(self._stats, name) + value for name, value in more.items()})
