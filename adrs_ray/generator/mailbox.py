"""A model made of people and coding agents: its requests lie open in the journal until somebody answers.

`adrs inbox RUN` lists them, `adrs inbox next` claims one, `adrs inbox answer` gives the completion as a command, which
the run's writer journals once and whoever asked delivers here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from adrs_ray.candidate import Completion, Usage
from adrs_ray.generator import GenerationRequest, Models


class MailboxModel:
    """A `Model` that waits. Requests cost nothing and outlive the process."""

    name = "mailbox"
    paid = True
    durable = True
    redraws = 0

    def __init__(self) -> None:
        self._answers: dict[str, str] = {}
        self._waiting: dict[str, asyncio.Future[str]] = {}

    def worst(self, request: GenerationRequest) -> Usage:
        return Usage()

    async def complete(self, request: GenerationRequest) -> Completion:
        """Wait for the answer, however long it takes."""
        started = time.monotonic()
        if request.id not in self._answers:
            future = self._waiting.setdefault(request.id, asyncio.get_running_loop().create_future())
            await asyncio.shield(future)
        text = self._answers[request.id]
        detail = "" if text.strip() else "the answer is empty"
        usage = Usage(latency_s=time.monotonic() - started)
        return Completion(text if text.strip() else None, self.name, request.operator, detail, usage=usage)

    def deliver(self, request: str, text: str) -> None:
        """Somebody's answer; the first one counts."""
        if request in self._answers:
            return
        self._answers[request] = text
        waiting = self._waiting.pop(request, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(text)

    async def close(self) -> None:
        """Nothing is held."""


def deliver(models: Models, answer: Mapping[str, Any]) -> None:
    """The body of a command `answer`, to the mailbox among the models of this process, if there is one."""
    for model in models.values():
        if isinstance(model, MailboxModel):
            model.deliver(answer["request"], answer["text"])
