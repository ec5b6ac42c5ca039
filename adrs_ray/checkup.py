"""Looks after an island's health while it runs: detectors at fixed steps, interventions, and their events.

Both depend on the island's own history alone, so a run with one candidate at a time stays repeatable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict

from adrs_ray.config import BudgetConfig, HealthConfig
from adrs_ray.fidelity import Growth
from adrs_ray.island import SEED_ISLAND, Island
from adrs_ray.ledger import RunPast, RunStatus
from adrs_ray.storage.journal import Event, EventKind
from adrs_ray.supervision.detectors import Finding, InterventionKind
from adrs_ray.supervision.health import examine_island, examine_run
from adrs_ray.supervision.history import RunHistory, Spending
from adrs_ray.supervision.interventions import Intervention, decide, from_json, to_json
from adrs_ray.task import Metric

LOOKS_PER_WINDOW = 5
LOOKS_REMEMBERED = 24
"""Of the run's spending: recent rates are over the last two minutes."""


class Checkup:
    """Of one island."""

    def __init__(self, config: HealthConfig) -> None:
        self._config = config
        self._step = max(1, config.window // LOOKS_PER_WINDOW)
        self._told: dict[str, int] = {}
        """Detector -> the island's candidates when its finding was last told."""
        self._done: dict[str, int] = {}
        """Intervention -> the island's candidates when it was last done."""

    def look(self, island: Island) -> tuple[list[Finding], Intervention | None]:
        """New findings, and what is to be done; nothing between two steps. Call it after each outcome."""
        if not self._config.enabled or island.terminal % self._step:
            return [], None
        findings = examine_island(island.history(), self._config)
        intervention = decide(findings, self._done, island.terminal, self._config, possible(island))
        new = [
            finding
            for finding in findings
            if island.terminal - self._told.get(finding.detector, -self._config.cooldown) >= self._config.cooldown
        ]
        for finding in new:
            self._told[finding.detector] = island.terminal
        if intervention is not None:
            self._done[intervention.kind] = island.terminal
        return new, intervention

    def events(self, island: Island, found: Sequence[Finding], intervention: Intervention | None) -> list[Event]:
        """FOUND and INTERVENED, to be journaled."""
        events = [found_event(finding, island.number, island.terminal) for finding in found]
        if intervention is not None:
            name = f"{island.number}:intervened:{island.terminal}"
            body = {**to_json(intervention), "decision": island.terminal}
            events.append(Event(name, EventKind.INTERVENED, None, island.number, body))
        return events

    def recall(self, island: Island, event: Event) -> None:
        """A FOUND or INTERVENED event of the past: cool-downs go on, and what was changed is changed again."""
        if event.kind is EventKind.FOUND:
            self._told[event.body["detector"]] = event.body["at"]
            return
        self._done[event.body["kind"]] = event.body["decision"]
        island.intervene(from_json({key: event.body[key] for key in ("kind", "island", "reason", "value")}))


class RunCheckup:
    """Of a run as a whole: what it finds is told and left to people."""

    def __init__(self, config: HealthConfig, metrics: Mapping[str, Metric]) -> None:
        self._config = config
        self._directions = {name: metric.direction for name, metric in metrics.items()}
        self._told: dict[str, int] = {}
        self._spent: deque[Spending] = deque([Spending()], maxlen=LOOKS_REMEMBERED)

    def recall(self, event: Event) -> None:
        """A FOUND event of an earlier start: its cool-down goes on."""
        self._told[event.body["detector"]] = event.body["at"]

    def look(
        self,
        past: RunPast,
        status: RunStatus,
        limits: BudgetConfig,
        wall_s: float,
        growth: tuple[str, Growth] | None = None,
    ) -> list[Event]:
        """FOUND events of what is new; `growth` as of `RunHistory`."""
        spent = Spending(
            candidates=status.candidates,
            usd=sum(model.usage.usd for model in status.models.values()),
            tokens=sum(model.usage.tokens for model in status.models.values()),
            gpu_s=sum(model.usage.gpu_s for model in status.models.values()),
            wall_s=wall_s,
        )
        history = RunHistory(past.bests, self._directions, spent, self._spent[0], limits, past.requests, growth)
        self._spent.append(spent)
        new = [
            finding
            for finding in examine_run(history, self._config)
            if status.candidates - self._told.get(finding.detector, -self._config.cooldown) >= self._config.cooldown
        ]
        for finding in new:
            self._told[finding.detector] = status.candidates
        return [found_event(finding, SEED_ISLAND, status.candidates) for finding in new]


def possible(island: Island) -> Collection[InterventionKind]:
    """What can be done on an island: nothing that needs a model without one, nothing that needs a neighbour alone."""
    kinds: set[InterventionKind] = {"restart", "ask_hint"}
    if island.targets:
        kinds.add("migrate")
    if island.asks_models:
        kinds |= {"temperature", "operators", "shift"}
    return kinds


def found_event(finding: Finding, island: int, at: int) -> Event:
    """FOUND: what a detector found, with the candidates that had ended by then."""
    body = {**asdict(finding), "figures": dict(finding.figures), "remedies": list(finding.remedies), "at": at}
    return Event(f"{island}:found:{finding.detector}:{at}", EventKind.FOUND, None, island, body)
