"""A cassette as a file: gzip, one JSON object a line, a header first and a count last.

Whatever a foreign or damaged file holds, reading it ends in a cassette or in one line that says what is wrong.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import NoneType
from typing import Any, TypeAlias, get_args

import yaml

from adrs_ray.candidate import Completion, Trust, Usage, Verdict, verdict_from_json, verdict_to_json
from adrs_ray.cassette import Cassette, Fact, RecordedCommand, RecordedCompletion, RecordedVerdict
from adrs_ray.config import RunConfig, parse_config, to_yaml
from adrs_ray.errors import UsageError
from adrs_ray.planting import Seed
from adrs_ray.storage.runfolder import write_atomically
from adrs_ray.task_spec import FULL_STAGE

FORMAT = 1
MAX_LINE = 1 << 26
"""Bytes of a line, unpacked."""
MAX_FILE = 1 << 32
"""Bytes of all lines together."""
_Shape: TypeAlias = Mapping[str, type | tuple[type, ...]]
_NUMBER = (int, float)
_TEXT_OR_NONE = (str, NoneType)
_HEADER: _Shape = {
    "format": int,
    "task": str,
    "config": str,
    "version": str,
    "obstacle": _TEXT_OR_NONE,
    "reason": str,
    "baselines": bool,
}
_COMPLETION: _Shape = {
    "request": str,
    "asked": str,
    "digest": str,
    "text": _TEXT_OR_NONE,
    "model": str,
    "operator": str,
    "detail": str,
    "reasoning": str,
    "thinking_only": bool,
    "usage": dict,
    "unavailable": bool,
}
_USAGE: _Shape = {key: bool if key == "estimated" else _NUMBER for key in asdict(Usage())}
_VERDICT: _Shape = {
    "candidate": str,
    "stage": str,
    "split": str,
    "repeat": int,
    "program": _TEXT_OR_NONE,
    "verdict": dict,
}
_COMMON: _Shape = {"trust": str, "wall_s": _NUMBER, "artifacts": dict, "evidence": dict, "attempts": int}
_FAILURE: _Shape = {"failure": str, "detail": str, "case": _TEXT_OR_NONE, **_COMMON}
_EVALUATION: _Shape = {"score": _NUMBER, "metrics": dict, "cases": list, **_COMMON}


def write(cassette: Cassette, path: Path) -> None:
    """Put a cassette in a file; readers see the old one or the new one. Raises OSError."""
    lines = list(_lines(cassette))
    text = "".join(f"{json.dumps(line, separators=(',', ':'), allow_nan=False)}\n" for line in lines)
    # Without a time in it, so that the same run gives the same file.
    write_atomically(path, gzip.compress(text.encode(), mtime=0))


def _lines(cassette: Cassette) -> Iterator[dict[str, Any]]:
    yield {
        "format": FORMAT,
        "task": cassette.task,
        "config": to_yaml(cassette.config),
        "version": cassette.version,
        "obstacle": cassette.obstacle,
        "reason": cassette.reason,
        "baselines": cassette.baselines,
    }
    parts: list[dict[str, Any]] = [{"seed": asdict(seed)} for seed in cassette.seeds]
    for recorded in cassette.completions.values():
        own = {"request": recorded.request, "asked": recorded.operator, "digest": recorded.digest}
        parts.append({"completion": {**own, **asdict(recorded.completion)}})
    for one in cassette.verdicts.values():
        own_verdict = {"candidate": one.candidate, "split": one.split, "repeat": one.repeat, "program": one.program}
        staged = {} if one.stage == FULL_STAGE else {"stage": one.stage}
        parts.append({"verdict": {**own_verdict, **staged, "verdict": verdict_to_json(one.verdict)}})
    parts += [{"script": {"island": number, "steps": list(steps)}} for number, steps in cassette.scripts.items()]
    parts += [{"command": {"id": c.id, "kind": c.kind, "body": dict(c.body)}} for c in cassette.commands]
    parts += [{"fact": {"id": f.id, "kind": f.kind, "body": dict(f.body)}} for f in cassette.facts]
    yield from parts
    yield {"end": len(parts)}


def read(path: Path) -> Cassette:
    """The cassette in a file. Raises UsageError, one line, for a file that is missing, foreign, damaged or cut off."""
    try:
        lines = _unpacked(path)
        header = next(lines, None)
        if header is None:
            raise ValueError("it is empty")
        if header.get("format") not in (FORMAT, None):
            raise ValueError(f"format {header['format']!r}, this version reads {FORMAT}")
        head = _shaped(header, _HEADER, "header")
        return _assembled(head, lines, path)
    except OSError as error:  # gzip's complaints are OSErrors, too
        why = error.strerror or str(error)
    except (EOFError, zlib.error) as error:
        why = f"cut off or damaged: {error}"
    except (ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError) as error:
        why = str(error)
    raise UsageError(f"{path} is no cassette (`adrs cassette RUN FILE` makes one): {' '.join(why.split())[:300]}")


def _unpacked(path: Path) -> Iterator[dict[str, Any]]:
    total = 0
    with gzip.open(path, "rb") as file:
        number = 0
        while raw := file.readline(MAX_LINE + 1):
            number += 1
            total += len(raw)
            if len(raw) > MAX_LINE or total > MAX_FILE:
                raise ValueError(f"line {number} makes it larger than a cassette can be")
            line = json.loads(raw, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_bounded)
            if not isinstance(line, dict):
                raise ValueError(f"line {number} is no object")
            yield line


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is no finite number")
    return value


def _bounded(digits: str) -> int:
    if len(digits) > 19:
        raise ValueError(f"{digits[:20]}... is too large a number")
    return int(digits)


def _assembled(head: Mapping[str, Any], lines: Iterator[dict[str, Any]], path: Path) -> Cassette:
    kept: dict[str, list[Any]] = {name: [] for name in _PARTS}
    ended = None
    for count, line in enumerate(lines):
        if ended is not None:
            raise ValueError("something follows its end")
        (name,) = line if len(line) == 1 else ("",)
        if name == "end":
            if line[name] != count:
                raise ValueError(f"it ends after {count} entries of {line[name]!r}")
            ended = count
        elif name in _PARTS:
            kept[name].append(_PARTS[name](line[name]))
        else:
            raise ValueError(f"entry {count} is of no known kind")
    if ended is None:
        raise ValueError("it is cut off: its end is missing")
    return Cassette(
        task=head["task"],
        config=_config(head["config"], path),
        version=head["version"],
        obstacle=head["obstacle"],
        reason=head["reason"],
        baselines=head["baselines"],
        seeds=tuple(kept["seed"]),
        completions={one.request: one for one in kept["completion"]},
        verdicts={(one.candidate, one.stage, one.split, one.repeat): one for one in kept["verdict"]},
        scripts=dict(kept["script"]),
        commands=tuple(kept["command"]),
        facts=tuple(kept["fact"]),
    )


def _config(text: str, path: Path) -> RunConfig:
    if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
        raise ValueError("config: aliases, which could stand for more than memory holds")
    return parse_config(yaml.safe_load(text), f"config in {path}")


def _seed(data: Any) -> Seed:
    return Seed(**_shaped(data, {"source": str, "origin": str}, "seed"))


def _completion(data: Any) -> RecordedCompletion:
    given = _shaped(data, _COMPLETION, "completion")
    usage = Usage(**_shaped(given.pop("usage"), _USAGE, "usage"))
    request, asked, digest = (given.pop(key) for key in ("request", "asked", "digest"))
    return RecordedCompletion(request, asked, digest, Completion(**given, usage=usage))


def _verdict(data: Any) -> RecordedVerdict:
    given = _shaped(_in_stage(data), _VERDICT, "verdict")
    return RecordedVerdict(**{**given, "verdict": _checked_verdict(given["verdict"])})


def _in_stage(verdict: Any) -> Any:
    """A verdict of a task without stages does not name one."""
    return {"stage": FULL_STAGE, **verdict} if isinstance(verdict, dict) else verdict


def _checked_verdict(data: dict[str, Any]) -> Verdict:
    given = _shaped(data, _FAILURE if "failure" in data else _EVALUATION, "verdict")
    if given["trust"] not in get_args(Trust):
        raise ValueError(f"a verdict: trust {given['trust']!r}")
    evidence = _shaped(given["evidence"], {"jail": list, "denied": dict}, "evidence")
    _all(evidence["jail"], str)
    _all(evidence["denied"].values(), int)
    _all(given["artifacts"].values(), str)
    _all(given.get("metrics", {}).values(), _NUMBER)
    for case in given.get("cases", ()):
        name, metrics, cpu_s, wall_s = case
        _all([name], str)
        _all([metrics], dict)
        _all([*metrics.values(), cpu_s, wall_s], _NUMBER)
    return verdict_from_json(given)


def _script(data: Any) -> tuple[int, tuple[str, ...]]:
    given = _shaped(data, {"island": int, "steps": list}, "script")
    _all(given["steps"], str)
    return given["island"], tuple(given["steps"])


def _command(data: Any) -> RecordedCommand:
    return RecordedCommand(**_shaped(data, {"id": str, "kind": str, "body": dict}, "command"))


def _fact(data: Any) -> Fact:
    return Fact(**_shaped(data, {"id": str, "kind": str, "body": dict}, "fact"))


_PARTS: Mapping[str, Callable[[Any], Any]] = {
    "seed": _seed,
    "completion": _completion,
    "verdict": _verdict,
    "script": _script,
    "command": _command,
    "fact": _fact,
}


def _shaped(data: Any, shape: _Shape, what: str) -> dict[str, Any]:
    """A mapping with these keys and types and no others. Raises ValueError."""
    if not isinstance(data, dict) or data.keys() != shape.keys():
        raise ValueError(f"a {what} that does not have {', '.join(shape)} alone")
    for key, kind in shape.items():
        _all([data[key]], kind, f"{what}: {key} ")
    return dict(data)


def _all(values: Any, kind: type | tuple[type, ...], where: str = "") -> None:
    for value in values:
        # A bool is an int to Python and none here.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{where}{json.dumps(value)[:60]} is of a wrong type")
