"""A run as a job of a cluster that is elsewhere: what is checked here, what is sent, how it is started there.

All that can be wrong is said before anything is sent. `ray job submit --working-dir . -- adrs job TASK --config F`
does the same by hand, without these checks.
"""

from __future__ import annotations

import math
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adrs_ray.config import RunConfig, override, read_config
from adrs_ray.errors import UsageError
from adrs_ray.task import Task, builtin_tasks, load_task
from cluster.job import parse_settings, run_name
from cluster.job_server import JobServer, JobView, mismatch, versions_here
from cluster.model_lock import LOCK_NAME, read_lock
from cluster.presets import expand
from cluster.working_dir import OUTPUTS, PackedFile, checked_size, listed, megabytes, write_archive

STOP_MARGIN_S = 15
"""What Ray grants a job beyond `cluster.drain_s` before it kills it."""
STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
"""Ray kills a job that was told to stop after 3 s, unless this variable of the job says otherwise."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Order:
    """What a person asks for."""

    task: str
    config: Path | None
    working_dir: Path
    name: str | None = None
    out: str | None = None
    settings: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    """NAME=VALUE each."""
    forward_keys: bool = False


@dataclass(frozen=True, slots=True)
class Submission:
    """What is sent."""

    name: str
    """Of the run."""
    entrypoint: str
    files: tuple[PackedFile, ...]
    size_bytes: int
    """Unpacked."""
    env: Mapping[str, str] = field(repr=False)
    notes: tuple[str, ...] = ()


def prepare(order: Order, environ: Mapping[str, str]) -> Submission:
    """Check an order as `adrs job` would there, and gather its files. Raises UsageError, one line."""
    task = load_task(order.task)
    given = RunConfig() if order.config is None else read_config(order.config)
    lock = None if order.config is None else read_lock(_folder(order.config))
    config = expand(override(given, parse_settings(list(order.settings))), lock)
    _check_task(task, config)
    _check_places(order, config)
    name = run_name(order.task, order.config, order.name)
    files = listed(order.working_dir, (*OUTPUTS, *order.left_out))
    task_there, files = _placed_task(order, files)
    config_there, files = _placed_config(order, files)
    words = ["job", task_there, *config_there, "--name", name]
    words += [] if order.out is None else ["--out", order.out]
    words += [word for setting in order.settings for word in ("--set", setting)]
    env, notes = _environment(order, config, environ)
    shipped = any(file.name == "adrs_ray/cli/__main__.py" for file in files)
    return Submission(name, entrypoint(words, shipped), tuple(files), checked_size(files), env, tuple(notes))


def entrypoint(words: Sequence[str], shipped: bool) -> str:
    """The command of the job. `shipped`: the package itself is in the working directory, and is what shall run."""
    command = shlex.join(words)
    module = f"python -m adrs_ray.cli {command}"
    if shipped:
        return module
    return f"if command -v adrs >/dev/null 2>&1; then exec adrs {command}; else exec {module}; fi"


def check_versions(server: JobServer) -> None:
    """Raises UsageError when Ray or Python there is not what is here, with what would fit."""
    if (difference := mismatch(versions_here(), server.versions())) is not None:
        raise UsageError(f"{server.address}: {difference}")


def send(server: JobServer, submission: Submission, job_id: str) -> None:
    """Pack, send and start. Raises RunError when the server refuses."""
    with tempfile.TemporaryDirectory(prefix="adrs-submit-") as folder:
        archive = Path(folder) / "working_dir.zip"
        write_archive(submission.files, archive)
        runtime_env: dict[str, Any] = {"working_dir": str(archive), "env_vars": dict(submission.env)}
        server.submit(submission.entrypoint, job_id, runtime_env, {"adrs_run": submission.name})


def instructions(name: str, job_id: str, address: str) -> list[str]:
    """What a person can do with the run from here."""
    run, job, at = shlex.quote(name), shlex.quote(job_id), shlex.quote(address)
    return [
        f"run {name}, job {job_id}",
        f"  look:     adrs status {run} --address {at}    (watch, best, show, steer, inbox likewise)",
        f"  stop:     adrs stop {run} --address {at}    or: ray job stop {job} --address {at}",
        "  go on:    the same command again: a run of this name is continued",
    ]


def outcome(job: JobView) -> tuple[int, str]:
    """Exit code and words for a job that has ended: those of its command where it had any."""
    if job.status == "SUCCEEDED":
        return 0, "the job is done"
    code = job.exit_code if job.exit_code and 0 < job.exit_code < 256 else 1
    return code, f"the job ended as {job.status.lower()}: {' '.join(job.message.split())[:300]}"


def size_line(submission: Submission) -> str:
    return f"working directory: {len(submission.files)} files, {megabytes(submission.size_bytes)}"


def _check_task(task: Task, config: RunConfig) -> None:
    """All of what a run checks first, but keys: those may be on the cluster alone."""
    from adrs_ray.configured import configured
    from adrs_ray.prompt.brief import brief_of
    from adrs_ray.prompt.render import check_templates

    brief_of(configured(task, config), config)
    for folder in sorted(_template_folders(config)):
        check_templates(folder)


def _template_folders(config: RunConfig) -> set[str]:
    named = {config.prompt.folder, *(own.prompts for own in config.islands.overrides.values())}
    return {name for name in named if name is not None}


def _check_places(order: Order, config: RunConfig) -> None:
    """Raises UsageError for outputs that would be lost with the job's folder, and for inputs that are not sent."""
    outputs = {"--out": order.out, "mirror.url": config.mirror.url, "cluster.local_dir": config.cluster.local_dir}
    for what, place in outputs.items():
        if place is not None and "://" not in place and not place.startswith(("/", "~/")):
            raise UsageError(
                f"{what} {place} is relative: it would be lost with the job's working directory; give an absolute path "
                "on the cluster, or a URL such as s3://bucket/runs"
            )
    inputs = {**dict.fromkeys(_template_folders(config), "prompts"), config.finish.known or "/": "finish.known"}
    for place, what in inputs.items():
        if not Path(place).is_absolute() and not (order.working_dir / place).exists():
            raise UsageError(
                f"{what} {place} is not below the working directory {order.working_dir}: it would not be sent"
            )


def _placed_task(order: Order, files: list[PackedFile]) -> tuple[str, list[PackedFile]]:
    """The task as it is named there, and the files with it."""
    if order.task in builtin_tasks():
        return order.task, files
    folder = Path(order.task).expanduser().resolve()
    inside = _below(folder, order.working_dir)
    if inside is not None and any(file.name.startswith(f"{inside}/") for file in files):
        return inside, files
    name = f"adrs-task/{folder.name}"
    return name, [*files, *listed(folder, order.left_out, f"{name}/")]


def _placed_config(order: Order, files: list[PackedFile]) -> tuple[list[str], list[PackedFile]]:
    """How the config is named there, and the files with it and with the lock beside it, which pins its models."""
    if order.config is None:
        return [], files
    path = order.config.expanduser().resolve()
    inside = _below(path, order.working_dir)
    if inside is not None and any(file.name == inside for file in files):
        return ["--config", inside], files
    lock = _folder(order.config) / LOCK_NAME
    sent = [path, *([lock] if lock.exists() else [])]
    beside = [PackedFile(f"adrs-config/{each.name}", each, each.stat().st_size) for each in sent]
    return ["--config", beside[0].name], [*files, *beside]


def _folder(config: Path) -> Path:
    """Where `adrs models pull --config` has its lock: beside the file as it is named, a link or not."""
    return config.expanduser().parent


def _below(path: Path, folder: Path) -> str | None:
    try:
        return path.relative_to(folder.resolve()).as_posix()
    except ValueError:
        return None


def _environment(order: Order, config: RunConfig, environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The job's variables, and notes. Keys go along only when asked for: whoever may list the cluster's jobs sees
    them."""
    env: dict[str, str] = {STOP_WAIT: str(math.ceil(config.cluster.drain_s) + STOP_MARGIN_S)}
    for pair in order.env:
        name, equals, value = pair.partition("=")
        if not equals or _VARIABLE.fullmatch(name) is None:
            raise UsageError(f"--env {name}: expected NAME=VALUE")
        env[name] = value
    wanted = sorted({model.api_key_env for model in config.models.values() if model.api_key_env} - env.keys())
    if not order.forward_keys:
        notes = [f"the cluster must have {', '.join(wanted)} set (or: --forward-keys)"] if wanted else []
        return env, notes
    if missing := [name for name in wanted if not environ.get(name)]:
        raise UsageError(f"--forward-keys: {', '.join(missing)} is not set here")
    env |= {name: environ[name] for name in wanted}
    return env, [f"{', '.join(wanted)} is sent: who may list the cluster's jobs can read it"] if wanted else []
