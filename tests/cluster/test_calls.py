"""What counts as the loss of an actor, and that islands are replaced after each kind of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ActorUnschedulableError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
    TaskCancelledError,
)

from adrs_ray.config import RunConfig
from adrs_ray.errors import RunError, UsageError
from adrs_ray.prompt import TaskBrief
from cluster import island
from cluster.calls import LOST, answer
from cluster.dispatch import UnreachableError
from cluster.island import LOSSES_ALLOWED, RayHost
from cluster.slot_link import RaySlot

LOSSES = [
    ActorDiedError(),
    ActorUnavailableError("away", None),
    ActorUnschedulableError("the node is dead"),
    OutOfMemoryError("95% of the node's memory"),
    RuntimeEnvSetupError("no disk"),
]


class Actor:
    """Every method of it gives the next of these, or raises it."""

    def __init__(self, outcomes: list[Any]) -> None:
        self.outcomes = outcomes

    def __getattr__(self, name: str) -> Actor:
        return self

    async def remote(self, *_: Any) -> Any:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_a_loss_is_one_however_the_actor_was_lost(loss: RayError) -> None:
    with pytest.raises(LOST):
        asyncio.run(answer(Actor([loss]).remote()))


def test_what_an_actor_raises_is_no_loss() -> None:
    raised = RayTaskError("run", "Traceback", OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space"):
        asyncio.run(answer(Actor([raised]).remote()))
    assert not isinstance(raised, LOST)
    assert not isinstance(TaskCancelledError(), LOST)


def host(monkeypatch: pytest.MonkeyPatch, outcomes: list[Any]) -> RayHost:
    async def at_once(_: float) -> None: ...

    made = RayHost(RunConfig(), TaskBrief("t", "", "", (), ""), None, 1, ())

    def start(number: int) -> Actor:
        made._actors[number] = Actor(outcomes)
        return made._actors[number]

    monkeypatch.setattr(made, "_start", start)
    monkeypatch.setattr(island.ray, "kill", lambda actor: None)
    monkeypatch.setattr(island.asyncio, "sleep", at_once)
    return made


def test_an_island_is_replaced_however_it_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    islands = host(monkeypatch, [*LOSSES, None])
    assert len(LOSSES) <= LOSSES_ALLOWED
    asyncio.run(islands.run_island(3))
    assert islands.losses == len(LOSSES)


def test_an_island_that_is_lost_again_and_again_ends_the_run_with_why(monkeypatch: pytest.MonkeyPatch) -> None:
    islands = host(monkeypatch, [OutOfMemoryError("95% of the memory")] * 20)
    with pytest.raises(RunError, match=rf"island 3 was lost {LOSSES_ALLOWED + 1} times .*95% of the memory"):
        asyncio.run(islands.run_island(3))


@pytest.mark.parametrize("error", [*LOSSES, OSError(28, "full"), RuntimeError(), KeyError("x")], ids=repr)
def test_a_slot_that_does_not_say_where_it_is_counts_as_away(error: Exception) -> None:
    with pytest.raises(UnreachableError) as caught:
        asyncio.run(RaySlot(Actor([error]), "me", None).meet())
    assert type(error).__name__ in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_node_that_cannot_judge_says_so_through_its_slot() -> None:
    raised = RayTaskError("whereabouts", "Traceback", UsageError("this kernel has no Landlock"))
    with pytest.raises(UsageError, match="no Landlock"):
        asyncio.run(RaySlot(Actor([raised]), "me", None).meet())
