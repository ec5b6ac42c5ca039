"""The loop of one island over Model, Evaluator and Ledger: ask, generate, record, evaluate, record, tell.

The same code runs in `adrs run --local` and in a Ray actor. Barriers: a program is acknowledged by the journal before
it is evaluated, a verdict before the next decision that depends on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Protocol

from adrs_ray.candidate import Candidate, Completion, Evaluation, Failure, FailureKind, Measurement
from adrs_ray.config import RunConfig
from adrs_ray.evaluator import EvaluationJob, Evaluator
from adrs_ray.generator import Model
from adrs_ray.island import SEED_ISLAND, Island, Proposal
from adrs_ray.selector import migration
from adrs_ray.storage.events import (
    STAGE,
    candidate_of,
    elite_of,
    generated_event,
    measured_event,
    migrated_event,
    screened_out_event,
    settled_event,
)
from adrs_ray.storage.journal import Event, EventKind, text_ref

REDRAWN = frozenset({FailureKind.DUPLICATE, FailureKind.GENERATION, FailureKind.SYNTAX})
GRANT_BLOCK = 32
"""Candidates an island asks for at once; the ledger gives fewer as the budget runs out."""


class IslandLedger(Protocol):
    """What an island needs of the journal's owner (`adrs_ray.ledger.Ledger`, or its Ray client)."""

    @property
    def epoch(self) -> int: ...

    async def append(self, batch: Sequence[Event], epoch: int) -> list[Event]: ...

    async def read(
        self,
        after_seq: int = 0,
        kinds: Iterable[EventKind] | None = None,
        island: int | None = None,
        limit: int | None = None,
    ) -> list[Event]: ...

    async def texts(self, refs: Sequence[str]) -> dict[str, str]: ...

    async def grant(self, island: int, want: int, request: str) -> int:
        """Permission for up to `want` more candidates; 0 means this island is done. Idempotent by `request`."""
        ...

    async def reopen(self, island: int, pending: int, request: str) -> None:
        """An island starts with `pending` candidates already under way. Idempotent by `request`."""
        ...


async def measure(candidate: Candidate, evaluator: Evaluator, ledger: IslandLedger, island: Island, lost: int) -> Event:
    """Evaluate on train and record verdict and terminal state in one batch; returns the recorded terminal event."""
    job = EvaluationJob(candidate.id, candidate.source, "train", attempts=lost)
    verdict = await evaluator.evaluate(job)
    measurement = Measurement(candidate.id, STAGE, job.split, job.repeat, verdict)
    descriptor = island.describe(candidate.source) if isinstance(verdict, Evaluation) else (0.0, 0.0)
    batch = [measured_event(measurement, candidate.island), settled_event(candidate, verdict, descriptor)]
    return (await ledger.append(batch, ledger.epoch))[-1]


class IslandLoop:
    """Drives one island until the ledger grants no more."""

    def __init__(
        self,
        number: int,
        config: RunConfig,
        seed_source: str,
        model: Model,
        evaluator: Evaluator,
        ledger: IslandLedger,
        turnstile: asyncio.Semaphore | None = None,
    ) -> None:
        """`turnstile`: candidates pass it one by one from decision to verdict, which makes runs repeatable."""
        self.island = Island(number, config, seed_source)
        self._config = config
        self._model = model
        self._evaluator = evaluator
        self._ledger = ledger
        self._turn: AbstractAsyncContextManager[object] = turnstile or contextlib.nullcontext()
        self._pending: deque[tuple[Candidate, int]] = deque()
        self._start = uuid.uuid4().hex[:12]
        """Names this start of the island in requests that may be repeated."""
        self._grant_requests = 0
        self._granted = 0
        self._draining = False
        self._grant_lock = asyncio.Lock()
        self._migrants_read = 0
        self._acknowledged = 0
        """The highest seq this island has seen acknowledged."""

    async def run(self) -> None:
        """Restore from the journal, finish what was under way, then go on until the budget or a stop ends it.

        Raises what the ledger raises (a refusing or fenced journal).
        """
        await self._restore()
        await self._ledger.reopen(self.island.number, len(self._pending), self._start)
        workers = [asyncio.create_task(self._work()) for _ in range(self._config.islands.in_flight)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()

    def drain(self) -> None:
        """Begin nothing new, whatever is granted: `run` returns when what is under way has ended."""
        self._draining = True

    async def _work(self) -> None:
        while True:
            resumed = self._pending.popleft() if self._pending else None
            if resumed is None and not await self._take_grant():
                return
            async with self._turn:
                if resumed is None:
                    if self._draining:
                        return
                    decision = await self._step()
                else:
                    decision = resumed[0].decision
                    await self._settle(*resumed)
                await self._migrate(decision)

    async def _take_grant(self) -> bool:
        async with self._grant_lock:
            if self._granted == 0 and not self._draining:
                self._grant_requests += 1
                request = f"{self._start}:{self._grant_requests}"
                self._granted = await self._ledger.grant(self.island.number, GRANT_BLOCK, request)
            if self._granted == 0 or self._draining:
                return False
            self._granted -= 1
            return True

    async def _step(self) -> int:
        """One decision from proposal to terminal state; returns its number."""
        proposal = self.island.ask()
        if self._model.paid:
            body = {"decision": proposal.decision, "operator": proposal.request.operator}
            event_id = f"{proposal.candidate}:proposed"
            await self._append(Event(event_id, EventKind.PROPOSED, proposal.candidate, self.island.number, body))
        screened, completion, draws = await self._generate(proposal)
        if isinstance(screened, Failure):
            await self._append(
                screened_out_event(
                    proposal.candidate,
                    self.island.number,
                    proposal.decision,
                    completion.operator,
                    proposal.parents,
                    screened,
                    completion.text,
                )
            )
        else:
            recorded = await self._append(generated_event(screened, completion.model, draws, completion.detail))
            await self._settle(await self._adopt(screened, recorded), 0)
        return proposal.decision

    async def _generate(self, proposal: Proposal) -> tuple[Candidate | Failure, Completion, int]:
        """Ask the model, and again for what is not worth an evaluation, as often as the model says."""
        for draw in range(self._model.redraws + 1):
            key = proposal.request.rng_key
            request = proposal.request if draw == 0 else replace(proposal.request, rng_key=(*key, draw))
            completion = await self._model.complete(request)
            screened = self.island.screen(proposal, completion)
            if isinstance(screened, Candidate) or screened.kind not in REDRAWN:
                break
        return screened, completion, draw + 1

    async def _settle(self, candidate: Candidate, lost: int) -> None:
        settled = await measure(candidate, self._evaluator, self._ledger, self.island, lost)
        self._acknowledged = max(self._acknowledged, settled.seq)
        if settled.kind is EventKind.ADMITTED:
            self.island.tell(elite_of(settled), candidate.source)

    async def _adopt(self, candidate: Candidate, recorded: Event) -> Candidate:
        """The candidate as recorded: an earlier life of this island may have generated another program for it."""
        ref: str = recorded.body["source"]
        if ref == text_ref(candidate.source):
            return candidate
        return candidate_of(recorded, (await self._ledger.texts([ref]))[ref])

    async def _append(self, event: Event) -> Event:
        return (await self._ledger.append([event], self._ledger.epoch))[0]

    async def _migrate(self, decision: int) -> None:
        """After a decision at which migration is due: send the best elites on, welcome those that have arrived."""
        target = migration.destination(self.island.number, self._config.islands)
        if target is None or not migration.is_due(decision, self._config.islands):
            return
        leaving = self.island.emigrants(decision)
        for elite, _ in leaving:
            self.island.sent(elite.candidate)
        if leaving:
            batch = [migrated_event(elite, self.island.number, target) for elite, _ in leaving]
            await self._ledger.append(batch, self._ledger.epoch)
        acknowledged = self._acknowledged
        arrived = await self._ledger.read(self._migrants_read, [EventKind.MIGRATED], self.island.number)
        # A read sees all that was acknowledged before it, so the next one need not go over that again.
        self._migrants_read = max(acknowledged, arrived[-1].seq if arrived else 0)
        if arrived:
            texts = await self._ledger.texts([event.body["source"] for event in arrived])
            for event in arrived:
                self.island.tell(elite_of(event), texts[event.body["source"]])

    async def _restore(self) -> None:
        """Tell the island the journal again; candidates without a terminal state are under way."""
        number = self.island.number
        kinds = [EventKind.PROPOSED, EventKind.GENERATED, EventKind.ADMITTED, EventKind.REJECTED, EventKind.MIGRATED]
        events = await self._ledger.read(kinds=kinds, island=SEED_ISLAND)
        events += await self._ledger.read(kinds=kinds, island=number)
        open_events: dict[str, Event] = {}
        asked: dict[str, int] = {}
        """Paid requests that got no answer yet: candidate -> decision."""
        for event in sorted(events, key=lambda event: event.seq):
            assert event.candidate is not None
            if event.kind is EventKind.MIGRATED:
                self._migrants_read = event.seq
            elif event.island == number:
                self.island.note(event.candidate, event.body.get("fingerprint"), event.body["decision"])
            if event.kind is EventKind.PROPOSED:
                asked[event.candidate] = event.body["decision"]
            else:
                asked.pop(event.candidate, None)
            if event.kind is EventKind.GENERATED and event.island == number:
                open_events[event.candidate] = event
            elif event.kind in (EventKind.ADMITTED, EventKind.MIGRATED):
                self.island.tell(elite_of(event))
            if event.kind in (EventKind.ADMITTED, EventKind.REJECTED):
                open_events.pop(event.candidate, None)
        for decision in asked.values():
            self.island.take_again(decision)
        target = migration.destination(number, self._config.islands)
        if target is not None:
            for event in await self._ledger.read(kinds=[EventKind.MIGRATED], island=target):
                if event.body["from"] == number and event.candidate is not None:
                    self.island.sent(event.candidate)
        await self._supply(open_events.values())

    async def _supply(self, open_events: Iterable[Event]) -> None:
        pending = list(open_events)
        wanted = {*self.island.missing_programs(), *(event.body["source"] for event in pending)}
        texts = await self._ledger.texts(sorted(wanted))
        self.island.supply({ref: texts[ref] for ref in self.island.missing_programs()})
        for event in pending:
            lost = max(1, self._ledger.epoch - event.epoch)
            self._pending.append((candidate_of(event, texts[event.body["source"]]), lost))
