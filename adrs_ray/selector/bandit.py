"""Which model and which operator next: fixed weights, or a cost-aware bandit over (model, operator).

The idea is ShinkaEvolve's (arXiv 2509.19349): models earn their share by improvement per cost, only gains count, and
shares are exponential in what they earned. Older tries fade as in discounted UCB (Garivier & Moulines 2011), since
what helped early in a search need not help later. The state is a fold over settled candidates, so it is rebuilt from
the journal.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Arm: TypeAlias = tuple[str, str]
"""(model, operator)."""

_SCALE_DECAY = 0.9
_OPTIMISM = 0.25
_TEMPERATURE = 0.1
_FLOOR = 0.1
_LEAST_COST = 0.1
_LARGEST_GAIN = 1e300


@dataclass(frozen=True, slots=True)
class ArmFigures:
    """What is known of an arm, for display; nothing fades here but `share`."""

    tried: int
    mean_gain: float
    """Over all its tries, in units of score; failures and losses count 0."""
    mean_cost: float
    """In the units that `update` was given."""
    share: float
    """The chance that it is drawn next, when every arm is allowed."""


@dataclass(slots=True)
class _Record:
    tried: int = 0
    gain: float = 0.0
    cost: float = 0.0
    faded_tries: float = 0.0
    faded_reward: float = 0.0
    faded_cost: float = 0.0


class Bandit:
    """Draws arms with chances

        p_a = 0.9 * w_a exp(10 v_a / max v) / sum(...) + 0.1 * w_a / sum(w)

    where w are the configured weights and v_a is reward per cost, with optimism for arms seldom tried:

        v_a = ((R_a + q) / (n_a + 1) + 0.25 sqrt(q (1 - q) ln(1 + N) / (n_a + 1))) / c_a

    n_a, R_a are the tries and the rewards of the arm, each multiplied by `decay` at every update of any arm; N is the
    sum of all n_a, and q that of all R_a over N. A try that gained g has the reward g / (g + m), m being the running
    mean of positive gains, so the unit of score does not matter and late, small gains still count; one that failed or
    gained nothing has 0. c_a is the mean cost of the arm (one try at the average counted in) over the average of
    the arms tried, at least 0.1; 1 while nothing cost anything. As long as nothing was gained, or without `learn`, the
    chances are the weights.

    The constants are those that earned most per cost over 200 tries of two to eight simulated arms (optimism 0 to 1,
    exponent 2 to 10): without optimism a cheap arm that is lucky late was given up, with more of it good arms got less.
    """

    def __init__(self, weights: Mapping[Arm, float], learn: bool, decay: float = 0.98) -> None:
        """Arms of weight 0 are never drawn. Raises ValueError when no weight is above 0, or one below."""
        if any(weight < 0 for weight in weights.values()) or not any(weights.values()):
            raise ValueError(f"weights {dict(weights)}: none may be negative, and one must be above 0")
        self._weights = {arm: weight for arm, weight in weights.items() if weight > 0}
        self._learn = learn
        self._decay = decay
        self._records = {arm: _Record() for arm in self._weights}
        self._typical_gain = 0.0

    def choose(self, rng: np.random.Generator, allowed: Collection[Arm] | None = None) -> Arm:
        """Draw an arm among those allowed (None: all). Raises ValueError when none of them has a weight above 0."""
        arms = [arm for arm in self._weights if allowed is None or arm in allowed]
        if not arms:
            raise ValueError(f"none of the arms allowed can be drawn: {sorted(allowed or ())}")
        shares = self._shares()
        chances = np.array([shares[arm] for arm in arms])
        return arms[int(rng.choice(len(arms), p=chances / chances.sum()))]

    def update(self, arm: Arm, gain: float | None, cost: float) -> None:
        """A candidate of an arm was settled: its score less its parent's (None: it failed), and what it cost.

        Arms that cannot be drawn, such as those of an earlier config, are left out.
        """
        record = self._records.get(arm)
        if record is None:
            return
        gained = 0.0 if gain is None else min(max(gain, 0.0), _LARGEST_GAIN)
        if gained > 0:
            first = self._typical_gain == 0.0
            self._typical_gain = gained if first else _mix(self._typical_gain, gained)
        for other in self._records.values():
            other.faded_tries *= self._decay
            other.faded_reward *= self._decay
            other.faded_cost *= self._decay
        record.tried += 1
        record.gain += gained
        record.cost += cost
        record.faded_tries += 1.0
        record.faded_reward += gained / (gained + self._typical_gain) if gained > 0 else 0.0
        record.faded_cost += cost

    def figures(self) -> dict[Arm, ArmFigures]:
        """By arm, those that can be drawn."""
        shares = self._shares()
        return {
            arm: ArmFigures(
                tried=record.tried,
                mean_gain=record.gain / max(record.tried, 1),
                mean_cost=record.cost / max(record.tried, 1),
                share=shares[arm],
            )
            for arm, record in self._records.items()
        }

    def _shares(self) -> dict[Arm, float]:
        total = sum(self._weights.values())
        prior = {arm: weight / total for arm, weight in self._weights.items()}
        values = self._values() if self._learn else {}
        top = max(values.values(), default=0.0)
        if top <= 0.0:
            return prior
        raised = {arm: share * math.exp((values[arm] / top - 1.0) / _TEMPERATURE) for arm, share in prior.items()}
        norm = sum(raised.values())
        return {arm: (1.0 - _FLOOR) * raised[arm] / norm + _FLOOR * share for arm, share in prior.items()}

    def _values(self) -> dict[Arm, float]:
        """Optimistic reward per cost; 0 for all as long as nothing was gained."""
        tries = sum(record.faded_tries for record in self._records.values())
        rate = sum(record.faded_reward for record in self._records.values()) / tries if tries else 0.0
        rate = min(rate, 1.0)  # whatever rounding did
        costs = [r.faded_cost / r.faded_tries for r in self._records.values() if r.faded_tries > 0]
        usual = sum(costs) / len(costs) if costs else 0.0
        values = {}
        for arm, record in self._records.items():
            counted = record.faded_tries + 1.0
            reward = (record.faded_reward + rate) / counted
            reward += _OPTIMISM * math.sqrt(rate * (1.0 - rate) * math.log1p(tries) / counted)
            relative = (record.faded_cost + usual) / counted / usual if usual > 0 else 1.0
            values[arm] = reward / max(relative, _LEAST_COST)
        return values


def _mix(past: float, now: float) -> float:
    return _SCALE_DECAY * past + (1.0 - _SCALE_DECAY) * now
