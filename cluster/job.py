"""Start-or-resume: what a job that is given a run's name finds, here or in the mirror, and where its journal lies.

A job may be a retry on another machine. So the same command continues the run of that name: from this disk, or, where
that is gone or older, from the mirror.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from adrs_ray.config import RunConfig, override, parse_config
from adrs_ray.errors import UsageError
from adrs_ray.storage.journal import JournalRefusedError
from adrs_ray.storage.mirror import MirrorState, mirror_state, restore
from adrs_ray.storage.mounts import is_network_folder
from adrs_ray.storage.runfolder import RUN_YAML, RunFolder

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
PLACES = ("models", "pool", "evaluator", "cluster", "mirror", "finish")
"""Sections that say where a run runs, not what it searches: a later start may give others."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run of this name lies."""

    path: Path
    """Its folder, on a disk of this machine."""
    mirror: str | None
    """Of this run."""
    note: str = ""


def run_name(task: str, config: Path | None, given: str | None) -> str:
    """The name of a run: as given, else from task and config, so that the same command gives the same name.

    Raises UsageError when it cannot be a folder's name.
    """
    stem = Path(task).name
    name = given or (stem if config is None else f"{stem}-{config.stem}")
    if NAME.fullmatch(name) is None:
        raise UsageError(
            f"--name {name!r} cannot be a run's name: letters, digits, `_`, `.` and `-`, at most 100, "
            "the first a letter or digit"
        )
    return name


def place_of(name: str, out: str | None, config: RunConfig) -> Place:
    """Where the run of this name is or shall be: `out` is the folder of runs, on this machine or remote.

    Raises UsageError for an `out` that would be lost with the job's working directory.
    """
    if out is not None and "://" in out:
        home, mirror = _local_home(config), _below(out, name)
        _refuse_second_mirror(config, out)
        return Place(home / name, mirror, f"journal in {home / name}, mirrored to {mirror}")
    folder = Path(out or "~/adrs-runs").expanduser()
    if not folder.is_absolute():
        if any(part.startswith("_ray_pkg_") for part in Path.cwd().parts):
            raise UsageError(
                f"--out {out}: this job's working directory is deleted when it ends: give an absolute path or a URL"
            )
        folder = folder.absolute()
    if is_network_folder(folder):
        # A journal's write-ahead log is not safe there.
        home = _local_home(config)
        _refuse_second_mirror(config, str(folder))
        return Place(home / name, str(folder / name), f"{folder} is on a network: journal in {home}, mirrored there")
    return Place(folder / name, None if config.mirror.url is None else _below(config.mirror.url, name))


def bring_here(place: Place) -> str | None:
    """Get the run from its mirror when this disk has none, or an older state; a line that says what was done.

    What is older is moved aside, never deleted. Raises UsageError, RunError when the mirror cannot be used.
    """
    if place.mirror is None:
        return None
    state = mirror_state(place.mirror)
    if state is None:
        return None
    line = f"restored from {place.mirror}: {state.last_seq} events"
    if (place.path / RUN_YAML).exists():
        if _holds(RunFolder.open(place.path), state):
            return None
        aside = _free(place.path.with_name(f"{place.path.name}.older"))
        place.path.rename(aside)
        line += f"; {place.path} lacked some of them and lies in {aside.name} now"
    place.path.parent.mkdir(parents=True, exist_ok=True)
    asyncio.run(restore(place.mirror, place.path))
    return line


def _holds(folder: RunFolder, state: MirrorState) -> bool:
    """Whether this folder's journal has all that the mirror has; one never begun, or damaged, has not."""
    try:
        return state.within(folder.journal)
    except (UsageError, JournalRefusedError):
        return False


def continued(recorded: RunConfig, given: RunConfig, explicit: Mapping[str, Any], name: str) -> tuple[RunConfig, str]:
    """The config of a run that goes on, and what a reader must know of it.

    What the run searches stays as recorded, and so do the names of its models; where it runs is as given. The budget
    stays as recorded, since `adrs steer` may have changed it; what is given key by key (`explicit`) counts all the
    same. Raises UsageError when the given config describes another search.
    """
    different = [
        section
        for section in RunConfig.model_fields
        if section not in (*PLACES, "budget") and getattr(recorded, section) != getattr(given, section)
    ]
    if list(recorded.models) != list(given.models):
        different.append("models")
    if different:
        raise UsageError(
            f"the run {name} is there with other {different[0]!r}: give this one another --name, "
            "or the config that it was started with"
        )
    data = recorded.model_dump()
    data |= {section: given.model_dump()[section] for section in PLACES}
    budget = {key: value for key, value in explicit.items() if key.startswith("budget.")}
    config = override(parse_config(data, f"run {name}"), budget)
    note = ""
    if config.budget != given.budget:
        note = f"the budget stays as {name} has it ({_short(config)}): `adrs steer` or --set budget.<key>= change it"
    return config, note


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """`--set key=value` by dotted key, values in YAML. Raises UsageError for what is no such pair."""
    values: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[a-z_]+(\.[A-Za-z0-9_-]+)*", key):
            raise UsageError(f"--set {text!r}: expected key=value, such as budget.max_candidates=2000")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"--set {key}: {value!r} is not YAML: {' '.join(str(error).split())}") from None
    return values


def _local_home(config: RunConfig) -> Path:
    """Where journals lie whose runs are elsewhere. Raises UsageError when no local disk is found."""
    if config.cluster.local_dir is not None:
        places = [Path(config.cluster.local_dir).expanduser()]
    else:
        places = [_cache() / "runs", Path("/var/tmp") / f"adrs-ray-{os.getuid()}" / "runs"]
    for place in places:
        if not is_network_folder(place):
            return place
    raise UsageError(
        f"{places[0]} is on a network file system, where a journal can be damaged: "
        "give cluster.local_dir, a folder on this machine's own disk"
    )


def _refuse_second_mirror(config: RunConfig, out: str) -> None:
    if config.mirror.url is not None:
        raise UsageError(f"--out {out} is where this run is mirrored: leave out mirror.url {config.mirror.url}")


def _below(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def _short(config: RunConfig) -> str:
    given = {key: value for key, value in config.budget.model_dump().items() if value is not None}
    return ", ".join(f"{key} {value}" for key, value in given.items())


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adrs-ray"


def _free(path: Path) -> Path:
    """This name, or with a number where it is taken."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
