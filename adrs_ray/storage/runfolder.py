"""One run = one folder: `run.yaml`, `journal.db`, `commands/`, `best/`, `log`.

Everything here is written so that a crash leaves the old file or the new one, never half of one.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from adrs_ray import __version__
from adrs_ray.config import RunConfig, parse_config, to_yaml
from adrs_ray.errors import UsageError
from adrs_ray.storage.journal import JournalRefusedError
from adrs_ray.task import describe_validation_error


class RunReference(BaseModel):
    """The `run:` section of run.yaml: which task, which run, when it was made and by which version."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    task: str
    """A built-in task's name or an absolute folder."""
    name: str
    created: str
    """ISO 8601, UTC."""
    version: str
    """Of adrs-ray."""


@dataclass(frozen=True, slots=True)
class Command:
    """What a person asks of a run from outside; the run journals it once, under its id."""

    id: str
    kind: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PendingCommands:
    """New commands in the order they were posted, and one line for each file that was no command."""

    commands: tuple[Command, ...]
    problems: tuple[str, ...]


class RunFolder:
    """Paths and files of one run. Made by `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run_yaml = path / "run.yaml"
        self.journal = path / "journal.db"
        self.commands = path / "commands"
        self.best_program = path / "best" / "program.py"
        self.best_verdict = path / "best" / "verdict.json"
        self.log = path / "log"

    @classmethod
    def create(cls, path: Path, config: RunConfig, task: str, name: str | None = None) -> RunFolder:
        """Make a run in a missing or empty folder; `task` is a built-in name or a folder, `name` by default the
        folder's. Raises UsageError when a run or anything else is there already, or the folder cannot be made."""
        folder = cls(path.absolute())
        if folder.run_yaml.exists():
            raise UsageError(f"{path} holds a run already: `adrs resume {path}`, or choose another folder")
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            foreign = sorted(entry.name for entry in folder.path.iterdir() if not _is_leftover(entry.name))
            if foreign:
                raise UsageError(f"{path} is not empty ({foreign[0]}, ...): a run needs a folder of its own")
            folder.commands.mkdir(exist_ok=True)
            folder.best_program.parent.mkdir(exist_ok=True)
            reference = RunReference(
                task=str(Path(task).absolute()) if Path(task).is_dir() else task,
                name=name or folder.path.name,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                version=__version__,
            )
            # Last, and the only mark of a run: what a crash leaves before it is an empty folder to `create`.
            section = yaml.safe_dump({"run": reference.model_dump()}, sort_keys=False)
            write_atomically(folder.run_yaml, f"{section}\n{to_yaml(config)}")
        except OSError as error:
            raise UsageError(f"cannot make a run in {path}: {error.strerror} ({error.filename})") from None
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run. Raises UsageError when there is none."""
        folder = cls(path.absolute())
        if not folder.run_yaml.is_file():
            raise UsageError(f"{path} is no run: it has no run.yaml (start one with `adrs run TASK`)")
        return folder

    def read(self) -> tuple[RunConfig, RunReference]:
        """The config and the reference of run.yaml. Raises UsageError, one line, when either does not hold."""
        try:
            data = yaml.safe_load(self.run_yaml.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UsageError(f"cannot read {self.run_yaml}: {' '.join(str(error).split())}") from None
        section = data.pop("run", None) if isinstance(data, dict) else None
        if not isinstance(section, dict):
            raise UsageError(f"{self.run_yaml}: section `run` (task, name, created, version) is missing")
        try:
            reference = RunReference.model_validate(section)
        except ValidationError as error:
            raise UsageError(f"{self.run_yaml}: run.{describe_validation_error(error)}") from None
        return parse_config(data, str(self.run_yaml)), reference

    def write_best(self, source: str, verdict: Mapping[str, Any]) -> None:
        """Put the best program and its verdict in place; a copy for people, the journal is what counts.

        Raises JournalRefusedError when the disk does not take them.
        """
        self._write(self.best_program, source)
        self._write(self.best_verdict, json.dumps(verdict, indent=2, allow_nan=False, ensure_ascii=False) + "\n")

    def post_command(self, kind: str, body: Mapping[str, Any]) -> str:
        """Leave a command for the run, from any process; returns its id. It is complete or absent to readers.

        Raises JournalRefusedError when the disk does not take it.
        """
        # Ids sort by time, so that commands are taken in the order they were given.
        command = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        self._write(self.commands / f"{command}.json", json.dumps({"kind": kind, "body": body}, allow_nan=False))
        return command

    def pending_commands(self, seen: Collection[str]) -> PendingCommands:
        """Commands whose ids are not in `seen` (the ids that the journal has). A file that is no command is reported
        in one line and set aside as `*.bad`, so it is reported once."""
        commands: list[Command] = []
        problems: list[str] = []
        for file in sorted(self.commands.glob("*.json")):
            if file.stem in seen:
                continue
            try:
                commands.append(_parse_command(file))
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                problems.append(f"{file} is no command ({error}): set aside as {file.name}.bad")
                with contextlib.suppress(FileNotFoundError):
                    file.rename(file.with_name(file.name + ".bad"))
        return PendingCommands(tuple(commands), tuple(problems))

    def _write(self, path: Path, text: str) -> None:
        try:
            write_atomically(path, text)
        except OSError as error:
            raise JournalRefusedError(f"cannot write {path}: {error.strerror}") from error


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's content: readers, and whoever looks after a crash, see the old text or the new one.

    Durable when it returns. Lone surrogates are written as they are. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode("utf-8", "surrogatepass"))
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _is_leftover(name: str) -> bool:
    """Whether `create` itself may have left it when it was interrupted."""
    return name in {"commands", "best"} or name.startswith(".run.yaml.")


def _parse_command(file: Path) -> Command:
    data = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(data, dict) or set(data) != {"kind", "body"}:
        raise ValueError("expected an object with `kind` and `body`")
    if not isinstance(data["kind"], str) or not isinstance(data["body"], dict):
        raise ValueError("`kind` must be a string and `body` an object")
    return Command(file.stem, data["kind"], data["body"])
