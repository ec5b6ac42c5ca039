"""Between an island's decision and the messages for a model: fetches verdicts from the journal, renders the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from adrs_ray.candidate import Evaluation, Failure, FailureKind, Verdict
from adrs_ray.config import ModelConfig, RunConfig
from adrs_ray.errors import UsageError
from adrs_ray.generator import GenerationRequest
from adrs_ray.prompt import PromptContext, PromptOperator, ShownProgram, TaskBrief
from adrs_ray.prompt.brief import shown_program
from adrs_ray.prompt.render import render
from adrs_ray.proposal import Proposal
from adrs_ray.storage.events import measurement_of
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

    def shows_seed(self, request: GenerationRequest) -> bool:
        """Whether the same could be asked of the task's seed: then it is its own programs that a prompt cannot hold."""
        seed = ShownProgram("seed", self._brief.seed_source)
        try:
            self._rendered(request, PromptContext(task=self._brief, parent=seed, partner=seed))
        except UsageError:
            return False
        return True

    def seed_request(self, request: GenerationRequest, seeds: Sequence[ShownProgram]) -> GenerationRequest:
        """A request for a seed that differs in kind from those so far, with its messages."""
        return self._rendered(request, PromptContext(task=self._brief, inspirations=tuple(seeds)))

    def _rendered(self, request: GenerationRequest, context: PromptContext) -> GenerationRequest:
        operator: PromptOperator = request.operator  # type: ignore[assignment]  # of a language model, not of the mutator
        model = budget_of(self._config, request.model)
        return replace(request, messages=render(operator, context, model, self._config.prompt))

    async def _verdict(self, candidate: str) -> Verdict | None:
        """The train verdict of a candidate, artifacts included; of one that was screened out, why.

        Of one measured repeatedly: the mean score and metrics with the cases of the first time, or the failure. Of a
        task with stages, that of the last one, or of the one it failed in.
        """
        settled, repeats = settled_id(candidate), self._config.noise.max_repeats if self._brief.noisy else 1
        *cheap, last = self._brief.stages
        before = [measured_id(candidate, stage, "train", 0) for stage in cheap]
        measured = [measured_id(candidate, last, "train", repeat) for repeat in range(repeats)]
        found = await self._source.find([*before, *measured, settled])
        end = found.get(settled)
        rejected = end is not None and end.kind is EventKind.REJECTED
        names = [*before, *measured] if rejected else measured
        verdicts = [found[name] for name in names if name in found]
        if not verdicts:
            return _why(end) if end is not None and rejected else None
        told = verdicts[-1] if rejected else verdicts[0]
        verdict = measurement_of(
            told, await self._source.texts(list(told.body["verdict"]["artifacts"].values()))
        ).verdict
        if isinstance(verdict, Evaluation) and end is not None and rejected:  # held back behind a stage
            return _why(end)
        if isinstance(verdict, Evaluation) and end is not None and end.kind is EventKind.ADMITTED:
            return replace(verdict, score=end.body["score"], metrics=end.body["metrics"])
        return verdict


def _why(rejected: Event) -> Failure:
    return Failure(FailureKind(rejected.body["failure"]), rejected.body["detail"], rejected.body["case"])
