"""From a program to a verdict: runs the cases of a split in a slot and lets the task's judge decide.

The judge runs here, in the worker; the candidate's process gets `Case.public` and nothing else.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adrs_ray.candidate import CaseResult, Evaluation, Evidence, Failure, FailureKind, Trust, Verdict
from adrs_ray.evaluator.building import provide_built
from adrs_ray.evaluator.candidate_process import Account, Child
from adrs_ray.evaluator.codec import UnencodableError
from adrs_ray.evaluator.ends import CandidateError
from adrs_ray.evaluator.slot import ForkServer
from adrs_ray.task import Case, Combined, InvalidOutput, MalformedOutput, RewardHacking, Task

_ARTIFACT_CHARS = 16_000
_JUDGED = {
    InvalidOutput: FailureKind.INVALID,
    MalformedOutput: FailureKind.OUTPUT,
    RewardHacking: FailureKind.REWARD_HACKING,
}


class _JudgeBrokeError(Exception):
    """The judge raised what it may not: the task's fault."""


@dataclass
class _Notes:
    """What is gathered over the cases of one evaluation."""

    denied: dict[str, int] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    stdout: str = ""
    stderr: str = ""

    def add(self, account: Account) -> None:
        for counts in (account.denied, account.opened):
            for name, count in counts.items():
                self.denied[name] = self.denied.get(name, 0) + count
        self.layers = account.layers or self.layers
        self.stdout = account.stdout or self.stdout
        self.stderr = account.stderr or self.stderr

    def evidence(self) -> Evidence:
        return Evidence(self.layers, {printable(name): count for name, count in self.denied.items()})

    def artifacts(self, more: Mapping[str, str]) -> dict[str, str]:
        printed = {name: text for name, text in (("stdout", self.stdout), ("stderr", self.stderr)) if text}
        return {printable(name): printable(text) for name, text in {**printed, **more}.items()}


def judge_program(
    task: Task, cases: Sequence[Case], source: str, server: ForkServer, trust: Trust, attempts: int
) -> Verdict:
    """The verdict; the first case that fails ends it. Raises SlotError when the slot failed, never for a candidate."""
    started = time.monotonic()
    notes = _Notes()
    results: list[CaseResult] = []
    case_id: str | None = None
    run = _run_shared if task.spec.share_process else _run_fresh
    try:
        provide_built(server, source, notes.add)
        for step, result in run(task, cases, source, server, notes):
            case_id = step
            if result is not None:
                results.append(result)
        case_id = None
        combined = _trusted(_combined, task, results)
        score = _finite("score", combined.score)
        metrics = {name: _finite(name, value) for name, value in combined.metrics.items()}
        _refuse_beyond_bound(score, metrics)
    except CandidateError as error:
        kind, detail, more = error.kind, error.detail, {"traceback": error.traceback} if error.traceback else {}
    except _JudgeBrokeError as error:
        cause = error.__cause__
        kind = FailureKind.INFRASTRUCTURE
        detail = f"judge.py of task {task.name} raised {type(cause).__name__}: {' '.join(str(cause).split())[:300]}"
        more = {"traceback": "".join(traceback.format_exception(cause))[-_ARTIFACT_CHARS:]}
    else:
        return Evaluation(
            score=score,
            metrics=metrics,
            cases=tuple(results),
            trust=trust,
            wall_s=time.monotonic() - started,
            artifacts=notes.artifacts(combined.artifacts),
            evidence=notes.evidence(),
            attempts=attempts,
        )
    return Failure(
        kind=kind,
        detail=printable(detail),
        case=case_id,
        trust=trust,
        wall_s=time.monotonic() - started,
        artifacts=notes.artifacts(more),
        evidence=notes.evidence(),
        attempts=attempts,
    )


_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """A candidate's words with control characters and lone surrogates escaped.

    What it says is shown on terminals: it shall neither rewrite the verdict beside it there nor fail to be encoded.
    """
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


_Step = tuple[str, CaseResult | None]
"""The case under way, first without and then with its result."""


def _run_fresh(task: Task, cases: Sequence[Case], source: str, server: ForkServer, notes: _Notes) -> Any:
    """A process for each case."""
    for case in cases:
        yield case.id, None
        started = time.monotonic()
        child = Child(server, started + task.spec.limits.case_timeout_s)
        started += child.waited_s
        try:
            child.request({"load": source, "seed": case.seed})
            raw = _play(task, case, child)
            wall_s = time.monotonic() - started
            child.finish()
        finally:
            child.abandon()
            notes.add(child.account)
        yield case.id, CaseResult(case.id, _score(task, case, raw), child.account.cpu_s, wall_s)


def _run_shared(task: Task, cases: Sequence[Case], source: str, server: ForkServer, notes: _Notes) -> Any:
    """One process for all cases; loading counts as part of the first."""
    started = time.monotonic()
    child = Child(server, started + task.spec.limits.case_timeout_s, len(cases))
    started += child.waited_s
    before_s = 0.0
    try:
        for position, case in enumerate(cases):
            yield case.id, None
            if position == 0:
                child.request({"load": source, "seed": case.seed})
            else:
                started = time.monotonic()
                child.deadline = started + task.spec.limits.case_timeout_s
            raw = _play(task, case, child)
            wall_s = time.monotonic() - started
            now_s = child.cpu_s()
            cpu_s, before_s = now_s - before_s, now_s
            yield case.id, CaseResult(case.id, _score(task, case, raw), cpu_s, wall_s)
        child.finish()
    finally:
        child.abandon()
        notes.add(child.account)


def _play(task: Task, case: Case, child: Child) -> Any:
    """The raw output of a case: of one call, or of a referee's whole game."""
    if task.referee is None:
        return _ask(child, {"run": case.public, "seed": case.seed})
    game = _trusted(task.referee, case)
    try:
        with child.on_one_core() if task.spec.cpus <= 1 else contextlib.nullcontext():
            return _referee(game, case, child)
    finally:
        game.close()


def _referee(game: Any, case: Case, child: Child) -> Any:
    try:
        action = _ask(child, {"act": _trusted(next, game), "seed": case.seed})
        while True:
            observation = _trusted(game.send, action)
            try:
                action = child.act(observation)
            except UnencodableError as error:
                raise _JudgeBrokeError from error
    except _JudgeBrokeError as error:
        if isinstance(error.__cause__, StopIteration):
            return error.__cause__.value
        raise


def _ask(child: Child, request: Mapping[str, Any]) -> Any:
    """The candidate's answer to what the judge made."""
    try:
        return child.request(request)
    except UnencodableError as error:
        raise _JudgeBrokeError from error


def _score(task: Task, case: Case, raw: Any) -> Mapping[str, float]:
    metrics = _trusted(lambda: dict(task.judge.score(case, raw)))
    return {name: _finite(name, value) for name, value in metrics.items()}


def _combined(task: Task, results: Sequence[CaseResult]) -> Combined:
    combined = task.judge.combine(results)
    if not isinstance(combined, Combined):
        raise TypeError(f"combine gave a {type(combined).__name__}, expected adrs_ray.task.Combined")
    return combined


_BOUND_TOLERANCE = 1e-9


def _refuse_beyond_bound(score: float, metrics: Mapping[str, float]) -> None:
    """`score_bound` is proven: a score above it was not earned."""
    bound = metrics.get("score_bound")
    if bound is not None and score > bound + _BOUND_TOLERANCE * max(1.0, abs(bound)):
        raise CandidateError(FailureKind.REWARD_HACKING, f"the score {score!r} is above the proven bound {bound!r}")


def _trusted(call: Any, *args: Any) -> Any:
    """Call the judge: its verdicts become the candidate's failures, anything else is the task's own."""
    try:
        return call(*args)
    except (InvalidOutput, MalformedOutput, RewardHacking) as error:
        kind = next(kind for exception, kind in _JUDGED.items() if isinstance(error, exception))
        raise CandidateError(kind, " ".join(str(error).split())[:400]) from error
    except Exception as error:
        raise _JudgeBrokeError from error


def _finite(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise _JudgeBrokeError from error
    if not math.isfinite(number):
        raise CandidateError(FailureKind.OUTPUT, f"{name} is {number}")
    return number
