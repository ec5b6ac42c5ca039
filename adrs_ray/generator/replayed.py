"""A model that answers from a recorded run (`adrs_ray.cassette`)."""

from __future__ import annotations

from collections import deque

from adrs_ray.candidate import Completion, Usage
from adrs_ray.cassette import LOOSELY, Cassette, RecordedCompletion, digest_of
from adrs_ray.errors import RunError
from adrs_ray.generation import NoBudgetError
from adrs_ray.generator import GenerationRequest


class CassetteModel:
    """A `Model` that costs what the recorded run paid and asks nobody; one for all names of an ensemble."""

    name = "cassette"
    paid = True
    durable = False
    redraws = 0

    def __init__(self, cassette: Cassette, strict: bool) -> None:
        """`strict`: a request is answered by its id, and must ask what was recorded. Else, by its id where the operator
        is the same, then by the next unused answer to that operator."""
        self._strict = strict
        self._recorded = cassette.completions
        self._ended = frozenset(cassette.ended)
        self._used: set[str] = set()
        self._queues: dict[str, deque[str]] = {}
        for name, recorded in self._recorded.items():
            self._queues.setdefault(recorded.operator, deque()).append(name)

    def worst(self, request: GenerationRequest) -> Usage:
        """What the recorded answer cost. In a strict replay it raises NoBudgetError where the recorded run made no
        such request for want of budget or time, RunError where it must have."""
        recorded = self._recorded.get(request.id)
        if recorded is not None:
            return recorded.completion.usage
        if self._strict and request.id.endswith("/0") and request.candidate in self._ended:
            raise RunError(_differs(request))
        if self._strict:
            raise NoBudgetError
        return Usage()

    async def complete(self, request: GenerationRequest) -> Completion:
        """The recorded answer; without one, in a loose replay, a completion without text. Raises RunError in a strict
        replay for a request with other messages than were recorded."""
        if not self._strict:
            return self._next(request)
        recorded = self._recorded.get(request.id)
        if recorded is None or recorded.digest != digest_of(request):
            raise RunError(_differs(request))
        return recorded.completion

    def _next(self, request: GenerationRequest) -> Completion:
        own = self._recorded.get(request.id)
        if own is not None and own.operator == request.operator and own.request not in self._used:
            return self._use(own)
        queue = self._queues.get(request.operator, deque())
        while queue:
            name = queue.popleft()
            if name not in self._used:
                return self._use(self._recorded[name])
        return Completion(None, request.model, request.operator, "the cassette has no more completions")

    def _use(self, recorded: RecordedCompletion) -> Completion:
        self._used.add(recorded.request)
        return recorded.completion

    async def close(self) -> None:
        """Nothing is held."""


def _differs(request: GenerationRequest) -> str:
    return f"replay: request {request.id} asks something else than was recorded: config, task or code differ; {LOOSELY}"
