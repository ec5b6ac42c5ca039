"""How a candidate's process ended, as a failure of the candidate."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from typing import Any

from adrs_ray.candidate import FailureKind
from adrs_ray.task import Limits


class CandidateError(Exception):
    """The candidate failed; ends its evaluation."""

    def __init__(self, kind: FailureKind, detail: str, traceback: str = "") -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.traceback = traceback


def cause_of_end(ended: Mapping[str, Any], limits: Limits) -> CandidateError:
    """Why a process that owed an answer has ended."""
    reason = ended["reason"] or ""
    if reason == "memory":
        return CandidateError(FailureKind.MEMORY, f"more than {limits.memory_mb} MB of memory (limits.memory_mb)")
    if reason.startswith("violation:"):
        return CandidateError(FailureKind.VIOLATION, f"killed by the jail: {reason.partition(':')[2]}")
    if reason:
        return CandidateError(FailureKind.VIOLATION, f"killed by the jail: more {reason} than the task allows")
    status = ended["status"]
    if os.WIFEXITED(status):
        return CandidateError(FailureKind.CRASH, f"the process exited with code {os.WEXITSTATUS(status)}, no result")
    number = os.WTERMSIG(status)
    if number == signal.SIGSYS:
        return CandidateError(FailureKind.VIOLATION, "killed by the jail: a system call that no program needs")
    if number == signal.SIGXCPU:
        return CandidateError(FailureKind.TIMEOUT, "all CPU time spent")
    with contextlib.suppress(ValueError):
        return CandidateError(FailureKind.CRASH, f"killed by signal {signal.Signals(number).name}, no result")
    return CandidateError(FailureKind.CRASH, f"killed by signal {number}, no result")
