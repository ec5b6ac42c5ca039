"""One run = one folder: `run.yaml`, `journal.db`, `commands/`, `best/`, `log`.

Everything here is written so that a crash leaves the old file or the new one, never half of one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
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
from adrs_ray.storage.lock import is_held, lock_file
from adrs_ray.task_spec import describe_validation_error

RUN_YAML = "run.yaml"

_log = logging.getLogger(__name__)


class RunReference(BaseModel):
    """The `run:` section of run.yaml: which task, where it runs, when it was made and by which version."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    task: str
    """A built-in task's name or an absolute folder."""
    name: str
    local: bool
    """In one process, without Ray."""
    created: str
    """ISO 8601, UTC."""
    version: str
    """Of adrs-ray."""
    warm_start: list[str] = []
    """Runs and program files it starts from beside the task's seed, absolute; read until the journal holds them."""
    replay_of: str | None = None
    """The cassette that this run replays, absolute: such a run is not resumed."""


@dataclass(frozen=True, slots=True)
class Command:
    """What a person asks of a run from outside; the run journals it once, under its id."""

    id: str
    kind: str
    body: Mapping[str, Any]
    posted_at: float
    """Seconds since 1970."""


class RunFolder:
    """Paths and files of one run, its config and what run.yaml says of it. Made by `create` or `open`."""

    def __init__(self, path: Path, config: RunConfig, reference: RunReference, written: bool = True) -> None:
        self.path = path
        self.config = config
        self.reference = reference
        self._written = written
        self.run_yaml = path / RUN_YAML
        self.journal = path / "journal.db"
        self.commands = path / "commands"
        self.best_program = path / "best" / "program.py"
        self.best_verdict = path / "best" / "verdict.json"
        self.log = path / "log"

    @classmethod
    def create(
        cls,
        path: Path,
        config: RunConfig,
        task: str,
        local: bool,
        name: str | None = None,
        warm_start: Sequence[str] = (),
        replay_of: str | None = None,
    ) -> RunFolder:
        """Make a run in a missing or empty folder; `task` is a built-in name or an absolute folder, `name` by default
        the folder's name. Raises UsageError when a run or anything else is there, or the folder cannot be made."""
        path = path.absolute()
        reference = RunReference(
            task=task,
            name=name or path.name,
            local=local,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            version=__version__,
            warm_start=list(warm_start),
            replay_of=replay_of,
        )
        folder = cls(path, config, reference)
        try:
            if folder.run_yaml.exists():
                raise UsageError(f"{path} holds a run already: `adrs resume {path}`, or choose another folder")
            path.mkdir(parents=True, exist_ok=True)
            foreign = sorted(entry.name for entry in path.iterdir() if not _is_leftover(entry))
            if foreign:
                raise UsageError(f"{path} is not empty ({foreign[0]!r} is there): a run needs a folder of its own")
            folder.commands.mkdir(exist_ok=True)
            folder.best_program.parent.mkdir(exist_ok=True)
            # Last, and the only mark of a run: what a crash leaves before it counts as empty.
            folder._write_yaml()
        except OSError as error:
            raise UsageError(f"cannot make a run in {path}: {error.strerror} ({error.filename})") from None
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run. Raises UsageError, one line, when there is none or its run.yaml does not hold."""
        path = path.absolute()
        file = path / RUN_YAML
        try:
            if not file.is_file():
                raise UsageError(f"{path} is no run: it has no {RUN_YAML} (start one with `adrs run TASK`)")
            data = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UsageError(f"cannot read {file}: {' '.join(str(error).split())}") from None
        section = data.pop("run", None) if isinstance(data, dict) else None
        if not isinstance(section, dict):
            raise UsageError(f"{file}: section `run` is missing (task, name, local, created, version)")
        try:
            reference = RunReference.model_validate(section)
        except ValidationError as error:
            raise UsageError(f"{file}: section `run`: {describe_validation_error(error)}") from None
        return cls(path, parse_config(data, str(file)), reference)

    def is_running(self) -> bool:
        """Whether a process writes this run's journal now. Raises OSError when that cannot be found out."""
        return is_held(lock_file(self.journal))

    @property
    def task(self) -> str:
        """What `adrs_ray.task.load_task` takes: a built-in name or an absolute folder."""
        return self.reference.task

    @property
    def local(self) -> bool:
        """Whether the run goes on in one process, without Ray."""
        return self.reference.local

    def rewrite(self, config: RunConfig, local: bool) -> RunFolder:
        """The same run with another config, in run.yaml too; for its writer alone.

        Raises JournalRefusedError when it cannot be written.
        """
        if self._written and (config, local) == (self.config, self.local):
            return self
        folder = RunFolder(self.path, config, self.reference.model_copy(update={"local": local}))
        try:
            folder._write_yaml()
        except OSError as error:
            raise JournalRefusedError(f"cannot write {self.run_yaml}: {error.strerror}") from error
        return folder

    def of_task(self, task: str) -> RunFolder:
        """The same run with its task found elsewhere: a built-in name or an absolute folder. `rewrite` records it."""
        moved = self.reference.model_copy(update={"task": task})
        return RunFolder(self.path, self.config, moved, written=self._written and moved == self.reference)

    def _write_yaml(self) -> None:
        section = yaml.safe_dump({"run": self.reference.model_dump()}, sort_keys=False, allow_unicode=True)
        write_atomically(self.run_yaml, f"{section}\n{to_yaml(self.config)}")

    def write_best(self, source: str, verdict: Mapping[str, Any]) -> None:
        """Put the best program and its verdict in place; a copy for people, the journal is what counts.

        Raises JournalRefusedError when the disk does not take them.
        """
        self._write(self.best_program, source)
        self._write(self.best_verdict, json.dumps(verdict, indent=2, allow_nan=False, ensure_ascii=False) + "\n")

    def pending_commands(self, seen: Collection[str]) -> list[Command]:
        """Commands whose ids are not in `seen` (those that the journal has), in the order they were posted.

        A file that is no command is logged in one line, once: it is set aside as `*.bad`.
        """
        commands = []
        for file in sorted(self.commands.glob("*.json")):
            if file.stem in seen:
                continue
            try:
                commands.append(_parse_command(file))
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                aside = file.with_name(file.name + ".bad")
                _log.warning("%s is no command (%s): set aside as %s", file, error, aside.name)
                with contextlib.suppress(OSError):
                    file.rename(aside)
        return commands

    def _write(self, path: Path, text: str) -> None:
        try:
            write_atomically(path, text)
        except OSError as error:
            raise JournalRefusedError(f"cannot write {path}: {error.strerror}") from error


def post_command(folder: RunFolder, kind: str, body: Mapping[str, Any]) -> str:
    """Leave a command for a run, from any process; returns its id. A reader sees all of it or nothing.

    Raises JournalRefusedError when the disk does not take it.
    """
    # Ids sort by time, so that commands are taken in the order they were given.
    command = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
    folder._write(folder.commands / f"{command}.json", json.dumps({"kind": kind, "body": body}, allow_nan=False))
    return command


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file's content: readers, and whoever looks after a crash, see the old text or the new one.

    Durable when it returns. Lone surrogates of a text are written as they are. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
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


def _is_leftover(entry: Path) -> bool:
    """Whether an interrupted `create` may have left it."""
    if entry.name in {"commands", "best"}:
        return entry.is_dir() and not any(entry.iterdir())
    return entry.name.startswith(f".{RUN_YAML}.")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _parse_command(file: Path) -> Command:
    posted_at = file.stat().st_mtime
    data = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    if not isinstance(data, dict) or set(data) != {"kind", "body"}:
        raise ValueError("expected an object with `kind` and `body` alone")
    if not isinstance(data["kind"], str) or not isinstance(data["body"], dict):
        raise ValueError("`kind` must be a string and `body` an object")
    return Command(file.stem, data["kind"], data["body"], posted_at)
