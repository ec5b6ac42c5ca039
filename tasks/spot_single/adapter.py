"""The untrusted side: steps the candidate's strategies through the ticks of one trace, all runs in lock step.

A program gives a strategy in one of three forms: a subclass of `sky_spot.strategies.strategy.Strategy` (the public
style), another class with a method `_step(self, last_cluster_type, has_spot)`, or a function
`_step(state, last_cluster_type, has_spot)`. Of several the last defined counts, subclasses of Strategy first. Each run
(a deadline and an overhead) has an object of its own. The process is told the present tick only.
"""

from __future__ import annotations

import inspect
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from .candidate import MODULE, code_of, new_module
from .shims import sky_spot
from .shims.sky_spot import env, strategies, task, utils
from .shims.sky_spot.strategies import strategy
from .shims.sky_spot.utils import ClusterType

_TYPES = (ClusterType.NONE, ClusterType.SPOT, ClusterType.ON_DEMAND)
_PUBLIC_MODULES = {
    "sky_spot": sky_spot,
    "sky_spot.env": env,
    "sky_spot.strategies": strategies,
    "sky_spot.strategies.strategy": strategy,
    "sky_spot.task": task,
    "sky_spot.utils": utils,
}

_Step = Callable[[ClusterType, bool], Any]


class InterfaceError(Exception):
    """The program defines no strategy."""


@dataclass
class Program:
    """A loaded candidate: how to make a strategy, and the runs of the case once they have begun."""

    make: Callable[[Namespace], tuple[Any, _Step | None]]
    gap_s: float = 0.0
    runs: list[tuple[_Step, Any, env.Env, list[float]]] = field(default_factory=list)
    """(decide, strategy, environment, work per gap) of each run."""


class _Arguments:
    """Stands where the public simulator passes an argparse parser: options of a program get their defaults."""

    def __init__(self, values: Namespace) -> None:
        self._values = values

    def add_argument(self, *names: str, **options: Any) -> None:
        name = options.get("dest") or max(names, key=len).lstrip("-").replace("-", "_")
        if not hasattr(self._values, name):
            setattr(self._values, name, options.get("default", options.get("action") == "store_false"))

    def add_argument_group(self, *_: Any, **__: Any) -> _Arguments:
        return self

    def parse_args(self) -> Namespace:
        return self._values

    def parse_known_args(self) -> tuple[Namespace, list[str]]:
        return self._values, []


def load(source: str) -> Program:
    """Execute a candidate's module and find its strategy.

    Raises SyntaxError, InterfaceError, and whatever the program's top level raises.
    """
    sys.modules.update(_PUBLIC_MODULES)
    code = code_of(source)
    module = new_module()
    exec(code, module.__dict__)
    return Program(_maker(module))


def act(program: Program, observation: Any) -> Any:
    """Begin the runs of a case (a dict: the number of runs) or decide one tick (float64 [runs, columns]: uint8 [runs]).

    What is no cluster type comes back as a text that says so, for the judge to refuse.
    """
    if isinstance(observation, dict):
        _begin(program, observation)
        return len(program.runs)
    rows = observation.tolist()
    tick, has_spot = int(rows[0][0]), rows[0][1] != 0.0
    elapsed_s = tick * program.gap_s
    requests = bytearray(len(rows))
    for run, (_, _, asked, last, now, overhead_s, work_s) in enumerate(rows):
        if not asked:
            continue
        step, strategy_, env_, done = program.runs[run]
        env_.tick = env_.observed_tick = tick
        env_.elapsed_seconds = elapsed_s
        env_.cluster_type = _TYPES[int(now)]
        strategy_.remaining_restart_overhead = overhead_s
        done.append(work_s)
        request = step(_TYPES[int(last)], has_spot)
        if request is ClusterType.SPOT:
            requests[run] = 1
        elif request is ClusterType.ON_DEMAND:
            requests[run] = 2
        elif request is not ClusterType.NONE:
            return f"tick {tick}: _step returned {type(request).__name__} {repr(request)[:80]}, expected a ClusterType"
    return np.frombuffer(requests, np.uint8)


def _begin(program: Program, public: Mapping[str, Any]) -> None:
    program.gap_s = float(public["gap_seconds"])
    duration_s = float(public["task_seconds"])
    for deadline_s, overhead_s in zip(public["deadlines"].tolist(), public["overheads"].tolist(), strict=True):
        arguments = Namespace(
            deadline_hours=deadline_s / 3600,
            restart_overhead_hours=overhead_s / 3600,
            task_duration_hours=duration_s / 3600,
            gap_seconds=program.gap_s,
        )
        env_, task_ = env.Env(program.gap_s), task.Task(duration_s)
        strategy_, step = program.make(arguments)
        if step is None:
            strategy_.env, strategy_.task = env_, task_
            _set_job(strategy_, deadline_s, overhead_s, duration_s)
            if callable(getattr(strategy_, "reset", None)):
                strategy_.reset(env_, task_)
            step = strategy_._step
        done: list[float] = []
        strategy_.env, strategy_.task, strategy_.task_done_time = env_, task_, done
        _set_job(strategy_, deadline_s, overhead_s, duration_s)
        program.runs.append((step, strategy_, env_, done))


def _set_job(strategy_: Any, deadline_s: float, overhead_s: float, duration_s: float) -> None:
    """What a strategy reads of its job; whole seconds, which hours times 3600 may miss by the last digit."""
    strategy_.deadline = deadline_s
    strategy_.restart_overhead = overhead_s
    strategy_.task_duration = duration_s
    strategy_.remaining_restart_overhead = 0.0


def _maker(module: ModuleType) -> Callable[[Namespace], tuple[Any, _Step | None]]:
    """How to make the strategy of a run; with a function as strategy also what decides."""
    own = [v for v in vars(module).values() if getattr(v, "__module__", None) == MODULE]
    with_step = [v for v in own if inspect.isclass(v) and callable(getattr(v, "_step", None))]
    public = [v for v in with_step if issubclass(v, strategy.Strategy) and v._step is not strategy.Strategy._step]
    if public:
        cls = public[-1]
        if not _takes_arguments(cls):
            return lambda _: (cls(), None)
        make: Callable[[_Arguments], Any] = cls.from_args
        return lambda arguments: (make(_Arguments(arguments)), None)
    plain = [v for v in with_step if not issubclass(v, strategy.Strategy)]
    if plain:
        other: Callable[..., Any] = plain[-1]
        takes_arguments = _takes_arguments(plain[-1])
        return lambda arguments: (other(arguments) if takes_arguments else other(), None)
    function = getattr(module, "_step", None)
    if isinstance(function, FunctionType):
        return lambda arguments: _function_strategy(function, arguments)
    raise InterfaceError(
        "the program defines no strategy: a class with _step(self, last_cluster_type, has_spot), best a subclass of "
        "sky_spot.strategies.strategy.Strategy, or a function _step(state, last_cluster_type, has_spot)"
    )


def _takes_arguments(cls: type) -> bool:
    """Whether a class is made from the options: its first parameter is `args` or has no default."""
    try:
        first = next(iter(inspect.signature(cls).parameters.values()), None)
    except (TypeError, ValueError):
        return False
    return first is not None and (
        first.name == "args" or (first.default is first.empty and first.kind != first.VAR_KEYWORD)
    )


def _function_strategy(function: Callable[..., Any], arguments: Namespace) -> tuple[Any, _Step]:
    state = strategy.Strategy(arguments)
    return state, lambda last, has_spot: function(state, last, has_spot)
