"""The build step: before a program's first case it may compile what it needs, off the clock, in a jail of its own.

What it built is there in all its cases, to read. While a machine's cache has it, the same program is not built again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from adrs_ray.candidate import FailureKind
from adrs_ray.evaluator.builds import BUILT, BUILT_MB, BuildCache, UnkeepableError, empty
from adrs_ray.evaluator.candidate_process import Account, Child
from adrs_ray.evaluator.ends import CandidateError
from adrs_ray.evaluator.slot import ForkServer, SlotError


def provide_built(server: ForkServer, source: str, note: Callable[[Account], None]) -> None:
    """Have what the program built lie in the slot's folder for it. `note` gets the account of a build that takes place
    now, however it ends.

    Nothing happens where the task has no build step. Raises CandidateError, whose line begins with `build:`, and
    SlotError.
    """
    builds = server.builds
    if builds is None:
        return
    key = hashlib.sha256(f"{server.fingerprint}\0".encode() + source.encode("utf-8", "surrogatepass")).hexdigest()
    target = server.scratch.built
    try:
        empty(target)
        if builds.place(key, target, server.strict):
            return
        _build(server, builds, source, key, note)
        if not builds.place(key, target, server.strict):
            raise SlotError("what a program had built is gone from the cache at once: is its disk full?")
    except OSError as error:
        raise SlotError(f"cannot keep what a program had built: {error}") from error


def _build(server: ForkServer, builds: BuildCache, source: str, key: str, note: Callable[[Account], None]) -> None:
    limits = server.limits
    terms = limits.model_copy(
        update={
            "case_timeout_s": limits.build_timeout_s,
            "memory_mb": limits.build_memory_mb,
            "processes": limits.build_processes,
            "scratch_mb": BUILT_MB,
        }
    )
    child = Child(server, time.monotonic() + terms.case_timeout_s, build_terms=terms)
    taken: list[Path] = []
    folder = server.scratch.path / BUILT
    child.before_renewal = lambda: taken.append(builds.take(folder))
    try:
        child.request({"load": source, "seed": 0})
        child.request({"build": True})
        child.finish()
        builds.publish(taken.pop(), key)
    except UnkeepableError as error:
        raise CandidateError(FailureKind.OUTPUT, f"build: {error}") from None
    except CandidateError as error:
        detail = error.detail.replace("limits.memory_mb", "limits.build_memory_mb")
        raise CandidateError(error.kind, f"build: {detail}", error.traceback) from None
    finally:
        child.before_renewal = None
        child.abandon()
        note(child.account)
        for partial in taken:
            builds.discard(partial)
