"""What a journal says, folded event by event: the state of a run for resuming, showing and watching it.

A view takes the events in order of seq and costs O(1) per event; it holds refs of programs, never their texts. Two
views that were given the same events are equal, in how many portions they came.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from adrs_ray.candidate import FailureKind, Usage
from adrs_ray.generator import total_usage
from adrs_ray.storage.journal import Event, EventKind


class State(IntEnum):
    """How far a candidate has come; it never goes back. The last two are terminal, and only one of them is reached."""

    PROPOSED = 1
    GENERATED = 2
    MEASURED = 3
    ADMITTED = 4
    REJECTED = 5


@dataclass(frozen=True, slots=True)
class Pending:
    """A program that was acknowledged and has no terminal state: what is needed to evaluate it again."""

    candidate: str
    island: int
    decision: int
    operator: str
    parents: tuple[str, ...]
    source: str
    """Text ref."""
    fingerprint: str
    epoch: int
    """Of the writer that recorded it; earlier epochs may have started its evaluation."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a candidate comes from."""

    island: int
    operator: str
    parents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Admitted:
    """An admitted candidate and its train score; `source` is a text ref."""

    candidate: str
    island: int
    score: float
    operator: str
    source: str
    fingerprint: str
    metrics: Mapping[str, float]
    terminal: int
    """Candidates in a terminal state by then, this one included."""
    at: float
    stages: Mapping[str, float] = field(default_factory=dict)
    """Of a task with stages, the train score in each, in their order."""


@dataclass(frozen=True, slots=True)
class SplitResult:
    """What one program got on a held-out split: the mean score over repeats, or the first failure."""

    score: float | None
    failure: FailureKind | None
    repeats: int

    def and_also(self, verdict: Mapping[str, Any]) -> SplitResult:
        """With one more repeat."""
        repeats = self.repeats + 1
        if self.failure is not None:
            return SplitResult(None, self.failure, repeats)
        if "failure" in verdict:
            return SplitResult(None, FailureKind(verdict["failure"]), repeats)
        total = (self.score or 0.0) * self.repeats + verdict["score"]
        return SplitResult(total / repeats, None, repeats)


@dataclass(frozen=True, slots=True)
class Improvement:
    """A train score that beat all before it."""

    terminal: int
    """Candidates in a terminal state by then, this one included."""
    best: Admitted
    at: float


@dataclass(slots=True)
class ArmView:
    """What came of the decisions of one (model, operator)."""

    tried: int = 0
    admitted: int = 0
    improved: int = 0
    """Above their parent."""
    gain: float = 0.0
    """Sum of what they are above their parents, in units of score."""
    cost: float = 0.0
    """As `adrs_ray.outcome.Outcome.cost`."""


@dataclass(slots=True)
class IslandView:
    """One island; number -1 holds the programs that the run started from."""

    terminal: int = 0
    best: Admitted | None = None
    decision: int = -1
    """The highest decision number seen; -1 before the first."""
    granted: int = 0
    """Candidates it was allowed, over all starts of the run."""
    migrants: int = 0
    """Elites received."""


@dataclass(slots=True)
class RunView:
    """The run as the journal tells it up to `seq`."""

    seq: int = 0
    candidates: dict[str, State] = field(default_factory=dict)
    states: Counter[State] = field(default_factory=Counter)
    """How many candidates are in each state now."""
    failures: Counter[FailureKind] = field(default_factory=Counter)
    islands: dict[int, IslandView] = field(default_factory=dict)
    lineage: dict[str, Lineage] = field(default_factory=dict)
    admitted: dict[str, Admitted] = field(default_factory=dict)
    pending: dict[str, Pending] = field(default_factory=dict)
    undecided: dict[str, int] = field(default_factory=dict)
    """Candidates that were proposed and have neither program nor end -> island."""
    improvements: list[Improvement] = field(default_factory=list)
    held_out: dict[str, dict[str, SplitResult]] = field(default_factory=dict)
    """Split (validation, test, stress) -> candidate or baseline -> result."""
    gates: dict[str, Counter[str]] = field(default_factory=dict)
    """Stage -> what let candidates through behind it, or held them back (`adrs_ray.cascade.Decision.by`)."""
    random_passes: set[str] = field(default_factory=set)
    """Candidates that a gate would have held back and let through at random."""
    reexecuted: int = 0
    """Evaluations started more than once (worker losses, resumes): the extra starts."""
    arms: dict[tuple[str, str], ArmView] = field(default_factory=dict)
    """By (model, operator)."""
    usage: dict[str, Usage] = field(default_factory=dict)
    """By model: what its requests cost, lost ones in full."""
    requests: Counter[str] = field(default_factory=Counter)
    """By model: requests that were answered or lost."""
    lost: Counter[str] = field(default_factory=Counter)
    """By model: requests in flight when their process died."""
    open_requests: dict[str, Event] = field(default_factory=dict)
    """REQUESTED without an answer, by request."""
    findings: list[Event] = field(default_factory=list)
    """FOUND events."""
    interventions: list[Event] = field(default_factory=list)
    """INTERVENED events."""
    banned: set[str] = field(default_factory=set)
    """Candidates that a person banned."""
    orders: list[Event] = field(default_factory=list)
    """COMMAND events."""
    epochs: list[int] = field(default_factory=list)
    """One per start of the run."""
    commands: set[str] = field(default_factory=set)
    """Ids of commands that were taken in."""
    end: Mapping[str, Any] | None = None
    """Body of RUN_ENDED {reason, wall_s, candidates, champion}; None while the run goes on."""
    first_at: float | None = None
    last_at: float | None = None

    @classmethod
    def of(cls, events: Iterable[Event]) -> RunView:
        """The view of these events."""
        view = cls()
        for event in events:
            view.apply(event)
        return view

    @property
    def terminal(self) -> int:
        """Candidates in a terminal state, seeds and duplicates included."""
        return self.states[State.ADMITTED] + self.states[State.REJECTED]

    @property
    def duplicates(self) -> int:
        return self.failures[FailureKind.DUPLICATE]

    @property
    def resumes(self) -> int:
        """Starts of the run after the first."""
        return max(0, len(self.epochs) - 1)

    @property
    def best(self) -> Admitted | None:
        """The best on train; of equal scores the first."""
        return self.improvements[-1].best if self.improvements else None

    @property
    def since_best(self) -> int:
        """Terminal candidates since the best train score last rose."""
        return self.terminal - (self.improvements[-1].terminal if self.improvements else 0)

    @property
    def champion(self) -> str | None:
        """The candidate that RUN_ENDED names; None while the run goes on, and when no candidate is valid."""
        return None if self.end is None else self.end["champion"]

    @property
    def test_looks(self) -> int:
        """How often any program was measured on the test split."""
        return sum(result.repeats for result in self.held_out.get("test", {}).values())

    def top(self, count: int) -> list[Admitted]:
        """The best on train, best first; of equal scores the first admitted. O(candidates)."""
        valid = (admitted for admitted in self.admitted.values() if admitted.candidate not in self.banned)
        return heapq.nlargest(count, valid, key=lambda admitted: admitted.score)

    def apply(self, event: Event) -> None:
        """Fold one more event. Raises ValueError when it is not later than the last one."""
        if event.seq <= self.seq:
            raise ValueError(f"event {event.id} has seq {event.seq}, the view is at {self.seq} already")
        self.seq = event.seq
        self.first_at = event.at if self.first_at is None else self.first_at
        self.last_at = event.at
        _FOLD[event.kind](self, event)

    def _proposed(self, event: Event) -> None:
        if self._advance(event, State.PROPOSED):
            self.undecided[_name(event)] = event.island
        self._decided(event)

    def _generated(self, event: Event) -> None:
        name, body = _name(event), event.body
        if self._advance(event, State.GENERATED):
            self.undecided.pop(name, None)
            self.pending[name] = Pending(
                candidate=name,
                island=event.island,
                decision=body["decision"],
                operator=body["operator"],
                parents=tuple(body["parents"]),
                source=body["source"],
                fingerprint=body["fingerprint"],
                epoch=event.epoch,
            )
        self._descends(event)
        self._decided(event)

    def _measured(self, event: Event) -> None:
        name, split, verdict = _name(event), event.body["split"], event.body["verdict"]
        self.reexecuted += max(0, verdict["attempts"] - 1)
        if split == "train":
            self._advance(event, State.MEASURED)
            if "gate" in event.body:
                self._gated(name, event.body["stage"], event.body["gate"]["by"])
        else:
            results = self.held_out.setdefault(split, {})
            results[name] = results.get(name, SplitResult(None, None, 0)).and_also(verdict)

    def _gated(self, name: str, stage: str, by: str) -> None:
        self.gates.setdefault(stage, Counter())[by] += 1
        if by == "random":
            self.random_passes.add(name)

    def _admitted(self, event: Event) -> None:
        if not self._settle(event, State.ADMITTED):
            return
        body = event.body
        new = Admitted(
            candidate=_name(event),
            island=event.island,
            score=body["score"],
            operator=body["operator"],
            source=body["source"],
            fingerprint=body["fingerprint"],
            metrics=body["metrics"],
            terminal=self.terminal,
            at=event.at,
            stages=body.get("stages", {}),
        )
        self.admitted[new.candidate] = new
        island = self._island(event)
        if island.best is None or new.score > island.best.score:
            island.best = new
        self._improve(new)

    def _improve(self, new: Admitted) -> None:
        if new.candidate not in self.banned and (self.best is None or new.score > self.best.score):
            self.improvements.append(Improvement(new.terminal, new, new.at))

    def _rejected(self, event: Event) -> None:
        if self._settle(event, State.REJECTED):
            self.failures[FailureKind(event.body["failure"])] += 1

    def _migrated(self, event: Event) -> None:
        self._island(event).migrants += 1

    def _requested(self, event: Event) -> None:
        self.open_requests[event.body["request"]] = event

    def _answered(self, event: Event) -> None:
        body = event.body
        self.open_requests.pop(body["request"], None)
        model, usage = body["model"], Usage(**body["usage"])
        before = self.usage.get(model)
        self.usage[model] = usage if before is None else total_usage((before, usage))
        self.requests[model] += 1
        if event.kind is EventKind.LOST:
            self.lost[model] += 1

    def _noted(self, _: Event) -> None:
        """A scratchpad is its island's business."""

    def _found(self, event: Event) -> None:
        self.findings.append(event)

    def _intervened(self, event: Event) -> None:
        self.interventions.append(event)

    def _commanded(self, event: Event) -> None:
        self.commands.add(event.id.removeprefix("command:"))
        self.orders.append(event)
        if event.body["kind"] == "ban":
            self._ban(event.body["body"]["candidate"])

    def _ban(self, candidate: str) -> None:
        """A banned candidate is no champion: the rise of the best is told as if it had never been."""
        self.banned.add(candidate)
        self.improvements = []
        for admitted in self.admitted.values():
            self._improve(admitted)
        for number, island in self.islands.items():
            if island.best is not None and island.best.candidate == candidate:
                valid = (a for a in self.admitted.values() if a.island == number and a.candidate not in self.banned)
                island.best = max(valid, key=lambda admitted: admitted.score, default=None)

    def _granted(self, event: Event) -> None:
        self._island(event).granted += event.body.get("count", 0)

    def _started(self, event: Event) -> None:
        self.epochs.append(event.epoch)
        self.end = None

    def _ended(self, event: Event) -> None:
        self.end = event.body

    def _settle(self, event: Event, state: State) -> bool:
        if not self._advance(event, state):
            return False
        self.pending.pop(_name(event), None)
        self.undecided.pop(_name(event), None)
        self._island(event).terminal += 1
        self._count_arm(event.body)
        self._descends(event)
        self._decided(event)
        return True

    def _count_arm(self, body: Mapping[str, Any]) -> None:
        model, operator = body["arm"]
        arm = self.arms.setdefault((model, operator), ArmView())
        gain = body.get("gain") or 0.0
        arm.tried += 1
        arm.admitted += "score" in body
        arm.improved += gain > 0
        arm.gain += max(0.0, gain)
        arm.cost += body["cost"]

    def _advance(self, event: Event, state: State) -> bool:
        """Move a candidate on; False when it was as far already."""
        name = _name(event)
        before = self.candidates.get(name)
        if before is not None:
            if before >= state:
                return False
            self.states[before] -= 1
        self.candidates[name] = state
        self.states[state] += 1
        return True

    def _descends(self, event: Event) -> None:
        self.lineage.setdefault(
            _name(event), Lineage(event.island, event.body["operator"], tuple(event.body["parents"]))
        )

    def _decided(self, event: Event) -> None:
        island = self._island(event)
        island.decision = max(island.decision, event.body["decision"])

    def _island(self, event: Event) -> IslandView:
        return self.islands.setdefault(event.island, IslandView())


_FOLD: Mapping[EventKind, Callable[[RunView, Event], None]] = {
    EventKind.RUN_STARTED: RunView._started,
    EventKind.PROPOSED: RunView._proposed,
    EventKind.GENERATED: RunView._generated,
    EventKind.MEASURED: RunView._measured,
    EventKind.ADMITTED: RunView._admitted,
    EventKind.REJECTED: RunView._rejected,
    EventKind.REQUESTED: RunView._requested,
    EventKind.COMPLETED: RunView._answered,
    EventKind.LOST: RunView._answered,
    EventKind.NOTED: RunView._noted,
    EventKind.FOUND: RunView._found,
    EventKind.INTERVENED: RunView._intervened,
    EventKind.MIGRATED: RunView._migrated,
    EventKind.COMMAND: RunView._commanded,
    EventKind.GRANT: RunView._granted,
    EventKind.RUN_ENDED: RunView._ended,
}


def _name(event: Event) -> str:
    if event.candidate is None:
        raise ValueError(f"event {event.id} ({event.kind}) names no candidate")
    return event.candidate
