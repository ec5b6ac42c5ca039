"""From a decision to a program: asks a model, journals request and answer, screens, asks again what went wrong.

A paid completion is bought once: REQUESTED is acknowledged before a request is sent, COMPLETED before its answer is
used. What a crash leaves is taken up from the journal: recorded answers are read again, a request that was in flight
is LOST and charged in full, then made anew; a durable one (mailbox) is still open and waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from adrs_ray.candidate import Candidate, Completion, Failure, FailureKind, Refused, Usage
from adrs_ray.config import ModelConfig, RunConfig
from adrs_ray.errors import UsageError
from adrs_ray.generator import GenerationRequest, Model, Models, total_usage
from adrs_ray.island import Island
from adrs_ray.order import Order
from adrs_ray.prompt.follow_up import FollowUpProblem, follow_up
from adrs_ray.prompter import Prompter, budget_of
from adrs_ray.proposal import Proposal
from adrs_ray.storage.events import (
    answered_id,
    completed_event,
    completion_of,
    lost_event,
    request_of,
    request_texts,
    requested_event,
)
from adrs_ray.storage.journal import Event, EventKind

_log = logging.getLogger(__name__)

REDRAWN = frozenset({FailureKind.DUPLICATE, FailureKind.GENERATION, FailureKind.SYNTAX})
"""What the model-free generator is asked for again."""
BUDGET_POLL_S = 0.2
"""Between two looks whether requests under way have come in cheaper than reserved."""
OUTAGE_PAUSES_S = (5.0, 120.0)
"""Between two rounds of attempts while a server is away: the first pause, doubled up to the last."""
MOST_REQUESTS = 8
"""Requests for one candidate, follow-ups and losses together."""


class RequestLedger(Protocol):
    """What is needed of the journal's owner."""

    @property
    def epoch(self) -> int: ...

    async def append(self, batch: Sequence[Event], epoch: int) -> list[Event]: ...

    async def request(self, batch: Sequence[Event], epoch: int) -> list[Event] | None: ...

    async def find(self, ids: Sequence[str]) -> dict[str, Event]: ...

    async def texts(self, refs: Sequence[str]) -> dict[str, str]: ...


class NoBudgetError(Exception):
    """A request was not made: the budget does not cover what it may cost, and the run drains."""


class LeftOpenError(Exception):
    """The run drains and somebody has yet to answer: the request stays open for the next start."""


@dataclass(frozen=True, slots=True)
class Produced:
    """What came of a decision: a candidate to evaluate, or why there is none."""

    result: Candidate | Refused
    completion: Completion
    draws: int


class Generation:
    """For one island; any number of decisions at once."""

    def __init__(
        self,
        island: Island,
        config: RunConfig,
        models: Models,
        ledger: RequestLedger,
        prompter: Prompter,
        order: Order,
        draining: asyncio.Event,
    ) -> None:
        """`draining`: the run ends, nobody waits for a budget or for people any more."""
        self._island = island
        self._config = config
        self._models = models
        self._ledger = ledger
        self._prompter = prompter
        self._order = order
        self._draining = draining

    async def produce(self, proposal: Proposal, history: Sequence[Event] = ()) -> Produced:
        """The outcome of a decision. `history`: its REQUESTED, COMPLETED and LOST events of earlier lives.

        Raises NoBudgetError before anything of the decision is journaled, LeftOpenError when it waits for people.
        """
        model = self._models[proposal.arm[0]]
        if not model.paid:
            return await self._drawn(proposal, model)
        return await self._asked(proposal, model, history)

    async def _drawn(self, proposal: Proposal, model: Model) -> Produced:
        """Ask a free model, and again for what is not worth an evaluation, as often as the model says."""
        key = proposal.request.rng_key
        for draw in range(model.redraws + 1):
            request = proposal.request if draw == 0 else replace(proposal.request, rng_key=(*key, draw))
            completion = await model.complete(request)
            await self._order.turn(f"s{proposal.candidate}")
            result = self._island.screen(proposal, request, completion)
            if isinstance(result, Candidate) or result.failure.kind not in REDRAWN:
                break
        return Produced(result, completion, draw + 1)

    async def _asked(self, proposal: Proposal, model: Model, history: Sequence[Event]) -> Produced:
        past = _Past.of(history)
        try:
            request = await self._first_request(proposal, past)
        except UsageError as error:
            if not self._prompter.shows_seed(proposal.request):
                raise
            # This parent leaves no room in the model's context.
            nothing = Completion(None, proposal.arm[0], proposal.operator, str(error))
            failure = Failure(FailureKind.BUDGET_EXHAUSTED, str(error))
            return Produced(self._island.refused(proposal, nothing, failure, None), nothing, 0)
        usages: list[Usage] = []
        patience = {
            "edit": self._config.generator.edit_retries,
            "duplicate": self._config.generator.duplicate_retries,
            "thinking": 1,
        }
        while True:
            try:
                request, completion, lost = await self._answer(proposal, request, past, model)
            except NoBudgetError:
                if not usages:
                    raise
                break  # what there is ends the candidate
            usages += [*lost, completion.usage]
            await self._order.turn(f"s{proposal.candidate}")
            result = self._island.screen(proposal, request, completion)
            problem = None if isinstance(result, Candidate) else self._problem(result, completion)
            kind = "edit" if problem is None or problem.kind in ("syntax", "interface") else problem.kind
            if problem is None or not patience[kind] or len(usages) >= MOST_REQUESTS:
                break
            patience[kind] -= 1
            request = await self._recorded(self._next(request, completion, problem), past)
        # What an earlier life asked for beyond the answer that is good enough now.
        usages += [Usage(**event.body["usage"]) for event in past.answers.values()]
        priced = replace(result, cost=cost_of(total_usage(usages), self._config.models))
        return Produced(priced, completion, len(usages))

    async def _first_request(self, proposal: Proposal, past: _Past) -> GenerationRequest:
        if past.requested:
            return await self._recorded(proposal.request, past)
        return proposal.request if proposal.request.messages else await self._prompter.request(proposal)

    async def _recorded(self, request: GenerationRequest, past: _Past) -> GenerationRequest:
        """The request as an earlier life has made it, if it has: what it was told may have changed since."""
        event = past.requested.get(request.id)
        return request if event is None else request_of(event, await self._ledger.texts(request_texts(event)))

    async def _answer(
        self, proposal: Proposal, request: GenerationRequest, past: _Past, model: Model
    ) -> tuple[GenerationRequest, Completion, list[Usage]]:
        """The answer to a request, recorded or bought; the request that was answered, and what lost ones cost."""
        lost: list[Usage] = []
        while (known := past.answers.pop(request.id, None)) is not None or request.id in past.open:
            if known is None and not model.durable:
                (known,) = await self._ledger.append([lost_event(past.open[request.id])], self._ledger.epoch)
            if known is None:
                return request, await self._buy(request, model), lost
            if known.kind is EventKind.COMPLETED:
                refs = [ref for ref in (known.body["text"], known.body["reasoning"]) if ref is not None]
                return request, completion_of(known, await self._ledger.texts(refs)), lost
            lost.append(Usage(**known.body["usage"]))
            request = replace(request, id=_next_id(request.id))
        await self._reserve(proposal, request, model)
        return request, await self._buy(request, model), lost

    async def _reserve(self, proposal: Proposal | None, request: GenerationRequest, model: Model) -> None:
        """Journal a request once the budget covers it. Raises NoBudgetError when it never will, or the run drains."""
        batch = [requested_event(request, self._island.number, model.worst(request))]
        if proposal is not None:
            batch.insert(0, proposed_event(proposal, self._island.number))
        while await self._ledger.request(batch, self._ledger.epoch) is None:
            if self._draining.is_set():
                raise NoBudgetError
            await asyncio.sleep(BUDGET_POLL_S)

    async def _buy(self, request: GenerationRequest, model: Model) -> Completion:
        """Send a journaled request; its answer is acknowledged when this returns."""
        completion = await self._completed(request, model)
        event = completed_event(request, self._island.number, completion)
        (recorded,) = await self._ledger.append([event], self._ledger.epoch)
        if recorded.kind is EventKind.COMPLETED and recorded.body == event.body:
            return completion
        # Another life of this island has bought or written it off already: that is what counts.
        if recorded.kind is EventKind.LOST:
            return Completion(None, request.model, request.operator, "the request was written off as lost")
        refs = [ref for ref in (recorded.body["text"], recorded.body["reasoning"]) if ref is not None]
        return completion_of(recorded, await self._ledger.texts(refs))

    async def _completed(self, request: GenerationRequest, model: Model) -> Completion:
        if not model.durable:
            return await self._outwaited(request, model)
        answer = asyncio.ensure_future(model.complete(request))
        drained = asyncio.ensure_future(self._draining.wait())
        try:
            await asyncio.wait({answer, drained}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise LeftOpenError
            return answer.result()
        finally:
            answer.cancel()
            drained.cancel()

    async def _outwaited(self, request: GenerationRequest, model: Model) -> Completion:
        """The answer, however long the server is away: an outage at night costs time and no candidates."""
        pause_s = OUTAGE_PAUSES_S[0]
        while (completion := await model.complete(request)).unavailable and not self._draining.is_set():
            _log.warning("model %s is away (%s): request %s waits", request.model, completion.detail, request.id)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._draining.wait(), pause_s)
            pause_s = min(2 * pause_s, OUTAGE_PAUSES_S[1])
        return completion

    async def remark(self, request: GenerationRequest) -> str | None:
        """The text that a model gives to a request that makes no candidate (a scratchpad); None when it gives none.

        One that an earlier life has made is not made again: its answer is read, if there was one.
        """
        known = await self._ledger.find([f"{request.id}:requested", answered_id(request.id)])
        if known:
            answer = known.get(answered_id(request.id))
            ref = None if answer is None else answer.body.get("text")
            return None if ref is None else (await self._ledger.texts([ref]))[ref]
        model = self._models[request.model]
        try:
            await self._reserve(None, request, model)
        except NoBudgetError:
            return None
        return (await self._buy(request, model)).text

    def _problem(self, refused: Refused, completion: Completion) -> FollowUpProblem | None:
        """What is told to the model about an answer that is no candidate; None where asking again is of no use."""
        failure = refused.failure
        if completion.thinking_only:
            return FollowUpProblem("thinking", failure.detail)
        if completion.text is None:
            return None
        if failure.kind is FailureKind.DUPLICATE:
            return FollowUpProblem("duplicate", failure.detail, self._island.text_of(refused.repeats))
        if failure.kind is FailureKind.SYNTAX:
            return FollowUpProblem("syntax", failure.detail)
        if failure.kind is FailureKind.INTERFACE:
            return FollowUpProblem("interface", failure.detail)
        return FollowUpProblem("edit", failure.detail)

    def _next(self, request: GenerationRequest, completion: Completion, problem: FollowUpProblem) -> GenerationRequest:
        budget: ModelConfig = budget_of(self._config, request.model)
        return replace(
            request,
            id=_next_id(request.id),
            messages=follow_up(request.messages, completion.text or "", problem, budget),
            rng_key=(*request.rng_key, int(_next_id(request.id).rsplit("/", 1)[1])),
            less_reasoning=request.less_reasoning + (problem.kind == "thinking"),
        )


@dataclass(frozen=True, slots=True)
class _Past:
    """Requests of one decision that the journal knows."""

    requested: Mapping[str, Event]
    answers: dict[str, Event]
    """Those that were not read again yet."""
    open: Mapping[str, Event]

    @classmethod
    def of(cls, events: Iterable[Event]) -> _Past:
        listed = list(events)
        requested = {e.body["request"]: e for e in listed if e.kind is EventKind.REQUESTED}
        answers = {e.body["request"]: e for e in listed if e.kind in (EventKind.COMPLETED, EventKind.LOST)}
        waiting = {name: event for name, event in requested.items() if name not in answers}
        return cls(requested, answers, waiting)


def proposed_event(proposal: Proposal, island: int) -> Event:
    """PROPOSED: enough to take the same decision again."""
    body = {
        "decision": proposal.decision,
        "operator": proposal.operator,
        "model": proposal.arm[0],
        "arm": list(proposal.arm),
        "parents": list(proposal.parents),
        "sources": list(proposal.sources),
    }
    return Event(f"{proposal.candidate}:proposed", EventKind.PROPOSED, proposal.candidate, island, body)


def cost_of(usage: Usage, models: Mapping[str, ModelConfig]) -> float:
    """What a bandit weighs, in one unit for all models: dollars where all have prices, else GPU-seconds where all say
    how many GPUs they occupy, else thousands of tokens."""
    if models and all(model.priced for model in models.values()):
        return usage.usd
    if models and all(model.gpus for model in models.values()):
        return usage.gpu_s
    return usage.tokens / 1000


def _next_id(request: str) -> str:
    candidate, number = request.rsplit("/", 1)
    return f"{candidate}/{int(number) + 1}"
