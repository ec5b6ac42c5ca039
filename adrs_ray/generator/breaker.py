"""A circuit breaker: when a server that failed is asked again.

Pure: told the time. Source: M. Nygard, "Release It!", chapter on stability patterns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

OPENS_AFTER = 3
"""Failures in a row."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
PROBE_S = 2.0
"""Half-open, one request passes in this time until one succeeds: an answer may take minutes, and a server that did not
fail at once is most likely well."""


@dataclass(slots=True)
class Breaker:
    """Closed: requests pass. Open: none does, for a pause that doubles while they fail. Then half-open: a few do.

    Who passes is given a stamp and says with it how it went. Failures of requests that passed before the breaker
    opened tell nothing new: fifty requests lost with one server are one loss.
    """

    _failures: int = 0
    _pauses: int = 0
    """Openings since the last success."""
    _openings: int = 0
    _until: float | None = None
    """When the next request may pass; None while closed."""

    @property
    def closed(self) -> bool:
        return self._until is None

    def wait_s(self, now: float) -> float:
        """Seconds until a request may pass; 0 when it may now."""
        return 0.0 if self._until is None else max(0.0, self._until - now)

    def enter(self, now: float) -> int:
        """A request passes. Returns its stamp. Raises ValueError when none may."""
        if self._until is not None:
            if now < self._until:
                raise ValueError("the breaker is open")
            self._until = now + PROBE_S
        return self._openings

    def succeeded(self) -> None:
        """The server answered."""
        self._failures = self._pauses = 0
        self._until = None

    def failed(self, stamp: int, now: float, lost: bool = False, pause_s: float = 0.0) -> None:
        """A request with this stamp failed. `lost`: so that no other can work now. `pause_s`: what the server asked
        for, in which none passes."""
        if stamp != self._openings:
            return
        self._failures += 1
        if lost or pause_s > 0 or self._until is not None or self._failures >= OPENS_AFTER:
            pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * math.ldexp(1.0, min(self._pauses, 30)))
            self._openings += 1
            self._pauses += 1
            self._until = now + max(pause, pause_s)
