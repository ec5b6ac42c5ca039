"""The job server behind a cluster's dashboard: its versions, its token, jobs and their logs.

All that is reachable from outside a cluster is often this one port.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from adrs_ray.errors import RunError, UsageError, one_line

ANSWERS_WITHIN_S = 15.0
RECONNECT_S = 2.0
LOST_FOR_S = 120.0
"""For how long a dashboard that does not answer is asked again about a job that goes on: a proxy or a head that is
started again takes as much."""
LARGEST_ANSWER_BYTES = 1 << 20
_Answer = TypeVar("_Answer")
_OVERRIDING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""What Ray's client would take in place of the address that it is given."""
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,40}")


@dataclass(frozen=True, slots=True)
class Versions:
    """What decides whether a program that runs here runs there."""

    ray: str
    python: str | None
    """None where a server does not say."""


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as the server lists it."""

    id: str
    status: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    entrypoint: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    runtime_env: Mapping[str, Any] = field(default_factory=dict, repr=False)
    exit_code: int | None = None
    message: str = ""

    @property
    def ended(self) -> bool:
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


def versions_here() -> Versions:
    import ray

    return Versions(ray.__version__, ".".join(map(str, sys.version_info[:3])))


def image(versions: Versions) -> str:
    """The public image of Ray with these versions and CUDA."""
    python = "".join((versions.python or "3.11").split(".")[:2])
    return f"rayproject/ray:{versions.ray}-py{python}-gpu"


def mismatch(here: Versions, there: Versions) -> str | None:
    """What differs between both sides and what would fit, in one line; None when they go together.

    Ray must be the same release; of Python the minor version counts, as Ray itself has it.
    """
    differing = []
    if here.ray != there.ray:
        differing.append(f"Ray {there.ray} there, {here.ray} here")
    if there.python is not None and _minor(here.python) != _minor(there.python):
        differing.append(f"Python {there.python} there, {here.python} here")
    if not differing:
        return None
    return (
        f"the cluster differs: {', '.join(differing)}; an image that fits is {image(here)}, or install "
        f"ray[default]=={there.ray} under Python {_minor(there.python) or _minor(here.python)} here"
    )


def read_token(environ: Mapping[str, str], home: Path) -> str | None:
    """The token of a cluster with token authentication, from where Ray's own client looks: RAY_AUTH_TOKEN, the file
    that RAY_AUTH_TOKEN_PATH names, ~/.ray/auth_token. Raises UsageError for a named file that cannot be read."""
    if token := environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    named = environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        return Path(named or home / ".ray" / "auth_token").read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        if named:
            raise UsageError(f"RAY_AUTH_TOKEN_PATH {named}: {one_line(error)}") from None
        return None


class JobServer:
    """The server at `http://head:8265`. Raises RunError, one line, for whatever it refuses or does not answer."""

    def __init__(self, address: str) -> None:
        """Connect. Raises UsageError for what is no such address, and where a token is wanted and none is here."""
        self.address = _checked(address)
        self._token: str | None = None
        status, mode = self._get("/api/authentication_mode")
        if status in (401, 403) or mode.get("authentication_mode") not in (None, "disabled"):
            self._token = read_token(os.environ, Path.home())
            if self._token is None:
                raise UsageError(f"{self.address} wants a token: set RAY_AUTH_TOKEN, or put it into ~/.ray/auth_token")
        self._client = self._connected()

    def versions(self) -> Versions:
        """What the head runs."""
        _, answer = self._get("/api/version")
        ray_version = answer.get("ray_version")
        if not isinstance(ray_version, str) or _VERSION.fullmatch(ray_version) is None:
            raise RunError(f"{self.address} does not say which Ray it runs: is it the address of a Ray dashboard?")
        _, answer = self._get("/api/v0/cluster_metadata")
        data = answer.get("data")
        python = data.get("pythonVersion") if isinstance(data, dict) else None
        known = isinstance(python, str) and _VERSION.fullmatch(python) is not None
        return Versions(ray_version, python if known else None)

    def submit(self, entrypoint: str, job_id: str, runtime_env: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
        """Start a job; its entrypoint reserves no CPU."""
        with self._refusals():
            self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=job_id,
                runtime_env=dict(runtime_env),
                metadata=dict(metadata),
                entrypoint_num_cpus=0,
            )

    def jobs(self) -> list[JobView]:
        """Jobs that were submitted here, latest first."""
        with self._refusals():
            listed = [job for job in self._client.list_jobs() if job.submission_id is not None]
        listed.sort(key=lambda job: job.start_time or 0, reverse=True)
        return [_view(job) for job in listed]

    def job(self, job_id: str) -> JobView:
        with self._refusals():
            return _view(self._client.get_job_info(job_id))

    def logs(self, job_id: str) -> str:
        """What the job has printed, both streams."""
        with self._refusals():
            return str(self._client.get_job_logs(job_id))

    def stop(self, job_id: str) -> None:
        """Ask a job to end."""
        with self._refusals():
            self._client.stop_job(job_id)

    def wait(self, job_id: str, timeout_s: float) -> JobView:
        """The job once it has ended, across moments without an answer. Raises RunError when it has not within
        `timeout_s`, and when the server has not answered for LOST_FOR_S."""
        deadline = time.monotonic() + timeout_s
        while not (job := self._patiently(lambda: self.job(job_id), deadline)).ended:
            if time.monotonic() > deadline:
                raise RunError(f"job {job_id} at {self.address} has not ended in {timeout_s:.0f} s")
            time.sleep(0.5)
        return job

    def follow(self, job_id: str, write: Callable[[str], None]) -> JobView:
        """Hand the job's log to `write` while it grows, across lost connections; the job once it has ended.

        Raises RunError when the server has not answered for LOST_FOR_S.
        """
        written = 0
        while True:
            skip = written

            def take(text: str) -> None:
                # A new connection begins with the first line again.
                nonlocal skip, written
                fresh = text[skip:]
                skip -= min(skip, len(text))
                written += len(fresh)
                if fresh:
                    write(fresh)

            lost = asyncio.run(self._tail(job_id, take))
            job = self._patiently(lambda: self.job(job_id))
            if job.ended:
                if lost:
                    take(self._patiently(lambda: self.logs(job_id)))
                return job
            time.sleep(RECONNECT_S)

    def _patiently(self, ask: Callable[[], _Answer], deadline: float = math.inf) -> _Answer:
        """The answer, asked for again until it comes. Raises the last RunError after LOST_FOR_S, or at the deadline."""
        deadline = min(deadline, time.monotonic() + LOST_FOR_S)
        while True:
            try:
                return ask()
            except RunError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(RECONNECT_S)

    async def _tail(self, job_id: str, take: Callable[[str], None]) -> bool:
        """Whether the connection was lost."""
        import aiohttp

        try:
            async for text in self._client.tail_job_logs(job_id):
                take(text)
        except (RuntimeError, OSError, aiohttp.ClientError):
            return True
        return False

    def _connected(self) -> Any:
        from ray.job_submission import JobSubmissionClient

        headers = None if self._token is None else {"Authorization": f"Bearer {self._token}"}
        aside = {name: os.environ.pop(name) for name in _OVERRIDING if name in os.environ}
        try:
            with self._refusals():
                return JobSubmissionClient(self.address, headers=headers)
        finally:
            os.environ.update(aside)

    def _get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and object that a GET answers; an empty one for what is no JSON object."""
        request = urllib.request.Request(self.address + path)
        if self._token is not None:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with urllib.request.urlopen(request, timeout=ANSWERS_WITHIN_S) as response:
                status, body = response.status, response.read(LARGEST_ANSWER_BYTES)
        except urllib.error.HTTPError as error:
            status, body = error.code, b""
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise RunError(f"no Ray dashboard answers at {self.address}: {one_line(reason)}") from None
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            return status, {}
        return status, data if isinstance(data, dict) else {}

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        from ray.exceptions import RayError

        try:
            yield
        except (RuntimeError, ValueError, TypeError, OSError, RayError) as error:
            raise RunError(f"{self.address}: {one_line(error)}") from None


def source_of(run: str, jobs: Sequence[JobView]) -> Mapping[str, Any]:
    """The runtime environment in which code that asks for a run finds this package: that of the run's own job, without
    its variables. Empty when no job is known to be it: then the cluster's image must have the package.

    `adrs submit` marks its jobs; others are known by their command.
    """
    going_on = [job for job in jobs if not job.ended]
    for fits in (
        lambda job: job.metadata.get("adrs_run") == run,
        lambda job: re.search(rf"--name[= ]'?{re.escape(run)}'?(\s|$)", job.entrypoint) is not None,
        lambda job: re.search(r"\badrs(_ray\.cli)? job\b", job.entrypoint) is not None,
    ):
        for job in going_on:
            if fits(job):
                return {key: job.runtime_env[key] for key in ("working_dir", "py_modules") if key in job.runtime_env}
    return {}


def _view(job: Any) -> JobView:
    return JobView(
        id=job.submission_id,
        status=str(getattr(job.status, "value", job.status)),
        entrypoint=job.entrypoint or "",
        metadata=dict(job.metadata or {}),
        runtime_env=dict(job.runtime_env or {}),
        exit_code=job.driver_exit_code,
        message=job.message or "",
    )


def _checked(address: str) -> str:
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"--address {address}: expected the head's dashboard, such as http://head:8265")
    if parts.username is not None or parts.password is not None:
        raise UsageError("--address holds a name or password: give a token in RAY_AUTH_TOKEN instead")
    return address.rstrip("/")


def _minor(python: str | None) -> str | None:
    return None if python is None else ".".join(python.split(".")[:2])
