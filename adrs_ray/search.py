"""One run from start to end, around islands that live somewhere: seeds, supervision, draining, the final judgement.

Local runs and Ray runs differ only in the `IslandHost`, the ledger and the evaluator they pass in.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from adrs_ray import program
from adrs_ray.budget import Progress, stop_reason
from adrs_ray.candidate import Candidate, Evaluation, Failure, Measurement, Verdict
from adrs_ray.config import RunConfig
from adrs_ray.errors import RunError, UsageError
from adrs_ray.evaluator import EvaluationJob, Evaluator
from adrs_ray.island import SEED_ISLAND, Island
from adrs_ray.ledger import Leader, RunStatus
from adrs_ray.runner import IslandLedger, measure
from adrs_ray.storage.events import STAGE, candidate_of, generated_event, measured_event, measurement_of
from adrs_ray.storage.journal import Event, EventKind
from adrs_ray.storage.runfolder import RunFolder
from adrs_ray.task import Split, Task, read_program

SUPERVISION_INTERVAL_S = 0.25


class SearchLedger(IslandLedger, Protocol):
    """What the supervisor needs of the journal's owner beyond what an island needs."""

    async def status(self) -> RunStatus: ...

    async def close_purse(self) -> None:
        """Grant no more candidates: the run drains."""
        ...


class IslandHost(Protocol):
    """Where islands live."""

    async def run_island(self, number: int) -> None:
        """Run an island until the ledger grants it no more; replaces it when it is lost.

        Raises RunError when the run cannot go on.
        """
        ...

    async def drain(self) -> None:
        """Let islands begin nothing new; called again and again while the run drains, so it must not wait for them."""
        ...


@dataclass(frozen=True, slots=True)
class Seed:
    """A program to start from, and where it came from: `seed`, or a run or file named by --warm-start."""

    source: str
    origin: str


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended.

    `champion` is the best on train so far when the run was stopped. `verdicts[name][split]` holds the champion,
    `seed-0` and baselines on the held-out splits.
    """

    reason: str
    finished: bool
    """False when it was stopped by a person and can be resumed."""
    status: RunStatus
    champion: Leader | None
    champion_source: str | None
    wall_s: float
    verdicts: dict[str, dict[Split, Verdict]] = field(default_factory=dict)


class StopSwitch:
    """Set by a signal or a command: the run drains. The first reason counts."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.since = time.time()
        """When this start of the run began; a stop asked for before was meant for an earlier one."""

    def drain(self, reason: str) -> None:
        self.reason = self.reason or reason


class Search:
    """The supervisor of a run."""

    def __init__(
        self,
        task: Task,
        config: RunConfig,
        folder: RunFolder,
        ledger: SearchLedger,
        evaluator: Evaluator,
        host: IslandHost,
        on_status: Callable[[RunStatus], None],
        stop: StopSwitch,
    ) -> None:
        self._task = task
        self._config = config
        self._folder = folder
        self._ledger = ledger
        self._evaluator = evaluator
        self._host = host
        self._on_status = on_status
        self._stop = stop
        self._started = time.monotonic()
        self._validating: asyncio.Task[None] | None = None
        self._saved_best: str | None = None

    async def run(self, seeds: Sequence[Seed], baselines: bool = True) -> RunResult:
        """Run to the end of the budget or until stopped. `seeds` count in a new run only, by default the task's seed.

        Raises RunError with one line when it cannot go on: no seed is valid, the journal refuses.
        """
        await self._settle_seeds(seeds)
        try:
            await self._look()
            await self._run_islands()
            if self._validating is not None:
                await self._validating
        finally:
            await _cancel([] if self._validating is None else [self._validating])
        status = await self._ledger.status()
        self._on_status(status)
        reason = self._stop.reason or f"all {status.candidates} candidates are done"
        finished = not (self._stop.reason or "").startswith("stopped")
        return await self._finish(reason, finished, baselines)

    async def _run_islands(self) -> None:
        """Until every island has ended."""
        islands = [asyncio.create_task(self._host.run_island(n)) for n in range(self._config.islands.count)]
        supervisor = asyncio.create_task(self._supervise())
        try:
            await _all_or_first_error([*islands, supervisor], until=islands)
        finally:
            await _cancel([*islands, supervisor])

    async def _settle_seeds(self, seeds: Sequence[Seed]) -> None:
        """Journal the programs to start from, once, and measure those that have no terminal state yet."""
        judge = Island(SEED_ISLAND, self._config, self._task.seed_source)
        planted = await self._ledger.read(kinds=[EventKind.GENERATED], island=SEED_ISLAND)
        if not planted:
            first = seeds or [Seed(self._task.seed_source, "seed")]
            batch = [generated_event(c, c.operator, 1) for c in seed_candidates(first)]
            planted = await self._ledger.append(batch, self._ledger.epoch)
        kinds = [EventKind.ADMITTED, EventKind.REJECTED]
        settled = {event.candidate: event for event in await self._ledger.read(kinds=kinds, island=SEED_ISLAND)}
        waiting = [event for event in planted if event.candidate not in settled]
        await self._ledger.reopen(SEED_ISLAND, len(waiting), f"seeds:{self._ledger.epoch}")
        texts = await self._ledger.texts([event.body["source"] for event in waiting])
        measured = await asyncio.gather(
            *(
                measure(
                    candidate_of(event, texts[event.body["source"]]),
                    self._evaluator,
                    self._ledger,
                    judge,
                    self._ledger.epoch - event.epoch,
                )
                for event in waiting
            )
        )
        settled |= {event.candidate: event for event in measured}
        if not any(event.kind is EventKind.ADMITTED for event in settled.values()):
            body = settled["seed-0"].body
            case = "" if body["case"] is None else f" (case {body['case']})"
            raise RunError(f"the seed of {self._task.name} fails on train: {body['failure']}: {body['detail']}{case}")

    async def _supervise(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(SUPERVISION_INTERVAL_S)

    async def _look(self) -> None:
        """Show the status, obey commands, keep the best program on disk, judge new bests on validation, stop."""
        status = await self._ledger.status()
        self._on_status(status)
        await self._obey_commands(status)
        await self._care_for_best(status)
        progress = Progress(
            candidates=status.candidates,
            wall_s=time.monotonic() - self._started,
            best_score=status.leaders[0].score if status.leaders else None,
            since_best=status.since_best,
        )
        reason = stop_reason(progress, self._config.budget)
        if reason is not None and status.candidates < self._config.budget.max_candidates:
            self._stop.drain(reason)
        if self._stop.reason is not None:
            await self._ledger.close_purse()
            await self._host.drain()

    async def _obey_commands(self, status: RunStatus) -> None:
        for command in self._folder.pending_commands(set(status.commands)):
            event = Event(
                f"command:{command.id}",
                EventKind.COMMAND,
                None,
                SEED_ISLAND,
                {"kind": command.kind, "body": dict(command.body)},
            )
            await self._ledger.append([event], self._ledger.epoch)
            if command.kind == "stop" and command.posted_at >= self._stop.since:
                self._stop.drain("stopped by `adrs stop`")

    async def _care_for_best(self, status: RunStatus) -> None:
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

    async def _judge_in_background(self, leader: Leader) -> None:
        await self._judge(leader.candidate, leader.source, "validation")

    async def _save_best(self, best: Leader, verdicts: Mapping[str, Verdict]) -> None:
        source = (await self._ledger.texts([best.source]))[best.source]
        scores: dict[str, object] = {"candidate": best.candidate, "train": {"score": best.score, **best.metrics}}
        for split, verdict in verdicts.items():
            scores[split] = _summary(verdict)
        self._folder.write_best(source, scores)

    async def _judge(self, candidate: str, source: str, split: Split, text: str | None = None) -> Verdict:
        """Measure a recorded program (or `text`) on a held-out split; returns what is recorded, artifacts left out."""
        if text is None:
            text = (await self._ledger.texts([source]))[source]
        verdict = await self._evaluator.evaluate(EvaluationJob(candidate, text, split))
        event = measured_event(Measurement(candidate, STAGE, split, 0, verdict), SEED_ISLAND)
        (recorded,) = await self._ledger.append([event], self._ledger.epoch)
        return measurement_of(recorded).verdict

    async def _finish(self, reason: str, finished: bool, baselines: bool) -> RunResult:
        """Top k on validation, the champion once on test, beside it the seed and the baselines."""
        status = await self._ledger.status()
        verdicts: dict[str, dict[Split, Verdict]] = {}
        held_out: list[Split] = [s for s in ("validation", "test") if s in self._task.spec.splits]
        champion = status.leaders[0] if status.leaders else None
        if finished and champion is not None:
            top = status.leaders[: self._config.finish.top_k]
            if "validation" in held_out:
                judged = await self._held_out([(t.candidate, t.source, None) for t in top], "validation", status)
                champion = max(top, key=lambda leader: (_score(judged[leader.candidate]), leader.score))
                status = await self._ledger.status()
            await self._compare(champion, held_out, baselines, verdicts, status)
            judged_by = verdicts.get(champion.candidate, {})
            await self._save_best(champion, {str(split): verdict for split, verdict in judged_by.items()})
        elif champion is not None:
            await self._save_best(champion, status.judged.get(champion.candidate, {}))
        status = await self._ledger.status()
        wall_s = time.monotonic() - self._started
        body = {
            "reason": reason,
            "wall_s": wall_s,
            "candidates": status.candidates,
            # The best on train that no held-out split was asked about is no champion.
            "champion": champion.candidate if champion and finished else None,
        }
        event = Event(f"run_ended:{self._ledger.epoch}", EventKind.RUN_ENDED, None, SEED_ISLAND, body)
        await self._ledger.append([event], self._ledger.epoch)
        text = None if champion is None else (await self._ledger.texts([champion.source]))[champion.source]
        return RunResult(reason, finished, status, champion, text, wall_s, verdicts)

    async def _compare(
        self,
        champion: Leader,
        held_out: Sequence[Split],
        baselines: bool,
        verdicts: dict[str, dict[Split, Verdict]],
        status: RunStatus,
    ) -> None:
        seed_ref = (await self._ledger.read(kinds=[EventKind.GENERATED], island=SEED_ISLAND))[0].body["source"]
        others: list[tuple[str, str, str | None]] = [("seed-0", seed_ref, None)]
        if baselines:
            for name, path in self._task.baselines().items():
                others.append((f"baseline-{name}", "", read_program(path)))
        for split in held_out:
            if split == "test" and not self._config.finish.test:
                continue
            programs = [(champion.candidate, champion.source, None), *others]
            results = await self._held_out(programs, split, status)
            for name, verdict in results.items():
                verdicts.setdefault(name, {})[split] = verdict

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


def seed_candidates(seeds: Sequence[Seed]) -> list[Candidate]:
    """Candidates `seed-0`, `seed-1`, ...: programs that are the same as an earlier one are left out.

    Raises UsageError, one line, for a program that cannot be evolved.
    """
    found: dict[str, Candidate] = {}
    for seed in seeds:
        try:
            fingerprint = program.fingerprint(seed.source)
            program.evolve_blocks(seed.source)
        except SyntaxError as error:
            where = "" if error.lineno is None else f"line {error.lineno}: "
            raise UsageError(f"{seed.origin} is no Python program: {where}{error.msg}") from None
        except ValueError as error:
            raise UsageError(f"{seed.origin}: {error}") from None
        if fingerprint not in found:
            number = len(found)
            found[fingerprint] = Candidate(
                f"seed-{number}", SEED_ISLAND, number, seed.origin, (), seed.source, fingerprint
            )
    return list(found.values())


async def _all_or_first_error(tasks: Sequence[asyncio.Task[None]], until: Sequence[asyncio.Task[None]]) -> None:
    """Wait until all of `until` are done; raise the first error of any task at once."""
    waiting = set(tasks)
    while not all(task.done() for task in until):
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel and wait until they have ended: none of them writes afterwards."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _score(verdict: Verdict) -> float:
    return verdict.score if isinstance(verdict, Evaluation) else float("-inf")


def _summary(verdict: Verdict) -> dict[str, object]:
    if isinstance(verdict, Failure):
        return {"failure": verdict.kind.value, "detail": verdict.detail, "case": verdict.case}
    return {"score": verdict.score, **verdict.metrics}
