"""Evaluator: runs a candidate in a jail, judges its raw output outside of it.

`Evaluator` is the seam; implementations are `adrs_ray.evaluator.local.LocalEvaluator` (fork servers of this machine),
`adrs_ray.evaluator.staged.StagedEvaluator` (one evaluator per stage) and `cluster.evaluator.RayEvaluator`. One contract
suite runs against each. `docs/jail.md` describes the jail.

Three processes, and the modules of each:

    worker (trusted)        local               slots of this machine: one thread and one fork server each
                            staged, gpus        slots by stage; which GPUs there are, and whose turn it is
                            confinement         decides once how this machine jails
                            slot                starts, watches and ends a fork server
                            candidate_process   one child: requests, replies, limits
                            ends                how it ended, as a failure
                            building, builds    the build step, and the cache of what it made
                            device_nodes        what of a GPU's driver a slot opens
                            device_memory       what the driver says of processes' memory there
                            judging             cases, judge and referee: from a program to a verdict
                            scratch             the slot's folder for files: watched, emptied
                            doctor              one verdict without a run; what holds on this machine
    fork server (trusted)   bootstrap           entry point, under the interpreter of candidates
                            interpreter         asked once: what that interpreter must be able to read
                            forkserver          imports the adapter, forks, keeps spares, accounts
                            watch               one child under its eyes: denied calls, caps, the end
    child (untrusted)       child               serves requests with adapter and program
                            jail                puts the layers on, in this order:
                            landlock, privileges, seccomp
                            numba_cache         lets programs find what the build step compiled
                            openevolve_adapter, openevolve_semaphores, openevolve_shims
                                                adapter of OpenEvolve-style folders
                            doctor_probes       the program that `doctor` runs
    beside them             confined, supervisor
                                                one program in the jail, for benchmarks
    shared                  channel, codec      frames with a nonce; JSON and plain arrays
                            processes           descendants, threads, kills
                            libc, syscalls      calls that Python does not wrap, and their numbers

What fork server and child import is standard library only (numpy where it is there): they run under the interpreter
of candidates, which need not have this package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from adrs_ray.candidate import Verdict
from adrs_ray.task import Split


@dataclass(frozen=True, slots=True)
class EvaluationJob:
    """One evaluation: the program `source` on all cases of `split`."""

    candidate: str
    source: str
    split: Split = "train"
    repeat: int = 0
    attempts: int = 0
    """Starts of this evaluation that are known to have been lost before."""
    stage: str = ""
    """Which stage of the task measures it; empty: the last one, whose score counts."""


class Evaluator(Protocol):
    """Turns a program into a verdict: never an exception for what a candidate does, never a hang because of it.

    A judge that does not return is the task's fault and is not interrupted.

    Concurrency: any number of calls at once; each waits for a free slot. Idempotent: the same job twice gives two
    verdicts on the same cases, and the journal keeps the first.
    """

    @property
    def slots(self) -> int:
        """How many evaluations run at once."""
        ...

    async def start(self) -> None:
        """Make the slots ready. Raises UsageError when this machine cannot jail (and `sandbox` is not `unsafe`)."""
        ...

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        """The verdict. `Failure(INFRASTRUCTURE)` when our processes failed and all retries are used up, or when the
        judge itself broke. Raises UsageError when the task has no cases for the split."""
        ...

    async def close(self) -> None:
        """End every process of the slots; safe to call twice."""
        ...
