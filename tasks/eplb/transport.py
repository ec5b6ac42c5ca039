"""What a round costs apart from the program: measured before any of its code has run, taken off afterwards.

    seconds = round_s + call_s * calls + mb_s * megabytes there and back

A program can make this slower for itself, never faster than a process that does nothing else but hand arrays on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """One round with maps made beforehand."""

    calls: int
    megabytes: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Transport:
    """The three costs, none negative."""

    round_s: float
    call_s: float
    mb_s: float

    def seconds(self, calls: float, megabytes: float) -> float:
        """Of a round."""
        return self.round_s + self.call_s * calls + self.mb_s * megabytes


def fit(rehearsals: Sequence[Rehearsal]) -> Transport:
    """Least squares of relative errors, so that small rounds count as much as large ones."""
    rows = np.array([[1.0, each.calls, each.megabytes] for each in rehearsals])
    seconds = np.array([each.seconds for each in rehearsals])
    costs, _ = nnls(rows / seconds[:, None], np.ones(len(rows)))
    return Transport(*(float(cost) for cost in costs))


def seconds_per_call(transport: Transport, round_s: float, calls: float, megabytes: float, told_s: float) -> float:
    """What one call took. `round_s` is the referee's, `told_s` the program's own sum over the calls of a round.

    The program's clock reads single calls and so is the finer one; it is believed as far as the referee's agrees: no
    lower than what is left of the round, less a tenth of the transport. So a clock that lies gains that much at most.
    """
    carried = transport.seconds(calls, megabytes)
    least = max(0.0, round_s - carried - CLOCK_SLACK * carried)
    return min(max(told_s, least), round_s) / calls


CLOCK_SLACK = 0.1
