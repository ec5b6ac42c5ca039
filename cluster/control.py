"""A run of a job as others reach it: an actor beside the run folder that obeys the commands of the command line.

It answers for as long as the driver lives, which owns it. The folder stays the only door: a command runs here as it
would on the head, in a process of its own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import shlex
import socket
import sys
import uuid
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from adrs_ray.errors import RunError, UsageError
from cluster.calls import LOST
from cluster.runtime import connect

if TYPE_CHECKING:
    from adrs_ray.config import BudgetConfig
    from adrs_ray.following import Follower
    from adrs_ray.ledger import RunStatus

NAMESPACE = "adrs"
COMMANDS = frozenset({"status", "best", "show", "fidelity", "steer", "stop", "inbox"})
"""What may be asked: commands that take a run folder first and nothing else of the machine's files."""
TIME_LIMIT_S = 60.0
INBOX_TIME_LIMIT_S = 900.0
"""`adrs inbox next --wait S` waits."""
LARGEST_OUTPUT_BYTES = 4 << 20
LARGEST_REQUEST_BYTES = 96 * 1024
"""A command line holds no more."""
TAKEN_FOR_S = 30.0
"""How long the name of a driver that is gone may stay taken."""
ANSWERS_WITHIN_S = 10.0
_MARK = "adrs-answer:"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command left behind."""

    rc: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Where:
    """Where a run goes on."""

    folder: str
    node: str
    """Host name."""
    pid: int
    """Of the driver."""
    alive: bool
    """Whether the driver still runs."""


class ControlActor:
    """One run; lives on the driver's node and ends with the driver."""

    def __init__(self, folder: str, driver_pid: int) -> None:
        self._folder = Path(folder)
        self._driver_pid = driver_pid
        self._follower: Follower | None = None

    async def where(self) -> Where:
        return Where(str(self._folder), socket.gethostname(), self._driver_pid, _lives(self._driver_pid))

    async def command(self, argv: list[str], stdin: str = "") -> Answer:
        """`adrs ARGV` with the run folder as its first argument; never raises for what it does or prints.

        `stdin`: what an option with the value `-` reads.
        """
        if not argv or argv[0] not in COMMANDS:
            known = ", ".join(sorted(COMMANDS))
            return Answer(2, "", f"adrs: {' '.join(argv[:1]) or 'nothing'} cannot be asked of a run: {known}\n")
        words = argv_for(argv, self._folder)
        limit_s = INBOX_TIME_LIMIT_S if argv[0] == "inbox" else TIME_LIMIT_S
        return await run_command([sys.executable, "-m", "adrs_ray.cli", *words], stdin, limit_s)

    async def budget(self) -> BudgetConfig:
        """The limits of the run as its folder has them."""
        from adrs_ray.storage.runfolder import RunFolder

        return RunFolder.open(self._folder).config.budget

    async def snapshot(self) -> RunStatus:
        """The run as its journal tells it now. Raises UsageError while there is no journal yet."""
        from adrs_ray.following import Follower

        if self._follower is None:
            self._follower = Follower(self._folder)
        return await self._follower.look()


def argv_for(argv: Sequence[str], folder: Path) -> list[str]:
    """The words of a command with the run folder after its name; `inbox` has a second word in its name."""
    named = 2 if argv[0] == "inbox" and len(argv) > 1 else 1
    return [*argv[:named], str(folder), *argv[named:]]


async def run_command(argv: Sequence[str], stdin: str, limit_s: float) -> Answer:
    """Run to the end or to `limit_s`, outputs cut at `LARGEST_OUTPUT_BYTES`; what ran too long is killed."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "TERM": "dumb", "COLUMNS": "120"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(stdin.encode())
        process.stdin.close()
    try:
        async with asyncio.timeout(limit_s):
            out, err = await asyncio.gather(_capped(process.stdout), _capped(process.stderr))
            return Answer(await process.wait(), out, err)
    except TimeoutError:
        return Answer(1, "", f"adrs: {shlex.join(argv[3:5])} took longer than {limit_s:.0f} s and was ended\n")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()


async def _capped(stream: asyncio.StreamReader) -> str:
    """All of a stream is read, so that the process can end; its beginning is kept."""
    kept = bytearray()
    while block := await stream.read(65536):
        kept += block[: LARGEST_OUTPUT_BYTES - len(kept)]
    cut = "\n(cut here)\n" if len(kept) == LARGEST_OUTPUT_BYTES else ""
    return kept.decode(errors="replace") + cut


async def start_control(folder: Path, name: str) -> Any:
    """Start the actor of the run `name` on this node; keep the handle, the actor ends when it is dropped.

    Raises UsageError when a live run of that name is on this cluster. The name of a driver that has died is waited for.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor_class = ray.remote(ControlActor).options(
        name=name,
        namespace=NAMESPACE,
        num_cpus=0,
        max_restarts=-1,
        max_concurrency=16,
        scheduling_strategy=here,
    )
    deadline = asyncio.get_running_loop().time() + TAKEN_FOR_S
    while True:
        try:
            return actor_class.remote(str(folder), os.getpid())
        except ValueError:
            pass
        other = await _other(name)
        if other is not None and other.alive:
            raise UsageError(
                f"the run {name} goes on already on this cluster, on {other.node} in {other.folder} "
                f"(process {other.pid}): stop it first, or give another --name"
            )
        if asyncio.get_running_loop().time() > deadline:
            raise UsageError(f"the name {name} is taken on this cluster by an actor that does not answer") from None
        await asyncio.sleep(0.5)


async def _other(name: str) -> Where | None:
    """Where the run that holds a name goes on; None when it does not say."""
    try:
        actor = ray.get_actor(name, namespace=NAMESPACE)
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            where: Where = await actor.where.remote()
            return where
    except (ValueError, RayError, TimeoutError, AttributeError):
        return None


def ask(address: str, run: str, argv: Sequence[str], stdin: str = "") -> Answer:
    """Ask a run by its name from outside: `address` is that of Ray (`host:port`, `auto`; this machine must be a node
    of the cluster), or of the dashboard (`http://head:8265`; a small job asks there, which takes seconds).

    Raises UsageError when there is no such run, RunError when the cluster does not answer.
    """
    if "://" in address:
        return _ask_by_job(address, run, argv, stdin)
    return _ask_here(address, run, argv, stdin)


@contextlib.contextmanager
def joined(address: str, run: str) -> Any:
    """The actor of a run, with Ray joined for so long. Raises UsageError, RunError as `ask`."""
    connect(address, 0)
    try:
        yield _actor(address, run)
    finally:
        ray.shutdown()


async def snapshots(actor: Any, every_s: float) -> AsyncIterator[RunStatus]:
    """The status of a run again and again, until it does not go on any more."""
    while True:
        try:
            yield await actor.snapshot.remote()
        except RayTaskError:  # there is no journal yet
            pass
        except LOST:
            return
        await asyncio.sleep(every_s)


def _ask_here(address: str, run: str, argv: Sequence[str], stdin: str) -> Answer:
    limit_s = INBOX_TIME_LIMIT_S if argv[0] == "inbox" else TIME_LIMIT_S
    with joined(address, run) as actor:
        try:
            answer: Answer = ray.get(actor.command.remote(list(argv), stdin), timeout=limit_s + ANSWERS_WITHIN_S)
            return answer
        except (*LOST, GetTimeoutError) as error:
            raise RunError(f"the run {run} ended before it answered: {type(error).__name__}") from None


def _actor(address: str, run: str) -> Any:
    try:
        return ray.get_actor(run, namespace=NAMESPACE)
    except ValueError:
        listed = ray.util.list_named_actors(all_namespaces=True)
        names = sorted(each["name"] for each in listed if each["namespace"] == NAMESPACE)
        raise UsageError(
            f"no run {run} goes on on the cluster at {address} ({', '.join(names) or 'none does'}); one that has ended "
            "is read where its folder lies: adrs status FOLDER"
        ) from None


def _ask_by_job(address: str, run: str, argv: Sequence[str], stdin: str) -> Answer:
    from cluster.job_server import JobServer, source_of

    server = JobServer(address)
    limit_s = (INBOX_TIME_LIMIT_S if argv[0] == "inbox" else TIME_LIMIT_S) + 120
    request = encoded({"run": run, "argv": list(argv), "stdin": stdin})
    if len(request) > LARGEST_REQUEST_BYTES:
        raise UsageError(f"this is too long for a job's command ({len(request)} bytes): ask from a node of the cluster")
    job_id = f"adrs-ask-{uuid.uuid4().hex[:12]}"
    server.submit(f"python -m cluster.control {request}", job_id, source_of(run, server.jobs()), {"adrs_asks": run})
    job = server.wait(job_id, limit_s)
    log = server.logs(job_id)
    found = re.findall(rf"^{_MARK}([0-9A-Za-z_=-]+)$", log, re.MULTILINE)
    if not found:
        raise RunError(f"the job that asked {run} said: {_last_words(log) or job.message or job.status}")
    return Answer(**decoded(found[-1]))


def follow_by_job(address: str, run: str, write: Any) -> int:
    """`adrs watch RUN` on the head, its lines handed to `write` while they come. Exit code of that command.

    The job that watches is stopped when this is interrupted.
    """
    from cluster.job_server import JobServer, source_of

    server = JobServer(address)
    job_id = f"adrs-watch-{uuid.uuid4().hex[:12]}"
    entrypoint = f"python -m adrs_ray.cli watch {shlex.quote(run)} --address auto"
    server.submit(entrypoint, job_id, source_of(run, server.jobs()), {"adrs_asks": run})
    try:
        job = server.follow(job_id, write)
    except KeyboardInterrupt:
        server.stop(job_id)
        raise
    return 0 if job.status == "SUCCEEDED" else job.exit_code or 1


def encoded(data: Any) -> str:
    """JSON as one word of a command line."""
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(data).encode())).decode()


def decoded(word: str) -> Any:
    return json.loads(zlib.decompress(base64.urlsafe_b64decode(word)))


def _last_words(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _lives(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return False
    return state not in ("Z", "X")


def main() -> None:
    """The entrypoint of the job that asks: one request in, one marked line out."""
    request = decoded(sys.argv[1])
    try:
        answer = _ask_here("auto", request["run"], request["argv"], request["stdin"])
    except UsageError as error:
        answer = Answer(2, "", f"adrs: {error}\n")
    except RunError as error:
        answer = Answer(1, "", f"adrs: {error}\n")
    print(f"\n{_MARK}{encoded(asdict(answer))}", flush=True)


if __name__ == "__main__":
    main()
