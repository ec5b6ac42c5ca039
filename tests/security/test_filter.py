"""The seccomp filter as data: run by a small BPF machine, for both machines and every policy."""

from __future__ import annotations

import os
import struct
from types import SimpleNamespace

import pytest

from adrs_ray.evaluator import seccomp
from adrs_ray.evaluator.syscalls import AUDIT_ARCH, NUMBERS

ALLOW, NOTIFY, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x7FC00000, 0x80000000, 0x00050001, 0x00050026
SUCCESS_WITHOUT_EFFECT, EOPNOTSUPP = 0x00050000, 0x0005005F
PID = 4321


@pytest.fixture(params=sorted(NUMBERS))
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=request.param))
    name: str = request.param
    return name


def run(program: list[tuple[int, int, int, int]], arch: int, number: int, *arguments: int) -> int:
    data = struct.pack("<iIQ6Q", number, arch, 0, *(a & (2**64 - 1) for a in (*arguments, 0, 0, 0, 0, 0, 0)[:6]))
    accumulator, line = 0, 0
    while True:
        code, yes, no, k = program[line]
        line += 1
        if code == 0x06:
            return k
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, k)[0]
        elif code == 0x54:
            accumulator &= k
        else:
            holds = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[code]
            line += yes if holds else no


class Filter:
    def __init__(self, machine: str, processes: int = 0, abi: int = 7, notify: bool = True) -> None:
        self.numbers = NUMBERS[machine]
        self.arch = AUDIT_ARCH[machine]
        self.program = seccomp.build(seccomp.Policy(processes, abi, notify), PID)

    def __call__(self, name: str, *arguments: int) -> int:
        return run(self.program, self.arch, self.numbers[name], *arguments)


def test_every_call_has_the_answer_of_its_list(machine: str) -> None:
    for notify, denied, killed in ((True, NOTIFY, NOTIFY), (False, EPERM, KILL)):
        answers = Filter(machine, notify=notify)
        special = set(seccomp._ARGUMENT_RULES)
        for name in answers.numbers.keys() - special:
            expected = ALLOW if name in seccomp.ALLOWED else killed if name in seccomp.KILLED else denied
            if name in seccomp.IGNORED:
                expected = SUCCESS_WITHOUT_EFFECT
            assert answers(name) == expected, name


def test_the_lists_name_real_calls_and_do_not_overlap() -> None:
    known = set(NUMBERS["x86_64"])
    assert known >= set(NUMBERS["aarch64"])
    assert known >= seccomp.ALLOWED
    assert known >= seccomp.KILLED | seccomp.IGNORED
    assert set(seccomp._ARGUMENT_RULES) <= known
    assert not seccomp.ALLOWED & seccomp.KILLED
    assert not seccomp.IGNORED & (seccomp.ALLOWED | seccomp.KILLED)
    assert not (seccomp.ALLOWED | seccomp.KILLED | seccomp.IGNORED) & set(seccomp._ARGUMENT_RULES)


def test_foreign_ways_into_the_kernel_are_shut(machine: str) -> None:
    answers = Filter(machine)
    assert run(answers.program, 0x40000003, 0) == KILL
    x32 = run(answers.program, answers.arch, 0x40000000 + 41)
    assert x32 == (KILL if machine == "x86_64" else ENOSYS)
    assert run(answers.program, answers.arch, 700) == ENOSYS
    assert run(answers.program, answers.arch, -1) != ALLOW


def test_arguments_decide(machine: str) -> None:
    answers = Filter(machine)
    assert answers("kill", PID, 9) == ALLOW
    assert answers("kill", PID + 1, 9) == NOTIFY
    assert answers("kill", -1, 9) == NOTIFY
    assert answers("tgkill", PID, PID, 9) == ALLOW
    assert answers("prlimit64", 0) == ALLOW
    assert answers("prlimit64", 1) == NOTIFY
    assert answers("socketpair", 1, 1 | 0o2000000) == ALLOW
    assert answers("socketpair", 1, 5) == ALLOW
    assert answers("socketpair", 1, 2) == NOTIFY
    assert answers("socketpair", 2, 1) == NOTIFY
    assert answers("sendto", 3, 0, 0, 0, 0) == ALLOW
    assert answers("sendto", 3, 0, 0, 0, 0x7F0000000000) == NOTIFY
    assert answers("sendto", 3, 0, 0, 0, 0x1000) == NOTIFY
    assert answers("prctl", 15) == ALLOW
    assert answers("prctl", 1) == NOTIFY
    assert answers("fcntl", 3, 8) == NOTIFY
    assert answers("fcntl", 3, 2) == ALLOW
    assert answers("fcntl", 3, 1036) == NOTIFY
    for tty_or_file_system in (0x5412, 0x40086602, 0x40087602, 0x40049409):
        assert answers("ioctl", 3, tty_or_file_system) == NOTIFY
    assert answers("ioctl", 3, 0x5413) == ALLOW
    assert answers("sendmsg", seccomp.SETUP_FD) == ALLOW
    assert answers("sendmsg", 3) == NOTIFY
    assert answers("preadv2", 3, 0, 1, 0, 0, 0) == ALLOW
    assert answers("preadv2", 3, 0, 1, 0, 0, 8) == NOTIFY
    assert answers("fallocate", 3, 0, 0, 1 << 30) == EOPNOTSUPP
    assert answers("personality", 0xFFFFFFFF) == ALLOW
    assert answers("personality", 0) == NOTIFY


def test_ioctls_of_a_gpu_pass_only_where_its_nodes_are_open(machine: str) -> None:
    for notify, denied in ((True, NOTIFY), (False, EPERM)):
        policy = seccomp.Policy(0, 7, notify, devices=True)
        with_devices, without = Filter(machine, notify=notify), Filter(machine, notify=notify)
        with_devices.program = seccomp.build(policy, PID)
        for of_the_driver in (0xC00846D6, 0xC020462A, 0xC030462B, 0x30000001, 0x30000002, 0, 37, 255):
            assert with_devices("ioctl", 3, of_the_driver) == ALLOW
            assert without("ioctl", 3, of_the_driver) == denied
        for other in (0x5412, 0x40086602, 0x40087602, 0x40049409, 0x4600, 0x40084600, 0x80084600, 0x30000003, 256):
            assert with_devices("ioctl", 3, other) == denied
        assert with_devices("ioctl", 3, 0x5413) == ALLOW
        assert with_devices("socket", 1, 1) == denied
        assert with_devices("kill", PID + 1, 9) == denied


def test_new_processes_and_threads(machine: str) -> None:
    thread, process, namespace, sibling = 0x10000 | 0x100, 17, 0x10000000 | 17, 0x8000 | 17
    with_listener = Filter(machine)
    assert with_listener("clone", thread) == NOTIFY
    assert with_listener("clone", process) == NOTIFY
    assert with_listener("clone", sibling) == EPERM
    assert with_listener("clone3") == ENOSYS
    assert with_listener("execve") == NOTIFY
    alone = Filter(machine, notify=False)
    assert alone("clone", thread) == ALLOW
    assert alone("clone", process) == EPERM
    assert alone("clone", namespace) == KILL
    allowed = Filter(machine, processes=2, notify=False)
    assert allowed("clone", process) == ALLOW
    assert allowed("clone", namespace) == KILL
    assert allowed("execve") == ALLOW


def test_what_an_old_landlock_lets_through_is_denied_here(machine: str) -> None:
    new, old = Filter(machine, abi=3), Filter(machine, abi=2)
    truncating_read, truncating_write = 0o1000, 0o1001
    assert new("truncate") == ALLOW
    assert old("truncate") == NOTIFY
    assert new("openat", 0, 0, truncating_read) == ALLOW
    assert old("openat", 0, 0, truncating_read) == NOTIFY
    assert old("openat", 0, 0, truncating_write) == ALLOW
    assert old("openat", 0, 0, 0) == ALLOW
