"""What programs cost by a clock of our own, and every trick that makes them look cheaper."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from gpu_eval.call_watch import CallWatch, tensors_in, thread_ids  # noqa: E402
from gpu_eval.findings import Findings  # noqa: E402
from gpu_eval.invariants import PlacementError  # noqa: E402
from gpu_eval.paired import PairedTiming  # noqa: E402
from gpu_eval.timing import Instruments, _Bench, _Side, fresh, time_pairs  # noqa: E402

LOAD = np.arange(24, dtype=np.int64).reshape(2, 12) * 1000
MS = 1_000_000


class Clock:
    """Time passes only when a program says so."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


class Program:
    """Costs `ms`, answers three sums of its input."""

    def __init__(self, clock: Clock, ms: Callable[[], float]) -> None:
        self.clock = clock
        self.ms = ms
        self.calls = 0
        self.seen: list[Any] = []

    def __call__(self, weight: Any) -> Any:
        self.calls += 1
        self.seen.append(weight)
        self.clock.now += int(self.ms() * MS)
        return weight + 1, weight.sum(0), weight.sum(1)


def timed(candidate: Any = None, baseline: Any = None, clock: Clock | None = None, **options: Any) -> PairedTiming:
    clock = clock or Clock()
    instruments = Instruments(clock=clock, rest=options.pop("rest", lambda: None))
    options = {"pairs": 4, "calls": 2, "warmup": 1, "limit_s": 1.0, "instruments": instruments} | options
    return time_pairs(
        candidate or Program(clock, lambda: 2.0), baseline or Program(clock, lambda: 4.0), [LOAD], **options
    )


@pytest.mark.parametrize("track", ["host", "device"])
def test_constant_costs_are_found_exactly(track: Any) -> None:
    timing = timed(track=track, device="cpu")
    assert timing.candidate.median_s == pytest.approx(0.002)
    assert timing.baseline.p90_s == pytest.approx(0.004)
    assert (timing.ratio, timing.reached, timing.note, timing.findings) == (0.5, True, "", ())
    assert timing.candidate.calls == 4 * 2 * 2


def test_drift_cancels_in_the_ratio() -> None:
    clock = Clock()

    def slower() -> float:
        return 1 + clock.now / (60 * MS)

    timing = timed(Program(clock, slower), Program(clock, slower), clock=clock, pairs=12)
    assert timing.candidate.p90_s > 1.2 * timing.candidate.median_s
    assert timing.ratio == pytest.approx(1, abs=0.02)


def test_compilation_is_off_the_clock() -> None:
    clock = Clock()
    program = Program(clock, lambda: 500.0 if program.calls <= 3 else 2.0)
    assert timed(program, clock=clock, warmup=3).candidate.p90_s == pytest.approx(0.002)


def test_pairs_are_added_until_the_ratio_is_known_or_time_is_up() -> None:
    def noise(clock: Clock, seed: int) -> Program:
        rng = np.random.default_rng(seed)
        return Program(clock, lambda: 2 + abs(rng.normal()))

    clock = Clock()
    more = timed(noise(clock, 0), noise(clock, 1), clock=clock, limit_s=1e9)
    assert (more.pairs, more.reached) == (16, False)
    clock = Clock()
    assert timed(noise(clock, 0), noise(clock, 1), clock=clock, limit_s=0).pairs == 4
    assert timed(limit_s=1e9).pairs == 4


def test_every_call_has_values_and_memory_of_its_own_and_both_programs_the_same_values() -> None:
    clock = Clock()
    candidate, baseline = Program(clock, lambda: 1.0), Program(clock, lambda: 1.0)
    timed(candidate, baseline, clock=clock)
    timed_calls = slice(1, 1 + 16)
    assert sorted(w.sum().item() for w in candidate.seen[timed_calls]) == sorted(
        w.sum().item() for w in baseline.seen[timed_calls]
    )
    held = candidate.seen[timed_calls] + baseline.seen[timed_calls]
    assert len({weight.data_ptr() for weight in held}) == 32
    assert len({weight.numpy().tobytes() for weight in candidate.seen[timed_calls]}) == 16
    assert all((weight.numpy() >= LOAD).all() and (weight.numpy() <= LOAD + 11).all() for weight in held)


def test_inputs_keep_their_type() -> None:
    for dtype in (torch.int32, torch.bfloat16, torch.float64):
        base = torch.ones(4, 6, dtype=dtype).t()
        drawn = fresh(base, torch.device("cpu"), (0,))
        assert (drawn.dtype, drawn.shape) == (dtype, base.shape)
        assert not torch.equal(drawn, base)
        assert base.eq(1).all()


def found(timing: PairedTiming) -> list[str]:
    return [sentence.split(":")[0] for sentence in timing.findings]


def test_an_answer_from_memory_is_found() -> None:
    clock = Clock()
    memory: dict[bytes, Any] = {}

    def remembering(weight: Any) -> Any:
        key = weight.numpy().tobytes()
        clock.now += (1 if key in memory else 10) * MS
        memory[key] = weight + 1
        return weight + 1

    timing = timed(remembering, clock=clock)
    assert found(timing) == ["cached results"]
    assert "90% faster" in timing.findings[0]
    assert timing.candidate.median_s == pytest.approx(0.01), "no timed call sees values twice"
    memory.clear()
    assert timed(remembering, clock=clock, probe=False).findings == ()


def test_a_buffer_that_the_next_call_overwrites_is_found() -> None:
    buffer = torch.zeros(2, 12, dtype=torch.int64)

    def borrowing(weight: Any) -> Any:
        buffer.copy_(weight)
        return (buffer,)

    timing = timed(borrowing)
    assert found(timing) == ["borrowed buffers"]
    assert "call 2 changed the answer to the call before" in timing.findings[0]
    assert "times" in timing.findings[0]


def test_one_buffer_for_equal_answers_is_found() -> None:
    constant = torch.arange(5)
    timing = timed(lambda weight: [constant])
    assert found(timing) == ["borrowed buffers"]
    assert "in the memory of the answer before" in timing.findings[0]


def test_the_input_handed_back_is_found() -> None:
    timing = timed(lambda weight: (weight[0],))
    assert found(timing) == ["borrowed buffers"]
    assert "in the memory of its input" in timing.findings[0]


def test_work_that_ends_after_the_return_is_found() -> None:
    pending: list[Any] = []

    def later(weight: Any) -> Any:
        answer = torch.zeros_like(weight)
        pending.append((answer, weight))
        return answer

    def rest() -> None:
        for answer, weight in pending:
            answer.copy_(weight)
        pending.clear()

    assert "work in flight" in found(timed(later, rest=rest))
    assert "work in flight" not in found(timed(later))


def test_a_thread_that_outlives_its_call_is_found() -> None:
    ends = threading.Event()
    started: list[threading.Thread] = []

    def forking(weight: Any) -> Any:
        started.append(threading.Thread(target=ends.wait))
        started[-1].start()
        return weight + 1

    try:
        assert found(timed(forking)) == ["threads left alive"]
    finally:
        ends.set()
        for thread in started:
            thread.join()


def test_a_thread_of_the_warm_up_is_none() -> None:
    ends = threading.Event()
    pool: list[threading.Thread] = []

    def pooled(weight: Any) -> Any:
        if not pool:
            pool.append(threading.Thread(target=ends.wait))
            pool[0].start()
        return weight + 1

    try:
        assert timed(pooled).findings == ()
    finally:
        ends.set()
        pool[0].join()


def test_threads_that_watching_starts_are_not_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    alive = {1}
    findings = Findings()
    watch = CallWatch(findings, lambda: None, lambda: frozenset(alive))
    monkeypatch.setattr(watch, "_copy", lambda tensor: alive.add(len(alive) + 1) or tensor.clone())
    weight = torch.ones(2, 3)
    for _ in range(2):
        watch.before(weight)
        watch.after((weight + 1,))
    assert findings.sentences() == ()


def test_on_a_gpu_the_clock_runs_between_two_waits_and_events_are_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: str) -> None:
            seen.append(f"record on {stream}")

        def elapsed_time(self, end: Any) -> float:
            return 3.0

    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: seen.append("wait"))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "current")
    clock = Clock()

    def noting() -> int:
        seen.append("clock")
        return clock.now

    bench = _Bench([LOAD], torch.device("cpu"), Instruments(clock=noting))
    bench.cuda = True
    side = _Side(lambda weight: seen.append("call"), bench, None, "")
    side.call((0,))
    assert seen == ["wait", "clock", "call", "wait", "clock"]
    seen.clear()
    assert side.events((0,)) == 0.003
    assert seen == ["wait", "record on current", "call", "record on current", "wait"]


@pytest.mark.parametrize("touch", [lambda w: w.add_(1), lambda w: w.numpy().fill(0)])
def test_an_altered_input_is_found(touch: Any) -> None:
    def altering(weight: Any) -> Any:
        answer = weight + 1
        touch(weight)
        return answer

    assert found(timed(altering)) == ["altered input"]


def test_an_invalid_answer_is_found_and_told_of_once() -> None:
    def verify(outputs: Any, weight: Any) -> None:
        if outputs[0][0, 0] == weight[0, 0] + 1:
            raise PlacementError("range", "too high", layer=0)

    timing = timed(verify=verify)
    assert timing.findings == (
        "invalid output: call 1: layer 0: too high (16 times)",
        "baseline: invalid output: call 1: layer 0: too high (16 times)",
    )


def test_what_a_baseline_does_is_told_apart() -> None:
    constant = torch.arange(5)
    assert timed(None, lambda weight: constant).findings[0].startswith("baseline: borrowed buffers")


def test_the_collector_rests_while_timing_and_comes_back() -> None:
    import gc

    states: list[bool] = []
    timed(lambda weight: states.append(gc.isenabled()))
    assert set(states) == {False}
    assert gc.isenabled()


def test_nothing_to_measure_is_refused() -> None:
    clock = Clock()
    program = Program(clock, lambda: 1.0)
    for inputs, options in (([], {}), ([LOAD], {"pairs": 0}), ([LOAD], {"calls": 0})):
        with pytest.raises(ValueError, match="expected at least one of each"):
            time_pairs(program, program, inputs, **options)


def test_a_real_clock_orders_two_programs() -> None:
    def work(rounds: int) -> Any:
        return lambda weight: sum(weight.double().exp().sum() for _ in range(rounds)).reshape(1)

    timing = time_pairs(work(2), work(200), [LOAD], pairs=3, calls=2, limit_s=0)
    assert timing.ratio < 0.5
    assert 0 < timing.candidate.low_s <= timing.candidate.high_s


def test_answers_of_all_kinds_are_looked_through() -> None:
    array = np.arange(3)
    nest = {"a": (array, [torch.ones(2)]), "b": None, "c": "text"}
    assert [tuple(tensor.shape) for tensor in tensors_in(nest)] == [(3,), (2,)]
    assert tensors_in(nest)[0].data_ptr() == array.ctypes.data


def test_threads_are_counted_where_the_kernel_tells(tmp_path: Any) -> None:
    assert threading.get_native_id() in thread_ids()
    assert thread_ids(tmp_path / "absent") == frozenset()
