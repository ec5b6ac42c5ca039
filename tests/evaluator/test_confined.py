"""One program in the jail, as benchmarks start it: descriptors lead to it, nothing else does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from adrs_ray.evaluator import processes
from adrs_ray.evaluator.confined import confined_command
from tests.evaluator.test_local import wait_for


def confined(tmp_path: Path, source: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(source)
    command = confined_command([str(script), *arguments], **options)  # type: ignore[arg-type]
    return subprocess.run(command, input="asked", capture_output=True, text=True, timeout=60, check=False)


TRIES = """
import os, socket, sys
attempts = {
    "a file outside": lambda: open("@SECRET@"),
    "a socket": lambda: socket.socket(),
    "a process": lambda: os.fork(),
    "a file of ours": lambda: open("@OURS@"),
    "a signal": lambda: os.kill(os.getppid(), 0),
    "writing outside": lambda: open("@SECRET@2", "w"),
}
for name, attempt in attempts.items():
    try:
        attempt()
        print("BREACH", name)
    except OSError:
        pass
for name in ("adrs_ray.task", "adrs_ray.config", "cluster", "tasks"):
    try:
        __import__(name)
        print("BREACH", name)
    except ImportError:
        pass
import gpu_eval.shapes
if b"ADRS" + b"_TEST" in open("/proc/self/environ", "rb").read():
    print("BREACH the caller's environment")
open("note", "w").close()
print(sys.argv[1:], sys.stdin.read(), os.environ["CUDA_VISIBLE_DEVICES"], "ADRS_TEST" in os.environ)
sys.exit(7)
"""


def test_a_script_runs_in_the_jail_and_ends_as_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADRS_TEST", "s3cr3t")
    (tmp_path / "secret").write_text("s3cr3t")
    ours = Path(processes.__file__).with_name("judging.py")
    source = TRIES.replace("@SECRET@", str(tmp_path / "secret")).replace("@OURS@", str(ours))
    done = confined(tmp_path, source, "a", "--b")
    assert (done.stdout, done.stderr, done.returncode) == ("['a', '--b'] asked  False\n", "", 7)


def test_what_is_named_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("told")
    source = f"print(open({str(tmp_path / 'data/file')!r}).read())"
    assert confined(tmp_path, source, readable=[str(tmp_path / "data")]).stdout == "told\n"
    assert "PermissionError" in confined(tmp_path, source).stderr


def test_a_module_is_run_by_its_name_and_by_the_front_door() -> None:
    for command in (
        confined_command(["timeit", "-n", "1", "-r", "1", "pass"]),
        [sys.executable, "-m", "adrs_ray.evaluator.confined", "--", "timeit", "-n", "1", "-r", "1", "pass"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.startswith("1 loop")


@pytest.mark.parametrize(
    ("source", "options", "code", "says"),
    [
        ("bytearray(2**30)", {"memory_mb": 256}, 1, "MemoryError"),
        ("raise SystemExit('no such thing')", {}, 1, "no such thing"),
        ("import os; os.kill(os.getpid(), 9)", {}, 137, ""),
        (
            "import threading, time\nfor _ in range(20):\n    threading.Thread(target=time.sleep, args=(60,)).start()",
            {"threads": 4},
            137,
            "more than 4 threads",
        ),
        ("import nowhere", {"devices": "none", "memory_mb": 1}, 1, "No module named 'nowhere'"),
        (
            "import time\nheld = bytearray(b'x') * 2**28\ntime.sleep(60)",
            {"memory_mb": 100, "devices": "0"},
            137,
            "more than 100 MB of memory",
        ),
    ],
)
def test_what_ends_a_program_is_told(
    tmp_path: Path, source: str, options: dict[str, object], code: int, says: str
) -> None:
    done = confined(tmp_path, source, **options)
    assert done.returncode == code
    assert says in done.stderr


def test_processes_are_allowed_by_number(tmp_path: Path) -> None:
    source = "import subprocess\nprint(subprocess.run(['/bin/echo', 'yes'], capture_output=True, text=True).stdout)"
    assert confined(tmp_path, source, processes=2).stdout == "yes\n\n"


def test_threads_and_what_is_registered_for_the_end_run_to_their_end(tmp_path: Path) -> None:
    source = """
import atexit, threading, time
atexit.register(print, "ended")
threading.Thread(target=lambda: (time.sleep(0.3), print("thread"))).start()
"""
    assert confined(tmp_path, source).stdout == "thread\nended\n"


def start(tmp_path: Path, source: str, fds: Sequence[int] = (), **options: object) -> subprocess.Popen[bytes]:
    script = tmp_path / "script.py"
    script.write_text(source)
    return subprocess.Popen(
        confined_command([str(script), *map(str, fds)], **options),  # type: ignore[arg-type]
        pass_fds=fds,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


def test_a_socket_leads_to_the_program_alone_and_its_end_is_seen(tmp_path: Path) -> None:
    source = "import socket, sys\ns = socket.socket(fileno=int(sys.argv[1]))\ns.sendall(s.recv(100) * 2)\n"
    ours, theirs = socket.socketpair()
    with start(tmp_path, source, [theirs.fileno()]) as process, ours:
        theirs.close()
        ours.settimeout(60)
        ours.sendall(b"ab")
        assert ours.recv(100) == b"abab"
        assert ours.recv(100) == b""
        assert process.wait(60) == 0


@pytest.mark.parametrize("end", [os.kill, os.killpg])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killing_the_command_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: Callable[[int, int], None], number: int
) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    source = "import os, time\nif os.fork():\n    print('there', flush=True)\ntime.sleep(600)\n"
    with start(tmp_path, source, processes=2) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        below = processes.descendants(process.pid)
        assert len(below) == 3
        end(process.pid, number)
        assert process.wait(60) == (-9 if number == signal.SIGKILL else 137)
        wait_for(lambda: not any(map(processes.resident_bytes, below)))
        wait_for(lambda: not list(scratch.iterdir()))


def test_the_program_ends_with_who_started_it_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    (tmp_path / "script.py").write_text("import time\ntime.sleep(600)\n")
    starts = f"import subprocess\nsubprocess.Popen({confined_command([str(tmp_path / 'script.py')])!r})\n"
    starter = subprocess.Popen(
        [sys.executable, "-c", starts + "import time\ntime.sleep(600)"], env={**os.environ, "TMPDIR": str(scratch)}
    )
    try:
        wait_for(lambda: len(processes.descendants(starter.pid)) == 3)
        time.sleep(0.2)
        below = processes.descendants(starter.pid)
    finally:
        starter.kill()
        starter.wait()
    wait_for(lambda: not any(map(processes.resident_bytes, below)))
    wait_for(lambda: not list(scratch.iterdir()))
