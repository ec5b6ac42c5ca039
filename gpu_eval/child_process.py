"""A process for code that is not trusted: started by a launcher, spoken to over a socket, ended whatever it does."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gpu_eval.frames import Channel, Ended, FrameError

START_S = 120.0
LOAD_S = 120.0
END_S = 10.0
LAST_BREATH_S = 1.0
PASSED_ON = ("PATH", "HOME", "USER", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
PASSED_ON_PREFIXES = ("CUDA_", "NVIDIA_", "TRITON_", "TORCHINDUCTOR_", "NUMBA_", "LC_")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class ProgramError(RuntimeError):
    """One line on how a program failed.

    `kind`: `start` (its process did not come up), `raised` (it raised; the process lives and can be called again), and,
    with the process killed: `timeout`, `crash`, `output` (what came back is no answer).
    """

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        super().__init__(text)


class ChildProcess:
    """A process that `launcher` starts: `gpu_eval.child_loop` answers in it. A context manager.

    The socket is its standard input, its output goes nowhere, and of the environment it gets what `PASSED_ON` names.
    `threads` bounds the pools of torch and of what it stands on. `start` is the first request, sent before any other.

    Every method raises ProgramError. Processes are killed by the id of the group that they were started with, and
    reaped.
    """

    def __init__(self, name: str, launcher: Sequence[str], start: dict[str, Any], threads: int = 1) -> None:
        self.name = name
        self._launcher = tuple(launcher)
        self._start = {"do": "start", "threads": threads, **start}
        self._threads = threads
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._up = False

    def __enter__(self) -> Self:
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                self._launcher,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(self._threads),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise ProgramError("start", f"{self._launcher[0]} cannot be started: {error.strerror}") from None
        finally:
            theirs.close()
        self._channel = Channel(ours)
        return self

    def wait(self) -> None:
        """Until its process is up. The first request does it, too, so that several processes can come up at once."""
        if self._up:
            return
        self._up = True
        try:
            answer = self._ask(START_S, self._start)
        except ProgramError as error:
            self.close()
            raise ProgramError("start", f"its process did not come up: {error}") from None
        self._started(answer)

    def _started(self, answer: dict[str, Any]) -> None:
        """What its first answer tells."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the process and whatever shares its group; a second time does nothing."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
            self._process = None

    def _ask(self, limit_s: float, request: dict[str, Any]) -> dict[str, Any]:
        with self._guarded(limit_s) as channel:
            channel.send(request)
            answer = channel.receive()
        self._refuse(answer)
        return answer

    @contextlib.contextmanager
    def _guarded(self, limit_s: float) -> Iterator[Channel]:
        """The channel to its process, once that is up. What goes wrong between the two ends the other one."""
        if self._channel is None:
            raise ProgramError("crash", f"{self.name}: its process has ended")
        self.wait()
        channel = self._channel
        channel.within(limit_s)
        try:
            yield channel
        except TimeoutError:
            self.close()
            raise ProgramError("timeout", f"{self.name}: no answer within {limit_s:g} s") from None
        except Ended:
            how = self._end()
            raise ProgramError("crash", f"{self.name}: its process ended {how}") from None
        except FrameError as error:
            self.close()
            raise ProgramError("output", f"{self.name}: {one_line(str(error))}") from None

    def _end(self) -> str:
        """Wait for a process whose connection is closed, end what it leaves behind, and say how it ended."""
        told = None
        until = time.monotonic() + LAST_BREATH_S
        while self._process is not None and told is None and time.monotonic() < until:
            # Not reaped yet: until then the group cannot be somebody else's.
            told = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            time.sleep(0.01)
        self.close()
        if told is None:
            return "its connection and was killed"
        return f"with code {told.si_status}" if told.si_code == os.CLD_EXITED else f"by signal {told.si_status}"

    def _refuse(self, answer: dict[str, Any]) -> None:
        if "error" in answer:
            raise ProgramError("raised", f"{self.name}: {one_line(str(answer['error']))}")


def one_line(text: str) -> str:
    """Untrusted text on one printable line."""
    return "".join(character if character.isprintable() else " " for character in text)[:300]


def _environment(threads: int) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)
    }
    # The folder of this package first; what else a machine finds torch by comes after it.
    path = os.pathsep.join(filter(None, (str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH"))))
    return kept | dict.fromkeys(THREADS, str(threads)) | {"PYTHONPATH": path}
