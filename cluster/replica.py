"""One replica of a model as a Ray actor: it holds the GPUs and runs a vLLM server below a guard.

The actor's own process has no model in it: when it dies, the guard ends the engine; when the engine dies, the actor
says so and ends. Nothing is started again in here: the pool starts another replica under another id.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from adrs_ray.errors import RunError
from adrs_ray.generator.connection import Answer, Connection, NoAnswerError
from cluster import engine_guard
from cluster.engine import EngineSpec, engine_command, engine_environment, told_line
from cluster.gpu_memory import wait_for_room

BIND_ATTEMPTS = 3
"""Ports that are tried when the engine finds the one it was given in use."""
HEALTH_EVERY_S = 2.0
HEALTH_TIMEOUT_S = 10.0
HEALTH_FAILURES = 3
"""In a row, until an engine that runs and does not answer counts as lost."""
SLEEP_TIMEOUT_S = 300.0
_TICK_S = 0.1
_TAIL_BYTES = 64 * 2**10
_BIND_LOST = ("address already in use", "errno 98")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a replica is."""

    node_id: str
    host: str
    devices: tuple[str, ...]
    """Ids of its GPUs on that node."""
    log: str
    """The engine's output, a file on that node."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """A replica that answers requests."""

    base_url: str
    start_s: float
    """From the start of its first process to the answer to its warm-up."""


class ReplicaActor:
    """Runs one engine. Every method raises RunError, one line without the key, for what the engine refuses."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._place = _place_of(spec)
        self._engine: subprocess.Popen[bytes] | None = None
        self._root_url = ""
        self._connection: Connection | None = None
        self._lost: asyncio.Future[str] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def place(self) -> Place:
        """Answers as soon as the actor has its place."""
        return self._place

    async def start(self) -> Announcement:
        """Start the engine and wait until it has served a request."""
        spec = self._spec
        begun = time.monotonic()
        await asyncio.to_thread(engine_guard.reap_orphans)
        await wait_for_room(self._place.devices, spec.engine.gpu_memory)
        for attempt in range(1, BIND_ATTEMPTS + 1):
            with _reserved_port(self._place.host) as reserved:
                port: int = reserved.getsockname()[1]
                written = self._launch(port)
                try:
                    deadline = begun + spec.engine.start_timeout_s
                    await self._until_healthy(deadline)
                    await self._warm_up(deadline)
                except _EngineEndedError as error:
                    log = self._log_since(written)
                    if attempt < BIND_ATTEMPTS and any(words in log.lower() for words in _BIND_LOST):
                        await self._disconnect()
                        continue
                    raise RunError(self._line(f"the engine ended, {error}", log)) from None
                except BaseException:
                    await self.close()
                    raise
            break
        self._lost = asyncio.get_running_loop().create_future()
        self._watching = asyncio.create_task(self._watch(self._lost))
        return Announcement(f"{self._root_url}/v1", time.monotonic() - begun)

    async def lost(self) -> str:
        """Waits until the engine is lost; why."""
        if self._lost is None:
            raise RunError(f"{self._spec.marker} was not started")
        return await asyncio.shield(self._lost)

    async def sleep(self) -> float:
        """Let the engine leave its GPUs; seconds. Requests that it runs are lost: wait for them before."""
        return await self._switch("/sleep?level=1", asleep=True)

    async def wake(self) -> float:
        """Undo `sleep`; seconds."""
        return await self._switch("/wake_up", asleep=False)

    async def close(self) -> None:
        """End the engine and everything below it; returns when it is gone."""
        if self._watching is not None:
            self._watching.cancel()
        await self._disconnect()
        engine = self._engine
        if engine is None:
            return
        if engine.stdin is not None:
            engine.stdin.close()
        engine.terminate()
        await self._gone(engine)
        await asyncio.to_thread(engine_guard.reap_orphans, self._spec.marker)

    def _launch(self, port: int) -> int:
        """Start the guard with the engine; where in the log its output begins."""
        spec, host = self._spec, self._place.host
        environment = engine_environment(spec, os.environ, self._place.devices)
        environment[engine_guard.GUARD_VARIABLE] = environment.pop(engine_guard.ENGINE_VARIABLE)
        command = engine_command(spec, spec.python or sys.executable, host, port)
        with open(self._place.log, "ab") as log:
            written = log.tell()
            self._engine = subprocess.Popen(
                [sys.executable, "-I", engine_guard.__file__, str(os.getpid()), *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self._root_url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._connection = Connection(self._root_url, spec.key, direct=True)
        return written

    async def _until_healthy(self, deadline: float) -> None:
        while True:
            self._check_runs()
            try:
                if (await self._ask("/health")).status == 200:
                    return
            except NoAnswerError:
                pass
            self._check_in_time(deadline, "did not become healthy")
            await asyncio.sleep(2 * _TICK_S)

    async def _warm_up(self, deadline: float) -> None:
        """The first request compiles and fills caches; it has the fields of those that follow."""
        body = {
            "model": self._spec.served,
            "messages": [{"role": "user", "content": "Say yes."}],
            "max_tokens": 8,
            "n": 1,
            "seed": 0,
            "temperature": 0.8,
            "top_p": 0.95,
        }
        left = max(1.0, deadline - time.monotonic())
        answering = asyncio.create_task(self._ask("/v1/chat/completions", body, left))
        try:
            while not answering.done():
                await asyncio.wait([answering], timeout=2 * _TICK_S)
                self._check_runs()
            reply = await answering
        except NoAnswerError as error:
            self._check_runs()
            self._check_in_time(deadline, "did not serve its first request")
            raise RunError(self._line(f"the first request failed: {error}")) from None
        finally:
            answering.cancel()
        if reply.status != 200:
            raise RunError(self._line(f"the first request failed with {self._told(reply)}"))

    def _check_runs(self) -> None:
        status = None if self._engine is None else self._engine.poll()
        if status is not None:
            raise _EngineEndedError(_ended(status))

    def _check_in_time(self, deadline: float, what: str) -> None:
        if time.monotonic() >= deadline:
            limit = f"within start_timeout_s {self._spec.engine.start_timeout_s:g}"
            raise RunError(self._line(f"the engine {what} {limit}", self._log_since(0)))

    async def _watch(self, lost: asyncio.Future[str]) -> None:
        """Until the process has ended or three health checks in a row have failed."""
        failures = 0
        while failures < HEALTH_FAILURES:
            checked = time.monotonic()
            while time.monotonic() < checked + HEALTH_EVERY_S:
                status = None if self._engine is None else self._engine.poll()
                if status is not None:
                    lost.set_result(self._line(f"the engine ended, {_ended(status)}"))
                    return
                await asyncio.sleep(_TICK_S)
            try:
                failures = 0 if (await self._ask("/health")).status == 200 else failures + 1
            except NoAnswerError:
                failures += 1
        if self._engine is not None:
            self._engine.terminate()
            await self._gone(self._engine)
        lost.set_result(self._line(f"{HEALTH_FAILURES} health checks in a row failed"))

    async def _gone(self, engine: subprocess.Popen[bytes]) -> None:
        """Wait for the end of a guard that was told to end."""
        deadline = time.monotonic() + 2 * engine_guard.TERM_S + 2.0
        while engine.poll() is None:
            if time.monotonic() > deadline:
                engine.kill()
            await asyncio.sleep(_TICK_S)

    async def _switch(self, path: str, asleep: bool) -> float:
        begun = time.monotonic()
        try:
            reply = await self._ask(path, {}, SLEEP_TIMEOUT_S)
            if reply.status != 200:
                raise RunError(self._line(f"{path} failed with {self._told(reply)}"))
            state = await self._ask("/is_sleeping")
        except NoAnswerError as error:
            raise RunError(self._line(f"{path} failed: {error}")) from None
        if state.status == 200 and (b"true" in state.content.lower()) is not asleep:
            raise RunError(self._line(f"{path} succeeded, and /is_sleeping says the contrary"))
        return time.monotonic() - begun

    async def _ask(self, path: str, body: dict[str, Any] | None = None, timeout_s: float = HEALTH_TIMEOUT_S) -> Answer:
        """GET, or POST where there is a body. Raises NoAnswerError."""
        connection = self._connection
        if connection is None:
            raise NoAnswerError("it was not started", None)
        try:
            async with asyncio.timeout(timeout_s):
                if body is None:
                    return await connection.get(path)
                return await connection.post(path, json.dumps(body).encode())
        except TimeoutError:
            raise NoAnswerError(f"no answer within {timeout_s:g} s", None) from None

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def _told(self, reply: Answer) -> str:
        return f"HTTP {reply.status}: {told_line(reply.content.decode(errors='replace'), [self._spec.key])}"

    def _log_since(self, written: int) -> str:
        """The end of the log, of what was written after that place."""
        try:
            with open(self._place.log, "rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(written, size - _TAIL_BYTES))
                return log.read().decode(errors="replace")
        except OSError:
            return ""

    def _line(self, what: str, log: str = "") -> str:
        told = told_line(log, [self._spec.key])
        where = f"log {self._place.log} on {self._place.host}"
        return f"{self._spec.marker}: {what}{': ' + told if told else ''} ({where})"


class _EngineEndedError(Exception):
    """While it was started."""


def _ended(status: int) -> str:
    """`status`: of the guard, which tells the engine's; negative when the guard itself was killed."""
    if status < 0:
        return f"its guard was killed by signal {-status}"
    return f"signal {status - 128}" if status > 128 else f"exit status {status}"


def _place_of(spec: EngineSpec) -> Place:
    context = ray.get_runtime_context()
    devices = tuple(str(device) for device in context.get_accelerator_ids().get("GPU", []))
    name = "".join(char if char.isalnum() or char in "-_." else "-" for char in spec.marker.replace("/", "-"))
    return Place(
        node_id=context.get_node_id(),
        host=str(ray.util.get_node_ip_address()),  # type: ignore[no-untyped-call]
        devices=devices if spec.gpus else (),
        log=str(_logs_folder() / f"adrs-engine-{name}.log"),
    )


def _logs_folder() -> Path:
    """Of this Ray session, where the dashboard finds it."""
    node: Any = ray._private.worker._global_node
    folder = Path(node.get_logs_dir_path())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _reserved_port(host: str) -> socket.socket:
    """A socket bound to a free port that nobody else is given while it is open, but that an engine can still bind:
    it does not listen, and allows reuse of both kinds, of which vLLM asks for one or the other by version."""
    reserved = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((host, 0))
    except OSError:
        reserved.close()
        raise
    return reserved
