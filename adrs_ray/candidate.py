"""The values that travel between modules: frozen, plain, and serialisable as JSON.

A candidate goes PROPOSED -> GENERATED -> MEASURED -> ADMITTED | REJECTED(failure).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeAlias


class FailureKind(StrEnum):
    """Why a candidate has no score. Each kind belongs to one class of the paper's taxonomy (`FAILURE_CLASS`)."""

    SYNTAX = "syntax"
    INTERFACE = "interface"
    CRASH = "crash"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT = "output"
    """NaN, malformed or too large."""
    INVALID = "invalid"
    """A constraint of the task is broken: late, unplaced, not a permutation."""
    VIOLATION = "violation"
    """Killed by the jail."""
    REWARD_HACKING = "reward_hacking"
    """Forged result, altered input, impossible time, or better than a proven bound."""
    DUPLICATE = "duplicate"
    GENERATION = "generation"
    """The model gave nothing usable."""
    BUDGET_EXHAUSTED = "budget_exhausted"
    GATED = "gated"
    """A cheaper stage says that it is not worth a measurement on the dearer one."""
    INFRASTRUCTURE = "infrastructure"
    """Ours: retried, never held against the candidate."""


FAILURE_CLASS: Mapping[FailureKind, Literal["runtime", "search", "algorithm", "ours"]] = {
    FailureKind.SYNTAX: "runtime",
    FailureKind.INTERFACE: "runtime",
    FailureKind.CRASH: "runtime",
    FailureKind.TIMEOUT: "runtime",
    FailureKind.MEMORY: "runtime",
    FailureKind.OUTPUT: "runtime",
    FailureKind.BUDGET_EXHAUSTED: "runtime",
    FailureKind.GENERATION: "runtime",
    FailureKind.DUPLICATE: "search",
    FailureKind.GATED: "search",
    FailureKind.INVALID: "algorithm",
    FailureKind.VIOLATION: "algorithm",
    FailureKind.REWARD_HACKING: "algorithm",
    FailureKind.INFRASTRUCTURE: "ours",
}
"""The paper's taxonomy: runtime (the program does not run to an answer), search (the loop repeats itself),
algorithm (it runs and answers, wrongly or dishonestly); `ours` is not the candidate's failure."""

Trust: TypeAlias = Literal["verified", "candidate-side", "unsafe"]
"""`verified`: judged outside the process that ran the candidate, which was jailed. `candidate-side`: the
evaluator itself ran beside the candidate (OpenEvolve-style folders). `unsafe`: no jail."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One program under judgement.

    `id` is `<island>-<decision>` (`seed-<n>` for programs the run started from), so that the same decision taken
    again after a crash is the same candidate.
    """

    id: str
    island: int
    decision: int
    operator: str
    parents: tuple[str, ...]
    source: str
    fingerprint: str
    """Digest of the normalised syntax tree (`adrs_ray.program.fingerprint`)."""
    arm: tuple[str, str] = ("mutate", "mutate")
    """(model, operator) that was chosen; `operator` is what was really done."""
    note: str = ""
    """What was tried, one line in the model's words."""
    cost: float = 0.0
    """As `adrs_ray.outcome.Outcome.cost`."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one request to a model cost. Tokens as the server counted them; `estimated` where it did not say."""

    tokens_in: int = 0
    """Of the prompt, cached ones included."""
    tokens_out: int = 0
    """Reasoning included."""
    tokens_cached: int = 0
    tokens_reasoning: int = 0
    usd: float = 0.0
    gpu_s: float = 0.0
    latency_s: float = 0.0
    """Of the attempt that succeeded, or that was the last."""
    attempts: int = 1
    estimated: bool = False

    @property
    def tokens(self) -> int:
        return self.tokens_in + self.tokens_out


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model gave. None as `text` means nothing usable, and `detail` says why.

    `text` is read as the request's `form` says: a whole program, or an answer with edits in it.
    """

    text: str | None
    model: str
    operator: str
    """What was really done, such as `mutate:literal`, `crossover:block` or `diff`."""
    detail: str = ""
    reasoning: str = ""
    """What the model thought aloud; stored apart, never read as an answer."""
    thinking_only: bool = False
    """All tokens were spent and no answer came: asked again with less reasoning."""
    usage: Usage = Usage()
    unavailable: bool = False
    """The server gave no answer and charged nothing (down, overloaded): the same request is sent again later."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What one case of a split gave; `metrics` in the units of task.yaml, `cpu_s` measured by the parent."""

    case: str
    metrics: Mapping[str, float]
    cpu_s: float
    wall_s: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """How a verdict came about: the layers of the jail that held, and what the candidate was denied and survived."""

    jail: tuple[str, ...] = ()
    denied: Mapping[str, int] = field(default_factory=dict)
    """Denied action -> count, such as {'socket': 3, 'open:/etc/shadow': 1}."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A candidate ran on every case of a split and broke no rule."""

    score: float
    """One finite float, higher is better."""
    metrics: Mapping[str, float]
    cases: tuple[CaseResult, ...]
    trust: Trust
    wall_s: float
    artifacts: Mapping[str, str] = field(default_factory=dict)
    evidence: Evidence = field(default_factory=Evidence)
    attempts: int = 1
    """How often the evaluation was started, this time included (worker losses, resumes)."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A candidate has no score; `detail` is one line, `case` the first case that failed (None before any case)."""

    kind: FailureKind
    detail: str
    case: str | None = None
    trust: Trust = "verified"
    wall_s: float = 0.0
    artifacts: Mapping[str, str] = field(default_factory=dict)
    """For example `traceback` (trimmed to the candidate's frames), `stdout`, `stderr`."""
    evidence: Evidence = field(default_factory=Evidence)
    attempts: int = 1


Verdict: TypeAlias = Evaluation | Failure


@dataclass(frozen=True, slots=True)
class Refused:
    """What a decision led to when there is nothing to evaluate: a duplicate, or nothing usable."""

    id: str
    island: int
    decision: int
    operator: str
    parents: tuple[str, ...]
    failure: Failure
    source: str | None = None
    """The program, where there was one."""
    repeats: str = ""
    """The candidate that a duplicate repeats."""
    arm: tuple[str, str] = ("mutate", "mutate")
    note: str = ""
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Measurement:
    """One verdict and what it was about: a stage of the cascade, a split, and the repeat on that split."""

    candidate: str
    stage: str
    split: str
    repeat: int
    verdict: Verdict


def verdict_to_json(verdict: Verdict) -> dict[str, Any]:
    """A JSON-ready dict that `verdict_from_json` turns back into an equal value."""
    common: dict[str, Any] = {
        "trust": verdict.trust,
        "wall_s": verdict.wall_s,
        "artifacts": dict(verdict.artifacts),
        "evidence": {"jail": list(verdict.evidence.jail), "denied": dict(verdict.evidence.denied)},
        "attempts": verdict.attempts,
    }
    if isinstance(verdict, Failure):
        return {"failure": verdict.kind.value, "detail": verdict.detail, "case": verdict.case, **common}
    cases = [[c.case, dict(c.metrics), c.cpu_s, c.wall_s] for c in verdict.cases]
    return {"score": verdict.score, "metrics": dict(verdict.metrics), "cases": cases, **common}


def verdict_from_json(data: Mapping[str, Any]) -> Verdict:
    """The inverse of `verdict_to_json`. Raises KeyError or ValueError on a foreign dict."""
    common: dict[str, Any] = {
        "trust": data["trust"],
        "wall_s": data["wall_s"],
        "artifacts": data["artifacts"],
        "evidence": Evidence(tuple(data["evidence"]["jail"]), data["evidence"]["denied"]),
        "attempts": data["attempts"],
    }
    if "failure" in data:
        return Failure(FailureKind(data["failure"]), data["detail"], data["case"], **common)
    cases = tuple(CaseResult(*case) for case in data["cases"])
    return Evaluation(data["score"], data["metrics"], cases, **common)
