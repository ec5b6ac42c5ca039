"""Between an island's decision and the messages for a model: fetches verdicts from the journal, renders the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from adrs_ray.candidate import Failure, FailureKind, Verdict
from adrs_ray.config import ModelConfig, RunConfig
from adrs_ray.generator import GenerationRequest
from adrs_ray.island import Proposal
from adrs_ray.prompt import PromptContext, PromptOperator, ShownProgram, TaskBrief
from adrs_ray.prompt.brief import shown_program
from adrs_ray.prompt.render import render
from adrs_ray.storage.events import STAGE, measurement_of
from adrs_ray.storage.journal import Event, EventKind, measured_id, settled_id

MAILBOX_BUDGET = ModelConfig(base_url="http://mailbox", model="mailbox", max_tokens=16_000, context_tokens=200_000)
"""What people and coding agents are given to read: a prompt of up to 184,000 tokens."""


def budget_of(config: RunConfig, model: str) -> ModelConfig:
    """The limits of a model's prompts."""
    return config.models.get(model, MAILBOX_BUDGET)


class VerdictSource(Protocol):
    """What is needed of the journal's owner."""

    async def find(self, ids: Sequence[str]) -> dict[str, Event]: ...

    async def texts(self, refs: Sequence[str]) -> dict[str, str]: ...


class Prompter:
    """Prompts of one island."""

    def __init__(self, brief: TaskBrief, config: RunConfig, source: VerdictSource) -> None:
        """`config`: the island's own (`RunConfig.for_island`)."""
        self._brief = brief
        self._config = config
        self._source = source

    async def request(self, proposal: Proposal) -> GenerationRequest:
        """The proposal's request with its messages. Raises UsageError when a prompt cannot fit the model's context."""
        shown = [
            shown_program(candidate, text, await self._verdict(candidate), "")
            for candidate, text in zip(proposal.parents, proposal.request.parents, strict=True)
        ]
        context = PromptContext(
            task=self._brief,
            parent=shown[0] if shown else None,
            partner=shown[1] if len(shown) > 1 else None,
            inspirations=proposal.inspirations,
            attempts=proposal.attempts,
            hints=proposal.hints,
            scratchpad=proposal.scratchpad,
        )
        return self._rendered(proposal.request, context)

    def seed_request(self, request: GenerationRequest, seeds: Sequence[ShownProgram]) -> GenerationRequest:
        """A request for a seed that differs in kind from those so far, with its messages."""
        return self._rendered(request, PromptContext(task=self._brief, inspirations=tuple(seeds)))

    def scratchpad_request(self, proposal: Proposal, request: GenerationRequest) -> GenerationRequest:
        """A request for a new scratchpad, told by what the island knows; its parent is the island's best."""
        parent = ShownProgram(proposal.parents[0], proposal.request.parents[0]) if proposal.parents else None
        context = PromptContext(
            task=self._brief,
            parent=parent,
            inspirations=proposal.inspirations,
            attempts=proposal.attempts,
            hints=proposal.hints,
            scratchpad=proposal.scratchpad,
        )
        return self._rendered(request, context)

    def _rendered(self, request: GenerationRequest, context: PromptContext) -> GenerationRequest:
        operator: PromptOperator = request.operator  # type: ignore[assignment]  # of a language model, not of the mutator
        model = budget_of(self._config, request.model)
        return replace(request, messages=render(operator, context, model, self._config.prompt))

    async def _verdict(self, candidate: str) -> Verdict | None:
        """The train verdict of a candidate, artifacts included; of one that was screened out, why."""
        measured, settled = measured_id(candidate, STAGE, "train", 0), settled_id(candidate)
        found = await self._source.find([measured, settled])
        if measured in found:
            refs = list(found[measured].body["verdict"]["artifacts"].values())
            return measurement_of(found[measured], await self._source.texts(refs)).verdict
        if settled in found and found[settled].kind is EventKind.REJECTED:
            body = found[settled].body
            return Failure(FailureKind(body["failure"]), body["detail"], body["case"])
        return None
