"""The untrusted side: drives a strategy in the public style through the ticks of one run.

A program defines a class that derives from `sky_spot.strategies.strategy.MultiRegionStrategy` and has `_step`. What
the strategy reads (`self.env`, `self.task_done_time`, ...) is rebuilt here from each observation; the run itself is
kept by the referee, in another process.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .candidate import MODULE, code_of, new_module
from .shims import sky_spot
from .shims.sky_spot import env as sky_env
from .shims.sky_spot import strategies as sky_strategies
from .shims.sky_spot import task as sky_task
from .shims.sky_spot import utils as sky_utils
from .shims.sky_spot.strategies import strategy as sky_strategy

_STATE = 6
_MODULES = {
    "sky_spot": sky_spot,
    "sky_spot.env": sky_env,
    "sky_spot.task": sky_task,
    "sky_spot.utils": sky_utils,
    "sky_spot.strategies": sky_strategies,
    "sky_spot.strategies.strategy": sky_strategy,
}
_KINDS = list(sky_utils.ClusterType)
_CODES = {kind: code for code, kind in enumerate(_KINDS)}


class InterfaceError(Exception):
    """The program defines no strategy."""


class Program:
    """A loaded candidate: its strategy class, and from the first tick on the strategy itself."""

    __slots__ = ("_answer", "_env", "_gap_s", "_kind", "_strategy")

    def __init__(self, kind: type[Any]) -> None:
        self._kind = kind
        self._strategy: Any = None
        self._env: Any = None
        self._gap_s = 0
        self._answer = np.zeros(2, np.int64)

    def start(self, opening: Mapping[str, Any]) -> None:
        """Make the strategy for the run that `opening` describes; seconds and dollars."""
        self._gap_s = opening["gap_s"]
        self._env = sky_env.MultiRegionEnv(
            opening["zones"], opening["on_demand_usd_h"], self._gap_s, opening["egress_usd"], opening["transfer_s"]
        )
        task = sky_task.Task(opening["duration_s"], opening["deadline_s"], opening["restart_s"])
        self._strategy = _make(self._kind, task)
        sky_strategy.Strategy.reset(self._strategy, self._env, task)  # its own may leave the base class out
        self._strategy.reset(self._env, task)

    def step(self, observation: NDArray[np.float64]) -> NDArray[np.int64] | str:
        """One decision: int64 [zone, request], or a text that says what the program gave back instead."""
        tick, focus, last, kind, work, overhead, *prices = observation.tolist()
        env, strategy, zone = self._env, self._strategy, int(focus)
        env._zone = zone
        env._prices = prices
        env.tick = int(tick)
        env.elapsed_seconds = tick * self._gap_s
        env.cluster_type = _KINDS[int(kind)]
        strategy.task_done_time.append(work)
        strategy.remaining_restart_overhead = overhead
        request = strategy._step(_KINDS[int(last)], prices[zone] == prices[zone])
        try:
            code = _CODES[request]
        except (KeyError, TypeError):
            return f"_step returned {type(request).__name__} {request!r:.80}, expected a ClusterType"
        self._answer[0] = env._zone
        self._answer[1] = code
        return self._answer


def load(source: str) -> Program:
    """Execute a candidate and find its strategy: the last class it defines that no other derives from.

    Raises SyntaxError, InterfaceError, and whatever the candidate's top level raises.
    """
    sys.modules.update(_MODULES)
    code = code_of(source)
    module = new_module()
    exec(code, module.__dict__)
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == MODULE and issubclass(value, sky_strategy.Strategy)
    ]
    leaves = [kind for kind in own if not any(other is not kind and issubclass(other, kind) for other in own)]
    if not leaves:
        raise InterfaceError("the program defines no class that derives from MultiRegionStrategy")
    if leaves[-1]._step is sky_strategy.Strategy._step:
        raise InterfaceError(f"{leaves[-1].__name__} does not define _step(self, last_cluster_type, has_spot)")
    return Program(leaves[-1])


def act(program: Program, observation: Any) -> NDArray[np.int64] | str:
    """The strategy's decision at one tick; the first observation is a dict that also describes the run."""
    if isinstance(observation, dict):
        program.start(observation)
        observation = observation["tick"]
    return program.step(observation)


class _Parser(argparse.ArgumentParser):
    """Knows the public options and gives defaults, whatever the command line of this process is."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        return super().parse_known_args([], namespace)


def _make(kind: type[Any], task: sky_task.Task) -> Any:
    """An instance as the public simulator makes it: from a parser, from the options, or from nothing."""
    hours = {
        "deadline_hours": task.deadline / 3600,
        "task_duration_hours": task.task_duration / 3600,
        "restart_overhead_hours": task.restart_overhead / 3600,
    }
    if next(base for base in kind.__mro__ if "_from_args" in vars(base)) is not sky_strategy.Strategy:
        parser = _Parser(add_help=False)
        parser.set_defaults(**hours)
        return kind._from_args(parser)
    first = next(iter(inspect.signature(kind).parameters.values()), None)
    if first is None or (
        first.name != "args" and (first.default is not first.empty or first.kind is first.VAR_KEYWORD)
    ):
        return kind()  # a parameter with a default that is not `args` is the program's own
    return kind(argparse.Namespace(**hours))
