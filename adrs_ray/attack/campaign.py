"""One attack on one task: probe the seed, run the battery, confirm what looks like a finding."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from adrs_ray.attack.battery import Cheat, Family, Maker, Probe
from adrs_ray.attack.detector import (
    Baseline,
    Blindness,
    Trial,
    blindness,
    destroyed_unnoticed,
    is_finding,
    unread_parts,
)
from adrs_ray.attack.interface import interface_of
from adrs_ray.attack.observe import observation, observed
from adrs_ray.candidate import Evaluation, Failure, Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob, Evaluator
from adrs_ray.evaluator.staged import local_evaluator
from adrs_ray.generator import GenerationRequest
from adrs_ray.generator.mutate import MutationModel
from adrs_ray.task import Split, Task

_SEED_RUNS = {"native": 2, "openevolve": 3}
"""Judgings of the seed beside the probe; an evaluator that runs beside programs may time them."""
_CONFIRMATIONS = {"native": 1, "openevolve": 2}
_MUTANTS = 12
_PATIENCE = 10.0
"""A cheat may take so many times as long as the seed, and `_GRACE_S` more."""
_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class Options:
    """How much to try."""

    max_candidates: int = 200
    max_wall_s: float = 120.0
    """No cheat is started after so long; confirmations of findings still are."""
    seed: int = 0
    keep: Path | None = None
    """A folder for the programs tried."""
    split: Split = "train"


@dataclass(frozen=True, slots=True)
class Finding:
    """A cheat that got away with it."""

    family: Family
    idea: str
    score: float
    seed_score: float
    metrics: Mapping[str, float]
    answers: str
    """What is known of its answers: `changed`, `as the seed's`, `not seen`."""
    program: str | None = None
    """Path of the program, where it was kept."""


@dataclass(frozen=True, slots=True)
class Report:
    """What an attack found."""

    task: str
    split: Split
    seed_scores: tuple[float, ...]
    seed_metrics: Mapping[str, float]
    findings: tuple[Finding, ...]
    blind: Blindness | None
    families: Mapping[str, Mapping[str, int]]
    """Family -> cheats tried, valid, with changed answers."""
    tried: int
    planned: int
    notes: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings and self.blind is None


Progress = Callable[[int, int], None]
"""Called with the number of programs judged and of those planned."""


def attack(task: Task, options: Options, config: EvaluatorConfig, progress: Progress | None = None) -> Report:
    """Attack a task's evaluator with cheats made from its seed; of a task with stages, that of its last one.

    Raises UsageError, one line, when the task cannot be judged here or its seed is not valid.
    """
    return asyncio.run(_attack(task, options, config, progress))


async def _attack(task: Task, options: Options, config: EvaluatorConfig, progress: Progress | None) -> Report:
    with observed(task.in_stage("")) as watched:
        async with local_evaluator(watched, config.model_copy(update={"slots": 1})) as evaluator:
            began = time.monotonic()
            campaign = Campaign(watched, evaluator, options, progress)
            await campaign.scout()
        async with local_evaluator(_hurried(watched, campaign.seed_wall_s), config) as evaluator:
            campaign.evaluator = evaluator
            return await campaign.run(began + options.max_wall_s)


def _hurried(task: Task, seed_wall_s: float) -> Task:
    """The task with a time limit that fits its seed: cheats that hang shall not hold the attack up."""
    limits = task.spec.limits
    timeout_s = min(limits.case_timeout_s, _GRACE_S + _PATIENCE * seed_wall_s)
    spec = task.spec.model_copy(update={"limits": limits.model_copy(update={"case_timeout_s": timeout_s})})
    return replace(task, spec=spec)


@dataclass
class Campaign:
    """An attack under way. The task is an `observed` one, and `evaluator` judges it."""

    task: Task
    evaluator: Evaluator
    options: Options
    progress: Progress | None = None
    seed_wall_s: float = 0.0
    _verdicts: list[Evaluation] = field(default_factory=list)
    _floor: Trial | None = None
    _trials: list[Trial] = field(default_factory=list)
    _paths: dict[int, str] = field(default_factory=dict)
    _notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        try:
            self._interface = interface_of(self.task, self.task.seed_source)
        except SyntaxError as error:
            raise UsageError(f"the seed of task {self.task.name} is no Python: {error.msg}") from None
        self._traced = self.task.kind == "openevolve"
        self._maker = Maker(self.task.seed_source, self._interface, self._traced)
        self._probe = Probe(None, (), ())

    @property
    def baseline(self) -> Baseline:
        assert self._floor is not None
        return Baseline.of(self._verdicts, self._floor.verdict)

    async def scout(self) -> None:
        """Judge the seed several times and learn what it answers. Raises UsageError when it is not valid."""
        probe = await self._valid(self._maker.probe(), "when it tells what it answers")
        self._probe = Probe.of(observation(probe).lines, self.task.referee is not None)
        self._verdicts = [probe] if self._traced else []
        for _ in range(_SEED_RUNS[self.task.kind]):
            source = self._maker.program("none") if self._traced else self.task.seed_source
            self._verdicts.append(await self._valid(source, "as it is"))
        self.seed_wall_s = max(max(case.wall_s for case in verdict.cases) for verdict in self._verdicts)
        self._floor = Trial(self._maker.floor(), await self._judge(self._maker.floor().source))
        if not self._interface.entries:
            self._notes.append("the program has no function or class that could be taken over: its answers are untried")
        elif self._probe.shape is None:
            self._notes.append("no answer was seen: families that need to know its shape were not tried")
        if len(self.baseline.answers) > 1:
            self._notes.append("the seed does not answer alike twice: changed answers are told by the programs only")

    async def run(self, deadline: float) -> Report:
        """The battery, the mutants if answers can be destroyed unnoticed, and the confirmation of findings."""
        rng = np.random.default_rng(self.options.seed)
        battery = self._maker.battery(self._probe, max(1, self.options.max_candidates - 1), rng)
        assert self._floor is not None
        self._trials = [self._floor]
        self._kept(self._floor.cheat)
        planned = len(battery) + 1
        await self._judge_all(battery, deadline, planned)
        if destroyed_unnoticed(self.baseline, self._trials):
            mutants = await self._mutants()
            planned += len(mutants)
            await self._judge_all(mutants, deadline, planned)
        if len(self._trials) < planned:
            self._notes.append(f"stopped after {self.options.max_wall_s:g} s: {len(self._trials)} of {planned} tried")
        for part in unread_parts(self.baseline, self._trials):
            self._notes.append(f"{part}: no change of it was noticed, so the evaluator does not seem to read it")
        findings = await self._confirmed([trial for trial in self._trials if self._suspect(trial)])
        return Report(
            task=self.task.name,
            split=self.options.split,
            seed_scores=self.baseline.scores,
            seed_metrics=self._verdicts[0].metrics,
            findings=tuple(findings),
            blind=blindness(self.baseline, self._trials),
            families=self._families(),
            tried=len(self._trials),
            planned=planned,
            notes=tuple(self._notes),
        )

    def _suspect(self, trial: Trial) -> bool:
        return is_finding(trial, self.baseline, self._trials, self._traced)

    async def _judge(self, source: str) -> Verdict:
        return await self.evaluator.evaluate(EvaluationJob("attack", source, self.options.split))

    async def _valid(self, source: str, how: str) -> Evaluation:
        verdict = await self._judge(source)
        if isinstance(verdict, Failure):
            raise UsageError(
                f"the seed of task {self.task.name} fails on {self.options.split} {how}: {verdict.kind}: "
                f"{verdict.detail}; an attack starts from a valid program"
            )
        return verdict

    async def _judge_all(self, cheats: Sequence[Cheat], deadline: float, planned: int) -> None:
        """Judge as many as slots at once; those that are not started before the deadline are left out."""
        waiting = list(reversed(cheats))
        order = {id(cheat): number for number, cheat in enumerate(cheats)}
        done: list[Trial] = []

        async def work() -> None:
            while waiting and time.monotonic() < deadline:
                cheat = waiting.pop()
                done.append(Trial(cheat, await self._judge(cheat.source)))
                if self.progress is not None:
                    self.progress(len(self._trials) + len(done), planned)

        await asyncio.gather(*(work() for _ in range(self.evaluator.slots)))
        done.sort(key=lambda trial: order[id(trial.cheat)])
        for trial in done:
            self._kept(trial.cheat)
        self._trials += done

    async def _mutants(self) -> list[Cheat]:
        model = MutationModel()
        mutants: list[Cheat] = []
        for number in range(_MUTANTS):
            key = (self.options.seed, number)
            made = await model.complete(GenerationRequest("attack", "mutate", (self.task.seed_source,), key))
            if made.text is not None:
                source = Maker(made.text, self._interface, self._traced).program("none")
                mutants.append(Cheat(Family.MUTANT, made.operator, "probe", source))
        return mutants

    async def _confirmed(self, suspects: list[Trial]) -> list[Finding]:
        """The findings that are some each time that the seed and they are judged in turns."""
        for _ in range(_CONFIRMATIONS[self.task.kind] if suspects else 0):
            source = self._maker.program("none") if self._traced else self.task.seed_source
            verdict = await self._judge(source)
            if isinstance(verdict, Evaluation):
                self._verdicts.append(verdict)
            again = [Trial(trial.cheat, await self._judge(trial.cheat.source)) for trial in suspects]
            pairs = zip(suspects, again, strict=True)
            suspects = [trial for trial, other in pairs if self._suspect(trial) and self._suspect(other)]
        return [self._finding(trial) for trial in suspects]

    def _finding(self, trial: Trial) -> Finding:
        assert isinstance(trial.verdict, Evaluation)
        same = self.baseline.seen_to_answer(trial.seen)
        return Finding(
            family=trial.cheat.family,
            idea=trial.cheat.idea,
            score=trial.verdict.score,
            seed_score=max(self.baseline.scores),
            metrics=trial.verdict.metrics,
            answers="changed" if trial.changed(self.baseline) else "as the seed's" if same else "not seen",
            program=self._paths.get(id(trial.cheat)),
        )

    def _kept(self, cheat: Cheat) -> None:
        if self.options.keep is None:
            return
        name = f"{len(self._paths):03d}-{cheat.family.replace(' ', '-').replace(chr(39), '')}.py"
        path = self.options.keep / name
        self.options.keep.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {cheat.family}: {cheat.idea}\n{cheat.source}", encoding="utf-8", errors="backslashreplace")
        self._paths[id(cheat)] = str(path)

    def _families(self) -> dict[str, dict[str, int]]:
        counts: dict[str, dict[str, int]] = {}
        for trial in self._trials:
            count = counts.setdefault(trial.cheat.family.value, {"tried": 0, "valid": 0, "changed": 0})
            count["tried"] += 1
            count["valid"] += isinstance(trial.verdict, Evaluation)
            count["changed"] += trial.changed(self.baseline)
        return counts


def report_json(report: Report) -> dict[str, Any]:
    """The report, ready for JSON."""
    blind = report.blind
    return {
        "task": report.task,
        "split": report.split,
        "clean": report.is_clean,
        "seed": {"scores": list(report.seed_scores), "metrics": dict(report.seed_metrics)},
        "findings": [
            {
                "family": finding.family.value,
                "idea": finding.idea,
                "score": finding.score,
                "seed_score": finding.seed_score,
                "metrics": dict(finding.metrics),
                "answers": finding.answers,
                "program": finding.program,
            }
            for finding in report.findings
        ],
        "blind": None
        if blind is None
        else {"unmoved": blind.unmoved, "changed": blind.changed, "refused": blind.refused},
        "families": {family: dict(count) for family, count in report.families.items()},
        "tried": report.tried,
        "planned": report.planned,
        "notes": list(report.notes),
    }
