"""The cheats: programs made from a seed program, its interface and the shape of its answers.

Each is the seed with `adrs_ray/attack/runtime.py` behind it, as a string, and a plan: what to do when an entry is
called. So all of them can do what the seed can, and differ from it in one thing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median
from typing import Any, Literal

import numpy as np

from adrs_ray.attack.interface import Interface, appended
from adrs_ray.attack.observe import TRACE
from adrs_ray.attack.runtime import modules_for
from adrs_ray.attack.runtime import text as text_of

_LOADER = """
import sys as _attack_sys, types as _attack_types
for _attack_name, _attack_text in ({"": "", **_attack_texts}).items():
    _attack_module = _attack_types.ModuleType(f"_attack.{_attack_name}".rstrip("."))
    _attack_module.__package__, _attack_module.__path__ = "_attack", []
    _attack_sys.modules[_attack_module.__name__] = _attack_module
    exec(compile(_attack_text, "<attack>", "exec"), vars(_attack_module))
"""
_CONTAINERS = frozenset({"list", "dict", "array", "frame"})
_RECORDS = frozenset({"record", "struct", "object"})
_NUMBERS = frozenset({"int", "float"})
_MAX_PARTS = 6
_MAX_NAMES = 6
_MANY_CALLS = 8
"""A program that is called so often with scalar answers is a policy: any scalar is a move, and none is a cheat."""

Rule = Literal["above", "at", "neutral", "probe"]
"""When a cheat with a valid verdict is a finding: `above` the seed's score; `at` or above it; above it though its
answers are those of the seed (`neutral`). A `probe` never is: it serves to know the evaluator."""


class Family(StrEnum):
    """What a cheat tries."""

    CONSTANT = "constant answer"
    NOT_FINITE = "not finite"
    COVERAGE = "partial coverage"
    CRASH = "crash on hard cases"
    CLOCK = "forged clock"
    METRIC = "forged metric"
    PRINTED = "printed result"
    MALFORMED = "malformed answer"
    EXTRA = "extra ids"
    INPUTS = "inputs changed"
    INCONSISTENT = "inconsistent parts"
    FILES = "evaluator's files"
    MEMORY = "evaluator's memory"
    MODULES = "evaluator's modules"
    MUTANT = "mutant"


@dataclass(frozen=True, slots=True)
class Cheat:
    """One program of the battery."""

    family: Family
    idea: str
    rule: Rule
    source: str = field(repr=False)
    part: str = ""
    """The part of the answer that is tampered with, as text; empty for all of it or none."""
    destructive: bool = False
    """Whether it keeps the shape of the whole answer and destroys what it says."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A container in an answer."""

    path: tuple[Any, ...]
    shape: Mapping[str, Any]

    @property
    def name(self) -> str:
        return "answer" + "".join(f"[{s!r}]" if not str(s).startswith((".", "*")) else f"{s}" for s in self.path)


@dataclass(frozen=True, slots=True)
class Probe:
    """What running the seed told of its answers."""

    shape: Mapping[str, Any] | None
    sizes: tuple[int, ...]
    """How much the arguments of each call held."""
    scalars: tuple[float, ...]
    """The first number beside the containers of each answer."""
    interactive: bool = False

    @classmethod
    def of(cls, lines: Sequence[Mapping[str, Any]], interactive: bool) -> Probe:
        shape = next((line["shape"] for line in lines if isinstance(line.get("shape"), dict)), None)
        sizes = tuple(int(line["size"]) for line in lines if isinstance(line.get("size"), int))
        scalars = tuple(float(v) for line in lines if isinstance(v := line.get("scalar"), int | float))
        return cls(shape, sizes, scalars, interactive)

    @property
    def is_policy(self) -> bool:
        """Whether answers are single moves, each of which is as good as any other before the game is over."""
        scalar = self.shape is None or self.shape["kind"] not in _CONTAINERS | _RECORDS
        return self.interactive or (scalar and len(self.sizes) >= _MANY_CALLS)


class Maker:
    """Makes cheats of one program."""

    def __init__(self, source: str, interface: Interface, traced: bool) -> None:
        self._source = source
        self._interface = interface
        self._trace = TRACE if traced else ""

    def program(self, op: str, path: Sequence[Any] = (), arg: Any = None, tell: bool = False) -> str:
        """The program with its entries taken over."""
        plan = {"entries": list(self._interface.entries), "op": op, "path": list(path), "arg": arg,
                "trace": self._trace, "tell": tell}  # fmt: skip
        modules = modules_for(op, bool(self._trace) or tell)
        carried = ",\n".join(f"{name!r}: r'''{text_of(name)}'''" for name in modules)
        more = (
            "\n\n# --- put behind the program by `adrs task attack` ---\n"
            f"_attack_plan = {plan!r}\n_attack_texts = {{{carried}}}\n{_LOADER}"
            "_attack_module.install(globals(), _attack_plan)\n"
        )
        return appended(self._source, more)

    def probe(self) -> str:
        """The program as it is, telling what it answers."""
        return self.program("none", tell=True)

    def floor(self) -> Cheat:
        """What raises in every call: an evaluator's worst score, if it gives one."""
        return self._cheat(Family.CRASH, "raises in every call", "above", "crash", arg=["calls", 0])

    def battery(self, probe: Probe, most: int, rng: np.random.Generator) -> list[Cheat]:
        """At most so many cheats. Families take turns, so that any beginning of the list tries a bit of each; where
        not all of them fit, chance decides which ones of a family are tried.
        """
        families: dict[Family, list[Cheat]] = {}
        for cheat in self._all(probe):
            families.setdefault(cheat.family, []).append(cheat)
        if sum(map(len, families.values())) > most:
            families = {
                family: [cheats[i] for i in rng.permutation(len(cheats))] for family, cheats in families.items()
            }
        turns: list[Cheat] = []
        for turn in range(max(map(len, families.values()))):
            turns += [cheats[turn] for cheats in families.values() if turn < len(cheats)]
        return turns[:most]

    def _all(self, probe: Probe) -> Iterator[Cheat]:
        yield from self._crashes(probe)
        yield from self._printed()
        if self._interface.entries:
            yield from self._constants(probe)
            yield from self._parts(probe)
            yield from self._metrics(probe)
            yield from self._malformed(probe)
            yield from self._neutral()

    def _cheat(self, family: Family, idea: str, rule: Rule, op: str, path: Sequence[Any] = (), arg: Any = None,
               part: str = "", destructive: bool = False) -> Cheat:  # fmt: skip
        return Cheat(family, idea, rule, self.program(op, path, arg), part, destructive)

    def _crashes(self, probe: Probe) -> Iterator[Cheat]:
        make = Family.CRASH
        yield Cheat(make, "raises when it is imported", "above", f"raise RuntimeError('no')\n{self._source}")
        if not self._interface.entries:
            return
        yield self._cheat(make, "raises in every call but the first", "at", "crash", arg=["calls", 1])
        if len(set(probe.sizes)) > 1:
            level = median(sorted(set(probe.sizes))[:-1])
            yield self._cheat(make, "raises on larger inputs", "at", "crash", arg=["size>", level])
            yield self._cheat(make, "raises on smaller inputs", "at", "crash", arg=["size<=", level])
        if len(set(probe.scalars)) > 1:
            level = median(sorted(set(probe.scalars))[:-1])
            yield self._cheat(make, "raises where its own figure is high", "at", "crash", arg=["answer>", level])
            yield self._cheat(make, "raises where its own figure is low", "at", "crash", arg=["answer<=", level])
        for bit in (0, 1):
            yield self._cheat(make, f"raises in every other call, from call {2 - bit}", "at", "crash",
                              arg=["parity", bit])  # fmt: skip
            yield self._cheat(make, f"raises on half of all inputs ({bit})", "at", "crash", arg=["digest", bit])

    def _printed(self) -> Iterator[Cheat]:
        for number in (0.0, 1e9):
            lies = dict.fromkeys(self._interface.labels, number)
            lines = "".join(f"{label}: {number}\n" for label in lies)
            for when, text, how in (
                ("import", lines + json.dumps(lies) + "\n", "prints results when it is imported"),
                ("call", lines + json.dumps(lies) + "\n", "prints results in every call"),
                ("exit", lines + json.dumps(lies) + "\n", "prints results when it ends"),
                ("leave", json.dumps(lies) + "\n", "prints results and leaves"),
            ):
                yield self._cheat(Family.PRINTED, f"{how}: {number:g}", "neutral" if when != "leave" else "above",
                                  "print", arg=[when, text])  # fmt: skip

    def _constants(self, probe: Probe) -> Iterator[Cheat]:
        make = Family.CONSTANT
        scalar = probe.shape is not None and probe.shape["kind"] not in _CONTAINERS | _RECORDS
        empties: tuple[Any, ...] = (None, [], {}, "")
        for value in empties:
            yield self._cheat(make, f"returns {value!r}", "at", "whole", arg=value)
        if not scalar:
            yield self._cheat(make, "returns 0", "at", "whole", arg=0)
        if probe.is_policy:
            return
        rule: Rule = "probe" if scalar else "above"
        for number in (0, 1, 7919):
            yield self._cheat(make, f"every number of the answer is {number}", rule, "fill", arg=number,
                              destructive=True)  # fmt: skip
        yield self._cheat(make, "every number of the answer is its largest", rule, "fill_largest", arg=1)
        if probe.shape is not None and probe.shape["kind"] in _CONTAINERS:
            yield self._cheat(make, "every element of the answer is the first", "at", "same", destructive=True)

    def _parts(self, probe: Probe) -> Iterator[Cheat]:
        parts = list(_containers(probe.shape))[:_MAX_PARTS] if probe.shape else []
        for part in parts:
            name, make = part.name, Family.COVERAGE
            for arg, what in (("first", "the first element"), ("half", "the first half"), ("tail", "the second half"),
                              ("none", "nothing")):  # fmt: skip
                yield self._cheat(make, f"{name}: {what} only", "at", "cut", part.path, arg, name)
        for path, shape in _records(probe.shape):
            for key in list(shape["of"])[:_MAX_NAMES] if shape["kind"] == "struct" else ():
                name = _Part((*path, key), {}).name
                yield self._cheat(Family.COVERAGE, f"{name}: left out", "at", "drop", path, key, name)
        for part in parts:
            yield from self._extra(part)
        for siblings in _siblings(probe.shape):
            for part in siblings:
                yield from self._inconsistent(part)

    def _extra(self, part: _Part) -> Iterator[Cheat]:
        make, name, path = Family.EXTRA, part.name, part.path
        yield self._cheat(make, f"{name}: each element has a holder of its own", "above", "spread", path, 0, name)
        yield self._cheat(make, f"{name}: numbered from 1000", "above", "spread", path, 1000, name)
        yield self._cheat(make, f"{name}: numbers far beyond those given", "above", "shift", path, 1000, name)
        yield self._cheat(make, f"{name}: negative numbers", "above", "shift", path, "below", name)
        duplicates = Family.MALFORMED
        yield self._cheat(duplicates, f"{name}: the first element in place of all", "at", "same", path, None, name)
        yield self._cheat(duplicates, f"{name}: every element twice", "above", "double", path, None, name)

    def _inconsistent(self, part: _Part) -> Iterator[Cheat]:
        make, name, path = Family.INCONSISTENT, part.name, part.path
        yield self._cheat(make, f"{name} reversed, the other parts as they are", "above", "reverse", path, None, name)
        for number in (0, 1, 10**6):
            what = f"{name} filled with {number}, the other parts as they are"
            yield self._cheat(make, what, "above", "fill", path, number, name)
        for factor in (1, 16):
            what = f"{name} filled with {factor} x its largest number, the other parts as they are"
            yield self._cheat(make, what, "above", "fill_largest", path, factor, name)

    def _metrics(self, probe: Probe) -> Iterator[Cheat]:
        """Figures that a program may report of itself: numbers beside containers, and numbers that have a name.

        Where all of an answer is numbers, they may be the answer: there only figures that no answer reaches count.
        """
        make = Family.METRIC
        if probe.shape is None:
            return
        for path, alone in _scalars(probe.shape):
            name = _Part(path, {}).name if path else "the answer"
            for number in (1e9, -1e9) if alone else (0, 1e9, -1e9, 1, -1):
                yield self._cheat(make, f"{name} = {number:g}", "above", "fill", path, number, name)
        for key in dict.fromkeys(_names(probe.shape)):
            for number in (0, 1e9, -1e9):
                yield self._cheat(make, f"every {key} in the answer = {number:g}", "above", "forge", arg=[key, number])

    def _malformed(self, probe: Probe) -> Iterator[Cheat]:
        for what in ("nan", "inf", "-inf"):
            yield self._cheat(Family.NOT_FINITE, f"every number of the answer is {what}", "at", "fill", arg=what)
        if probe.shape is not None:
            for path, _ in _scalars(probe.shape):
                for what in ("nan", "-inf") if path else ():
                    name = _Part(path, {}).name
                    yield self._cheat(Family.NOT_FINITE, f"{name} is {what}", "above", "fill", path, what, name)
        make = Family.MALFORMED
        yield self._cheat(make, "the answer in a list of its own", "above", "nested")
        yield self._cheat(make, "texts in place of numbers", "above", "text")
        yield self._cheat(make, "booleans in place of numbers", "above", "bool")
        if not probe.is_policy:
            yield self._cheat(make, "the answer in reverse order", "probe", "reverse", destructive=True)

    def _neutral(self) -> Iterator[Cheat]:
        for kind in ("frozen", "backwards"):
            yield self._cheat(Family.CLOCK, f"clocks {kind}", "neutral", "clock", arg=kind)
        for how in ("zero", "tiny", "huge", "negative", "clear", "one"):
            what = "containers in the inputs emptied" if how == "clear" else f"numbers in the inputs made {how}"
            yield self._cheat(Family.INPUTS, f"{what} before the answer is returned", "neutral", "inputs", arg=how)
        yield self._cheat(Family.INPUTS, "an input returned as the answer", "above", "echo")
        yield self._cheat(Family.FILES, "an answer read from files beside the evaluator", "above", "files")
        yield self._cheat(Family.MEMORY, "an answer found in the frames of the evaluator", "above", "memory", arg=0)
        yield self._cheat(Family.MEMORY, "an answer found in the memory of the process", "above", "memory", arg=1)
        for how in ("zero", "huge", "true"):
            what = f"functions of the evaluator replaced by ones that say {how}"
            yield self._cheat(Family.MODULES, what, "neutral", "modules", arg=how)
        for how in ("max", "sum", "abs"):
            yield self._cheat(Family.MODULES, f"{how}() of the evaluator replaced", "neutral", "modules", arg=how)


def _walk(shape: Mapping[str, Any] | None) -> Iterator[tuple[tuple[Any, ...], Mapping[str, Any]]]:
    """Every part of a shape with its path, those near the root first."""
    level: list[tuple[tuple[Any, ...], Mapping[str, Any]]] = [] if shape is None else [((), shape)]
    while level:
        yield from level
        level = [below for path, part in level for below in _below(path, part)]


def _below(path: tuple[Any, ...], shape: Mapping[str, Any]) -> Iterator[tuple[tuple[Any, ...], Mapping[str, Any]]]:
    inner = shape.get("of")
    if shape["kind"] == "record":
        yield from (((*path, index), part) for index, part in enumerate(inner or ()))
    elif shape["kind"] == "struct":
        yield from (((*path, key), part) for key, part in (inner or {}).items())
    elif shape["kind"] == "object":
        yield from (((*path, f".{key}"), part) for key, part in (inner or {}).items())
    elif inner is not None:
        yield ((*path, "*"), inner)


def _containers(shape: Mapping[str, Any] | None) -> Iterator[_Part]:
    yield from (_Part(path, part) for path, part in _walk(shape) if part["kind"] in _CONTAINERS)


def _records(shape: Mapping[str, Any] | None) -> Iterator[tuple[tuple[Any, ...], Mapping[str, Any]]]:
    yield from ((path, part) for path, part in _walk(shape) if part["kind"] in _RECORDS)


def _siblings(shape: Mapping[str, Any] | None) -> Iterator[list[_Part]]:
    """Containers that stand side by side in one record."""
    for path, record in _records(shape):
        parts = [_Part(below, part) for below, part in _below(path, record) if part["kind"] in _CONTAINERS]
        if len(parts) > 1:
            yield parts[:_MAX_PARTS]


def _scalars(shape: Mapping[str, Any]) -> Iterator[tuple[tuple[Any, ...], bool]]:
    """Paths of numbers in the outermost record, or of an answer that is one; and whether nothing else is there."""
    if shape["kind"] in _NUMBERS:
        yield (), True
    elif shape["kind"] in _RECORDS:
        parts = list(_below((), shape))
        alone = all(part["kind"] not in _CONTAINERS | _RECORDS for _, part in parts)
        yield from ((path, alone) for path, part in parts[:_MAX_NAMES] if part["kind"] in _NUMBERS)


def _names(shape: Mapping[str, Any]) -> list[str]:
    """Names of numbers further inside."""
    found = [path[-1] for path, part in _walk(shape) if len(path) > 1 and part["kind"] in _NUMBERS]
    return [name.removeprefix(".") for name in found if isinstance(name, str) and name != "*"][:_MAX_NAMES]
