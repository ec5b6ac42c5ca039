"""The mailbox of a run from outside: open requests, leases, answers. Any number of people and agents at once.

Requests are REQUESTED events of the model `mailbox`. A lease is a file in the run's `inbox/`: it keeps two people from
working on one prompt, and nothing else; when it expires the request is offered again. Answers are commands.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adrs_ray.errors import UsageError
from adrs_ray.generator import Message
from adrs_ray.selector.arms import MAILBOX
from adrs_ray.storage.events import message_refs, messages_of
from adrs_ray.storage.journal import Event, EventKind
from adrs_ray.storage.reader import JournalReader
from adrs_ray.storage.runfolder import RunFolder, post_command, write_atomically


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A request that nobody has answered."""

    id: str
    operator: str
    candidate: str
    requested_at: float
    """Seconds since 1970."""
    leased_until: float | None
    """None when it is free."""


class Inbox:
    """Of one run, open or not: an answer that is given while it is stopped counts when it goes on."""

    def __init__(self, folder: RunFolder, reader: JournalReader) -> None:
        self._folder = folder
        self._reader = reader
        self._leases = folder.path / "inbox"

    def open(self) -> list[OpenRequest]:
        """Requests without an answer, oldest first."""
        now = time.time()
        answered = self._answered()
        found = []
        for request, event in self._requested().items():
            if request not in answered:
                lease = self._lease(request)
                until = lease if lease is not None and lease > now else None
                operator, candidate = event.body["operator"], str(event.candidate)
                found.append(OpenRequest(request, operator, candidate, event.at, until))
        return found

    def claim(self, wait_s: float = 0.0, poll_s: float = 0.5) -> OpenRequest | None:
        """Take the oldest free request for `generator.lease_s` seconds; wait for one up to `wait_s`, else None."""
        deadline = time.monotonic() + wait_s
        while True:
            with self._locked():
                free = [request for request in self.open() if request.leased_until is None]
                if free:
                    until = time.time() + self._folder.config.generator.lease_s
                    write_atomically(self._lease_file(free[0].id), json.dumps({"request": free[0].id, "until": until}))
                    return OpenRequest(free[0].id, free[0].operator, free[0].candidate, free[0].requested_at, until)
            if time.monotonic() >= deadline:
                return None
            time.sleep(min(poll_s, max(0.0, deadline - time.monotonic())))

    def messages(self, request: str) -> list[Message]:
        """The prompt of a request. Raises UsageError for one that there is not."""
        event = self._requested().get(request)
        if event is None:
            raise UsageError(self._unknown(request))
        return list(messages_of(event, self._reader.texts(message_refs(event))))

    def answer(self, request: str, text: str) -> None:
        """Give the completion of an open request, leased or not. Raises UsageError, one line, when it is not open."""
        if request not in self._requested():
            raise UsageError(self._unknown(request))
        if request in self._answered():
            raise UsageError(f"request {request} has been answered already: the first answer counts")
        if not text.strip():
            raise UsageError(f"the answer to {request} is empty: give the completion, as its prompt asks for it")
        post_command(self._folder, "answer", {"request": request, "text": text})
        with contextlib.suppress(FileNotFoundError):
            self._lease_file(request).unlink()

    def _requested(self) -> dict[str, Event]:
        events = self._reader.read(kinds=[EventKind.REQUESTED])
        return {event.body["request"]: event for event in events if event.body["model"] == MAILBOX}

    def _answered(self) -> set[str]:
        """Requests with an answer, in the journal or on its way there."""
        recorded = self._reader.read(kinds=[EventKind.COMPLETED, EventKind.LOST, EventKind.COMMAND])
        answered, commands = set(), set()
        for event in recorded:
            if event.kind is EventKind.COMMAND:
                commands.add(event.id.removeprefix("command:"))
                if event.body["kind"] == "answer":
                    answered.add(event.body["body"]["request"])
            else:
                answered.add(event.body["request"])
        for command in self._folder.pending_commands(commands):
            if command.kind == "answer":
                answered.add(str(command.body.get("request")))
        return answered

    def _unknown(self, request: str) -> str:
        waiting = ", ".join(each.id for each in self.open()[:5]) or "none"
        return f"{self._folder.path} has no request {request!r}; open are: {waiting}"

    def _lease_file(self, request: str) -> Path:
        return self._leases / f"{request.replace('/', '_')}.json"

    def _lease(self, request: str) -> float | None:
        try:
            return float(json.loads(self._lease_file(request).read_text(encoding="utf-8"))["until"])
        except (OSError, ValueError, KeyError, TypeError):
            return None  # none, or somebody else's file: the request is free

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One claim at a time on this machine."""
        self._leases.mkdir(exist_ok=True)
        with (self._leases / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
