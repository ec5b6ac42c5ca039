"""One island as a pure state machine: `ask()` what to try next, `tell()` and `learn()` what came of it.

It never calls a model, an evaluator or a journal, so the same island runs in a unit test, in `--local` and in a Ray
actor. All randomness comes from `default_rng([run_seed, island, decision])`: there is no generator state to save, and
an island rebuilt by telling it the journal's events again goes on as if nothing had happened. Who lives here is in
`population`, what is remembered of lineages in `lineage`, what people and detectors said in `guidance`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from adrs_ray import program
from adrs_ray.candidate import Candidate, Completion, Failure, Refused, Verdict
from adrs_ray.cascade import OPEN, Cascade, Decision
from adrs_ray.config import RunConfig
from adrs_ray.generator import GenerationRequest
from adrs_ray.generator.screening import NearDuplicates
from adrs_ray.guidance import Guidance
from adrs_ray.lineage import Lineage
from adrs_ray.outcome import Outcome, Standing
from adrs_ray.population import Population
from adrs_ray.prompt import ShownProgram, TaskBrief
from adrs_ray.prompt.brief import case_values
from adrs_ray.proposal import FORMS, Proposal, candidate_id
from adrs_ray.screener import Screener
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


class Island:
    """A population of one island: its archive, the programs of its elites, and every program it has ever seen."""

    def __init__(self, number: int, config: RunConfig, brief: TaskBrief) -> None:
        self.number = number
        self._config = config.for_island(number)
        self._brief = brief
        self._seed_tokens = program.block_tokens(brief.seed_source)
        self._features = "cvt" in {config.selector.archive, *(o.archive for o in config.islands.overrides.values())}
        self._sent: set[str] = set()
        self._next_decision = 0
        self._weights = arms_of(self._config)
        self._bandit = self._new_bandit()
        self._signal = ImprovementSignal(self._config.adaptation, self._config.selector.exploration)
        self._lineage = Lineage(self._config.prompt.attempts if self.asks_models else 0)
        threshold = self._config.generator.near_duplicate if self.asks_models else None
        near = None if threshold is None else NearDuplicates(threshold)
        self._population = Population(make_archive(self._config.selector), near)
        self._screener = Screener(number, brief, self._config.generator.fuzzy_edits, self._population.nearest)
        self._guidance = Guidance(number, config.islands.count)
        self._outcomes: deque[Outcome] = deque(maxlen=4 * config.health.window)
        self._descriptors: dict[str, tuple[float, ...]] = {}
        """Of the latest valid candidates, as many as outcomes are kept."""
        self._terminal = 0
        self._cascade = Cascade(brief.stages, self._config.evaluator.cascade)

    @property
    def archive(self) -> Archive:
        return self._population.archive

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
        elites = list(self._population)
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
        share = self._config.budget.max_candidates / max(1, len(self._guidance.active))
        return ParentContext(
            exploration=min(1.0, self._signal.exploration * self._guidance.heat),
            progress=min(1.0, self._terminal / share),
            children=self._lineage.children,
            pinned=tuple(self._guidance.pinned),
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
        if strong is not None and (self._guidance.shift or self._signal.shift_due):
            self._guidance.shift = False
            self._signal.shifted()
            best = self._population.best or parent
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
        text = self._population.program(broken.source)
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
            tuple(self._population.program(elite.source) for elite in parents),
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
                candidate=elite.candidate,
                source=self._population.program(elite.source),
                score=elite.score,
                metrics=elite.metrics,
                note=self._lineage.note(elite.candidate),
            )
            for elite in shown
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
            hints=tuple(self._guidance.hints),
            scratchpad=self._guidance.scratchpad,
        )

    def _temperature(self, model: str) -> float | None:
        if self._guidance.heat == 1.0 or model not in self._config.models:
            return None
        return min(2.0, self._config.models[model].temperature * self._guidance.heat)

    # -- screening ---------------------------------------------------------------------------------------------------

    def screen(self, proposal: Proposal, request: GenerationRequest, completion: Completion) -> Candidate | Refused:
        """What a completion is worth before any evaluation: a candidate, or why it is none.

        A candidate is from then on known: the same program again is a duplicate.
        """
        return self._screener.screen(proposal, request, completion)

    def refused(self, proposal: Proposal, completion: Completion, failure: Failure, source: str | None) -> Refused:
        """A decision that leads to no evaluation, and why."""
        return self._screener.refused(proposal, completion, failure, source)

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

    def gate(self, candidate: Candidate, stage: str, score: float) -> Decision:
        """Whether a candidate goes on to the stage behind this one. Programs that the run starts from always do."""
        if self.number == SEED_ISLAND:
            return OPEN
        return self._cascade.decide(stage, score, (self._config.seed, self.number, candidate.decision))

    def text_of(self, candidate: str) -> str:
        """The program of an elite; '' of everybody else."""
        return self._population.text_of(candidate)

    def needs_another(self, elite: Elite) -> bool:
        """Whether a candidate with a noisy score must be measured again before it may take a place."""
        best = self._population.best
        rivals = self.archive.rivals(elite)
        if best is not None and elite.score > best.score:
            rivals = (*rivals, best)
        return noise.needs_another(elite, rivals, self._config.noise)

    def tell(self, elite: Elite, source: str | None = None) -> Placement:
        """A valid candidate of this island, or a migrant. `source` may follow by `supply` when replaying."""
        self._screener.know(elite.fingerprint, elite.candidate)
        self._lineage.refer(elite.candidate, elite.score)
        self._descriptors[elite.candidate] = elite.descriptor
        if len(self._descriptors) > 4 * self._config.health.window:
            del self._descriptors[next(iter(self._descriptors))]
        return self._population.add(elite, source, self._lineage.repairable_sources)

    def learn(self, outcome: Outcome, source: str | None = None) -> None:
        """How a decision of this island ended, before `tell` where it was admitted.

        `source` is the text ref of a program that failed, which may be worth a repair.
        """
        self._terminal += 1
        self._outcomes.append(outcome)
        self._bandit.update(outcome.arm, outcome.gain, outcome.cost)
        self._signal.update(self._lineage.rise(outcome.score), self._spread())
        self._lineage.learn(outcome, source if self.asks_models else None)
        self._cascade.learn(outcome.stages)

    def _spread(self) -> float:
        """Standard deviation of the archive's scores, where adaptation asks for it."""
        if not self._config.adaptation.enabled or len(self._population) < 2:
            return 0.0
        return float(np.std([elite.score for elite in self._population]))

    def freeze_after_seeding(self) -> None:
        """The island was told the seeds: where they were made to differ, an archive with cells fixes them now."""
        if self._config.seeding.seeds:
            self.archive.freeze()

    # -- replaying ---------------------------------------------------------------------------------------------------

    def note(self, candidate: str, fingerprint: str | None, decision: int) -> None:
        """A decision of the past (replay): it will not be taken again, and its program is known."""
        self._next_decision = max(self._next_decision, decision + 1)
        if fingerprint is not None:
            self._screener.know(fingerprint, candidate)

    def recall(self, operator: str, parents: Sequence[str]) -> None:
        """A decision of the past (replay) for this operator, when it was taken: what it used up is used up."""
        self._guidance.migrate = False  # elites leave before the next decision
        if operator == "fix":
            self._lineage.forget_repair(parents[0])
        elif operator == "paradigm_shift":
            self._guidance.shift = False
            self._signal.shifted()

    def missing_programs(self) -> list[str]:
        """Text refs of programs that have not been supplied yet."""
        return self._population.missing(self._lineage.repairable_sources)

    def supply(self, texts: Mapping[str, str]) -> None:
        """The programs behind text refs."""
        self._population.supply(texts, self._lineage.repairable_sources)

    # -- migration ---------------------------------------------------------------------------------------------------

    @property
    def targets(self) -> tuple[int, ...]:
        """Islands that receive elites of this one."""
        guidance = self._guidance
        return () if guidance.retired else migration.targets(self.number, guidance.active, self._config.islands)

    def migration_due(self, decision: int) -> bool:
        """Whether elites leave and arrive after this decision."""
        guidance = self._guidance
        due = guidance.migrate or migration.is_due(decision, guidance.active, self._config.islands)
        return bool(self.targets) and due

    def emigrants(self) -> list[Elite]:
        """Elites to send now; from then on they count as sent."""
        self._guidance.migrate = False
        chosen = migration.emigrants(list(self._population), self._sent, self._config.islands)
        self._sent.update(elite.candidate for elite in chosen)
        return chosen

    def sent(self, candidate: str) -> None:
        """An elite of this archive was sent away in the past (replay); it will not be sent again."""
        self._sent.add(candidate)

    # -- steering and health -----------------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """Whether a person wants nothing new to be begun."""
        return self._guidance.paused

    @property
    def retired(self) -> bool:
        """Whether a person wants this island to end."""
        return self._guidance.retired

    def obey(self, kind: str, body: Mapping[str, Any]) -> None:
        """A command of a person, as the journal has it; those for other islands or for the run change nothing here."""
        if kind == "spawn":
            self._guidance.spawned(body["island"])
        elif kind == "retire":
            self._guidance.has_retired(body["island"])
        elif self._guidance.concerns(body):
            self._guidance.obey(kind, body)
            if kind == "ban":
                self._population.ban(body["candidate"])
            elif kind == "restart":
                self._population.restart(self._rng())

    def intervene(self, intervention: Intervention) -> None:
        """Do what was decided about this island's health."""
        self._guidance.intervene(intervention)
        if intervention.kind == "operators":
            self._weights = dict.fromkeys(self._weights, 1.0)
            self._bandit = self._new_bandit()
        elif intervention.kind == "restart":
            self._population.restart(self._rng())

    def scribble(self, text: str) -> None:
        """A new scratchpad."""
        self._guidance.scratchpad = text

    def _rng(self) -> np.random.Generator:
        """For what happens between decisions."""
        return np.random.default_rng((self._config.seed, self.number + 1, self._terminal))

    def history(self) -> IslandHistory:
        """What detectors look at."""
        return IslandHistory(
            island=self.number,
            outcomes=tuple(self._outcomes),
            elites=tuple(self._population),
            capacity=self.archive.capacity,
            terminal=self._terminal,
            since_gain=self._lineage.since_rise,
            gains=tuple(self._lineage.rises),
            descriptors=dict(self._descriptors),
        )

    def retrospect(self, decision: int, model: str) -> Proposal:
        """What a scratchpad after a decision is written from, and by which model: the best elite, its neighbours and
        what was tried on its line."""
        best = self._population.best
        assert best is not None  # an island that has decided anything had an elite
        shown = choose_inspirations(list(self._population), best, self._config.prompt.inspirations, self._rng())
        told = self._proposal(decision, (model, "summarize"), "summarize", [best], shown)
        name = f"{self.number}-note{decision}"
        return replace(told, request=replace(told.request, candidate=name, id=f"{name}/0"))

    @property
    def terminal(self) -> int:
        """Decisions of this island in a terminal state."""
        return self._terminal
