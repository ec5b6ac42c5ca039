"""Solution Generator: turns a request (parents, operator, messages) into the text of a new program.

`Model` is the seam. `mutate.MutationModel` needs no language model, `openai_model.OpenAIModel` asks
servers, `mailbox.MailboxModel` people and coding agents, `replayed.CassetteModel` a recorded run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from adrs_ray.candidate import Completion, Usage

__all__ = ["Completion", "Form", "GenerationRequest", "Message", "Model", "Models", "Usage"]

Form: TypeAlias = Literal["program", "diff", "rewrite", "text"]
"""How a completion is read: as a whole program, as SEARCH/REPLACE blocks against the first parent, as a fenced
rewrite of its evolve blocks or of all of it, or as text that is no program (a scratchpad)."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What is asked of a model: a child of `parents[0]`; further parents are crossover partners.

    Randomness comes from `default_rng(rng_key)`; asking again appends the draw number to the key, so nothing about a
    generator's state has to be saved. Language models get `messages`; the model-free one needs `parents` alone.
    """

    candidate: str
    operator: str
    parents: tuple[str, ...]
    """Full program texts; empty only for a form `text`."""
    rng_key: tuple[int, ...]
    id: str = ""
    """`<candidate>/<n>`: the n-th request made for a candidate, what REQUESTED and COMPLETED are named by."""
    model: str = "mutate"
    """Which model of the ensemble is asked."""
    form: Form = "program"
    messages: tuple[Message, ...] = ()
    temperature: float | None = None
    """In place of the model's own."""
    less_reasoning: int = 0
    """How often all tokens were spent thinking: the model reasons less by as many steps."""


class Model(Protocol):
    """A source of programs. Implementations must not raise for what a parent program or a server's answer contains.

    Raises RunError when it cannot be asked at all (no key, a wrong address, a model the server does not have).
    Concurrency: any number of requests at once.
    """

    @property
    def name(self) -> str: ...

    @property
    def paid(self) -> bool:
        """Whether a request costs something or somebody waits for its answer: it is journaled before it is sent."""
        ...

    @property
    def durable(self) -> bool:
        """Whether a request outlives this process: a crash then leaves it open instead of losing it (mailbox)."""
        ...

    @property
    def redraws(self) -> int:
        """How many further draws a duplicate or an unusable completion is worth, for models that take no messages."""
        ...

    def worst(self, request: GenerationRequest) -> Usage:
        """The most that a request can cost: reserved before it is sent, charged when its answer is lost."""
        ...

    async def complete(self, request: GenerationRequest) -> Completion: ...

    async def close(self) -> None:
        """Give back connections; safe to call twice."""
        ...


Models: TypeAlias = Mapping[str, Model]
"""By name; `mutate` is the model-free one and always there."""


def total_usage(usages: Sequence[Usage]) -> Usage:
    """What several requests cost together."""
    return Usage(
        tokens_in=sum(u.tokens_in for u in usages),
        tokens_out=sum(u.tokens_out for u in usages),
        tokens_cached=sum(u.tokens_cached for u in usages),
        tokens_reasoning=sum(u.tokens_reasoning for u in usages),
        usd=sum(u.usd for u in usages),
        gpu_s=sum(u.gpu_s for u in usages),
        latency_s=sum(u.latency_s for u in usages),
        attempts=sum(u.attempts for u in usages),
        estimated=any(u.estimated for u in usages),
    )
