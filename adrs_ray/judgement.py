"""Held-out splits: the best program is judged on validation while the run goes on, everything else at its end.

Tasks with stages are judged in the last one, which gives the score.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from adrs_ray.candidate import Evaluation, Failure, Measurement, Verdict
from adrs_ray.config import RunConfig
from adrs_ray.evaluator import EvaluationJob, Evaluator
from adrs_ray.island import SEED_ISLAND
from adrs_ray.ledger import Leader, RunStatus
from adrs_ray.runner import IslandLedger
from adrs_ray.storage.events import measured_event, measurement_of
from adrs_ray.storage.journal import EventKind
from adrs_ray.storage.runfolder import RunFolder
from adrs_ray.supervision.contamination import Nearness, known_programs, nearest
from adrs_ray.task import Split, Task, read_program


class JudgementLedger(IslandLedger, Protocol):
    """What is needed of the journal's owner."""

    async def status(self) -> RunStatus: ...


@dataclass(frozen=True, slots=True)
class End:
    """What the last judgement says."""

    champion: Leader | None
    source: str | None
    verdicts: dict[str, dict[Split, Verdict]] = field(default_factory=dict)
    nearest: tuple[Nearness, ...] = ()


class Judgement:
    """Of one run."""

    def __init__(
        self, task: Task, config: RunConfig, folder: RunFolder, ledger: JudgementLedger, evaluator: Evaluator
    ) -> None:
        """Raises UsageError when the folder of known programs cannot be read."""
        self._task = task
        self._config = config
        self._folder = folder
        self._ledger = ledger
        self._evaluator = evaluator
        self._known = known_programs(task, config.finish.known)
        self._validating: asyncio.Task[None] | None = None
        self._saved_best: str | None = None

    @property
    def background(self) -> list[asyncio.Task[None]]:
        """What is under way beside the search."""
        return [] if self._validating is None else [self._validating]

    async def care_for_best(self, status: RunStatus) -> None:
        """Keep the best program on disk; have a new one judged on validation."""
        if not status.leaders or (self._validating is not None and not self._validating.done()):
            return
        if self._validating is not None:
            self._validating.result()
        best = status.leaders[0]
        if best.candidate != self._saved_best:
            self._saved_best = best.candidate
            await self._save_best(best, {})
        if "validation" in self._task.spec.splits and "validation" not in status.judged.get(best.candidate, {}):
            self._validating = asyncio.create_task(self._judge_in_background(best))

    async def final(self, finished: bool, baselines: bool) -> End:
        """The champion: of the top k on train the best on validation, then once on test beside seed and baselines.

        Of a run that was stopped only the best on train is told.
        """
        status = await self._ledger.status()
        verdicts: dict[str, dict[Split, Verdict]] = {}
        held_out: list[Split] = [s for s in ("validation", "test") if s in self._task.spec.splits]
        champion = status.leaders[0] if status.leaders else None
        if champion is None:
            return End(None, None)
        judged_by = status.judged.get(champion.candidate, {})
        if finished:
            top = status.leaders[: self._config.finish.top_k]
            if "validation" in held_out:
                judged = await self._held_out([(t.candidate, t.source, None) for t in top], "validation", status)
                champion = max(top, key=lambda leader: (_score(judged[leader.candidate]), leader.score))
                status = await self._ledger.status()
            await self._compare(champion, held_out, baselines, verdicts, status)
            judged_by = {str(split): verdict for split, verdict in verdicts.get(champion.candidate, {}).items()}
        source, near = await self._save_best(champion, judged_by)
        return End(champion, source, verdicts, near)

    async def _judge_in_background(self, leader: Leader) -> None:
        await self._judge(leader.candidate, leader.source, "validation")

    async def _save_best(self, best: Leader, verdicts: Mapping[str, Verdict]) -> tuple[str, tuple[Nearness, ...]]:
        """Keep a program on disk with what is known of it; returns its text and the known programs nearest to it."""
        source = (await self._ledger.texts([best.source]))[best.source]
        native = self._task.translated(source)
        near = await asyncio.to_thread(nearest, native, self._known)
        scores: dict[str, object] = {"candidate": best.candidate, "train": {"score": best.score, **best.metrics}}
        for split, verdict in verdicts.items():
            scores[split] = _summary(verdict)
        if near:
            scores["nearest_known"] = [{"name": n.name, "shingles": n.shingles, "tree": n.tree} for n in near]
        self._folder.write_best(native, scores)
        return source, near

    async def _judge(self, candidate: str, source: str, split: Split, text: str | None = None) -> Verdict:
        """Measure a recorded program (or `text`) on a held-out split; returns what is recorded, artifacts left out."""
        if text is None:
            text = (await self._ledger.texts([source]))[source]
        stage = self._task.stage("").name
        verdict = await self._evaluator.evaluate(EvaluationJob(candidate, text, split, stage=stage))
        event = measured_event(Measurement(candidate, stage, split, 0, verdict), SEED_ISLAND)
        (recorded,) = await self._ledger.append([event], self._ledger.epoch)
        return measurement_of(recorded).verdict

    async def _compare(
        self,
        champion: Leader,
        held_out: Sequence[Split],
        baselines: bool,
        verdicts: dict[str, dict[Split, Verdict]],
        status: RunStatus,
    ) -> None:
        seed_ref = (await self._ledger.read(kinds=[EventKind.GENERATED], island=SEED_ISLAND, limit=1))[0].body["source"]
        others: list[tuple[str, str, str | None]] = [("seed-0", seed_ref, None)]
        if baselines:
            others += [(f"baseline-{name}", "", self._native(path)) for name, path in self._task.baselines().items()]
        for split in held_out:
            if split == "test" and not self._config.finish.test:
                continue
            programs = [(champion.candidate, champion.source, None), *others]
            results = await self._held_out(programs, split, status)
            for name, verdict in results.items():
                verdicts.setdefault(name, {})[split] = verdict

    def _native(self, path: Path) -> str:
        """A baseline as a disguised task's evaluator takes it: what it translates is this translated twice."""
        return self._task.translated(read_program(path))

    async def _held_out(
        self, programs: Iterable[tuple[str, str, str | None]], split: Split, status: RunStatus
    ) -> dict[str, Verdict]:
        """Verdicts of (id, text ref, text) on a split; what is recorded already is not measured again."""
        wanted = {name: (ref, text) for name, ref, text in programs}
        known = {name: status.judged[name][split] for name in wanted if split in status.judged.get(name, {})}
        missing = [name for name in wanted if name not in known]
        fresh = await asyncio.gather(*(self._judge(n, wanted[n][0], split, wanted[n][1]) for n in missing))
        judged = {**known, **dict(zip(missing, fresh, strict=True))}
        return {name: judged[name] for name in wanted}


def _score(verdict: Verdict) -> float:
    return verdict.score if isinstance(verdict, Evaluation) else float("-inf")


def _summary(verdict: Verdict) -> dict[str, object]:
    if isinstance(verdict, Failure):
        return {"failure": verdict.kind.value, "detail": verdict.detail, "case": verdict.case}
    return {"score": verdict.score, **verdict.metrics}
