"""What a bench found, as values: the format of `results.json` that tables, pages and later comparisons read.

A file is one JSON object that mirrors `Results`, with `format` in front. Every row says whether its loads were recorded
or generated; tables and plots never mix the two. Numbers are finite or null; a row that was dropped keeps its place
and says why in `status`.
"""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

FORMAT = 1
"""Of the file; a reader refuses any other."""

Bench = Literal["eplb", "moe_placement"]
Device = Literal["cpu", "cuda"]
Kind = Literal["baseline", "program"]
Phase = Literal["prefill", "decode"]
Source = Literal["generated", "recorded"]
Stage = Literal["model", "measured"]

OK = "ok"


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and the bounds of its interval, in the unit of the field that holds it."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EplbRow:
    """One program on one load and shape. Balances are in (0, 1], summed over layers and averaged over windows."""

    program: str
    kind: Kind
    source: Source
    regime: str
    shape: str
    """`Shape.name`."""
    grouped: bool
    """Whether groups had to stay on their nodes."""
    status: str = OK
    """`ok`, or one line: why there are no numbers."""
    same_balance: float | None = None
    """Per GPU, in the window that the placement was made from."""
    next_balance: float | None = None
    """Per GPU, in the window after it."""
    paper_balancedness: float | None = None
    """Per slot, same window: what the paper's evaluator reports; it cannot see packing."""
    gpu_bound: float | None = None
    """No placement has a larger `same_balance`."""
    next_bound: float | None = None
    """No placement has a larger `next_balance`, even one made in hindsight."""
    slot_bound: float | None = None
    """No valid placement has a larger `paper_balancedness`."""
    duplicates: int | None = None
    """Slots, over all layers and windows, that repeat an expert on their GPU."""
    group_violations: int | None = None
    """Slots, over all layers and windows, off the node of their group."""
    host_ms: Interval | None = None
    device_ms: Interval | None = None
    """None: not timed on a device."""
    findings: tuple[str, ...] = ()
    """What the clock's keeper noticed, such as cached results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoePlacementRow:
    """One program over one trace: `total_s` is `steps_s` and `moves_s` together. Decisions run beside the steps: they
    delay a change and add nothing."""

    program: str
    kind: Kind
    source: Source
    regime: str
    shape: str
    phase: Phase
    stage: Stage
    network: str
    status: str = OK
    total_s: float | None = None
    steps_s: float | None = None
    decisions_s: float | None = None
    moves_s: float | None = None
    """By which moves lengthened steps; what hides behind them is not in it."""
    moved_gib_per_gpu: float | None = None
    """Expert weights that a GPU received over the whole trace, mean over GPUs."""
    p99_step_s: float | None = None
    """99th percentile of a step with what stalled it."""
    ratio_never: float | None = None
    """`total_s` over that of never rebalancing; likewise below. Less is better."""
    ratio_deepseek_every: float | None = None
    ratio_oracle: float | None = None
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RankLatency:
    """Seconds of every rank in the layers of a step, or in layers drawn from steps of several windows:
    `seconds[layer][rank]`."""

    program: str
    source: Source
    regime: str
    shape: str
    phase: Phase
    stage: Stage
    seconds: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if not self.seconds or not self.seconds[0] or len({len(layer) for layer in self.seconds}) > 1:
            raise ValueError(f"rank latencies of {self.program}: expected as many ranks in every layer, and some")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """How well one way of measuring foretells another, over `pairs` programs or placements."""

    cheap: str
    """Such as `cost model`."""
    dear: str
    """Such as `one GPU, measured`."""
    source: Source
    regime: str
    phase: Phase
    pairs: int
    spearman: float | None
    """Rank correlation; None for fewer than two pairs, 0 where all of one side are equal."""
    median_error: float | None = None
    """Median of |cheap / dear - 1|; None where the two are of different experts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiGpuRow:
    """One placement on several processes, one each per GPU (nccl) or CPU rank (gloo)."""

    program: str
    source: Source
    regime: str
    phase: Phase
    backend: str
    world: int
    virtual_ranks: int
    """Ranks that each process plays, one after the other."""
    step_s: Interval
    """The slowest rank's step: dispatch, experts, combine of all layers."""
    model_s: float | None = None
    """What the one-GPU model foretold."""
    moved_slots: int = 0
    moved_gib: float = 0.0
    """Received from other processes by the one that received most."""
    copy_s: float | None = None
    """Of the moves alone; None: nothing moved."""
    slow_down: float | None = None
    """Steps beside moves over steps alone; None where they did not overlap."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """One run of one bench. Raises ValueError when rows of the other bench are among them."""

    bench: Bench
    date: str
    """UTC, ISO 8601 to the second."""
    device: Device
    """What the programs ran on: numbers of `cpu` say nothing about GPUs."""
    environment: dict[str, Any]
    """`environment.environment()`."""
    settings: dict[str, Any]
    """What the run was asked for (seed, windows, ...): plain JSON values."""
    eplb: tuple[EplbRow, ...] = ()
    moe_placement: tuple[MoePlacementRow, ...] = ()
    rank_latencies: tuple[RankLatency, ...] = ()
    fidelity: tuple[Fidelity, ...] = ()
    multi_gpu: tuple[MultiGpuRow, ...] = ()

    def __post_init__(self) -> None:
        if self.moe_placement if self.bench == "eplb" else self.eplb:
            raise ValueError(f"results of the bench {self.bench} hold rows of the other one")


def to_json(results: Results) -> str:
    """The text of a results file; ValueError, one line naming the place, for what the format does not allow."""
    plain = asdict(results)
    _value(Results, plain, "results")
    return json.dumps({"format": FORMAT} | plain, indent=1, allow_nan=False) + "\n"


def from_json(text: str) -> Results:
    """Read what `to_json` wrote; ValueError, one line naming the place, for anything else."""
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(plain, dict) or "format" not in plain:
        raise ValueError("not a results file: expected an object with `format`")
    if plain.pop("format") != FORMAT:
        raise ValueError(f"format of the results is not {FORMAT}, the one that this version reads")
    return _value(Results, plain, "results")


def read_results(path: Path) -> Results:
    """Read a `results.json`. Raises ValueError, one line that names the file, when it cannot be read or is none."""
    try:
        return from_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None


_T = TypeVar("_T")


def _value(kind: type[_T], value: object, where: str) -> _T:
    """`value`, plain JSON, as a `kind`: exactly the declared fields, types and finite numbers."""
    return typing.cast(_T, _read(kind, value, where))


def _read(kind: Any, value: object, where: str) -> object:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _read(next(one for one in arguments if one is not type(None)), value, where)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{where}: {_shown(value)}, expected one of {', '.join(arguments)}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where}: {_shown(value)}, expected a list")
        return tuple(_read(arguments[0], one, f"{where}[{index}]") for index, one in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: {_shown(value)}, expected an object")
        return {key: _plain(one, f"{where}.{key}") for key, one in value.items()}
    if is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    return _read_scalar(kind, value, where)


def _read_dataclass(kind: Any, value: object, where: str) -> object:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: {_shown(value)}, expected an object")
    hints = typing.get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    if missing := [name for name in names if name not in value]:
        raise ValueError(f"{where}: `{missing[0]}` is missing")
    if unknown := [name for name in value if name not in names]:
        raise ValueError(f"{where}: unknown `{_shown(unknown[0])}`")
    read = {name: _read(hints[name], value[name], f"{where}.{name}") for name in names}
    try:
        return kind(**read)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _read_scalar(kind: type, value: object, where: str) -> object:
    if kind is float and type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where}: {_shown(value)}, expected {kind.__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: {value}, expected a finite number or null")
    return value


def _plain(value: object, where: str) -> object:
    """A JSON value as it is; lists stay lists."""
    if isinstance(value, dict):
        return {str(key): _plain(one, f"{where}.{key}") for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, f"{where}[{index}]") for index, one in enumerate(value)]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return _read_scalar(float, value, where)
    raise ValueError(f"{where}: {_shown(value)}, expected a JSON value")


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
