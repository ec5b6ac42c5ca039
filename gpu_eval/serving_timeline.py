"""The clock of a served trace: what is in force, what is on its way, and what every step takes (rules: `serving`)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .balance import gpu_loads
from .serving_rules import Costs, Decision, Floats, Ints, ServingConfig, ServingResult
from .token_split import even_split


@dataclass(slots=True, eq=False)
class _Change:
    """A change under way: the copies of its layers in order, and how far they have come."""

    placement: Ints
    split: Floats | None
    order: Ints
    """Layers that need copies, in the order in which they go over."""
    ends: Floats
    """Seconds of copying after which each of `order` is there."""
    fetched: Ints
    """By layer."""
    copied_s: float = 0.0
    over: int = 0
    """How many of `order` have gone over."""

    @property
    def left_s(self) -> float:
        return float(self.ends[-1]) - self.copied_s if self.over < len(self.order) else 0.0


@dataclass(slots=True, eq=False)
class Timeline:
    """The clock, what is in force, and what is on its way."""

    config: ServingConfig
    costs: Costs
    placement: Ints
    split: Floats | None = None
    now_s: float = 0.0
    free_s: float = 0.0
    """When the last decision so far was taken."""
    waiting: deque[tuple[float, Decision]] = field(default_factory=deque)
    change: _Change | None = None
    steps: list[float] = field(default_factory=list)
    windows: list[float] = field(default_factory=list)
    decisions: list[float] = field(default_factory=list)
    stall_s: float = 0.0
    changes: int = 0
    fetched: int = 0
    mean_load: float = 0.0
    largest_load: float = 0.0
    history: list[tuple[NDArray[np.int32], Floats | None]] = field(default_factory=list)

    def serve(self, tokens: Ints, decision: Decision) -> None:
        """One window with `tokens` [S, L, E], after a decision on the window before."""
        self.decisions.append(decision.seconds)
        self.free_s = max(self.now_s, self.free_s) + decision.seconds
        if decision.placement is not None:
            self.waiting.append((self.free_s, decision))
        layers = self._layers(tokens, self.placement, self.split)
        target = None if self.change is None else self._layers(tokens, self.change.placement, self.change.split)
        samples, base_s = len(tokens), 0.0
        totals = layers.sum(axis=1)
        for step in range(self.config.window_steps):
            while self.waiting and self.waiting[0][0] <= self.now_s:
                target = self._begin(self.waiting.popleft()[1], tokens, layers)
                totals = layers.sum(axis=1)
            length = float(totals[step * samples // self.config.window_steps])
            base_s += length
            if self.change is not None and target is not None:
                length += self._copy(length)
                if self._go_over(layers, target):
                    totals = layers.sum(axis=1)
            self.steps.append(length)
            self.now_s += length
        self.windows.append(base_s)
        self._note(tokens)

    def _layers(self, tokens: Ints, placement: Ints, split: Floats | None) -> Floats:
        return np.array(self.costs.layer_seconds(placement, split, tokens), np.float64)

    def _begin(self, decision: Decision, tokens: Ints, layers: Floats) -> Floats:
        """Take a decision up; layers that need no copy go over at once. Gives the layers' seconds under its target."""
        assert decision.placement is not None
        self.changes += bool((decision.placement != self.placement).any())
        seconds, fetched = self.costs.copying(self.placement, decision.placement)
        order = np.flatnonzero(seconds > 0)
        self.change = _Change(decision.placement, decision.split, order, np.cumsum(seconds[order]), fetched)
        target = self._layers(tokens, decision.placement, decision.split)
        self._switch(np.flatnonzero(seconds <= 0), layers, target)
        if not len(order):
            self.change = None
        return target

    def _copy(self, length: float) -> float:
        """Copy beside a step of this length; by how much it is lengthened."""
        change = self.change
        assert change is not None
        seconds = min(self.config.copying_within(length), change.left_s)
        change.copied_s = float(change.ends[-1]) if seconds == change.left_s else change.copied_s + seconds
        stall = (1.0 - self.config.overlap) * seconds
        self.stall_s += stall
        return stall

    def _go_over(self, layers: Floats, target: Floats) -> bool:
        """Let the layers whose copies are there go over; whether there were any."""
        change = self.change
        assert change is not None
        over = int(np.searchsorted(change.ends, change.copied_s, side="right"))
        ready = change.order[change.over : over]
        change.over = over
        if len(ready):
            self._switch(ready, layers, target)
            self.fetched += int(change.fetched[ready].sum())
        if over == len(change.order):
            self.change = None
        return len(ready) > 0

    def _switch(self, ready: Ints, layers: Floats, target: Floats) -> None:
        change = self.change
        assert change is not None
        layers[:, ready] = target[:, ready]
        if self.split is not None or change.split is not None:
            experts = self.config.shape.experts
            if self.split is None:
                self.split = even_split(self.placement, experts)
            wanted = change.split if change.split is not None else even_split(change.placement, experts)
            self.split[ready] = wanted[ready]
        self.placement[ready] = change.placement[ready]

    def _note(self, tokens: Ints) -> None:
        """What was in force at the end of a window, and how evenly it spread the window's tokens."""
        split = None if self.split is None else self.split.copy()
        self.history.append((self.placement.astype(np.int32), split))
        loads = gpu_loads(self.placement, tokens.sum(axis=0), self.config.shape.gpus, split)
        self.mean_load += float(loads.mean(axis=1).sum())
        self.largest_load += float(loads.max(axis=1).sum())

    def result(self) -> ServingResult:
        shape = self.config.shape
        placements = np.array([placement for placement, _ in self.history], np.int32)
        return ServingResult(
            step_seconds=np.array(self.steps),
            window_seconds=np.array(self.windows),
            stall_seconds=self.stall_s,
            decision_seconds=np.array(self.decisions),
            changes=self.changes,
            fetched=self.fetched,
            balance=self.mean_load / self.largest_load if self.largest_load > 0 else 1.0,
            placements=placements.reshape(-1, shape.layers, shape.slots),
            splits=tuple(split for _, split in self.history),
        )
