"""What people and detectors have told an island, beyond what it found out itself. Pure; built from the journal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adrs_ray.supervision.interventions import Intervention


class Guidance:
    """Hints, pins, pauses; heat, due shifts and migrations; which islands are alive."""

    def __init__(self, number: int, islands: int) -> None:
        self._number = number
        self.hints: list[str] = []
        self.pinned: list[str] = []
        self.scratchpad = ""
        self.heat = 1.0
        """Factor for exploration and for the temperatures of models."""
        self.shift = False
        """A paradigm shift is due."""
        self.migrate = False
        """Elites leave after the next decision."""
        self.paused = False
        self.retired = False
        self.active = tuple(range(islands))
        """Numbers of the islands that are alive."""

    def concerns(self, body: Mapping[str, Any]) -> bool:
        """Whether a command is for this island: it names it, or none."""
        return body.get("island") in (None, self._number)

    def obey(self, kind: str, body: Mapping[str, Any]) -> None:
        """A command that concerns this island."""
        if kind == "hint":
            self.hints.append(body["text"])
        elif kind == "pin":
            self.pinned.append(body["candidate"])
        elif kind == "ban":
            self.pinned = [pinned for pinned in self.pinned if pinned != body["candidate"]]
        elif kind in ("pause", "continue"):
            self.paused = kind == "pause"

    def intervene(self, intervention: Intervention) -> None:
        """What was decided about this island's health."""
        if intervention.kind == "temperature":
            self.heat = float(intervention.value["factor"])
        elif intervention.kind == "migrate":
            self.migrate = True
        elif intervention.kind == "shift":
            self.shift = True

    def spawned(self, number: int) -> None:
        """An island was started."""
        self.active = tuple(sorted({*self.active, number}))

    def has_retired(self, number: int) -> None:
        """An island ends, perhaps this one."""
        self.active = tuple(n for n in self.active if n != number)
        self.retired = self.retired or number == self._number
