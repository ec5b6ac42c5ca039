"""The loop of one island over Models, Evaluator and Ledger: ask, generate, record, evaluate, record, tell.

The same code runs in `adrs run --local` and in a Ray actor. Barriers: a program is acknowledged by the journal before
it is evaluated, a verdict before the next decision that depends on it; what is paid for, before it is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from adrs_ray.candidate import Candidate
from adrs_ray.checkup import Checkup
from adrs_ray.config import RunConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import Evaluator
from adrs_ray.generation import Generation, LeftOpenError, NoBudgetError, RequestLedger
from adrs_ray.generator import Models
from adrs_ray.generator.mailbox import deliver
from adrs_ray.island import SEED_ISLAND, Island
from adrs_ray.measuring import measure
from adrs_ray.order import Order, last_steps
from adrs_ray.outcome import Standing
from adrs_ray.prompt import TaskBrief
from adrs_ray.prompter import Prompter
from adrs_ray.proposal import Proposal
from adrs_ray.restoring import Restored, restore, retaken
from adrs_ray.selector.arms import small_model
from adrs_ray.steering import absorb, obey
from adrs_ray.storage.events import (
    candidate_of,
    elite_of,
    generated_event,
    lost_event,
    migrated_event,
    noted_event,
    screened_out_event,
)
from adrs_ray.storage.journal import Event, EventKind, text_ref

GRANT_BLOCK = 32
"""Candidates an island asks for at once; the ledger gives fewer as the budget runs out."""
LISTENING_INTERVAL_S = 0.5
"""Between two looks for commands, answers and injected programs."""


class IslandLedger(RequestLedger, Protocol):
    """What an island needs of the journal's owner (`adrs_ray.ledger.Ledger`, or its Ray client)."""

    async def read(
        self,
        after_seq: int = 0,
        kinds: Iterable[EventKind] | None = None,
        island: int | None = None,
        limit: int | None = None,
    ) -> list[Event]: ...

    async def grant(self, island: int, want: int, request: str) -> int:
        """Permission for up to `want` more candidates; 0 means this island is done. Idempotent by `request`."""
        ...

    async def give_back(self, island: int, count: int, request: str) -> None:
        """`count` granted candidates will not be tried by this island. Idempotent by `request`."""
        ...

    async def reopen(self, island: int, pending: int, request: str) -> None:
        """An island starts with `pending` candidates already under way. Idempotent by `request`."""
        ...


@dataclass(frozen=True, slots=True)
class IslandParts:
    """What an island is made of; the same values for every island of a run."""

    config: RunConfig
    brief: TaskBrief
    models: Models
    evaluator: Evaluator
    ledger: IslandLedger
    turnstile: asyncio.Semaphore | None = None
    """Candidates pass it one by one from decision to verdict, which makes runs repeatable."""
    scripts: dict[int, Sequence[str]] = field(default_factory=dict)
    """Recorded orders by island, in a strict replay (`adrs_ray.order`)."""
    commands: Mapping[str, Event] = field(default_factory=dict)
    """Recorded COMMAND events by command id, in a strict replay."""


class IslandLoop:
    """Drives one island until the ledger grants no more."""

    def __init__(self, number: int, parts: IslandParts) -> None:
        config = parts.config
        self.island = Island(number, config, parts.brief)
        self._config = config.for_island(number)
        self._models = parts.models
        self._evaluator = parts.evaluator
        self._ledger = parts.ledger
        self._brief = parts.brief
        self._commands = parts.commands
        self._order = Order(parts.scripts.get(number))
        self._draining = asyncio.Event()
        self._prompter = Prompter(parts.brief, self._config, parts.ledger)
        self._generation = Generation(
            self.island, self._config, parts.models, parts.ledger, self._prompter, self._order, self._draining
        )
        self._checkup = Checkup(config.health)
        self._turn: AbstractAsyncContextManager[object] = parts.turnstile or contextlib.nullcontext()
        self._workers: list[asyncio.Task[None]] = []
        self._pending: deque[tuple[Candidate, int]] = deque()
        self._unanswered: deque[tuple[Proposal, tuple[Event, ...]]] = deque()
        """Decisions of earlier lives whose requests have led to no program yet, with the events of these requests."""
        self._start = uuid.uuid4().hex[:12]
        """Names this start of the island in requests that may be repeated."""
        self._grant_requests = 0
        self._granted = 0
        self._begun = 0
        """Candidates taken from grants."""
        self._grant_lock = asyncio.Lock()
        self._heard = 0
        """Position up to which commands and seeds were read."""
        self._migrants_read = 0
        self._acknowledged = 0
        """The highest seq this island has seen acknowledged."""

    async def run(self) -> None:
        """Restore from the journal, finish what was under way, then go on until the budget or a stop ends it.

        Raises what the ledger raises (a refusing or fenced journal), RunError when a model cannot be asked.
        """
        await self._restore()
        under_way = len(self._pending) + len(self._unanswered)
        await self._ledger.reopen(self.island.number, under_way, self._start)
        listener = asyncio.create_task(self._listen())
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._config.islands.in_flight)]
        try:
            await self._ended(listener)
        finally:
            for task in (listener, *self._workers):
                task.cancel()
            await asyncio.gather(listener, *self._workers, return_exceptions=True)
        if self.island.retired and not self._draining.is_set():
            # What it was granted and has not begun is for the others.
            await self._ledger.reopen(self.island.number, 0, f"{self._start}:end")
        await self._append(last_steps(self._start, self.island.number, self._order))

    async def _ended(self, listener: asyncio.Task[None]) -> None:
        """Wait until no worker is left, or raise the first error of any of them or of the listener."""
        while True:
            tasks = [*self._workers, listener]
            for task in tasks:
                if task.done():
                    task.result()
            waited = tasks if self._order.strict else self._workers
            if all(task.done() for task in waited):
                return
            await asyncio.wait([t for t in tasks if not t.done()], return_when=asyncio.FIRST_COMPLETED)

    def drain(self) -> None:
        """Begin nothing new, whatever is granted: `run` returns when what is under way has ended."""
        self._draining.set()

    async def _work(self) -> None:
        while True:
            if self._pending:
                candidate, lost = self._pending.popleft()
                async with self._turn:
                    await self._settle(candidate, lost)
                    await self._after(candidate.decision)
                continue
            unanswered = self._unanswered.popleft() if self._unanswered else None
            if unanswered is None and not await self._take_grant():
                return
            await self._unpaused()
            async with self._turn:
                if self._draining.is_set() or (unanswered is None and self.island.retired):
                    return
                try:
                    decision = await (self._step() if unanswered is None else self._decide(*unanswered))
                except (NoBudgetError, LeftOpenError):
                    return
                await self._after(decision)

    async def _unpaused(self) -> None:
        # In a replay the recorded order says when decisions are taken.
        while self.island.paused and not self._order.strict and not (self._draining.is_set() or self.island.retired):
            await asyncio.sleep(LISTENING_INTERVAL_S / 2)

    async def _take_grant(self) -> bool:
        async with self._grant_lock:
            if self._draining.is_set() or self.island.retired:
                return False
            if self._granted == 0:
                asks = self._order.asks
                want = GRANT_BLOCK if asks is None else min(GRANT_BLOCK, asks - self._begun)
                self._grant_requests += 1
                request = f"{self._start}:{self._grant_requests}"
                self._granted = await self._ledger.grant(self.island.number, want, request) if want else 0
            if self._granted == 0:
                return False
            self._granted -= 1
            self._begun += 1
            return True

    async def _return_grant(self, event: Event) -> None:
        """The limit has changed: what was granted under the old one and not begun is asked for anew."""
        async with self._grant_lock:
            unused, self._granted = self._granted, 0
            if unused:
                await self._ledger.give_back(self.island.number, unused, f"{self._start}:{event.seq}")

    async def _step(self) -> int:
        """One decision from proposal to terminal state; returns its number."""
        await self._order.turn("a")
        return await self._decide(self.island.ask(), ())

    async def _decide(self, proposal: Proposal, history: Sequence[Event]) -> int:
        produced = await self._generation.produce(proposal, history)
        result = produced.result
        if isinstance(result, Candidate):
            event = generated_event(result, produced.completion.model, produced.draws, produced.completion.detail)
            recorded = await self._append(event)
            await self._settle(await self._adopt(result, recorded), 0)
        else:
            await self._order.turn(f"d{result.id}")
            settled = await self._append(screened_out_event(result, Standing(ops=self._order.taken())))
            await self._learn(settled, result.source)
        return proposal.decision

    async def _settle(self, candidate: Candidate, lost: int) -> None:
        settled = await measure(candidate, self._evaluator, self._ledger, self.island, lost, self._order, self._brief)
        self._acknowledged = max(self._acknowledged, settled.seq)
        await self._learn(settled, candidate.source)

    async def _learn(self, settled: Event, source: str | None) -> None:
        """Tell the island how a candidate ended, and look after its health."""
        await self._order.turn(f"t{settled.candidate}")
        absorb(self.island, settled, source)
        found, intervention = self._checkup.look(self.island)
        events = self._checkup.events(self.island, found, intervention)
        if intervention is not None:
            self.island.intervene(intervention)
        if events:
            await self._ledger.append(events, self._ledger.epoch)

    async def _adopt(self, candidate: Candidate, recorded: Event) -> Candidate:
        """The candidate as recorded: an earlier life of this island may have generated another program for it."""
        ref: str = recorded.body["source"]
        if ref == text_ref(candidate.source):
            return candidate
        return candidate_of(recorded, (await self._ledger.texts([ref]))[ref])

    async def _append(self, event: Event) -> Event:
        return (await self._ledger.append([event], self._ledger.epoch))[0]

    async def _after(self, decision: int) -> None:
        """What follows a decision: migration and the scratchpad, where they are due."""
        await self._migrate(decision)
        every = self._config.generator.summarize_every
        if self._config.generator.kind == "openai" and every is not None and (decision + 1) % every == 0:
            await self._summarize(decision)

    async def _migrate(self, decision: int) -> None:
        """Send the best elites on, welcome those that have arrived."""
        recorded = self._order.holds(f"e{decision}")
        if not (self.island.migration_due(decision) if recorded is None else recorded):
            return
        targets = self.island.targets
        await self._order.turn(f"e{decision}")
        leaving = self.island.emigrants()
        batch = [migrated_event(elite, self.island.number, target) for elite in leaving for target in targets]
        if batch:
            await self._ledger.append(batch, self._ledger.epoch)
        arrived = await self._arrived(decision)
        texts = await self._ledger.texts([event.body["source"] for event in arrived])
        for event in arrived:
            await self._order.turn(f"m{decision}:{event.candidate}")
            self.island.tell(elite_of(event), texts[event.body["source"]])

    async def _arrived(self, decision: int) -> list[Event]:
        expected = self._order.welcomed(decision)
        while True:
            acknowledged = self._acknowledged
            arrived = await self._ledger.read(self._migrants_read, [EventKind.MIGRATED], self.island.number)
            if expected is None:
                # A read sees all that was acknowledged before it, so the next one need not go over that again.
                self._migrants_read = max(acknowledged, arrived[-1].seq if arrived else 0)
                return arrived
            by_name = {str(event.candidate): event for event in arrived}
            if by_name.keys() >= set(expected):
                return [by_name[name] for name in expected]
            await asyncio.sleep(0.01)

    async def _summarize(self, decision: int) -> None:
        """Ask the small model for a new scratchpad."""
        model = small_model(self._config)
        if (
            model is None
            or self._draining.is_set()
            or self.island.retired
            or self._order.holds(f"r{decision}") is False
        ):
            return
        await self._order.turn(f"r{decision}")
        proposal = self.island.retrospect(decision, model)
        try:
            request = await self._prompter.request(proposal)
        except UsageError:  # the best program leaves no room for notes in the model's context
            return
        text = await self._generation.remark(request)
        if text is not None and text.strip():
            await self._append(noted_event(self.island.number, decision, text.strip()))
            await self._order.turn(f"n{decision}")
            self.island.scribble(text.strip())

    async def _listen(self) -> None:
        """Hear commands, answers of people, and programs that were injected, while the workers work."""
        if self._order.strict:
            await self._obey_recorded()
            return
        while True:
            await asyncio.sleep(LISTENING_INTERVAL_S)
            acknowledged = self._acknowledged
            kinds = [EventKind.COMMAND, EventKind.ADMITTED]
            for event in await self._ledger.read(self._heard, kinds, SEED_ISLAND):
                await self._hear(event)
                self._heard = event.seq
            # As of migrants: the read saw all that was acknowledged before it.
            self._heard = max(self._heard, acknowledged)

    async def _hear(self, event: Event) -> None:
        if event.kind is EventKind.ADMITTED:
            texts = await self._ledger.texts([event.body["source"]])
            await self._order.turn(f"j{event.candidate}")
            self.island.tell(elite_of(event), texts[event.body["source"]])
            return
        if event.body["kind"] == "answer":
            deliver(self._models, event.body["body"])
            return
        await self._order.turn(f"c{event.id.removeprefix('command:')}")
        obey(self.island, event)
        if event.body["kind"] == "budget":
            await self._return_grant(event)
            # Workers that found nothing granted have ended: perhaps there is more now.
            done = [task for task in self._workers if task.done()]
            for task in done:
                task.result()
            self._workers = [task for task in self._workers if not task.done()]
            self._workers += [asyncio.create_task(self._work()) for _ in done]

    async def _obey_recorded(self) -> None:
        for name in self._order.commands():
            await self._order.turn(f"c{name}")
            obey(self.island, self._commands[name])
            await self._append(self._commands[name])

    async def _restore(self) -> None:
        """Tell the island the journal again; candidates without a terminal state are under way."""
        restored = await restore(self.island, self._ledger, self._checkup)
        self._heard = restored.heard
        self._migrants_read = restored.migrants_read
        for answer in restored.answers:
            deliver(self._models, answer.body["body"])
        for event in await self._ledger.read(kinds=[EventKind.COMMAND], island=SEED_ISLAND):
            if event.seq <= restored.heard and event.body["kind"] != "answer":
                await self._order.turn(f"c{event.id.removeprefix('command:')}")  # obeyed while restoring
        await self._write_off(restored)
        await self._take_up(restored)

    async def _write_off(self, restored: Restored) -> None:
        """Requests in flight when their process died are lost, those of a mailbox only when nobody waits for them."""
        durable = {name for name, model in self._models.items() if model.durable}
        lost = [
            lost_event(event)
            for event in restored.open.values()
            if event.candidate not in restored.proposed or event.body["model"] not in durable
        ]
        for event in await self._ledger.append(lost, self._ledger.epoch) if lost else ():
            if event.candidate in restored.proposed:
                restored.requests[event.candidate].append(event)

    async def _take_up(self, restored: Restored) -> None:
        texts = await self._ledger.texts(sorted(restored.wanted_texts(self.island)))
        self.island.supply({ref: texts[ref] for ref in self.island.missing_programs()})
        for event in restored.generated.values():
            lost = max(1, self._ledger.epoch - event.epoch)
            self._pending.append((candidate_of(event, texts[event.body["source"]]), lost))
        for name, proposed in restored.proposed.items():
            proposal = retaken(proposed, texts, self._config)
            self._unanswered.append((proposal, tuple(restored.requests.get(name, ()))))
