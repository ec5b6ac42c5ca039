"""Programs in processes of their own: timed by our clock, and nothing that they do gets past one line of error."""

import os
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from gpu_eval.findings import Findings  # noqa: E402
from gpu_eval.invariants import check_placement  # noqa: E402
from gpu_eval.program import ProgramError, ProgramProcess, Round, Transport, _Loads, _scout, _Side, measure_program  # noqa: E402
from gpu_eval.shapes import Shape  # noqa: E402

SHAPE = Shape(2, 6, 8, 4)
LOADS = [np.arange(12, dtype=np.int64).reshape(2, 6) * 1000 + 5]

HONEST = """
import torch

def rebalance_experts(weight, num_replicas, num_groups, num_nodes, num_gpus):
    layers, experts = weight.shape
    assert num_replicas % num_gpus == 0, "replicas must divide"
    if (weight < 0).any():
        raise ValueError("negative load\\nsecond line")
    order = weight.argsort(dim=1, descending=True)
    phy2log = torch.cat([order, order[:, : num_replicas - experts]], 1)
    counts = torch.ones(layers, experts, dtype=torch.int64)
    counts.scatter_add_(1, order[:, : num_replicas - experts], torch.ones(layers, num_replicas - experts).long())
    log2phy = torch.full((layers, experts, 2), -1)
    for layer in range(layers):
        for slot in range(num_replicas):
            log2phy[layer, phy2log[layer, slot], int(slot >= experts)] = slot
    return phy2log, log2phy, counts
"""

CHEAT = (
    HONEST.replace("def rebalance_experts", "def honest")
    + """
import sys, time

sys.modules["__main__"].CLOCK = lambda: 0
memory = {}
buffer = []

def rebalance_experts(weight, *sizes):
    key = weight.numpy().tobytes()
    if key not in memory:
        time.sleep(0.02)
        memory[key] = honest(weight, *sizes)
    if not buffer:
        buffer.extend(part.clone() for part in memory[key])
    for kept, part in zip(buffer, memory[key]):
        kept.copy_(part)
    return tuple(buffer)
"""
)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("programs") / "honest.py"
    source.write_text(HONEST)
    return source


@pytest.fixture(scope="module")
def process(honest: Path) -> Iterator[ProgramProcess]:
    with ProgramProcess(honest) as process:
        with pytest.raises(ValueError, match=r"load\(\) first"):
            process.call(LOADS, SHAPE)
        process.transport(LOADS * 3, [("<i8", (2, 8)), ("<i8", (2, 6, 2)), ("<i8", (2, 6))], rounds=2)
        process.load()
        yield process


def test_arrays_go_in_and_placements_come_out(process: ProgramProcess) -> None:
    done = process.call([LOADS[0], LOADS[0][:, ::-1], LOADS[0].astype(np.float32)], SHAPE)
    assert len(done.outputs) == len(done.child_s) == 3
    for outputs in done.outputs:
        check_placement(*outputs, SHAPE)
    assert done.outputs[0][0][0].tolist() == [5, 4, 3, 2, 1, 0, 5, 4]
    assert done.outputs[1][0][0].tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert 0 < sum(done.child_s) <= done.wall_s
    assert done.output_bytes == 3 * 8 * (16 + 24 + 12)


def test_what_it_raises_is_one_line_and_it_can_be_called_again(process: ProgramProcess) -> None:
    with pytest.raises(ProgramError) as raised:
        process.call([-LOADS[0]], SHAPE)
    assert (raised.value.kind, str(raised.value)) == ("raised", "honest: ValueError: negative load")
    process.call(LOADS, SHAPE)


def test_an_honest_program_is_caught_at_nothing(process: ProgramProcess) -> None:
    assert process.inspect(LOADS[0], SHAPE) == ()


def test_null_rounds_need_a_pristine_process(process: ProgramProcess) -> None:
    with pytest.raises(ValueError, match="pristine"):
        process.transport(LOADS, [("<i8", (1,))])


def test_tricks_are_found_and_do_not_pay(honest: Path, tmp_path: Path) -> None:
    """A frozen clock, a cache and one buffer for all answers."""
    cheat = tmp_path / "cheat.py"
    cheat.write_text(CHEAT)
    timing = measure_program(cheat, SHAPE, [np.full((2, 6), 9000)], baseline=honest, pairs=3, calls=2, limit_s=0)
    kinds = {sentence.split(":")[0] for sentence in timing.findings}
    assert {"clocks disagree", "cached results", "differing answers", "borrowed buffers"} <= kinds
    assert not any(sentence.startswith("baseline") for sentence in timing.findings)
    assert timing.candidate.median_s > 0.015
    assert timing.ratio > 1
    assert timing.pairs == 3


# What children can send, told by a child of few lines that needs no torch.
CHILD = """
import os, socket, sys, time
from gpu_eval.frames import HEADER, Channel
import numpy as np

connection = socket.socket(fileno=os.dup(0))
channel = Channel(connection)
channel.receive()
channel.send({})
channel.receive()
channel.send({})
channel.receive()
channel.receive_bytes(10_000)
"""


def misbehaving(tmp_path: Path, tail: str, call_s: float = 10) -> ProgramProcess:
    script = tmp_path / "child.py"
    script.write_text(CHILD + textwrap.dedent(tail))
    return ProgramProcess(tmp_path / "program.py", launcher=(sys.executable, str(script)), call_s=call_s)


def test_an_endless_call_ends_with_its_process(tmp_path: Path) -> None:
    with misbehaving(tmp_path, "while True: pass", call_s=0.2) as process:
        process.load()
        assert process._process is not None
        pid = process._process.pid
        with pytest.raises(ProgramError, match=r"program: no answer within 0\.2 s") as raised:
            process.call(LOADS, SHAPE)
        assert raised.value.kind == "timeout"
        assert not alive(pid)
        with pytest.raises(ProgramError, match="has ended"):
            process.call(LOADS, SHAPE)


@pytest.mark.parametrize(
    ("tail", "kind", "text"),
    [
        ("os._exit(3)", "crash", "ended with code 3"),
        ("os.kill(os.getpid(), 9)", "crash", "ended by signal 9"),
        ("connection.shutdown(socket.SHUT_RDWR); time.sleep(60)", "crash", "ended its connection and was killed"),
        ("connection.sendall(b'x' * 100)", "output", "expected a frame J"),
        ("connection.sendall(HEADER.pack(b'J', 1 << 40))", "output", "at most 65536"),
        ("channel.send({'seconds': [0.1]}); connection.sendall(HEADER.pack(b'A', 1 << 40))", "output", "at most"),
        ("channel.send({'seconds': [0.1]}); connection.sendall(HEADER.pack(b'A', 90)); os._exit(0)", "crash", "code 0"),
        (
            "channel.send({'seconds': [0.1]}); [channel.send_array(np.ones(3, complex)) for _ in 'abc']",
            "output",
            "<c16",
        ),
        (
            "channel.send({'seconds': [0.1, 0.1]}); [channel.send_array(np.ones(3)) for _ in 'abc']",
            "output",
            "of 1 sec",
        ),
        ("channel.send({'seconds': [-1.0]}); [channel.send_array(np.ones(3)) for _ in 'abc']", "output", "of 1 sec"),
        ("channel.send({'seconds': ['0']}); [channel.send_array(np.ones(3)) for _ in 'abc']", "output", "of 1 sec"),
        ("channel.send({'error': 'a' * 900 + chr(10) + 'b'})", "raised", "program: aaa"),
        ("channel.send({'error': {'x': [1]}})", "raised", "program: "),
    ],
)
def test_hostile_answers_are_one_line(tmp_path: Path, tail: str, kind: str, text: str) -> None:
    with misbehaving(tmp_path, tail + "\ntime.sleep(60)") as process:
        assert process._process is not None
        pid = process._process.pid
        process.load()
        with pytest.raises(ProgramError) as raised:
            process.call(LOADS, SHAPE)
        assert raised.value.kind == kind
        assert text in str(raised.value)
        assert "\n" not in str(raised.value)
        assert len(str(raised.value)) < 400
        assert alive(pid) == (kind == "raised")
    assert not alive(pid)


def test_grandchildren_end_with_the_process(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    tail = f"""
    if os.fork() == 0:
        open({str(told)!r}, "w").write(str(os.getpid()))
        time.sleep(60)
    while not os.path.exists({str(told)!r}) or not open({str(told)!r}).read(): time.sleep(0.01)
    os._exit(0)
    """
    # It holds the connection open: only the time limit ends the wait.
    with misbehaving(tmp_path, tail, call_s=2) as process:
        process.load()
        with pytest.raises(ProgramError, match="no answer"):
            process.call(LOADS, SHAPE)
    grandchild = int(told.read_text())
    until = time.monotonic() + 10
    # Whoever adopted it reaps it in its own time.
    while alive(grandchild) and time.monotonic() < until:
        state = Path(f"/proc/{grandchild}/stat")
        if not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.02)
    assert not alive(grandchild)


def test_a_launcher_that_does_not_start_is_said(tmp_path: Path) -> None:
    for launcher, text in (
        ((str(tmp_path / "absent"),), "cannot be started"),
        (
            (sys.executable, "-c", "raise SystemExit(7)"),
            "its process did not come up: program: its process ended with code 7",
        ),
    ):
        with (
            pytest.raises(ProgramError, match=text) as raised,
            ProgramProcess(tmp_path / "program.py", launcher=launcher) as process,
        ):
            process.wait()
        assert raised.value.kind == "start"


def test_secrets_of_the_environment_stay_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("TRITON_CACHE_DIR", "/cache")
    monkeypatch.setenv("PYTHONPATH", "/site")
    wanted = ("OPENAI_API_KEY", "TRITON_CACHE_DIR", "OMP_NUM_THREADS")
    # Our folder comes first: what a program is run by must not be another copy.
    tail = f"""
    ours, theirs = os.environ["PYTHONPATH"].split(os.pathsep)
    told = [os.environ.get(name) for name in {wanted!r}]
    channel.send({{'error': f"{{told}} {{theirs}} {{os.path.isdir(os.path.join(ours, 'gpu_eval'))}}"}})
    """
    with misbehaving(tmp_path, tail) as process:
        process.load()
        with pytest.raises(ProgramError, match=r"program: \[None, '/cache', '1'\] /site True"):
            process.call(LOADS, SHAPE)


def test_transport_is_a_line_through_two_sizes() -> None:
    transport = Transport((100, 300), (0.1, 0.2))
    assert [transport.of(size) for size in (100, 200, 300, 400)] == pytest.approx([0.1, 0.15, 0.2, 0.25])
    assert Transport((100, 300), (0.2, 0.1)).of(1000) == 0.1, "more bytes never cost less"
    assert Transport((5, 5), (0.2, 0.1)).of(9) == 0.1


class FakeProcess:
    """Rounds that took what a list says."""

    def __init__(self, rounds: Sequence[tuple[float, float]], track: str = "host") -> None:
        self.name, self.track, self.gpu = "fake", track, ""
        self.rounds = iter(rounds)
        phy2log = np.array([[0, 1, 2, 3, 4, 5, 0, 1]] * 2)
        log2phy = np.array([[[0, 6], [1, 7], [2, -1], [3, -1], [4, -1], [5, -1]]] * 2)
        self.maps = (phy2log, log2phy, np.array([[2, 2, 1, 1, 1, 1]] * 2))

    def transport(self, weights: Any, layout: Any) -> Transport:
        return Transport((0, 1), (0.01, 0.01), slack_s=0.004)

    def load(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def inspect(self, weight: Any, shape: Shape, seed: int) -> tuple[str, ...]:
        return "altered input: call 1: its values", "threads left alive: 2"

    def call(self, weights: Any, shape: Shape) -> Round:
        wall, child = next(self.rounds, (1.0, 1.0))
        return Round((self.maps,) * len(weights), wall, (child / len(weights),) * len(weights))


def side(rounds: Sequence[tuple[float, float]], track: str = "host") -> tuple[Any, Findings]:
    findings = Findings()
    process: Any = FakeProcess([(1, 1)] * 2 + list(rounds), track)
    return _Side(process, SHAPE, _Loads(LOADS, 0), [], 2, findings), findings


def test_the_figure_is_the_parents_clock_less_transport_on_the_host() -> None:
    assert side([(0.11, 0.09)])[0].round((0,)) == pytest.approx(0.05)
    assert side([(0.005, 0.004)])[0].round((0,)) == 0.002, "no call is faster than it says itself"


def test_the_figure_is_the_childs_within_the_parents_bound_on_the_device() -> None:
    assert side([(0.11, 0.098)], "device")[0].round((0,)) == pytest.approx(0.049)
    assert side([(0.11, 0.0)], "device")[0].round((0,)) == pytest.approx((0.11 - 0.01 - 0.004) / 2)


@pytest.mark.parametrize(
    ("rounds", "caught"),
    [
        ([(0.11, 0.05), (0.11, 0.1)] * 6, True),
        ([(0.11, 0.05), (0.11, 0.1), (0.11, 0.1)] * 6, False),
        ([(0.11, 0.05)] * 6, True),
        ([(0.11, 0.05)] * 5, False),
        ([(0.015, 0.001)] * 6, False),
        ([(1.01, 0.95)] * 6, False),
        ([(0.0175, 0.001)] * 6, False),
    ],
)
def test_a_child_that_tells_less_time_in_half_of_its_rounds_is_found(rounds: Any, caught: bool) -> None:
    measured, findings = side(rounds)
    for _ in rounds:
        measured.round((0,))
    measured.finish()
    assert [sentence.split(":")[0] for sentence in findings.sentences()] == ["clocks disagree"] * caught


def test_answers_in_a_row_must_be_those_one_by_one() -> None:
    measured, findings = side([])
    count = 0

    def moody(weights: Any, shape: Shape) -> Round:
        nonlocal count
        count += 1
        phy2log, *rest = measured._process.maps
        return Round(((phy2log + (count == 2), *rest),) * len(weights), 1.0, (0.5,) * len(weights))

    measured._process.call = moody
    measured.finish()
    assert findings.sentences() == ("differing answers: 1 of 2 answers of calls in a row are others one by one",)


def test_an_invalid_answer_of_a_timed_round_is_found() -> None:
    measured, findings = side([(0.11, 0.1)])
    measured._process.maps[0][1, 7] = 5
    measured.round((0,))
    assert findings.sentences()[0].startswith("invalid output: layer 1, expert 1: expert_count is 2, its slots are 1")


def test_loads_are_fresh_and_repeatable() -> None:
    draw = _Loads([*LOADS, LOADS[0].astype(np.float32)], 3)
    first, second = draw((1, 2), 2)
    assert [first.dtype, second.dtype] == [np.float32, np.int64]
    assert np.array_equal(draw((1, 2), 1)[0], first)
    assert not np.array_equal(first, second)


def test_what_is_scouted_is_the_widest_answer_and_what_it_was_caught_at() -> None:
    process: Any = FakeProcess([])
    findings = Findings("baseline: ")
    assert _scout(process, SHAPE, _Loads(LOADS, 0), 2, findings) == [
        ("<i8", (2, 8)),
        ("<i8", (2, 6, 2)),
        ("<i8", (2, 6)),
    ]
    assert findings.sentences() == ("baseline: altered input: call 1: its values", "baseline: threads left alive: 2")
    assert process.closed


def test_a_first_answer_that_is_no_placement_ends_the_measurement() -> None:
    process: Any = FakeProcess([])
    process.maps = (process.maps[0], process.maps[0], process.maps[2])
    with pytest.raises(ProgramError, match="fake: logical_to_physical is 2x8, expected 2x6xwidth") as raised:
        _scout(process, SHAPE, _Loads(LOADS, 0), 2, Findings())
    assert raised.value.kind == "output"


def test_nothing_to_measure_is_refused(honest: Path) -> None:
    with pytest.raises(ValueError, match="at least one of each"):
        measure_program(honest, SHAPE, [], baseline=honest)
