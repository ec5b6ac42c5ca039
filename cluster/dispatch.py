"""Jobs of one process on many slots that other processes use, too.

A job is sent to a slot that is believed free. A slot that is taken says so at once; the process then stands in line
there and at a few others, and whichever is kept for it first is sent the job that has waited longest. Slots that do not
answer are called again until they do. Nothing passes a process in the middle.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from adrs_ray.candidate import Failure, FailureKind, Verdict
from adrs_ray.errors import RunError, UsageError
from adrs_ray.evaluator import EvaluationJob
from cluster.wire import ConnectionLostError

_log = logging.getLogger(__name__)

POISON_DEATHS = 2
"""Worker processes that may die under one candidate, on nodes that live on, before it is given up."""
LOSSES_ALLOWED = 10
"""Slots that may be lost under one candidate for whatever reason, nodes that died included."""
SLOTS_GONE_S = 600.0
"""How long jobs wait when no slot can take any."""
LINES_PER_JOB = 8
"""Lines to stand in for each job that waits, before slots that may be free are not asked any more: more would find a
free slot sooner, and cost calls at every slot that is passed on unused."""
WATCH_S = 1.0
"""How often waiting jobs look for a slot that has become free unnoticed."""
STALE_S = 10.0
"""Without a verdict or a turn for so long, the slots in whose lines we stand are asked how they are."""
POLL_S = 0.02
"""How often a start looks whether the slots have come up."""
RETRY_S = (0.2, 5.0)
"""Between two calls to a slot that does not answer: at first, and at most."""


class UnreachableError(ConnectionLostError):
    """No connection, so that nothing was sent."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a slot says to a job."""

    verdict: Verdict | None
    """None: it is taken, or takes no jobs now."""
    free: bool
    """Nobody waits for it."""
    spoilt: bool = False
    """It was judged, and the verdict is not given: the slot's device is in trouble."""


class SlotLink(Protocol):
    """One slot as one process sees it. All raise ConnectionLostError when it does not answer."""

    async def meet(self) -> None:
        """Until it is ready to judge. Raises UsageError when its node cannot, UnreachableError when it is away;
        anything else that it raises counts as away, too."""
        ...

    async def evaluate(self, job: EvaluationJob) -> Answer:
        """Raises UnreachableError when the job was not sent, and what the evaluator raises."""
        ...

    async def stand_in_line(self) -> None:
        """Until it is kept for us."""
        ...

    async def leave(self) -> None:
        """It need not be kept for us."""
        ...

    async def refusal(self) -> str | None:
        """Why it takes no jobs; None when it does."""
        ...

    async def died(self) -> bool:
        """After a loss: whether its process died while its node lives on."""
        ...


class _State(Enum):
    AWAY = "away"
    FREE = "free"
    """Believed so."""
    OURS = "ours"
    """A job of ours is there, or about to be."""
    LINE = "line"


class Dispatcher:
    """Slots of one kind, for one event loop; `name` says in messages what they are.

    `missing` tells in a few words what the cluster lacks, when no slot can take a job any more.
    """

    def __init__(
        self,
        name: str,
        links: Sequence[SlotLink],
        missing: Callable[[], Awaitable[str]],
        order: Sequence[int] | None = None,
        gone_s: float = SLOTS_GONE_S,
    ) -> None:
        """`order`: in which slots are tried at first, so that not all processes begin with the same ones."""
        self._name = name
        self._links = list(links)
        self._missing = missing
        self._gone_s = gone_s
        self._state = [_State.AWAY] * len(self._links)
        self._order = range(len(self._links)) if order is None else order
        self._free: deque[int] = deque()
        """Believed free, those that we know best at the right."""
        self._waiting: deque[asyncio.Future[int]] = deque()
        self._lines = 0
        self._refusals: dict[int, str] = {}
        self._problem = ""
        """What the last slot that could not be met said."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None
        self._opened = False
        self._moved_at = 0.0
        self._closed = False

    def open(self) -> None:
        """Begin to meet the slots, if that has not been begun."""
        if not self._opened:
            self._opened = True
            for slot in self._order:
                self._begin(self._meet(slot))

    async def ready(self, patience_s: float) -> None:
        """Until every slot is met, or `patience_s` after the first was.

        Raises UsageError when a node cannot judge, RunError when no slot is met within `gone_s`.
        """
        self.open()
        loop = asyncio.get_running_loop()
        begun, first = loop.time(), None
        while not all(map(self.answers, range(len(self._links)))):
            if self._refusals:
                raise UsageError(next(iter(self._refusals.values())))
            first = first or (loop.time() if self.usable else None)
            if first is not None and loop.time() - first >= patience_s:
                return
            if first is None and loop.time() - begun >= self._gone_s:
                raise RunError(f"no slot for {self._name} has come up in {self._gone_s:.0f} s: {await self._lacks()}")
            await asyncio.sleep(POLL_S)

    def answers(self, slot: int) -> bool:
        """Whether it was met and is not lost since, as far as known."""
        return self._state[slot] is not _State.AWAY

    @property
    def usable(self) -> int:
        """Slots that answer and take jobs, as far as known."""
        return sum(s is not _State.AWAY and i not in self._refusals for i, s in enumerate(self._state))

    @property
    def refusals(self) -> dict[int, str]:
        """Why slots take no jobs, by number."""
        return dict(self._refusals)

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        """As `adrs_ray.evaluator.Evaluator`. A candidate under which processes die or devices fail is given up.

        Raises RunError when no slot can take it for `gone_s` seconds.
        """
        self.open()
        losses = deaths = spoilt = refused = 0
        while True:
            slot = await self._turn(again=losses + refused > 0)
            try:
                answer = await self._links[slot].evaluate(replace(job, attempts=job.attempts + losses))
            except UnreachableError:
                self._lose(slot)
                continue
            except ConnectionLostError:
                self._lose(slot)
                losses += 1
                deaths += await self._links[slot].died()
                if (failure := _given_up(job, losses, deaths, spoilt)) is not None:
                    return failure
                continue
            except BaseException:
                self._offer(slot)
                raise
            self._moved_at = asyncio.get_running_loop().time()
            if answer.verdict is None:
                refused += 1
                self._join(slot)
                if answer.spoilt:
                    losses, spoilt = losses + 1, spoilt + 1
                    if (failure := _given_up(job, losses, deaths, spoilt)) is not None:
                        return failure
                continue
            if answer.free:
                self._offer(slot)
            elif self._jobs_wait():
                self._join(slot)
            else:
                self._state[slot] = _State.FREE
                self._free.appendleft(slot)
            return answer.verdict

    async def close(self) -> None:
        """Stop watching; jobs that wait are cancelled."""
        self._closed = True
        for place in self._waiting:
            place.cancel()
        tasks = [task for task in (*self._tasks, self._watching) if task is not None and not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _turn(self, again: bool) -> int:
        """A slot to send a job to: one that is believed free, or the first that is kept for us.

        A job that was sent before (`again`) goes to the front.
        """
        place: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if again:
            self._waiting.appendleft(place)
        else:
            self._waiting.append(place)
        if self._lines < LINES_PER_JOB * len(self._waiting):
            self._serve()
        if not place.done():
            self._watch()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self._offer(place.result())
            raise

    def _serve(self) -> None:
        """Give the slot that is known best to be free to the job that has waited longest."""
        while self._waiting and self._free:
            place = self._waiting.popleft()
            if not place.done():
                slot = self._free.pop()
                self._state[slot] = _State.OURS
                place.set_result(slot)
                return

    def _offer(self, slot: int) -> None:
        """`slot` is free or kept for us."""
        self._state[slot] = _State.FREE
        self._free.append(slot)
        self._serve()

    def _join(self, slot: int) -> None:
        """`slot` is somebody else's now: stand in its line."""
        self._state[slot] = _State.LINE
        self._lines += 1
        self._begin(self._stand_in_line(slot))

    def _jobs_wait(self) -> bool:
        return any(not place.done() for place in self._waiting)

    async def _stand_in_line(self, slot: int) -> None:
        link = self._links[slot]
        try:
            try:
                await link.stand_in_line()
            finally:
                self._lines -= 1
            self._moved_at = asyncio.get_running_loop().time()
            self._refusals.pop(slot, None)
            if not self._jobs_wait():
                await link.leave()
        except Exception as error:  # the boundary of this task: whatever a slot says, it is met again
            self._problem = _noted(error)
            self._lose(slot)
            return
        self._offer(slot)

    def _lose(self, slot: int) -> None:
        if self._state[slot] is not _State.AWAY:
            if slot in self._free:
                self._free.remove(slot)
            self._state[slot] = _State.AWAY
            self._begin(self._meet(slot))

    async def _meet(self, slot: int) -> None:
        """Call a slot until it is ready."""
        pause = RETRY_S[0]
        while not self._closed:
            try:
                await self._links[slot].meet()
            except UsageError as error:
                self._refusals[slot] = str(error)
                pause = RETRY_S[1]
            except Exception as error:  # the boundary of this task: one slot must not be lost for an odd error
                self._problem = _noted(error)
            else:
                self._problem = ""
                self._refusals.pop(slot, None)
                self._offer(slot)
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, RETRY_S[1])

    def _begin(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _watch(self) -> None:
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._keep_watch())

    async def _keep_watch(self) -> None:
        """While jobs wait: try slots that may have become free, and see whether there are any left at all."""
        loop = asyncio.get_running_loop()
        gone_since: float | None = None
        asked_at = self._moved_at = max(self._moved_at, loop.time())
        while self._jobs_wait():
            self._serve()
            if min(loop.time() - self._moved_at, loop.time() - asked_at) >= STALE_S:
                asked_at = loop.time()
                await self._ask_lines()
            if self.usable:
                gone_since = None
            elif gone_since is None:
                gone_since = loop.time()
            elif loop.time() - gone_since >= self._gone_s:
                await self._give_up(loop.time() - gone_since)
                return
            await asyncio.sleep(min(WATCH_S, self._gone_s / 2))

    async def _ask_lines(self) -> None:
        lines = [slot for slot, state in enumerate(self._state) if state is _State.LINE]
        for slot, said in zip(lines, await asyncio.gather(*map(self._refusal, lines)), strict=True):
            if said is None:
                self._refusals.pop(slot, None)
            else:
                self._refusals[slot] = said

    async def _refusal(self, slot: int) -> str | None:
        try:
            async with asyncio.timeout(STALE_S):
                return await self._links[slot].refusal()
        except TimeoutError:
            return f"it has not answered for {STALE_S:g} s"
        except ConnectionLostError:
            return None  # whoever stands in its line hears of it, too
        except Exception as error:  # jobs wait for the watch that asks
            return _noted(error)

    async def _lacks(self) -> str:
        missing = await self._missing()
        return f"{missing}; the last one said: {self._problem}" if self._problem else missing

    async def _give_up(self, waited_s: float) -> None:
        said = next(iter(self._refusals.values()), "") or await self._lacks()
        error = RunError(f"no slot for {self._name} has taken a job for {waited_s:.0f} s: {said}")
        waiting, self._waiting = self._waiting, deque()
        for place in waiting:
            if not place.done():
                place.set_exception(error)


def told(error: BaseException) -> str:
    """An error in one line, with its kind where that is not ours: a bare `KeyError` says little by its text."""
    line = " ".join(str(error).split())[:200]
    if isinstance(error, (ConnectionLostError, RunError)) and line:
        return line
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _noted(error: Exception) -> str:
    """As `told`; the traceback of what is neither ours nor a lost connection is kept."""
    if not isinstance(error, (ConnectionLostError, RunError)):
        _log.warning("a slot met an odd error", exc_info=error)
    return told(error)


def _given_up(job: EvaluationJob, losses: int, deaths: int, spoilt: int) -> Failure | None:
    """What becomes of a candidate under which slots were lost or their devices failed; None: it is tried again.

    Losses in earlier lives of the run count as deaths once a process has died under it here: alone they only say that
    the run was killed.
    """
    earlier = job.attempts if deaths else 0
    if deaths + spoilt and earlier + deaths + spoilt >= POISON_DEATHS:
        before = f", {earlier} of them with an earlier life of the run" if earlier else ""
        what = "evaluator processes died or their devices failed" if spoilt else "evaluator processes died"
        text = f"quarantined: {earlier + deaths + spoilt} {what} while they judged it{before}"
    elif losses > LOSSES_ALLOWED:
        text = f"quarantined: {losses} slots were lost while they judged it"
    else:
        return None
    return Failure(FailureKind.INFRASTRUCTURE, text, attempts=job.attempts + losses)
