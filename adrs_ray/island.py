"""One island as a pure state machine: `ask()` what to try next, `tell()` what came of it.

It never calls a model, an evaluator or a journal, so the same island runs in a unit test, in `--local` and in a Ray
actor. All randomness comes from `default_rng([run_seed, island, decision])`: there is no generator state to save, and
an island rebuilt by telling it the journal's events again goes on as if nothing had happened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from adrs_ray import program
from adrs_ray.candidate import Candidate, Completion, Failure, FailureKind
from adrs_ray.config import RunConfig
from adrs_ray.generator import GenerationRequest
from adrs_ray.selector import Elite, migration
from adrs_ray.selector.grid import GridArchive, Placement
from adrs_ray.selector.parents import choose_parent, choose_partner

SEED_ISLAND = -1
"""The island number of programs that a run starts from; they belong to every island."""


def candidate_id(island: int, decision: int) -> str:
    """The id of the candidate that a decision leads to, the same after a crash."""
    return f"{island}-{decision}"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A decision: which operator on which parents."""

    candidate: str
    decision: int
    parents: tuple[str, ...]
    request: GenerationRequest


class Island:
    """A population of one island: its archive, the programs of its elites, and every program it has ever seen."""

    def __init__(self, number: int, config: RunConfig, seed_source: str) -> None:
        self.number = number
        self._config = config
        self._seed_tokens = program.block_tokens(seed_source)
        self._archive = GridArchive(config.selector.bins, config.selector.learn_bounds_from)
        self._programs: dict[str, str] = {}
        self._seen: dict[str, str] = {}
        """Fingerprint -> the candidate that had it first."""
        self._sent: set[str] = set()
        self._next_decision = 0
        self._unfinished: deque[int] = deque()

    @property
    def archive(self) -> GridArchive:
        return self._archive

    def ask(self) -> Proposal:
        """Decide what to try next.

        Raises RuntimeError when no program was ever admitted: tell() or welcome() a valid one first.
        """
        elites = list(self._archive)
        if not elites:
            raise RuntimeError(f"island {self.number} has no elite to start from: welcome() a valid program first")
        if self._unfinished:
            decision = self._unfinished.popleft()
        else:
            decision = self._next_decision
            self._next_decision += 1
        key = (self._config.seed, self.number, decision)
        rng = np.random.default_rng(key)
        parents = [choose_parent(elites, self._config.selector, rng)]
        operator = "mutate"
        if rng.random() < self._config.selector.crossover:
            partner = choose_partner(elites, parents[0], rng)
            if partner is not None:
                parents.append(partner)
                operator = "crossover"
        request = GenerationRequest(
            candidate=candidate_id(self.number, decision),
            operator=operator,
            parents=tuple(self._programs[elite.source] for elite in parents),
            rng_key=key,
        )
        return Proposal(request.candidate, decision, tuple(elite.candidate for elite in parents), request)

    def screen(self, proposal: Proposal, completion: Completion) -> Candidate | Failure:
        """What a completion is worth before any evaluation: a candidate, or why it is none.

        A candidate is from then on known: the same program again is a duplicate.
        """
        if completion.text is None:
            return Failure(FailureKind.GENERATION, completion.detail or "the generator gave no program")
        try:
            fingerprint = program.fingerprint(completion.text)
        except SyntaxError as error:
            where = "" if error.lineno is None else f"line {error.lineno}: "
            return Failure(FailureKind.SYNTAX, f"{where}{error.msg}")
        first = self._seen.get(fingerprint)
        if first is not None:
            return Failure(FailureKind.DUPLICATE, f"the same program as {first}")
        self._seen[fingerprint] = proposal.candidate
        return Candidate(
            id=proposal.candidate,
            island=self.number,
            decision=proposal.decision,
            operator=completion.operator,
            parents=proposal.parents,
            source=completion.text,
            fingerprint=fingerprint,
        )

    def describe(self, source: str) -> tuple[float, float]:
        """Where a program lies in the grid: (size, distance to the seed)."""
        descriptor = program.describe(source, self._seed_tokens)
        return descriptor.size, descriptor.distance

    def tell(self, elite: Elite, source: str | None = None) -> Placement:
        """A valid candidate of this island, or a migrant. `source` may follow by `supply` when replaying."""
        self._seen.setdefault(elite.fingerprint, elite.candidate)
        if elite.candidate in self._archive:
            return Placement(True, self._archive.cell_of(elite.descriptor))
        placement = self._archive.add(elite)
        if source is not None and placement.kept:
            self._programs[elite.source] = source
        if len(self._programs) > 2 * len(self._archive) + 8:
            alive = {kept.source for kept in self._archive}
            self._programs = {ref: text for ref, text in self._programs.items() if ref in alive}
        return placement

    def note(self, candidate: str, fingerprint: str | None, decision: int) -> None:
        """A decision of the past (replay): it will not be taken again, and its program is known."""
        self._next_decision = max(self._next_decision, decision + 1)
        if fingerprint is not None:
            self._seen.setdefault(fingerprint, candidate)

    def take_again(self, decision: int) -> None:
        """A decision of the past that led to no program (replay): it is taken before any new one."""
        self._unfinished.append(decision)

    def missing_programs(self) -> list[str]:
        """Text refs of elites whose program has not been supplied yet."""
        return sorted({elite.source for elite in self._archive} - self._programs.keys())

    def supply(self, texts: Mapping[str, str]) -> None:
        """The programs behind text refs."""
        self._programs.update(texts)

    def emigrants(self, decision: int) -> list[tuple[Elite, str]]:
        """Elites to send after this decision, with their programs; empty when no migration is due."""
        if not migration.is_due(decision, self._config.islands):
            return []
        chosen = migration.emigrants(list(self._archive), self._sent, self._config.islands)
        return [(elite, self._programs[elite.source]) for elite in chosen]

    def sent(self, candidate: str) -> None:
        """An elite of this archive was sent away; it will not be sent again."""
        self._sent.add(candidate)
