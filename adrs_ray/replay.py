"""A run again, from a cassette: strictly, with its verdicts and in its order, or loosely, with completions alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from adrs_ray.cassette import LOOSELY, Cassette, difference, facts_of
from adrs_ray.commands import checked
from adrs_ray.config import BudgetConfig, RunConfig, override
from adrs_ray.errors import RunError, UsageError
from adrs_ray.evaluator import Evaluator
from adrs_ray.evaluator.replayed import CassetteEvaluator
from adrs_ray.evaluator.staged import local_evaluator
from adrs_ray.generator import Models
from adrs_ray.generator.mutate import MutationModel
from adrs_ray.generator.replayed import CassetteModel
from adrs_ray.island import SEED_ISLAND
from adrs_ray.ledger import Ledger, RunStatus
from adrs_ray.local import LocalHost, turnstile
from adrs_ray.order import Order
from adrs_ray.prompt.brief import brief_of
from adrs_ray.runner import IslandParts
from adrs_ray.search import RunResult, Search, StopSwitch
from adrs_ray.selector.arms import MAILBOX
from adrs_ray.storage.journal import SETTLED, Event, EventKind, Journal, settled_id
from adrs_ray.storage.runfolder import RunFolder
from adrs_ray.storage.sqlite import SqliteJournal
from adrs_ray.task import Task

STALL_S = 30.0
"""A strict replay waits for nothing outside of it: when no event comes for so long, it never will."""
OnStatus = Callable[[RunStatus], None]


@dataclass(frozen=True, slots=True)
class Replayed:
    """How a strict replay ended."""

    result: RunResult
    difference: str | None
    """The first thing in which it differs from the recording; None when it is identical."""


def config_of(cassette: Cassette, slots: int | None) -> RunConfig:
    """What run.yaml of a replay says."""
    return override(cassette.config, {"evaluator.slots": slots})


def cassette_models(cassette: Cassette, strict: bool) -> Models:
    """The generators that the recorded run had: one from the cassette, and the model-free one, which is exact."""
    generator = cassette.config.generator
    recorded = CassetteModel(cassette, strict)
    mutator = MutationModel(redraws=generator.redraws, max_mutations=generator.max_mutations)
    return {**dict.fromkeys([*cassette.config.models, MAILBOX], recorded), "mutate": mutator}


async def replay_strictly(
    cassette: Cassette, task: Task, folder: RunFolder, slots: int, on_status: OnStatus
) -> Replayed:
    """Run it again in `folder`, without models and without running candidates; `refuse_unfit` has let it pass.

    Raises RunError when the replay leaves the recording.
    """
    journal = await asyncio.to_thread(SqliteJournal.open, folder.journal)
    try:
        models, evaluator = cassette_models(cassette, strict=True), CassetteEvaluator(cassette, slots)
        return await rerun(cassette, task, folder, journal, models, evaluator, on_status)
    finally:
        await journal.close()


async def replay_loosely(cassette: Cassette, task: Task, folder: RunFolder, on_status: OnStatus) -> RunResult:
    """A new run in `folder` with the recorded completions; candidates are evaluated on this machine.

    Raises UsageError when this machine cannot judge, RunError when the run cannot go on.
    """
    config = folder.config
    journal = await asyncio.to_thread(SqliteJournal.open, folder.journal)
    try:
        ledger = await Ledger.open(journal, config)
        await ledger.start_epoch()
        async with local_evaluator(task, config.evaluator) as evaluator:
            models = cassette_models(cassette, strict=False)
            parts = IslandParts(config, brief_of(task, config), models, evaluator, ledger, turnstile(evaluator, config))
            search = Search(task, parts, folder, ledger, LocalHost(parts), on_status, StopSwitch())
            return await search.run(cassette.seeds, cassette.baselines)
    finally:
        await journal.close()


async def rerun(
    cassette: Cassette,
    task: Task,
    folder: RunFolder,
    journal: Journal,
    models: Models,
    evaluator: Evaluator,
    on_status: OnStatus,
    stall_s: float = STALL_S,
) -> Replayed:
    """A strict replay over an empty journal, with models and an evaluator that give what the cassette has."""
    config = cassette.config
    asks = sum(script.count("a") for number, script in cassette.scripts.items() if number != SEED_ISLAND)
    seeded = sum(ended.startswith("seed-") for ended in cassette.ended)
    # What ended the recorded run early is no limit of this one; islands go on reckoning with the limits it had.
    limits = config.model_copy(update={"budget": BudgetConfig(max_candidates=seeded + asks)})
    ledger = _OrderedLedger(journal, limits, cassette.ended)
    await ledger.start_epoch()
    commands = {command.id: command.event() for command in cassette.commands}
    scripts = {number: cassette.scripts.get(number, ()) for number in range(SEED_ISLAND, config.islands.count)}
    parts = IslandParts(config, brief_of(task, config), models, evaluator, ledger, None, dict(scripts), commands)
    stop = StopSwitch()

    async def end() -> None:
        await ledger.append(list(commands.values()), ledger.epoch)
        stop.drain(cassette.reason)

    host = _ReplayHost(parts, end)
    search = Search(task, replace(parts, config=limits), folder, ledger, host, on_status, stop)
    result = await _unless_stalled(search.run(cassette.seeds, cassette.baselines), ledger, stall_s)
    return Replayed(result, difference(cassette.facts, facts_of(await journal.read())))


def refuse_unfit(cassette: Cassette, task: Task) -> None:
    """Raises UsageError, one line, for a recording that cannot be replayed strictly here, and says why."""
    if cassette.obstacle is not None:
        raise UsageError(f"this recording cannot be replayed strictly: {cassette.obstacle}; {LOOSELY}")
    if not cassette.seeds or cassette.seeds[0].source != task.seed_source:
        raise UsageError(f"the seed of task {task.name} is another one than was recorded; {LOOSELY}")
    for command in cassette.commands:
        if command.kind != "refused":
            checked(command.kind, command.body)
    obeyed = {step[1:] for script in cassette.scripts.values() for step in script if step.startswith("c")}
    if obeyed - {command.id for command in cassette.commands}:
        raise UsageError(f"this recording lacks commands that its islands obeyed; {LOOSELY}")


class _OrderedLedger(Ledger):
    """Records ends of candidates in the recorded order, whichever island comes first: of equal scores the first leads.

    Commands are recorded once every island has begun: one that begins would obey them at once.
    """

    def __init__(self, journal: Journal, config: RunConfig, ended: Sequence[str]) -> None:
        super().__init__(journal, config)
        self._ends = Order([settled_id(name) for name in ended])
        self._next = list(reversed(ended))
        self._ahead = set(range(config.islands.count))
        """Islands that have not begun."""
        self._all_began = asyncio.Event()
        self.appends = 0

    async def append(self, batch: Sequence[Event], epoch: int) -> list[Event]:
        """As `Ledger.append`. Raises RunError for an end that was not recorded."""
        for event in batch:
            if event.kind in SETTLED:
                await self._ends.turn(event.id)
                self._next.pop()
            elif event.kind is EventKind.COMMAND:
                await self._all_began.wait()
        recorded = await super().append(batch, epoch)
        self.appends += 1
        self._ahead -= {e.island for e in batch if e.kind is EventKind.GRANT and "reopened" in e.body}
        if not self._ahead:
            self._all_began.set()
        return recorded

    def _obey(self, event: Event) -> None:
        """Limits that were changed are none here either."""
        if event.body["kind"] != "budget":
            super()._obey(event)

    @property
    def awaited(self) -> str:
        """The candidate whose end is next."""
        return self._next[-1] if self._next else "the end"


class _ReplayHost(LocalHost):
    """Does something when the last island has ended."""

    def __init__(self, parts: IslandParts, at_end: Callable[[], Awaitable[None]]) -> None:
        super().__init__(parts)
        self._left = parts.config.islands.count
        self._at_end = at_end

    async def run_island(self, number: int) -> None:
        await super().run_island(number)
        self._left -= 1
        if not self._left:
            await self._at_end()


async def _unless_stalled(run: Awaitable[RunResult], ledger: _OrderedLedger, stall_s: float) -> RunResult:
    """The result of a run. Raises RunError when nothing has been recorded for `stall_s` seconds."""
    running = asyncio.ensure_future(run)
    try:
        while True:
            before = ledger.appends
            await asyncio.wait({running}, timeout=stall_s)
            if running.done():
                return running.result()
            if ledger.appends == before:
                raise RunError(
                    f"replay: {ledger.awaited} does not come as it was recorded: config, task or code differ; {LOOSELY}"
                )
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
