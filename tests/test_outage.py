"""A model's server that goes away for a while costs time, no candidates and no money."""

import asyncio

import pytest

from adrs_ray import generation
from adrs_ray.candidate import Completion
from adrs_ray.generator import GenerationRequest
from adrs_ray.search import StopSwitch
from adrs_ray.storage.journal import EventKind
from adrs_ray.storage.memory import MemoryJournal
from tests.doubles import LiteralModel, asking
from tests.test_search import check_exact, configured, folder_for, run_once


class Away(LiteralModel):
    """Unavailable from the fifth request on, for `rounds` answers."""

    def __init__(self, rounds: float) -> None:
        super().__init__(paid=True)
        self.rounds = rounds
        self.refused = 0

    async def complete(self, request: GenerationRequest) -> Completion:
        if self.calls >= 5 and self.refused < self.rounds:
            self.refused += 1
            await asyncio.sleep(0)
            return Completion(None, self.name, request.operator, "HTTP 503", unavailable=True)
        return await super().complete(request)


def test_an_outage_is_waited_for_and_costs_no_candidate(tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "OUTAGE_PAUSES_S", (0.01, 0.02))
    config = asking(configured(budget__max_candidates=25))
    journal, model = MemoryJournal(), Away(40)
    asyncio.run(run_once(folder_for(tmp_path, config), journal, config, model=model))
    events = asyncio.run(journal.read())
    check_exact(events, 25)
    assert model.refused == 40
    completed = [e for e in events if e.kind is EventKind.COMPLETED]
    assert not [e for e in completed if e.body["detail"] == "HTTP 503"]
    assert sum(e.body["usage"]["usd"] for e in completed) == pytest.approx(0.01 * len(completed))


def test_a_run_can_be_stopped_while_its_server_is_away(tmp_path):
    config = asking(configured(budget__max_candidates=25))
    journal, stop, model = MemoryJournal(), StopSwitch(), Away(float("inf"))

    async def main() -> bool:
        run = asyncio.create_task(run_once(folder_for(tmp_path, config), journal, config, model=model, stop=stop))
        while not model.refused:
            await asyncio.sleep(0.01)
        stop.drain("stopped by a test")
        return (await asyncio.wait_for(run, 10)).finished

    assert asyncio.run(main()) is False
