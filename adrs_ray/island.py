"""One island as a pure state machine: `ask()` what to try next, `tell()` and `learn()` what came of it.

It never calls a model, an evaluator or a journal, so the same island runs in a unit test, in `--local` and in a Ray
actor. All randomness comes from `default_rng([run_seed, island, decision])`: there is no generator state to save, and
an island rebuilt by telling it the journal's events again goes on as if nothing had happened. What it remembers of
lineages for prompts is `adrs_ray.lineage`; what people and detectors change is `obey()` and `intervene()`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from adrs_ray import program
from adrs_ray.candidate import Candidate, Completion, Failure, FailureKind, Refused, Verdict
from adrs_ray.config import RunConfig
from adrs_ray.generator import Form, GenerationRequest
from adrs_ray.generator.answers import Unreadable, note_of, program_of
from adrs_ray.generator.screening import NearDuplicates, screen
from adrs_ray.lineage import MOST_BROKEN, Lineage
from adrs_ray.outcome import Outcome, Standing
from adrs_ray.prompt import Attempt, ShownProgram, TaskBrief
from adrs_ray.prompt.brief import case_values
from adrs_ray.selector import Archive, Elite, ParentContext, Placement, migration, noise
from adrs_ray.selector.adaptation import ImprovementSignal
from adrs_ray.selector.archives import make_archive
from adrs_ray.selector.arms import arms_of, strong_model
from adrs_ray.selector.bandit import Arm, Bandit
from adrs_ray.selector.parents import choose_inspirations, choose_parent, choose_partner
from adrs_ray.supervision.history import IslandHistory
from adrs_ray.supervision.interventions import Intervention

SEED_ISLAND = -1
"""The island number of programs that a run starts from; they belong to every island."""
SPARE = 8
KEPT_AT_RESTART = 3
"""Elites that a restarted island goes on with: its best and those most different from it."""
FORMS: Mapping[str, Form] = {"diff": "diff", "fix": "diff", "mutate": "program", "summarize": "text"}
"""How answers to an operator are read; the others give whole programs."""


def candidate_id(island: int, decision: int) -> str:
    """The id of the candidate that a decision leads to, the same after a crash."""
    return f"{island}-{decision}"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A decision: which operator of which model on which parents, and what a prompt may tell beside them."""

    candidate: str
    decision: int
    arm: Arm
    operator: str
    parents: tuple[str, ...]
    sources: tuple[str, ...]
    """Text refs of the parents' programs."""
    request: GenerationRequest
    """Without messages: the model-free generator needs none."""
    inspirations: tuple[ShownProgram, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    hints: tuple[str, ...] = ()
    scratchpad: str = ""


class Island:
    """A population of one island: its archive, the programs of its elites, and every program it has ever seen."""

    def __init__(self, number: int, config: RunConfig, brief: TaskBrief) -> None:
        self.number = number
        self._config = config.for_island(number)
        self._brief = brief
        self._seed_tokens = program.block_tokens(brief.seed_source)
        self._archive: Archive = make_archive(self._config.selector)
        self._features = "cvt" in {config.selector.archive, *(o.archive for o in config.islands.overrides.values())}
        self._programs: dict[str, str] = {}
        self._spare: list[Elite] = []
        """The best that were ever told, best first: they come back when a ban empties the archive."""
        self._seen: dict[str, str] = {}
        """Fingerprint -> the candidate that had it first."""
        self._sent: set[str] = set()
        self._next_decision = 0
        self._weights = arms_of(self._config)
        self._bandit = self._new_bandit()
        self._signal = ImprovementSignal(self._config.adaptation, self._config.selector.exploration)
        self._lineage = Lineage(self._config.prompt.attempts if self.asks_models else 0)
        threshold = self._config.generator.near_duplicate if self.asks_models else None
        self._near = None if threshold is None else NearDuplicates(threshold)
        self._outcomes: deque[Outcome] = deque(maxlen=4 * config.health.window)
        self._descriptors: dict[str, tuple[float, ...]] = {}
        """Of the latest valid candidates, as many as outcomes are kept."""
        self._terminal = 0
        self._hints: list[str] = []
        self._pinned: list[str] = []
        self._banned: set[str] = set()
        self._scratchpad = ""
        self._heat = 1.0
        self._shift = False
        self._migrate = False
        self.active = tuple(range(config.islands.count))
        """Numbers of the islands that are alive."""
        self.paused = False
        self.retired = False

    @property
    def archive(self) -> Archive:
        return self._archive

    @property
    def bandit(self) -> Bandit:
        return self._bandit

    @property
    def asks_models(self) -> bool:
        """Whether proposals go to language models or people."""
        return self._config.generator.kind != "mutate"

    def _new_bandit(self) -> Bandit:
        learn = self.asks_models and self._config.generator.ensemble == "bandit"
        return Bandit(self._weights, learn)

    # -- asking ------------------------------------------------------------------------------------------------------

    def ask(self) -> Proposal:
        """Decide what to try next.

        Raises RuntimeError when no program was ever admitted: tell() a valid one first.
        """
        elites = list(self._archive)
        if not elites:
            raise RuntimeError(f"island {self.number} has no elite to start from: tell() a valid program first")
        decision = self._next_decision
        self._next_decision += 1
        rng = np.random.default_rng((self._config.seed, self.number, decision))
        parent = choose_parent(elites, self._config.selector, self._parent_context(), rng)
        if not self.asks_models:
            return self._without_model(decision, parent, elites, rng)
        return self._with_model(decision, parent, elites, rng)

    def _parent_context(self) -> ParentContext:
        share = self._config.budget.max_candidates / max(1, len(self.active))
        return ParentContext(
            exploration=min(1.0, self._signal.exploration * self._heat),
            progress=min(1.0, self._terminal / share),
            children=self._lineage.children,
            pinned=tuple(self._pinned),
        )

    def _without_model(
        self, decision: int, parent: Elite, elites: Sequence[Elite], rng: np.random.Generator
    ) -> Proposal:
        parents = [parent]
        if rng.random() < self._config.selector.crossover:
            partner = choose_partner(elites, parent, rng)
            if partner is not None:
                parents.append(partner)
        operator = "crossover" if len(parents) > 1 else "mutate"
        return self._proposal(decision, ("mutate", operator), operator, parents)

    def _with_model(self, decision: int, parent: Elite, elites: Sequence[Elite], rng: np.random.Generator) -> Proposal:
        strong = strong_model(self._config)
        if strong is not None and (self._shift or self._signal.shift_due):
            self._shift = False
            self._signal.shifted()
            best = self._archive.best() or parent
            shown = choose_inspirations(elites, best, 2 * max(1, self._config.prompt.inspirations), rng)
            return self._proposal(decision, (strong, "paradigm_shift"), "paradigm_shift", [best], shown)
        allowed = {arm for arm in self._weights if self._possible(arm[1], elites)}
        # Where nothing that was configured can be done yet, any model may edit the parent.
        arm = self._bandit.choose(rng, allowed) if allowed else (self._bandit.choose(rng)[0], "diff")
        if arm[1] == "fix":
            return self._repair(decision, arm)
        parents = [parent]
        if arm[1] == "crossover":
            partner = choose_partner(elites, parent, rng)
            assert partner is not None  # there are two elites, else it would not be possible
            parents.append(partner)
        shown = choose_inspirations(elites, parent, self._config.prompt.inspirations, rng) if arm[1] != "mutate" else ()
        return self._proposal(decision, arm, arm[1], parents, shown)

    def _possible(self, operator: str, elites: Sequence[Elite]) -> bool:
        if operator == "fix":
            return self._lineage.repairable is not None
        return operator != "crossover" or len(elites) > 1

    def _repair(self, decision: int, arm: Arm) -> Proposal:
        broken = self._lineage.take_repairable()
        assert broken is not None
        text = self._programs[broken.source]
        return self._composed(decision, arm, "fix", (broken.candidate,), (broken.source,), (text,), ())

    def _proposal(
        self, decision: int, arm: Arm, operator: str, parents: Sequence[Elite], shown: Sequence[Elite] = ()
    ) -> Proposal:
        return self._composed(
            decision,
            arm,
            operator,
            tuple(elite.candidate for elite in parents),
            tuple(elite.source for elite in parents),
            tuple(self._programs[elite.source] for elite in parents),
            shown,
        )

    def _composed(
        self,
        decision: int,
        arm: Arm,
        operator: str,
        parents: tuple[str, ...],
        sources: tuple[str, ...],
        programs: tuple[str, ...],
        shown: Sequence[Elite],
    ) -> Proposal:
        candidate = candidate_id(self.number, decision)
        request = GenerationRequest(
            candidate=candidate,
            operator=operator,
            parents=programs,
            rng_key=(self._config.seed, self.number, decision),
            id=f"{candidate}/0",
            model=arm[0],
            form="program" if arm[0] == "mutate" else FORMS.get(operator, "rewrite"),
            temperature=self._temperature(arm[0]),
        )
        inspirations = tuple(
            ShownProgram(
                e.candidate, self._programs[e.source], e.score, e.metrics, note=self._lineage.note(e.candidate)
            )
            for e in shown
        )
        return Proposal(
            candidate=candidate,
            decision=decision,
            arm=arm,
            operator=operator,
            parents=parents,
            sources=sources,
            request=request,
            inspirations=inspirations,
            attempts=self._lineage.attempts(parents[0]),
            hints=tuple(self._hints),
            scratchpad=self._scratchpad,
        )

    def _temperature(self, model: str) -> float | None:
        if self._heat == 1.0 or model not in self._config.models:
            return None
        return min(2.0, self._config.models[model].temperature * self._heat)

    # -- screening ---------------------------------------------------------------------------------------------------

    def screen(self, proposal: Proposal, request: GenerationRequest, completion: Completion) -> Candidate | Refused:
        """What a completion is worth before any evaluation: a candidate, or why it is none.

        A candidate is from then on known: the same program again is a duplicate.
        """
        text = program_of(request, completion, self._config.generator.fuzzy_edits)
        if isinstance(text, Unreadable):
            return self.refused(proposal, completion, Failure(FailureKind.GENERATION, text.reason), None)
        failure = self._problem(proposal, request, text)
        if failure is not None:
            return self.refused(proposal, completion, failure, text)
        fingerprint = program.fingerprint(text)
        self._seen[fingerprint] = proposal.candidate
        return Candidate(
            id=proposal.candidate,
            island=self.number,
            decision=proposal.decision,
            operator=completion.operator,
            parents=proposal.parents,
            source=text,
            fingerprint=fingerprint,
            arm=proposal.arm,
            note=note_of(completion) if request.form != "program" else completion.operator,
        )

    def _problem(self, proposal: Proposal, request: GenerationRequest, text: str) -> Failure | None:
        if request.model != "mutate":
            # What the model-free generator gives keeps the interface by construction.
            failure = screen(text, self._brief, request.parents[0] if request.parents else None)
            if failure is not None:
                return failure
        try:
            fingerprint = program.fingerprint(text)
        except SyntaxError as error:
            where = "" if error.lineno is None else f"line {error.lineno}: "
            return Failure(FailureKind.SYNTAX, f"{where}{error.msg}")
        first = self._seen.get(fingerprint)
        if first is not None:
            return Failure(FailureKind.DUPLICATE, f"the same program as {first}")
        near = None if self._near is None or request.model == "mutate" else self._near.nearest(text)
        if near is not None:
            return Failure(FailureKind.DUPLICATE, f"nearly the same program as {near[0]} (similarity {near[1]:.4f})")
        return None

    def refused(self, proposal: Proposal, completion: Completion, failure: Failure, source: str | None) -> Refused:
        """A decision that leads to no evaluation, and why."""
        return Refused(
            id=proposal.candidate,
            island=self.number,
            decision=proposal.decision,
            operator=completion.operator,
            parents=proposal.parents,
            failure=failure,
            source=source,
            arm=proposal.arm,
            note=note_of(completion) if proposal.arm[0] != "mutate" else completion.operator,
        )

    # -- placing -----------------------------------------------------------------------------------------------------

    def describe(self, source: str) -> tuple[float, ...]:
        """Where a program lies: (size, distance to the seed), then syntax-tree features where an archive needs them."""
        descriptor = program.describe(source, self._seed_tokens)
        features = program.features(source) if self._features else ()
        return (descriptor.size, descriptor.distance, *features)

    def standing(self, candidate: Candidate, verdict: Verdict, scores: Sequence[float]) -> Standing:
        """How a measured candidate compares; `scores` are its measurements on train, () when it failed."""
        shape = program.shape(candidate.source)
        if isinstance(verdict, Failure):
            return Standing(shape=shape)
        _, error = noise.mean_and_error(scores)
        return Standing(
            descriptor=self.describe(candidate.source),
            cases=case_values(verdict.cases, self._brief),
            error=error,
            repeats=len(scores),
            gain=self._lineage.gain(candidate.parents, verdict.score),
            shape=shape,
        )

    def text_of(self, candidate: str) -> str:
        """The program of an elite; '' of everybody else."""
        source = next((elite.source for elite in self._archive if elite.candidate == candidate), "")
        return self._programs.get(source, "")

    def needs_another(self, elite: Elite) -> bool:
        """Whether a candidate with a noisy score must be measured again before it may take a place."""
        best = self._archive.best()
        rivals = self._archive.rivals(elite)
        if best is not None and elite.score > best.score:
            rivals = (*rivals, best)
        return noise.needs_another(elite, rivals, self._config.noise)

    def tell(self, elite: Elite, source: str | None = None) -> Placement:
        """A valid candidate of this island, or a migrant. `source` may follow by `supply` when replaying."""
        self._seen.setdefault(elite.fingerprint, elite.candidate)
        self._lineage.refer(elite.candidate, elite.score)
        self._descriptors[elite.candidate] = elite.descriptor
        if len(self._descriptors) > 4 * self._config.health.window:
            del self._descriptors[next(iter(self._descriptors))]
        if elite.candidate in self._archive or elite.candidate in self._banned:
            return Placement(elite.candidate in self._archive)
        placement = self._archive.add(elite)
        self._spare = sorted([*self._spare, elite], key=lambda kept: -kept.score)[:SPARE]
        if source is not None and (placement.kept or elite in self._spare):
            self._programs[elite.source] = source
        if source is not None and placement.kept and self._near is not None:
            self._near.add(elite.candidate, source)
        for other in self._banned:
            self._remove(other)  # one may have been left for want of any other parent
        if self._near is not None:
            for replaced in placement.replaced:
                self._near.forget(replaced)
        self._forget()
        return placement

    def learn(self, outcome: Outcome, source: str | None = None) -> None:
        """How a decision of this island ended, before `tell` where it was admitted.

        `source` is the text ref of a program that failed, which may be worth a repair.
        """
        self._terminal += 1
        self._outcomes.append(outcome)
        self._bandit.update(outcome.arm, outcome.gain, outcome.cost)
        self._signal.update(self._lineage.rise(outcome.score), self._spread())
        self._lineage.learn(outcome, source if self.asks_models else None)

    def _spread(self) -> float:
        """Standard deviation of the archive's scores, where adaptation asks for it."""
        if not self._config.adaptation.enabled or len(self._archive) < 2:
            return 0.0
        return float(np.std([elite.score for elite in self._archive]))

    def freeze_after_seeding(self) -> None:
        """The island was told the seeds: where they were made to differ, an archive with cells fixes them now."""
        if self._config.seeding.seeds:
            self._archive.freeze()

    def _forget(self) -> None:
        """Programs that nobody can be made from any more, once they are many."""
        if len(self._programs) > 2 * len(self._archive) + SPARE + MOST_BROKEN:
            alive = self._wanted()
            self._programs = {ref: text for ref, text in self._programs.items() if ref in alive}

    def _wanted(self) -> set[str]:
        return {kept.source for kept in (*self._archive, *self._spare)} | self._lineage.repairable_sources

    # -- replaying ---------------------------------------------------------------------------------------------------

    def note(self, candidate: str, fingerprint: str | None, decision: int) -> None:
        """A decision of the past (replay): it will not be taken again, and its program is known."""
        self._next_decision = max(self._next_decision, decision + 1)
        if fingerprint is not None:
            self._seen.setdefault(fingerprint, candidate)

    def recall(self, operator: str, parents: Sequence[str]) -> None:
        """A decision of the past (replay) for this operator, when it was taken: what it used up is used up."""
        self._migrate = False  # elites leave before the next decision
        if operator == "fix":
            self._lineage.forget_repair(parents[0])
        elif operator == "paradigm_shift":
            self._shift = False
            self._signal.shifted()

    def missing_programs(self) -> list[str]:
        """Text refs of programs that have not been supplied yet."""
        return sorted(self._wanted() - self._programs.keys())

    def supply(self, texts: Mapping[str, str]) -> None:
        """The programs behind text refs."""
        self._programs.update(texts)
        if self._near is not None:
            for elite in self._archive:
                if elite.source in texts:
                    self._near.add(elite.candidate, texts[elite.source])
        self._forget()

    # -- migration ---------------------------------------------------------------------------------------------------

    @property
    def targets(self) -> tuple[int, ...]:
        """Islands that receive elites of this one."""
        return () if self.retired else migration.targets(self.number, self.active, self._config.islands)

    def migration_due(self, decision: int) -> bool:
        """Whether elites leave and arrive after this decision."""
        return bool(self.targets) and (self._migrate or migration.is_due(decision, self.active, self._config.islands))

    def emigrants(self) -> list[Elite]:
        """Elites to send now; from then on they count as sent."""
        self._migrate = False
        chosen = migration.emigrants(list(self._archive), self._sent, self._config.islands)
        self._sent.update(elite.candidate for elite in chosen)
        return chosen

    def sent(self, candidate: str) -> None:
        """An elite of this archive was sent away in the past (replay); it will not be sent again."""
        self._sent.add(candidate)

    # -- steering and health -----------------------------------------------------------------------------------------

    def obey(self, kind: str, body: Mapping[str, Any]) -> None:
        """A command of a person, as the journal has it; those for other islands or for the run change nothing here."""
        if body.get("island") not in (None, self.number):
            return
        if kind == "hint":
            self._hints.append(body["text"])
        elif kind == "pin":
            self._pinned.append(body["candidate"])
        elif kind == "ban":
            self._ban(body["candidate"])
        elif kind in ("pause", "continue"):
            self.paused = kind == "pause"
        elif kind == "restart":
            self._restart()

    def island_spawned(self, number: int) -> None:
        self.active = tuple(sorted({*self.active, number}))

    def island_retired(self, number: int) -> None:
        self.active = tuple(n for n in self.active if n != number)
        self.retired = self.retired or number == self.number

    def scribble(self, text: str) -> None:
        """A new scratchpad."""
        self._scratchpad = text

    def intervene(self, intervention: Intervention) -> None:
        """Do what was decided about this island's health."""
        kind, value = intervention.kind, intervention.value
        if kind == "temperature":
            self._heat = float(value.get("factor", 1.25))
        elif kind == "operators":
            self._weights = dict.fromkeys(self._weights, 1.0)
            self._bandit = self._new_bandit()
        elif kind == "migrate":
            self._migrate = True
        elif kind == "shift":
            self._shift = True
        elif kind == "restart":
            self._restart()

    def history(self) -> IslandHistory:
        """What detectors look at."""
        return IslandHistory(
            island=self.number,
            outcomes=tuple(self._outcomes),
            elites=tuple(self._archive),
            capacity=self._archive.capacity,
            terminal=self._terminal,
            since_gain=self._lineage.since_rise,
            gains=tuple(self._lineage.rises),
            descriptors=dict(self._descriptors),
        )

    def retrospect(self) -> Proposal:
        """What a scratchpad is written from: the best elite, its neighbours and what was tried on its line."""
        elites = list(self._archive)
        best = self._archive.best()
        assert best is not None  # an island that has decided anything had an elite
        rng = np.random.default_rng((self._config.seed, self.number + 1, self._terminal))
        shown = choose_inspirations(elites, best, self._config.prompt.inspirations, rng)
        return self._proposal(self._next_decision, ("mutate", "summarize"), "summarize", [best], shown)

    @property
    def terminal(self) -> int:
        """Decisions of this island in a terminal state."""
        return self._terminal

    def _ban(self, candidate: str) -> None:
        self._banned.add(candidate)
        self._pinned = [pinned for pinned in self._pinned if pinned != candidate]
        self._spare = [elite for elite in self._spare if elite.candidate != candidate]
        if list(self._archive) != [elite for elite in self._archive if elite.candidate == candidate]:
            self._remove(candidate)
        elif self._spare:
            self._remove(candidate)
            for elite in self._spare[:KEPT_AT_RESTART]:
                self._archive.add(elite)
                if self._near is not None and elite.source in self._programs:
                    self._near.add(elite.candidate, self._programs[elite.source])

    def _restart(self) -> None:
        """Go on with the best elite and the ones most different from it; the others leave the archive."""
        best = self._archive.best()
        if best is None:
            return
        rng = np.random.default_rng((self._config.seed, self.number + 1, self._terminal))
        others = choose_inspirations(list(self._archive), best, KEPT_AT_RESTART - 1, rng)
        kept = {best.candidate, *(elite.candidate for elite in others)}
        for elite in list(self._archive):
            if elite.candidate not in kept:
                self._remove(elite.candidate)

    def _remove(self, candidate: str) -> None:
        self._archive.remove(candidate)
        if self._near is not None:
            self._near.forget(candidate)


def with_messages(proposal: Proposal, request: GenerationRequest) -> Proposal:
    """The same decision with a complete request."""
    return replace(proposal, request=request)
