"""The contracts of journal and evaluator, against their Ray implementations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from adrs_ray.config import EvaluatorConfig, RunConfig, override
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.storage.journal import Event, EventKind
from adrs_ray.storage.sqlite import SqliteJournal
from adrs_ray.task import Task
from cluster.evaluator import RayEvaluator, start_slots
from cluster.ledger import RayLedger, start_ledger
from tests.evaluator.evaluator_contract import EvaluatorContract, MakeEvaluator
from tests.evaluator.tiny_task import SEED, write_task
from tests.storage.conftest import make_event
from tests.storage.test_journal_contract import *  # noqa: F403

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_here")]


class RayWriters:
    """A ledger actor per writer, each on an epoch of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._actors: list[Any] = []
        self.first = self._writer()

    def successor(self) -> RayLedger:
        return self._writer()

    def _writer(self) -> RayLedger:
        journal = SqliteJournal.open(self._path, fence=True)
        asyncio.run(journal.close())
        actor = start_ledger(self._path, journal.epoch, RunConfig())
        self._actors.append(actor)
        return RayLedger(actor, journal.epoch)

    def close(self) -> None:
        for actor in self._actors:
            ray.kill(actor)


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[RayWriters]:
    made = RayWriters(tmp_path / "journal.db")
    yield made
    made.close()


@pytest.fixture
def event() -> Callable[..., Event]:
    return make_event


@pytest.fixture
def run() -> Any:
    return asyncio.run


def test_a_ledger_that_was_killed_comes_back_and_knows_what_it_had_granted(writers: RayWriters) -> None:
    ledger = writers.first

    async def spend() -> tuple[int, int, int]:
        await ledger.start_epoch()
        first = await ledger.grant(0, 10, "a")
        ray.kill(writers._actors[0], no_restart=False)
        again = await ledger.grant(0, 10, "a")
        granted = again
        for number in range(1000):
            more = await ledger.grant(1, 32, f"b{number}")
            if more == 0:
                break
            granted += more
        return first, again, granted

    first, again, granted = asyncio.run(spend())
    assert first == again == 10
    assert granted == RunConfig().budget.max_candidates
    events = asyncio.run(ledger.read(kinds=[EventKind.GRANT]))
    assert sum(e.body["count"] for e in events) == granted


class TestRayEvaluator(EvaluatorContract):
    @pytest.fixture
    def make(self) -> MakeEvaluator:
        class Owned(RayEvaluator):
            """Ends the actors it was made with, as the driver does."""

            async def close(self) -> None:
                await super().close()
                for actor in self.directory.actors:
                    ray.kill(actor)

        def make(task: Task, config: EvaluatorConfig) -> RayEvaluator:
            whole = override(RunConfig(), {f"evaluator.{k}": v for k, v in config.model_dump().items()})
            return Owned(start_slots(task, str(task.folder), whole, config.slots or 1))

        return make

    def test_a_lost_slot_is_replaced_and_the_loss_is_counted(self, make: MakeEvaluator, tmp_path: Path) -> None:
        slow = SEED.replace("def solve(x):\n", "def solve(x):\n    import time\n    time.sleep(0.4)\n")
        evaluator = make(write_task(tmp_path), EvaluatorConfig(slots=2))

        async def lose_one() -> list[Any]:
            await evaluator.start()
            jobs = [asyncio.ensure_future(evaluator.evaluate(EvaluationJob(f"j{i}", slow))) for i in range(4)]
            await asyncio.sleep(0.3)
            ray.kill(evaluator.directory.actors[0], no_restart=False)  # type: ignore[attr-defined]
            verdicts = await asyncio.gather(*jobs)
            await evaluator.close()
            return verdicts

        verdicts = asyncio.run(lose_one())
        assert [v.score for v in verdicts] == [0.0] * 4
        assert sorted(v.attempts for v in verdicts) in ([1, 1, 1, 2], [1, 1, 2, 2])
