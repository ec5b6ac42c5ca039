"""One run from start to end, around islands that live somewhere: seeds, supervision, commands, draining, the end.

Local runs and Ray runs differ only in the `IslandHost`, the ledger and the evaluator they pass in.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from adrs_ray import commands
from adrs_ray.budget import Progress, stop_reason
from adrs_ray.candidate import Verdict
from adrs_ray.checkup import RunCheckup
from adrs_ray.errors import UsageError
from adrs_ray.generator.mailbox import deliver
from adrs_ray.island import SEED_ISLAND
from adrs_ray.judgement import Judgement
from adrs_ray.ledger import Leader, RunPast, RunStatus
from adrs_ray.planting import Planting, Seed, seed_candidates
from adrs_ray.runner import IslandLedger, IslandParts
from adrs_ray.storage.journal import Event, EventKind, settled_id
from adrs_ray.storage.runfolder import Command, RunFolder
from adrs_ray.supervision.contamination import Nearness
from adrs_ray.task import Split, Task

__all__ = ["IslandHost", "RunResult", "Search", "SearchLedger", "Seed", "StopSwitch", "seed_candidates"]

SUPERVISION_INTERVAL_S = 0.25
HEALTH_INTERVAL_S = 5.0

_log = logging.getLogger(__name__)


class SearchLedger(IslandLedger, Protocol):
    """What the supervisor needs of the journal's owner beyond what an island needs."""

    async def status(self) -> RunStatus: ...

    async def past(self) -> RunPast:
        """What run-wide detectors look at."""
        ...

    async def close_purse(self) -> None:
        """Grant no more candidates: the run drains."""
        ...


class IslandHost(Protocol):
    """Where islands live."""

    async def run_island(self, number: int) -> None:
        """Run an island until the ledger grants it no more; replaces it when it is lost.

        Raises RunError when the run cannot go on.
        """
        ...

    async def drain(self) -> None:
        """Let islands begin nothing new; called again and again while the run drains, so it must not wait for them."""
        ...


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended.

    `champion` is the best on train so far when the run was stopped. `verdicts[name][split]` holds the champion,
    `seed-0` and baselines on the held-out splits.
    """

    reason: str
    finished: bool
    """False when it was stopped by a person and can be resumed."""
    status: RunStatus
    champion: Leader | None
    champion_source: str | None
    """As the journal has it: of an isomorphic run, in the names that models were told."""
    wall_s: float
    verdicts: dict[str, dict[Split, Verdict]] = field(default_factory=dict)
    nearest: tuple[Nearness, ...] = ()
    """Known programs that the champion resembles most."""


class StopSwitch:
    """Set by a signal or a command: the run drains. The first reason counts."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.since = time.time()
        """When this start of the run began; a stop asked for before was meant for an earlier one."""
        self.ended = False
        """The search is over and recorded."""

    def drain(self, reason: str) -> None:
        self.reason = self.reason or reason


class Search:
    """The supervisor of a run."""

    def __init__(
        self,
        task: Task,
        parts: IslandParts,
        folder: RunFolder,
        ledger: SearchLedger,
        host: IslandHost,
        on_status: Callable[[RunStatus], None],
        stop: StopSwitch,
    ) -> None:
        """`ledger` is that of `parts`, with what a supervisor needs."""
        self._task = task
        self._config = parts.config
        self._folder = folder
        self._ledger = ledger
        self._host = host
        self._on_status = on_status
        self._stop = stop
        self._models = parts.models
        self._replays = bool(parts.scripts)
        self._draining = asyncio.Event()
        self._planting = Planting(parts, task.name, self._draining)
        self._judgement = Judgement(task, parts.config, folder, ledger, parts.evaluator)
        self._checkup = RunCheckup(parts.config.health, task.spec.metrics)
        self._started = time.monotonic()
        self._examined = self._started
        self._background: set[asyncio.Task[None]] = set()
        self._islands: dict[int, asyncio.Task[None]] = {}
        self._numbers = set(range(parts.config.islands.count))
        """Of all islands that ever were."""
        self._retired: set[int] = set()
        self._gone: set[int] = set()
        """Retired islands whose grants were given back."""
        self._begin_again: set[int] = set()
        """Islands that begin once more when they have ended: they may have found nothing granted, and there is more."""

    async def run(self, seeds: Sequence[Seed], baselines: bool = True) -> RunResult:
        """Run to the end of the budget or until stopped. `seeds` count in a new run only, by default the task's seed.

        Raises RunError with one line when it cannot go on: no seed is valid, the journal refuses.
        """
        await self._planting.settle(seeds)
        try:
            await self._take_up()
            await self._look()
            await self._with_supervision()
            await asyncio.gather(*self._background, *self._judgement.background)
        finally:
            await _cancel([*self._background, *self._judgement.background])
        status = await self._ledger.status()
        self._on_status(status)
        reason = self._stop.reason or f"all {status.candidates} candidates are done"
        if self._stop.reason is None and self._retired >= self._numbers:
            reason = f"all islands are retired, {status.candidates} candidates are done"
        finished = not (self._stop.reason or "").startswith("stopped")
        return await self._finish(reason, finished, baselines)

    async def _with_supervision(self) -> None:
        """The seeding phase, then the islands, until every one has ended; the supervisor beside them."""
        supervisor = asyncio.create_task(self._supervise())
        growing = asyncio.create_task(self._planting.grow())
        try:
            await _first_error([growing, supervisor], until=lambda: [growing])
            self._islands = {n: self._island(n) for n in sorted(self._numbers)}
            await _first_error([supervisor], until=self._under_way)
        finally:
            await _cancel([growing, supervisor, *self._islands.values()])

    def _under_way(self) -> list[asyncio.Task[None]]:
        """The islands; they begin again at their end when the budget grew or a retired one gave grants back."""
        given_back = {n for n in self._retired - self._gone if n in self._islands and self._islands[n].done()}
        if given_back:
            self._gone |= given_back
            self._begin_again |= self._islands.keys()
        self._begin_again -= self._retired
        for number in sorted(self._begin_again) if self._stop.reason is None else ():
            if self._islands[number].done():
                self._islands[number].result()
                self._islands[number] = self._island(number)
                self._begin_again.remove(number)
        return list(self._islands.values())

    def _island(self, number: int) -> asyncio.Task[None]:
        return asyncio.create_task(self._host.run_island(number))

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(SUPERVISION_INTERVAL_S)
            await self._look()

    async def _look(self) -> None:
        """Show the status, obey commands, keep the best program on disk, judge new bests on validation, stop."""
        status = await self._ledger.status()
        self._on_status(status)
        if not self._replays:
            if await self._obey_commands(status):
                status = await self._ledger.status()
            await self._judgement.care_for_best(status)
            await self._examine(status)
        progress = Progress(
            candidates=status.candidates,
            wall_s=time.monotonic() - self._started,
            best_score=status.leaders[0].score if status.leaders else None,
            since_best=status.since_best,
            exhausted=status.exhausted,
        )
        reason = stop_reason(progress, self._config.budget)
        # At the limit itself there is nothing left to drain; above it somebody has lowered it.
        if reason is not None and status.candidates != self._config.budget.max_candidates:
            self._stop.drain(reason)
        if self._stop.reason is not None:
            self._draining.set()
            await self._ledger.close_purse()
            await self._host.drain()

    async def _examine(self, status: RunStatus) -> None:
        """Look for what is wrong with the run as a whole; it is told, and acted on by people."""
        now = time.monotonic()
        if not self._config.health.enabled or now - self._examined < HEALTH_INTERVAL_S:
            return
        self._examined = now
        past = await self._ledger.past()
        events = self._checkup.look(past, status, self._config.budget, now - self._started, past.growth)
        if events:
            await self._ledger.append(events, self._ledger.epoch)

    # -- commands ----------------------------------------------------------------------------------------------------

    async def _take_up(self) -> None:
        """What earlier starts found and were told: cool-downs, islands that came and went, injections, answers."""
        for event in await self._ledger.read(kinds=[EventKind.FOUND], island=SEED_ISLAND):
            self._checkup.recall(event)
        for event in await self._ledger.read(kinds=[EventKind.COMMAND], island=SEED_ISLAND):
            kind, body = event.body["kind"], event.body["body"]
            if kind == "spawn":
                self._numbers.add(body["island"])
            elif kind == "retire":
                self._retired.add(body["island"])
            elif kind == "inject":
                self._inject(event.id.removeprefix("command:"), body["source"])
            elif kind == "answer":
                deliver(self._models, body)

    async def _obey_commands(self, status: RunStatus) -> bool:
        """Obey what was posted since; whether there was anything."""
        pending = self._folder.pending_commands(set(status.commands))
        for command in pending:
            try:
                body = await self._checked(command, status)
            except UsageError as error:
                _log.warning("command %s is refused: %s", command.id, error)
                await self._journal(command, "refused", {"kind": command.kind[:100], "why": str(error)})
                continue
            if command.kind == "budget":
                # Before it is journaled: obeyed once more by the next start if we are killed in between.
                self._config = commands.rebudgeted(self._config, body["values"])
                self._folder = self._folder.rewrite(self._config, self._folder.local)
            await self._journal(command, command.kind, body)
            await self._obey(command, body)
        return bool(pending)

    async def _checked(self, command: Command, status: RunStatus) -> dict[str, Any]:
        """The body of a command as it is journaled. Raises UsageError when it cannot be obeyed."""
        body = commands.checked(command.kind, command.body)
        if command.kind == "spawn":
            body["island"] = max(self._numbers) + 1
        if command.kind == "budget":
            commands.rebudgeted(self._config, body["values"])
        island = body.get("island")
        if command.kind != "spawn" and island is not None and island not in self._numbers:
            known = ", ".join(map(str, sorted(self._numbers)))
            raise UsageError(f"there is no island {island}: the run has {known}")
        if command.kind in ("pin", "ban"):
            name = body["candidate"]
            found = await self._ledger.find([settled_id(name)])
            if not found or found[settled_id(name)].kind is not EventKind.ADMITTED:
                raise UsageError(f"there is no valid candidate {name}")
        return body

    async def _journal(self, command: Command, kind: str, body: dict[str, Any]) -> None:
        event = Event(f"command:{command.id}", EventKind.COMMAND, None, SEED_ISLAND, {"kind": kind, "body": body})
        await self._ledger.append([event], self._ledger.epoch)

    async def _obey(self, command: Command, body: dict[str, Any]) -> None:
        """What the run itself does about a command; islands hear of it through the journal."""
        if command.kind == "stop" and command.posted_at >= self._stop.since:
            self._stop.drain("stopped by `adrs stop`")
        elif command.kind == "spawn":
            self._numbers.add(body["island"])
            if self._islands:
                self._islands[body["island"]] = self._island(body["island"])
        elif command.kind == "retire":
            self._retired.add(body["island"])
        elif command.kind == "budget" and "max_candidates" in body["values"]:
            self._begin_again |= self._islands.keys()
        elif command.kind == "inject":
            self._inject(command.id, body["source"])
        elif command.kind == "answer":
            deliver(self._models, body)

    def _inject(self, command: str, source: str) -> None:
        async def inject() -> None:
            problem = await self._planting.inject(command, source)
            if problem is not None:
                _log.warning("the program injected by %s is left out: %s", command, problem)

        self._background.add(asyncio.create_task(inject()))

    # -- the end -----------------------------------------------------------------------------------------------------

    async def _finish(self, reason: str, finished: bool, baselines: bool) -> RunResult:
        """Top k on validation, the champion once on test, beside it the seed and the baselines."""
        end = await self._judgement.final(finished, baselines)
        status = await self._ledger.status()
        wall_s = time.monotonic() - self._started
        body = {
            "reason": reason,
            "wall_s": wall_s,
            "candidates": status.candidates,
            # The best on train that no held-out split was asked about is no champion.
            "champion": end.champion.candidate if end.champion and finished else None,
        }
        event = Event(f"run_ended:{self._ledger.epoch}", EventKind.RUN_ENDED, None, SEED_ISLAND, body)
        await self._ledger.append([event], self._ledger.epoch)
        self._stop.ended = True
        return RunResult(reason, finished, status, end.champion, end.source, wall_s, end.verdicts, nearest=end.nearest)


async def _first_error(beside: Sequence[asyncio.Task[None]], until: Callable[[], Sequence[asyncio.Task[None]]]) -> None:
    """Wait until all of `until()`, which may grow, are done; raise the first error of any task at once."""
    while True:
        waited = until()
        for task in (*waited, *beside):
            if task.done():
                task.result()
        open_ones = [task for task in waited if not task.done()]
        if not open_ones:
            return
        both = [*open_ones, *(task for task in beside if not task.done())]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED, timeout=SUPERVISION_INTERVAL_S)


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel and wait until they have ended: none of them writes afterwards."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
