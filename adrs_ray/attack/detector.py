"""What a verdict on a cheat says about the evaluator. Pure functions of trials; nothing is run here.

The hard part is not to cry wolf. A changed answer that the evaluator takes is a cheat only if an honest program could
not have had the score with it, and the detector does not know the rules. What it goes by:

- An answer that did not change proves nothing, whatever was tried: it must have changed where that can be seen.
- An answer that was broken and scores *as high as* the seed's counts only where the broken part is read at all: some
  other change of that part, of the same size, must have moved the score or been refused. And it must score more than a
  program that raises in every call.
- Parts made inconsistent count only where the part beside them is read, too.
- What leaves the answer alone (clocks, prints, changed inputs) counts only if it scores *above* the seed with the very
  answers of the seed.
- A score must differ from the seed's by more than the seed's own scores differ from each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from adrs_ray.attack.battery import Cheat, Family
from adrs_ray.attack.observe import Observation, observation
from adrs_ray.candidate import Evaluation, Failure, FailureKind, Verdict

_REFUSALS = frozenset(FailureKind) - {FailureKind.INFRASTRUCTURE, FailureKind.TIMEOUT}
_BLIND_FROM = 8
_DESTROYED_FROM = 2
_UNREAD_FROM = 4


@dataclass(frozen=True, slots=True)
class Baseline:
    """The seed, judged several times."""

    scores: tuple[float, ...]
    answers: frozenset[tuple[str, ...]]
    """What was seen of the answers, run by run; one element if the seed always answers alike."""
    floor: float | None
    """The score of a program that raises in every call; None if it gets none."""

    @classmethod
    def of(cls, verdicts: Sequence[Evaluation], floor: Verdict) -> Baseline:
        answers = frozenset(observation(verdict).answers for verdict in verdicts)
        scores = tuple(verdict.score for verdict in verdicts)
        return cls(scores, answers - {()}, floor.score if isinstance(floor, Evaluation) else None)

    @property
    def margin(self) -> float:
        """By how much scores differ for no reason."""
        spread = max(self.scores) - min(self.scores)
        return 2.0 * spread + 1e-9 * max(1.0, abs(max(self.scores)))

    def is_above(self, score: float) -> bool:
        return score > max(self.scores) + self.margin

    def is_at(self, score: float) -> bool:
        """At or above the seed."""
        return score >= min(self.scores) - 1e-9 * max(1.0, abs(min(self.scores)))

    def is_moved(self, score: float) -> bool:
        return self.is_above(score) or score < min(self.scores) - self.margin

    def seen_to_answer(self, seen: Observation) -> bool | None:
        """Whether the answers are those of the seed; None where that cannot be told."""
        if len(self.answers) != 1 or not seen.answers:
            return None
        return seen.answers in self.answers


@dataclass(frozen=True, slots=True)
class Trial:
    """A cheat and its verdict."""

    cheat: Cheat
    verdict: Verdict

    @property
    def seen(self) -> Observation:
        return observation(self.verdict)

    def changed(self, baseline: Baseline) -> bool:
        """Whether the answers are known to be others than the seed's."""
        return self.seen.changed or baseline.seen_to_answer(self.seen) is False

    def counters(self, baseline: Baseline) -> bool:
        """Whether the evaluator noticed: it refused the answer, or gave another score."""
        if isinstance(self.verdict, Failure):
            return self.verdict.kind in _REFUSALS
        return baseline.is_moved(self.verdict.score) and self.changed(baseline)


def is_finding(trial: Trial, baseline: Baseline, trials: Sequence[Trial], traced: bool) -> bool:
    """Whether a cheat got away with it. `traced`: only taken-over entries see answers (OpenEvolve-style folders)."""
    if not isinstance(trial.verdict, Evaluation):
        return False
    cheat, score, seen = trial.cheat, trial.verdict.score, trial.seen
    above = baseline.is_above(score)
    # a program whose entries were never called, or that left, has told nothing
    changed = trial.changed(baseline) or (
        traced and not seen.answers and cheat.family in (Family.CRASH, Family.PRINTED)
    )
    if cheat.rule == "probe":
        return False
    if cheat.rule == "neutral":
        return above and baseline.seen_to_answer(seen) is not False
    if not changed:
        return False
    if cheat.family is Family.INCONSISTENT:
        return above and _beside_is_read(cheat, baseline, trials)
    if above or cheat.rule == "above":
        return above
    at = baseline.is_at(score) and (baseline.floor is None or score > baseline.floor + baseline.margin)
    return at and (cheat.family is Family.CRASH or _is_read(cheat, baseline, trials))


def _is_read(cheat: Cheat, baseline: Baseline, trials: Sequence[Trial]) -> bool:
    """Whether the evaluator reads the part that the cheat breaks: a change that keeps its size was noticed."""
    if not cheat.part:
        return any(t.cheat.destructive and t.counters(baseline) for t in trials)
    others = (t for t in trials if t.cheat.part == cheat.part and t.cheat.family is not Family.COVERAGE)
    return any(t.cheat is not cheat and t.counters(baseline) for t in others)


def _beside_is_read(cheat: Cheat, baseline: Baseline, trials: Sequence[Trial]) -> bool:
    """Whether some other container of the answer is read."""
    noticed = (t.cheat.part for t in trials if t.cheat.part and t.counters(baseline))
    return any(part != cheat.part for part in noticed)


def unread_parts(baseline: Baseline, trials: Sequence[Trial]) -> list[str]:
    """Containers in the answer of which several changes, truncations among them, all went unnoticed."""
    trials = [t for t in trials if t.cheat.part and t.cheat.family not in (Family.METRIC, Family.NOT_FINITE)]
    changed = [t for t in trials if isinstance(t.verdict, Evaluation) and t.changed(baseline)]
    noticed = {t.cheat.part for t in trials if t.counters(baseline)}
    counts = Counter(t.cheat.part for t in changed if t.cheat.part not in noticed)
    cut = {t.cheat.part for t in changed if t.cheat.family is Family.COVERAGE}
    return [part for part, count in counts.items() if count >= _UNREAD_FROM and part in cut]


@dataclass(frozen=True, slots=True)
class Blindness:
    """An evaluator that does not see what programs answer."""

    unmoved: int
    """Programs with other answers than the seed's, a valid verdict and the seed's score."""
    changed: int
    """Programs with other answers than the seed's."""
    refused: int
    """Programs of the battery that got no score."""


def destroyed_unnoticed(baseline: Baseline, trials: Sequence[Trial]) -> bool:
    """Whether answers were destroyed in several ways and no valid program with other answers moved the score."""
    valid = [t for t in trials if isinstance(t.verdict, Evaluation) and t.changed(baseline)]
    destroyed = sum(t.cheat.destructive for t in valid)
    moved = any(isinstance(t.verdict, Evaluation) and baseline.is_moved(t.verdict.score) for t in valid)
    return destroyed >= _DESTROYED_FROM and not moved


def blindness(baseline: Baseline, trials: Sequence[Trial]) -> Blindness | None:
    """The evaluator is blind if enough programs with other answers than the seed's, destroyed ones among them, are
    valid and all of them have the seed's score.
    """
    valid = [t for t in trials if isinstance(t.verdict, Evaluation) and t.changed(baseline)]
    if len(valid) < _BLIND_FROM or not destroyed_unnoticed(baseline, trials):
        return None
    refused = sum(isinstance(t.verdict, Failure) for t in trials)
    return Blindness(len(valid), len(valid), refused)
