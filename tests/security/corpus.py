"""Hostile programs and what must become of each: the corpus that both variants of the jail are held to.

A program that gets through what it tries gives a wrong answer on purpose (`BREACH`), so that its score tells.
In sources, `@SECRET@` is a file outside, `@OUTSIDE@` its folder, `@WORKER@` the worker's process id, `@TASK@` the
task's folder.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from adrs_ray.candidate import FailureKind

_HEAD = """\
import ctypes, os, signal, socket, sys, threading, time
import numpy as np

libc = ctypes.CDLL(None, use_errno=True)


def answer(x, breach=False):
    return float(np.sum(x)) + (1e6 if breach else 0.0)


def passes(attempt):
    try:
        attempt()
    except OSError:
        return False
    return True


def call(number, *args):
    plain = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    return libc.syscall(ctypes.c_long(number), *plain)


NR = {
    "x86_64": dict(ptrace=101, unshare=272, bpf=321, userfaultfd=323, mount=165, keyctl=250, vm_readv=310, clone=56,
                   perf=298, uring=425, memfd=319, pidfd_open=434, seccomp=317, pidfd_getfd=438, tkill=200,
                   setns=308, open_by_handle=304, exit=60, fallocate=285, cachestat=451),
    "aarch64": dict(ptrace=117, unshare=97, bpf=280, userfaultfd=282, mount=40, keyctl=219, vm_readv=270, clone=220,
                    perf=241, uring=425, memfd=279, pidfd_open=434, seccomp=277, pidfd_getfd=438, tkill=130,
                    setns=268, open_by_handle=265, exit=93, fallocate=47, cachestat=451),
}[os.uname().machine]
"""


@dataclass(frozen=True)
class Hostile:
    """`expected` None: a valid verdict with the honest score, what was tried having been denied."""

    name: str
    source: str
    expected: FailureKind | None
    denied: tuple[str, ...] = ()
    """Keys that the evidence must hold."""
    says: str = ""
    """Part of the failure's line."""
    needs_listener: bool = False
    """Without seccomp's listener the cap is a watchdog's, which a short burst escapes."""


def _solve(body: str) -> str:
    return _HEAD + "\n\ndef solve(x):\n" + textwrap.indent(textwrap.dedent(body).strip("\n"), "    ") + "\n"


def _violation(name: str, call: str) -> Hostile:
    return Hostile(name, _solve(f"call({call})\nreturn answer(x, breach=True)"), FailureKind.VIOLATION)


def _denied(name: str, attempt: str, *denied: str) -> Hostile:
    return Hostile(name, _solve(f"return answer(x, breach=passes(lambda: {attempt}))"), None, denied)


def _denied_call(name: str, call: str, *denied: str) -> Hostile:
    return Hostile(name, _solve(f"return answer(x, breach=call({call}) >= 0)"), None, denied)


HEAP_SEARCH = _solve("""
    # in two halves, so that the search does not find itself
    first, second = bytes.fromhex("@CANARY1@"), bytes.fromhex("@CANARY2@")
    with open("/proc/self/maps") as file:
        maps = file.read().splitlines()
    found = 0
    for line in maps:
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if " r" not in line or "[v" in line or line.endswith(".so"):
            continue
        for at in range(start, end, 1 << 24):
            data = ctypes.string_at(at, min(1 << 24, end - at))
            place = data.find(first)
            while place >= 0:
                found += data.startswith(second, place + len(first))
                place = data.find(first, place + 1)
    return answer(x, breach=found > 0)
""")
"""Reads all memory of its process for the text whose halves are given in hex."""


CORPUS: tuple[Hostile, ...] = (
    # files and secrets
    Hostile(
        "secret in the environment",
        _solve("""
            found = [k for k, v in os.environ.items() if "s3cr3t" in k + v]
            raw = b""
            if passes(lambda: open("/proc/self/environ", "rb").close()):
                with open("/proc/self/environ", "rb") as file:
                    raw = file.read()
            return answer(x, breach=bool(found) or b"s3cr3t" in raw)
        """),
        None,
    ),
    _denied("secret in a file", "open('@SECRET@').close()", "open:@SECRET@"),
    _denied("the judge's source", "open('@TASK@/judge.py').close()", "open:@TASK@/judge.py"),
    _denied("listing a folder outside", "os.listdir('@OUTSIDE@')"),
    Hostile(
        "import of this project",
        _solve("""
            try:
                import adrs_ray.task
            except ImportError:
                return answer(x)
            return answer(x, breach=True)
        """),
        None,
    ),
    _denied("write outside", "open('@OUTSIDE@/new', 'w').close()", "open:@OUTSIDE@/new"),
    _denied("write to shared memory files", "open('/dev/shm/adrs-note', 'w').close()"),
    _denied("truncate outside", "os.truncate('@SECRET@', 0)"),
    _denied("unlink outside", "os.unlink('@SECRET@')"),
    _denied("rename outside", "os.rename('@SECRET@', '@SECRET@2')"),
    _denied("hard link into scratch", "os.link('@SECRET@', 'mine')"),
    Hostile(
        "symbolic link out of scratch",
        _solve("""
            os.symlink("@SECRET@", "mine")
            return answer(x, breach=passes(lambda: open("mine").close()))
        """),
        None,
    ),
    Hostile(
        "chmod outside, by the library and by libc",
        _solve("""
            os.chmod("@SECRET@", 0o777)
            return answer(x, breach=libc.chmod(b"@SECRET@", 0o777) == 0)
        """),
        None,
        ("chmod",),
    ),
    Hostile(
        "chown and utime outside",
        _solve("""
            os.utime("@SECRET@", (1, 1))
            return answer(x, breach=libc.chown(b"@SECRET@", 1000, 1000) == 0)
        """),
        None,
        ("chown", "utimensat"),
    ),
    _denied_call("open by handle", "NR['open_by_handle'], -100, 0, 0", "open_by_handle_at"),
    _denied("settings of the kernel", "os.close(os.open('/proc/sys/kernel/hostname', os.O_WRONLY))"),
    _denied("settings of the worker", "os.close(os.open('/proc/@WORKER@/oom_score_adj', os.O_WRONLY))"),
    _denied("new file at the root", "os.close(os.open('/adrs-note', os.O_WRONLY | os.O_CREAT))"),
    _denied("new file in the shared folder", "os.close(os.open('/tmp/adrs-note', os.O_WRONLY | os.O_CREAT))"),
    Hostile(
        "nodes of GPUs, with device_memory_mb 0",
        _solve("""
            names = ["nvidiactl", "nvidia-uvm", "nvidia0", "nvidia-caps/nvidia-cap1", "dri/renderD128", "kfd"]
            opened = any(passes(lambda n=n: os.close(os.open("/dev/" + n, os.O_RDWR))) for n in names)
            rm = passes(lambda: __import__("fcntl").ioctl(0, 0xC00846D6, bytes(8)))
            seen = os.environ["CUDA_VISIBLE_DEVICES"] != ""
            return answer(x, breach=opened or rm or seen)
        """),
        None,
        ("ioctl",),
    ),
    # network
    Hostile(
        "sockets: TCP, UDP, unix",
        _solve("""
            kinds = [(socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET6, socket.SOCK_DGRAM),
                     (socket.AF_UNIX, socket.SOCK_STREAM), (socket.AF_NETLINK, socket.SOCK_RAW)]
            return answer(x, breach=any(passes(lambda k=k: socket.socket(*k)) for k in kinds))
        """),
        None,
        ("socket",),
    ),
    _denied("datagram pair, which could send anywhere", "socket.socketpair(type=socket.SOCK_DGRAM)", "socketpair"),
    # other processes
    _denied("signal to the worker", "os.kill(@WORKER@, signal.SIGTERM)", "kill"),
    _denied("signal to the fork server", "os.kill(os.getppid(), signal.SIGKILL)", "kill"),
    _denied("signal to everybody", "os.kill(-1, signal.SIGKILL)", "kill"),
    _denied_call("signal to a thread of the worker", "NR['tkill'], @WORKER@, 9", "tkill"),
    _denied(
        "limits of the worker",
        "__import__('resource').prlimit(@WORKER@, __import__('resource').RLIMIT_NOFILE, (16, 16))",
        "prlimit64",
    ),
    _denied("priority of the worker", "os.setpriority(os.PRIO_PROCESS, @WORKER@, 19)", "setpriority"),
    _denied("processors of the worker", "os.sched_setaffinity(@WORKER@, {0})", "sched_setaffinity"),
    _denied("memory of the worker", "open('/proc/@WORKER@/mem', 'rb').close()"),
    _denied("environment of the fork server", "open(f'/proc/{os.getppid()}/environ', 'rb').read()"),
    _denied("command line of the worker", "open('/proc/@WORKER@/cmdline').close()"),
    _denied_call("handle on the worker", "NR['pidfd_open'], @WORKER@, 0", "pidfd_open"),
    _denied(
        "signals by way of a descriptor's owner",
        "__import__('fcntl').fcntl(3, __import__('fcntl').F_SETOWN, @WORKER@)",
        "fcntl",
    ),
    _violation("ptrace", "NR['ptrace'], 16, @WORKER@, 0, 0"),
    _violation("process_vm_readv", "NR['vm_readv'], @WORKER@, 0, 0, 0, 0, 0"),
    _violation("pidfd_getfd", "NR['pidfd_getfd'], 3, 0, 0"),
    _violation("unshare", "NR['unshare'], 0x10000000"),
    _violation("clone into a namespace", "NR['clone'], 0x10000000 | 17, 0, 0, 0, 0"),
    _violation("setns", "NR['setns'], 3, 0"),
    _violation("mount", "NR['mount'], b'none', b'/', b'tmpfs', 0, 0"),
    _violation("bpf", "NR['bpf'], 0, 0, 0"),
    _violation("userfaultfd", "NR['userfaultfd'], 0"),
    _violation("keyctl", "NR['keyctl'], 0, 0"),
    Hostile(
        "the x32 way into the kernel",
        _solve("""
            if os.uname().machine != "x86_64":
                os.kill(os.getpid(), signal.SIGSYS)
            call(0x40000000 + 41, 2, 1, 0)
            return answer(x, breach=True)
        """),
        FailureKind.VIOLATION,
    ),
    Hostile(
        "the 32-bit way into the kernel",
        _solve("""
            import mmap

            if os.uname().machine != "x86_64":
                os.kill(os.getpid(), signal.SIGSYS)
            page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
            page.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20 (getpid); int 0x80; ret
            ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
            return answer(x, breach=True)
        """),
        FailureKind.VIOLATION,
    ),
    _denied_call("perf_event_open", "NR['perf'], 0, 0, -1, -1, 0", "perf_event_open"),
    _denied_call("io_uring", "NR['uring'], 8, 0", "io_uring_setup"),
    _denied_call("memory files", "NR['memfd'], b'note', 0", "memfd_create"),
    _denied_call("a filter of its own", "NR['seccomp'], 0, 0, 0", "seccomp"),
    Hostile(
        "System V memory for the next candidate",
        _solve("return answer(x, breach=libc.shmget(0x4144, 4096, 0o1666) >= 0)"),
        None,
        ("shmget",),
    ),
    _denied("another user", "os.setuid(1000)", "setuid"),
    # processes and threads
    Hostile(
        "fork without end",
        _solve("""
            while passes(lambda: os.fork()):
                pass
            return answer(x)
        """),
        None,
        ("process",),
    ),
    _denied("setsid daemon", "os.setsid()", "setsid"),
    _denied("exec", "os.execv('/bin/sh', ['sh', '-c', 'true'])", "execve"),
    Hostile(
        "subprocess",
        _solve("""
            import subprocess
            return answer(x, breach=passes(lambda: subprocess.run(["/bin/true"])))
        """),
        None,
        ("process",),
    ),
    Hostile(
        "flood of threads",
        _solve("""
            started = 0
            try:
                for _ in range(200):
                    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
                    started += 1
            except RuntimeError:
                pass
            return answer(x, breach=started > 3)
        """),
        None,
        ("thread",),
        needs_listener=True,
    ),
    # resources
    Hostile("memory", _solve("return answer(np.ones(10**9))"), FailureKind.MEMORY),
    Hostile("memory, bit by bit", _solve("a = []\nwhile True:\n    a.append(bytearray(10**6))"), FailureKind.MEMORY),
    Hostile("sleep", _solve("time.sleep(600)"), FailureKind.TIMEOUT),
    Hostile("busy for ever", _solve("while True:\n    pass"), FailureKind.TIMEOUT),
    Hostile("busy on import", "while True:\n    pass\n", FailureKind.TIMEOUT),
    Hostile(
        "signals ignored",
        _solve("""
            for number in range(1, 32):
                try:
                    signal.signal(number, signal.SIG_IGN)
                except OSError:
                    pass
            while True:
                time.sleep(1)
        """),
        FailureKind.TIMEOUT,
    ),
    Hostile("stops itself", _solve("os.kill(os.getpid(), signal.SIGSTOP)"), FailureKind.TIMEOUT),
    Hostile("stdout flood", _solve("while True:\n    print('x' * 10000)"), FailureKind.OUTPUT, says="printed"),
    Hostile("stderr flood", _solve("while True:\n    os.write(2, b'x' * 65536)"), FailureKind.OUTPUT, says="printed"),
    Hostile(
        "scratch flood",
        _solve("""
            for i in range(10**6):
                with open(f"file{i}", "wb") as file:
                    file.write(bytes(200_000))
            return answer(x, breach=True)
        """),
        FailureKind.OUTPUT,
        says="files written",
    ),
    Hostile(
        "scratch flood of unlinked files",
        _solve("""
            kept = []
            for i in range(60):
                kept.append(open("file", "wb"))
                kept[-1].write(bytes(900_000))
                kept[-1].flush()
                os.unlink("file")
                time.sleep(0.01)
            time.sleep(1)
            return answer(x, breach=True)
        """),
        FailureKind.OUTPUT,
        says="files written",
    ),
    Hostile(
        "scratch flood from behind an ended main thread",
        _solve("""
            def hold():
                time.sleep(0.2)
                kept = []
                for i in range(60):
                    kept.append(open("file", "wb"))
                    kept[-1].write(bytes(900_000))
                    kept[-1].flush()
                    os.unlink("file")
                    time.sleep(0.01)
                time.sleep(60)

            threading.Thread(target=hold).start()
            call(NR["exit"], 0)
        """),
        FailureKind.OUTPUT,
        says="files written",
    ),
    Hostile(
        "scratch flood hidden in a socket",
        _solve("""
            near, far = socket.socketpair()
            sent = 0
            while sent < 40:
                file = os.open("file", os.O_CREAT | os.O_RDWR)
                os.write(file, bytes(900_000))
                os.unlink("file")
                try:
                    socket.send_fds(near, [b"x"], [file])
                except PermissionError:
                    break
                os.close(file)
                sent += 1
            return answer(x, breach=sent > 0)
        """),
        None,
        ("sendmsg",),
    ),
    Hostile(
        "scratch flood among files that come and go",
        _solve("""
            def churn(name):
                while True:
                    for i in range(20):
                        os.close(os.open(f"{name}{i}", os.O_CREAT | os.O_WRONLY))
                    for i in range(20):
                        os.unlink(f"{name}{i}")

            for name in "ab":
                threading.Thread(target=churn, args=(name,), daemon=True).start()
            for i in range(10**6):
                with open(f"kept{i}", "wb") as file:
                    file.write(bytes(100_000))
            return answer(x, breach=True)
        """),
        FailureKind.OUTPUT,
        says="files written",
    ),
    _denied_call("space without writing", "NR['fallocate'], os.open('f', os.O_CREAT | os.O_RDWR), 0, 0, 900_000"),
    # words to the next candidate
    _denied(
        "generation number of the scratch folder",
        "__import__('fcntl').ioctl(os.open('.', os.O_RDONLY), 0x40087602, bytes(8))",
        "ioctl",
    ),
    _denied(
        "flags of the scratch folder",
        "__import__('fcntl').ioctl(os.open('.', os.O_RDONLY), 0x40086602, bytes(8))",
        "ioctl",
    ),
    _denied(
        "write hint of a library's file",
        "__import__('fcntl').fcntl(open(os.__file__), 1036, bytes([4, *bytes(7)]))",
        "fcntl",
    ),
    Hostile(
        "page cache of a library's file",
        _solve("""
            file = os.open(os.__file__, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            told = passes(lambda: os.preadv(file, [bytearray(1)], 0, os.RWF_NOWAIT))
            asked, found = ctypes.create_string_buffer(16), ctypes.create_string_buffer(40)
            told |= call(NR["cachestat"], file, asked, found, 0) == 0
            mapped = libc.mmap
            mapped.restype = ctypes.c_void_p
            page = mapped(None, ctypes.c_size_t(4096), 1, 1, file, ctypes.c_long(0))
            told |= libc.mincore(ctypes.c_void_p(page), ctypes.c_size_t(4096), ctypes.create_string_buffer(1)) == 0
            return answer(x, breach=told)
        """),
        None,
        ("cachestat", "mincore", "preadv2"),
    ),
    Hostile(
        "size of the folder of the candidate before",
        _solve("""
            grown = os.stat(".").st_size > 4096
            for i in range(120):
                open("n" * 200 + str(i), "w").close()
            return answer(x, breach=grown)
        """),
        None,
    ),
    Hostile(
        "one large file",
        _solve("return answer(x, breach=passes(lambda: open('big', 'wb').write(bytes(3_000_000))))"),
        None,
    ),
    Hostile(
        "folders without end",
        _solve("""
            for _ in range(40):
                os.mkdir("d", 0)
                os.mkdir("e")
                os.chdir("e")
            return answer(x)
        """),
        None,
    ),
    Hostile("huge output", _solve("return 'x' * 3_000_000"), FailureKind.OUTPUT),
    Hostile("huge array", _solve("return np.zeros(10**6)"), FailureKind.OUTPUT),
    Hostile(
        "nested output",
        _solve("a = []\nfor _ in range(100_000):\n    a = [a]\nreturn a"),
        FailureKind.OUTPUT,
    ),
    Hostile("many values", _solve("return [0] * 500_000 + [0.5] * 100_000"), FailureKind.OUTPUT),
    Hostile("empty array as long as memory", _solve("return np.zeros((2**39, 0))"), FailureKind.OUTPUT),
    Hostile("huge integer", _solve("return 10**5000"), FailureKind.OUTPUT),
    Hostile(
        "deep recursion",
        _solve("""
            def down(n):
                return down(n + 1) + 1

            return down(0)
        """),
        FailureKind.CRASH,
        says="RecursionError",
    ),
    Hostile(
        "deep recursion through C",
        _solve("""
            sys.setrecursionlimit(10**9)

            def down(n):
                return list(map(down, [n]))

            return down(0)
        """),
        FailureKind.CRASH,
    ),
    # lies
    Hostile(
        "patched time",
        _solve("""
            time.time = time.monotonic = time.perf_counter = time.process_time = lambda: 0.0
            return answer(x)
        """),
        None,
    ),
    Hostile(
        "evil __reduce__",
        _HEAD
        + textwrap.dedent("""

            class Evil(float):
                def __reduce__(self):
                    return (os.system, ("touch @OUTSIDE@/pickled",))

                __reduce_ex__ = lambda self, protocol: self.__reduce__()


            class Worse:
                __reduce__ = Evil.__reduce__


            def solve(x):
                return [Evil(1.0), Worse()]
        """),
        FailureKind.OUTPUT,
    ),
    Hostile("not a number", _solve("return float('nan')"), FailureKind.OUTPUT),
    Hostile("no result at all", _solve("return None"), FailureKind.OUTPUT),
    Hostile(
        "forged result on the channel",
        _solve("""
            for fd in range(3, 32):
                try:
                    os.write(fd, (20).to_bytes(4, "big") + bytes(16) + b'\\x00\\x00\\x00\\x0a{"ok":0.0}')
                except OSError:
                    pass
            return answer(x)
        """),
        FailureKind.REWARD_HACKING,
        says="forged",
    ),
    Hostile(
        "two results, with the nonce",
        _solve("""
            frame = sys._getframe()
            while "nonce" not in frame.f_locals:
                frame = frame.f_back
            nonce = frame.f_locals["nonce"]
            body = b'{"ok":45.0,"denied":{}}'
            body = len(body).to_bytes(4, "big") + body
            os.write(3, len(body).to_bytes(4, "big") + nonce + body)
            return answer(x)
        """),
        FailureKind.REWARD_HACKING,
        says="forged",
    ),
    Hostile(
        "a result before the question",
        _solve("return answer(x)")
        + textwrap.dedent("""

            frame = sys._getframe()
            while "nonce" not in frame.f_locals:
                frame = frame.f_back
            body = b'{"ok":45.0,"denied":{}}'
            body = len(body).to_bytes(4, "big") + body
            os.write(3, len(body).to_bytes(4, "big") + frame.f_locals["nonce"] + body)
        """),
        FailureKind.REWARD_HACKING,
        says="forged",
    ),
    Hostile(
        "empty array as long as memory, forged",
        _solve("""
            for module in list(sys.modules.values()):
                if hasattr(module, "FrameReceiver") and hasattr(module, "encode"):
                    text = b'{"ok":{"__array__":["<f8",[549755813888,0]]}}'
                    module.encode = lambda *a: len(text).to_bytes(4, "big") + text
            return answer(x)
        """),
        FailureKind.REWARD_HACKING,
        says="forged",
    ),
    Hostile(
        "garbage in place of a result",
        _solve("""
            for module in list(sys.modules.values()):
                if hasattr(module, "FrameReceiver") and hasattr(module, "encode"):
                    module.encode = lambda *a: b"\\xff" * 64
            return answer(x)
        """),
        FailureKind.REWARD_HACKING,
        says="forged",
    ),
    Hostile(
        "claims to be our failure",
        _solve("""
            for module in list(sys.modules.values()):
                if hasattr(module, "FrameReceiver") and hasattr(module, "encode"):
                    real = module.encode
                    module.encode = lambda *a: real({"fail": "infrastructure", "detail": "try again"})
            return answer(x)
        """),
        FailureKind.REWARD_HACKING,
        says="forged",
    ),
    Hostile("hidden data in the memory of its process", HEAP_SEARCH, None),
    # ends
    Hostile("os._exit(0)", _solve("os._exit(0)"), FailureKind.CRASH),
    Hostile("sys.exit", _solve("sys.exit(0)"), FailureKind.CRASH),
    Hostile("kills itself", _solve("os.kill(os.getpid(), signal.SIGKILL)"), FailureKind.CRASH),
    Hostile("writes to address 0", _solve("ctypes.memset(0, 0, 1)"), FailureKind.CRASH),
    Hostile("closes every descriptor", _solve("os.closerange(0, 256)\nreturn answer(x)"), FailureKind.CRASH),
    Hostile(
        "an exception that fails to print",
        _solve("""
            class Nasty(Exception):
                def __str__(self):
                    raise RuntimeError

            raise Nasty
        """),
        FailureKind.CRASH,
    ),
    Hostile(
        "stdout replaced",
        _solve("sys.stdout = sys.stderr = None\nreturn answer(x)"),
        None,
    ),
)
