"""What settled candidates and commands do to an island, the same live and when the journal is told again."""

from __future__ import annotations

from adrs_ray.island import Island
from adrs_ray.storage.events import elite_of, outcome_of
from adrs_ray.storage.journal import Event, EventKind


def absorb(island: Island, settled: Event, source: str | None) -> None:
    """An ADMITTED or REJECTED event of the island's own; `source` is its program where it is at hand."""
    ref = settled.body["source"]
    island.learn(outcome_of(settled), ref)
    if settled.kind is EventKind.ADMITTED:
        island.tell(elite_of(settled), source)
    elif source is not None and ref in island.missing_programs():
        island.supply({ref: source})


def obey(island: Island, command: Event) -> None:
    """A COMMAND event."""
    island.obey(command.body["kind"], command.body["body"])
