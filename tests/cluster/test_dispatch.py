"""Jobs of several processes on slots they share: fair, work-conserving, and what becomes of jobs when slots are lost.

Slots are stand-ins with a real `Line` each; processes are dispatchers of one event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import pytest

from adrs_ray.candidate import Evaluation, Failure, FailureKind
from adrs_ray.errors import RunError, UsageError
from adrs_ray.evaluator import EvaluationJob
from cluster import dispatch
from cluster.dispatch import Answer, Dispatcher, UnreachableError
from cluster.line import Line
from cluster.wire import ConnectionLostError

Run = Callable[["Slot", EvaluationJob], Awaitable[None]]


class Slot:
    """What all processes share of one slot."""

    def __init__(self, run: Run | None = None) -> None:
        self.line = Line()
        self.run = run
        self.began: list[tuple[str, EvaluationJob]] = []
        self.away = False
        self.refuses: str | None = None
        self.cannot: Exception | None = None
        self.spoils: set[str] = set()
        self.met = 0
        self.deaths_count = True
        self.lost = asyncio.Event()
        self.calls: Counter[str] = Counter()

    def lose(self, back: bool = True) -> None:
        """Every call at it fails; it is a new one afterwards."""
        self.lost.set()
        self.lost, self.line, self.away = asyncio.Event(), Line(), not back


class Link:
    """A slot as one process sees it."""

    def __init__(self, slot: Slot, client: str) -> None:
        self.slot, self.client = slot, client

    async def meet(self) -> None:
        self.slot.met += 1
        if self.slot.cannot is not None:
            raise self.slot.cannot
        if self.slot.away:
            raise UnreachableError("away")

    async def evaluate(self, job: EvaluationJob) -> Answer:
        self.slot.calls["evaluate"] += 1
        if self.slot.away:
            raise UnreachableError("away")
        return await self._or_lost(self._judged(job))

    async def _judged(self, job: EvaluationJob) -> Answer:
        line = self.slot.line
        if not line.begin(self.client):
            return Answer(None, False)
        self.slot.began.append((self.client, job))
        try:
            if self.slot.run is not None:
                await self.slot.run(self.slot, job)
        finally:
            free = line.end()
        if job.candidate in self.slot.spoils:
            return Answer(None, free, spoilt=True)
        return Answer(Evaluation(1.0, {}, (), "verified", 0.0, attempts=job.attempts + 1), free)

    async def stand_in_line(self) -> None:
        self.slot.calls["line"] += 1
        await self._or_lost(self.slot.line.wait(self.client))

    async def leave(self) -> None:
        self.slot.line.leave(self.client)

    async def refusal(self) -> str | None:
        return self.slot.refuses

    async def died(self) -> bool:
        return self.slot.deaths_count

    async def _or_lost(self, work):
        lost = asyncio.create_task(self.slot.lost.wait())
        task = asyncio.ensure_future(work)
        await asyncio.wait([lost, task], return_when=asyncio.FIRST_COMPLETED)
        lost.cancel()
        if task.done() and not task.cancelled():
            return task.result()
        task.cancel()
        raise ConnectionLostError("lost")


def processes(slots: Sequence[Slot], count: int, gone_s: float = 600.0) -> list[Dispatcher]:
    async def missing() -> str:
        return "2 slots of 1 GPU each, and the cluster has none"

    return [
        Dispatcher("stage full", [Link(slot, f"p{n}") for slot in slots], missing, gone_s=gone_s) for n in range(count)
    ]


def job(number: int, attempts: int = 0) -> EvaluationJob:
    return EvaluationJob(f"c{number}", "", attempts=attempts)


def done(main: Awaitable[None]) -> None:
    asyncio.run(asyncio.wait_for(main, 60))


async def a_while(slot: Slot, job: EvaluationJob) -> None:
    await asyncio.sleep(0.002)


def test_one_process_alone_makes_one_call_per_job_and_keeps_every_slot_busy():
    async def main() -> None:
        slots = [Slot(a_while) for _ in range(3)]
        (one,) = processes(slots, 1)
        await one.ready(1.0)
        verdicts = await asyncio.gather(*(one.evaluate(job(n)) for n in range(60)))
        assert len(verdicts) == 60
        calls = sum((slot.calls for slot in slots), Counter())
        assert calls == {"evaluate": 60}
        assert min(len(slot.began) for slot in slots) >= 15
        await one.close()

    done(main())


def test_processes_that_want_more_than_there_is_are_served_in_turn():
    async def main() -> None:
        slots = [Slot(a_while) for _ in range(2)]
        both = processes(slots, 2)
        await asyncio.gather(*(one.ready(1.0) for one in both))
        await asyncio.gather(*(one.evaluate(job(n)) for one in both for n in range(40)))
        for slot in slots:
            begun = [client for client, _ in slot.began]
            middle = begun[5:-10]
            assert 0.3 < middle.count("p0") / len(middle) < 0.7, begun
        calls = sum((slot.calls for slot in slots), Counter())
        assert calls["evaluate"] + calls["line"] <= 2 * 80 + 20
        for one in both:
            await one.close()

    done(main())


def test_a_job_does_not_wait_behind_a_long_one_while_another_slot_is_free():
    async def main() -> None:
        release = asyncio.Event()

        async def run(slot: Slot, one: EvaluationJob) -> None:
            if one.candidate == "c0":
                await release.wait()

        slots = [Slot(run) for _ in range(2)]
        first, second = processes(slots, 2)
        await asyncio.gather(first.ready(1.0), second.ready(1.0))
        long = asyncio.create_task(first.evaluate(job(0)))
        await asyncio.sleep(0)
        for number in range(1, 30):
            await second.evaluate(job(number))
        assert not long.done()
        release.set()
        await long
        await first.close()
        await second.close()

    done(main())


def test_with_many_more_slots_than_lines_a_job_finds_the_one_that_is_free(monkeypatch):
    monkeypatch.setattr(dispatch, "WATCH_S", 0.001)

    async def main() -> None:
        release = asyncio.Event()

        async def run(slot: Slot, one: EvaluationJob) -> None:
            if one.candidate.startswith("c1"):
                await release.wait()

        slots = [Slot(run) for _ in range(40)]
        first, second = processes(slots, 2)
        await asyncio.gather(first.ready(1.0), second.ready(1.0))
        long = [asyncio.create_task(first.evaluate(job(1000 + n))) for n in range(39)]
        while sum(slot.line.running for slot in slots) < 39:
            await asyncio.sleep(0.001)
        await second.evaluate(job(0))
        assert not any(task.done() for task in long)
        release.set()
        await asyncio.gather(*long)
        await first.close()
        await second.close()

    done(main())


def test_a_lost_slot_is_used_again_and_the_loss_is_counted():
    async def main() -> None:
        async def run(slot: Slot, one: EvaluationJob) -> None:
            if one.candidate == "c3" and one.attempts == 0:
                slot.lose()
                await asyncio.sleep(60)

        slots = [Slot(run), Slot(run)]
        (one,) = processes(slots, 1)
        verdicts = await asyncio.gather(*(one.evaluate(job(n)) for n in range(10)))
        assert [verdict.attempts for verdict in verdicts] == [2 if n == 3 else 1 for n in range(10)]
        before = [len(slot.began) for slot in slots]
        await asyncio.gather(*(one.evaluate(job(100 + n)) for n in range(10)))
        await asyncio.sleep(0.3)
        await asyncio.gather(*(one.evaluate(job(200 + n)) for n in range(10)))
        assert all(len(slot.began) > earlier for slot, earlier in zip(slots, before, strict=True))
        await one.close()

    done(main())


@pytest.mark.parametrize(("lives_before", "deaths"), [(0, 2), (1, 1), (3, 1)])
def test_a_candidate_under_which_processes_die_is_quarantined(lives_before, deaths):
    async def main() -> None:
        async def run(slot: Slot, one: EvaluationJob) -> None:
            if one.candidate == "c0":
                slot.lose()
                await asyncio.sleep(60)

        slots = [Slot(run), Slot(run), Slot(run)]
        (one,) = processes(slots, 1)
        poison, good = await asyncio.gather(one.evaluate(job(0, lives_before)), one.evaluate(job(1)))
        assert isinstance(poison, Failure)
        assert poison.kind is FailureKind.INFRASTRUCTURE
        assert poison.detail.startswith(f"quarantined: {lives_before + deaths} evaluator processes died")
        assert poison.attempts == lives_before + deaths
        assert sum(begun.candidate == "c0" for slot in slots for _, begun in slot.began) == deaths
        assert isinstance(good, Evaluation)
        await one.close()

    done(main())


def test_lives_of_the_run_and_nodes_that_died_are_not_held_against_a_candidate():
    async def main() -> None:
        async def run(slot: Slot, one: EvaluationJob) -> None:
            if one.attempts < 9:
                slot.lose()
                await asyncio.sleep(60)

        slots = [Slot(run) for _ in range(4)]
        for slot in slots:
            slot.deaths_count = False
        (one,) = processes(slots, 1)
        verdict = await one.evaluate(job(0, attempts=5))
        assert isinstance(verdict, Evaluation)
        assert verdict.attempts == 10
        await one.close()

    done(main())


def test_a_candidate_that_takes_every_slot_with_it_is_given_up_in_the_end(monkeypatch):
    monkeypatch.setattr(dispatch, "RETRY_S", (0.001, 0.01))

    async def main() -> None:
        async def run(slot: Slot, one: EvaluationJob) -> None:
            slot.lose()
            await asyncio.sleep(60)

        slot = Slot(run)
        slot.deaths_count = False
        (one,) = processes([slot], 1)
        verdict = await one.evaluate(job(0))
        assert isinstance(verdict, Failure)
        assert verdict.kind is FailureKind.INFRASTRUCTURE
        assert "quarantined" in verdict.detail
        await one.close()

    done(main())


def test_jobs_wait_while_all_slots_are_away_and_go_on_when_one_is_back(monkeypatch):
    monkeypatch.setattr(dispatch, "RETRY_S", (0.001, 0.01))

    async def main() -> None:
        slots = [Slot(a_while), Slot(a_while)]
        (one,) = processes(slots, 1)
        await one.ready(1.0)
        for slot in slots:
            slot.lose(back=False)
        waiting = [asyncio.create_task(one.evaluate(job(n))) for n in range(5)]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in waiting)
        slots[1].away = False
        assert len(await asyncio.gather(*waiting)) == 5
        await one.close()

    done(main())


def test_slots_that_stay_away_end_the_run_with_one_line(monkeypatch):
    monkeypatch.setattr(dispatch, "RETRY_S", (0.001, 0.01))

    async def main() -> None:
        slot = Slot()
        slot.away = True
        (one,) = processes([slot], 1, gone_s=0.05)
        with pytest.raises(RunError, match=r"stage full has taken a job .* the cluster has none") as caught:
            await asyncio.gather(*(one.evaluate(job(n)) for n in range(3)))
        assert "\n" not in str(caught.value)
        with pytest.raises(RunError, match="the cluster has none"):
            await one.ready(1.0)
        await one.close()

    done(main())


def test_slots_that_are_all_quarantined_count_as_away_and_say_why(monkeypatch):
    monkeypatch.setattr(dispatch, "STALE_S", 0.01)
    monkeypatch.setattr(dispatch, "WATCH_S", 0.005)

    async def main() -> None:
        slot = Slot()
        (one,) = processes([slot], 1, gone_s=0.1)
        await one.ready(1.0)
        slot.refuses = "quarantined: GPU 0 is slowed down"
        slot.line.pause()
        with pytest.raises(RunError, match="GPU 0 is slowed down"):
            await one.evaluate(job(0))
        slot.refuses = None
        again = asyncio.create_task(one.evaluate(job(1)))
        await asyncio.sleep(0.05)
        slot.line.resume()
        assert isinstance(await again, Evaluation)
        await one.close()

    done(main())


def test_a_node_that_cannot_judge_ends_the_start_and_is_waited_for_later(monkeypatch):
    monkeypatch.setattr(dispatch, "RETRY_S", (0.001, 0.01))

    async def main() -> None:
        good, bad = Slot(a_while), Slot(a_while)
        bad.cannot = UsageError("this kernel has no Landlock")
        (one,) = processes([good, bad], 1)
        with pytest.raises(UsageError, match="no Landlock"):
            await one.ready(1.0)
        assert isinstance(await one.evaluate(job(0)), Evaluation)
        assert list(one.refusals) == [1]
        bad.cannot = None
        while one.refusals:
            await asyncio.sleep(0.001)
        await one.ready(60.0)
        await one.close()

    done(main())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("odd"), KeyError("x")])
def test_a_slot_that_meets_with_an_odd_error_is_met_again(monkeypatch, error):
    monkeypatch.setattr(dispatch, "RETRY_S", (0.001, 0.01))

    async def main() -> None:
        slot = Slot()
        slot.cannot = error
        (one,) = processes([slot], 1, gone_s=0.05)
        with pytest.raises(RunError, match="the cluster has none; the last one said: " + type(error).__name__):
            await one.ready(1.0)
        assert slot.met > 1
        assert not one.refusals
        slot.cannot = None
        await one.ready(1.0)
        assert isinstance(await one.evaluate(job(0)), Evaluation)
        slot.away = True
        with pytest.raises(RunError, match="the last one said: away"):
            await one.evaluate(job(1))
        await one.close()

    done(main())


def test_an_odd_error_in_a_line_leaves_nobody_waiting(monkeypatch):
    monkeypatch.setattr(dispatch, "RETRY_S", (0.001, 0.01))

    async def main() -> None:
        slot = Slot(a_while)
        (one,) = processes([slot], 1)
        await one.ready(1.0)
        link = one._links[0]
        stand, stood, freed = link.stand_in_line, asyncio.Event(), asyncio.Event()

        async def broken() -> None:
            stood.set()
            await freed.wait()
            monkeypatch.setattr(link, "stand_in_line", stand)
            raise PermissionError("odd")

        monkeypatch.setattr(link, "stand_in_line", broken)
        assert slot.line.begin("other")
        waiting = asyncio.create_task(one.evaluate(job(0)))
        await stood.wait()
        slot.line.end()
        freed.set()
        assert isinstance(await waiting, Evaluation)
        await one.close()

    done(main())


def test_a_slot_that_refuses_with_an_odd_error_does_not_end_the_watch(monkeypatch):
    monkeypatch.setattr(dispatch, "STALE_S", 0.005)
    monkeypatch.setattr(dispatch, "WATCH_S", 0.002)

    async def main() -> None:
        slot = Slot()
        (one,) = processes([slot], 1, gone_s=0.05)
        await one.ready(1.0)
        slot.line.pause()

        async def refusal() -> str | None:
            raise KeyError("odd")

        monkeypatch.setattr(one._links[0], "refusal", refusal)
        with pytest.raises(RunError, match=r"stage full has taken a job .* KeyError: 'odd'"):
            await one.evaluate(job(0))
        await one.close()

    done(main())


def test_a_candidate_that_breaks_two_devices_is_quarantined_and_one_that_breaks_none_is_judged():
    async def main() -> None:
        slots = [Slot(), Slot(), Slot()]
        for slot in slots:
            slot.spoils = {"c0", "c1"}
        slots[2].spoils = {"c0"}
        (one,) = processes(slots, 1)
        # An earlier life of the run says nothing of devices: two must break here.
        broken = await one.evaluate(job(0, attempts=1))
        assert isinstance(broken, Failure)
        assert broken.kind is FailureKind.INFRASTRUCTURE
        assert broken.detail == ("quarantined: 2 evaluator processes died or their devices failed while they judged it")
        assert broken.attempts == 3
        assert sum(begun.candidate == "c0" for slot in slots for _, begun in slot.began) == 2
        assert isinstance(await one.evaluate(job(2)), Evaluation)
        await one.close()

    done(main())


def test_what_one_device_spoils_another_judges():
    async def main() -> None:
        slots = [Slot(a_while), Slot(a_while)]
        slots[1].spoils = {"c0"}
        (one,) = processes(slots, 1)
        await one.ready(1.0)
        verdict = await one.evaluate(job(0))
        while not slots[1].began:
            verdict = await one.evaluate(job(0))
        assert isinstance(verdict, Evaluation)
        assert verdict.attempts == 2
        await one.close()

    done(main())


def test_what_the_evaluator_raises_is_raised_and_the_slot_stays_usable():
    async def main() -> None:
        async def run(slot: Slot, one: EvaluationJob) -> None:
            if one.candidate == "c0":
                raise UsageError("no cases for the split stress")

        (one,) = processes([Slot(run)], 1)
        with pytest.raises(UsageError, match="no cases"):
            await one.evaluate(job(0))
        assert isinstance(await one.evaluate(job(1)), Evaluation)
        await one.close()

    done(main())


def test_jobs_that_are_cancelled_lose_neither_slots_nor_others_turns():
    async def main() -> None:
        slots = [Slot(a_while), Slot(a_while)]
        both = processes(slots, 2)
        tasks = [asyncio.create_task(one.evaluate(job(n))) for n in range(60) for one in both]
        await asyncio.sleep(0.005)
        for task in tasks[::3]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        kept = [outcome for n, outcome in enumerate(outcomes) if n % 3]
        assert all(isinstance(outcome, Evaluation) for outcome in kept)
        for one in both:
            assert isinstance(await one.evaluate(job(999)), Evaluation)
            await one.close()

    done(main())
