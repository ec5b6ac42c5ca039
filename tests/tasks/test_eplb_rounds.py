"""The task eplb in this process, adapter and referee: what programs are told, refused for, and what their time is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from adrs_ray.private_import import import_private
from adrs_ray.task import (
    Case,
    CaseResult,
    Combined,
    InvalidOutput,
    MalformedOutput,
    RewardHacking,
    UsageError,
    load_task,
    repository_root,
)
from gpu_eval.balance import slot_balance
from gpu_eval.shapes import Shape
from gpu_eval.workloads import REGIMES, generate

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

TASK = load_task("eplb")
HOST = TASK.in_stage("host")
ADAPTER, GAME, JUDGE, ODD, PROBLEMS, RECORDED, SCORING, YARDSTICK = (
    import_private(TASK.folder, name)
    for name in ("adapter", "game", "judge", "odd", "problems", "recorded", "scoring", "yardstick")
)

STRONG = TASK.seeds()["strong"].read_text()
"""Quick enough for small problems, and the yardstick of these tests: it compiles nothing."""

PREFILL = Shape(4, 16, 24, 8, 2, 4)
DECODE = Shape(4, 16, 24, 8, 2)


def problem(shape: Shape, seed: int) -> Any:
    transitions = []
    for index in range(2):
        now, following = generate(REGIMES["trt"], shape.layers, shape.experts, 2, (99, seed, index)).counts
        transitions.append(PROBLEMS.transition(now, following, shape))
    return PROBLEMS.Problem(f"small {seed}", shape, tuple(transitions))


SMALL = (problem(PREFILL, 0), problem(DECODE, 1), problem(PREFILL, 2))


def small_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three small problems in every split, timed against the strong seed."""
    namespace: dict[str, Any] = {}
    exec(compile(STRONG, "strong", "exec"), namespace)
    monkeypatch.setattr(YARDSTICK, "_program", lambda: (torch, namespace["rebalance_experts"]))
    for module in (JUDGE, SCORING):
        monkeypatch.setattr(module, "problems", lambda split: SMALL)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_problems(monkeypatch)


def rounds(source: str, case: Case, stage: Any = HOST.judge, program: Any = None) -> Iterator[tuple[Any, Any]]:
    """Every observation of a game with what the program's side answered; then the end and the referee's result."""
    program = program or ADAPTER.load(source)
    game = stage.referee(case)
    observation = next(game)
    while True:
        answer = ADAPTER.act(program, observation)
        yield observation, answer
        try:
            observation = game.send(answer)
        except StopIteration as end:
            yield None, end.value
            return


def play(source: str, case: Case, stage: Any = HOST.judge, program: Any = None) -> Any:
    """What the referee makes of a program."""
    *_, (_, played) = rounds(source, case, stage, program)
    return played


def judged(source: str, stage: Any = HOST.judge, split: str = "train") -> Combined:
    program = ADAPTER.load(source)
    results = [CaseResult(c.id, stage.score(c, play(source, c, stage, program)), 0.1, 0.2) for c in stage.cases(split)]
    combined = stage.combine(results)
    assert isinstance(combined, Combined)
    return combined


def cases() -> list[Case]:
    return list(HOST.judge.cases("train"))


def wrapping(body: str, top: str = "") -> str:
    """A program that gives what `body` makes of `placed, inverse, counts`, the maps of the strong seed."""
    return (
        STRONG.replace("def rebalance_experts(", "def strong(")
        + f"\n{top}\n\ndef rebalance_experts(weight, num_replicas, num_groups, num_nodes, num_gpus):\n"
        + "    placed, inverse, counts = strong(weight, num_replicas, num_groups, num_nodes, num_gpus)\n"
        + "".join(f"    {line}\n" for line in body.splitlines())
    )


EVERY_SLOT_FOR_EVERY_EXPERT = wrapping(
    "every = torch.arange(num_replicas).expand(*weight.shape, num_replicas)\n"
    "return placed, every, torch.full_like(counts, num_replicas)"
)
FOUR_DIMENSIONS = wrapping(
    "every = torch.arange(num_replicas).expand(weight.shape[0], weight.shape[1], 1, num_replicas)\n"
    "return placed, every, counts"
)
"""The two answers that drive public evaluators to a perfect score."""

WRONG: dict[str, tuple[str, type[Exception], str]] = {
    "every slot for every expert": (EVERY_SLOT_FOR_EVERY_EXPERT, MalformedOutput, "expert_count is 24.*at most 9"),
    "a map of four dimensions": (FOUR_DIMENSIONS, MalformedOutput, "logical_to_physical is .*1, 24"),
    "nothing": (wrapping("return None"), MalformedOutput, "returned a NoneType"),
    "two maps": (wrapping("return placed, inverse"), MalformedOutput, "returned a tuple of 2"),
    "numpy arrays": (
        wrapping("return placed.numpy(), inverse, counts"),
        MalformedOutput,
        "physical_to_logical is a ndarray, expected a plain torch.Tensor",
    ),
    "a subclass": (
        wrapping("return Own(placed), inverse, counts", "class Own(torch.Tensor):\n    pass"),
        MalformedOutput,
        "physical_to_logical is a Own, expected a plain torch.Tensor",
    ),
    "floats": (wrapping("return placed.double(), inverse, counts"), MalformedOutput, "float64, expected int64"),
    "bytes": (wrapping("return placed.to(torch.uint8), inverse, counts"), MalformedOutput, "uint8, expected int64"),
    "another shape": (wrapping("return placed.t(), inverse, counts"), MalformedOutput, "24x4, expected 4x24"),
    "a lost expert": (
        wrapping("placed[2][placed[2] == 5] = 6\nreturn placed, inverse, counts"),
        InvalidOutput,
        "layer 2, expert 5: expected in at least one slot",
    ),
    "a made-up expert": (
        wrapping("placed[1, 3] = 16\nreturn placed, inverse, counts"),
        InvalidOutput,
        "layer 1: slot 3 holds expert 16, expected 0 to 15",
    ),
    "an expert that 16 bits take for another": (
        wrapping("placed[1, 3] += 65536\nreturn placed, inverse, counts"),
        InvalidOutput,
        "named experts or slots that cannot exist",
    ),
    "a wrong count": (wrapping("counts[0, 0] += 1\nreturn placed, inverse, counts"), InvalidOutput, "expert_count is"),
    "swapped slots": (
        wrapping("inverse[0, [0, 1]] = inverse[0, [1, 0]]\nreturn placed, inverse, counts"),
        InvalidOutput,
        "logical_to_physical",
    ),
    "junk behind the copies": (
        wrapping("more = torch.nn.functional.pad(inverse, (0, 1), value=3)\nreturn placed, more, counts"),
        InvalidOutput,
        "is not -1 after the copies",
    ),
    "a placement that was meant for another load": (
        wrapping("return LAST", "LAST = None").replace(
            "    return LAST", "    global LAST\n    LAST = LAST or (placed, inverse, counts)\n    return LAST"
        ),
        InvalidOutput,
        "lies in the memory of an earlier call's",
    ),
    "one buffer for all": (
        wrapping(
            "inverse = torch.nn.functional.pad(inverse, (0, 9 - inverse.shape[2]), value=-1)\n"
            "return [FIRST.setdefault(n, part).copy_(part) for n, part in enumerate((placed, inverse, counts))]",
            "FIRST = {}",
        ),
        InvalidOutput,
        "physical_to_logical lies in the memory of an earlier call's physical_to_logical",
    ),
    "its input's memory": (
        wrapping("own = weight.view(torch.int16).view(-1)[: counts.numel()].view_as(counts)\n"
                 "return placed, inverse, own.copy_(counts)"),
        InvalidOutput,
        "altered its input",
    ),
    "altered input": (wrapping("weight += 1\nreturn placed, inverse, counts"), InvalidOutput, "altered its input"),
    "a thread left alive": (
        wrapping(
            "threading.Thread(target=time.sleep, args=(0.3,), daemon=True, name='late').start()\n"
            "return placed, inverse, counts",
            "import threading, time",
        ),
        InvalidOutput,
        "threads are alive after the program has returned: late",
    ),
    "groups apart": (
        "import torch\n" + STRONG.replace("if num_groups % num_nodes != 0:", "if True:"),
        InvalidOutput,
        r"slots are off the node of their group; groups must stay on one node each, 2 per node",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_placement_is_refused_in_a_line(name: str) -> None:
    source, kind, message = WRONG[name]
    with pytest.raises(kind, match=message) as raised:
        play(source, cases()[0])
    assert "\n" not in str(raised.value)


def test_groups_do_not_count_in_decode() -> None:
    assert not SMALL[1].grouped
    play(WRONG["groups apart"][0], cases()[1])


@pytest.mark.parametrize("dtype", ["int32", "int16"])
def test_smaller_integers_wider_maps_and_lists_will_do(dtype: str) -> None:
    kind = f"torch.{dtype}"
    wide = "torch.nn.functional.pad(inverse, (0, 9 - inverse.shape[2]), value=-1)"
    source = wrapping(f"return [placed.to({kind}), {wide}.to({kind}), counts.to({kind}).t().contiguous().t()]")
    assert judged(source).metrics["quality"] == judged(STRONG).metrics["quality"]


def test_quality_does_not_depend_on_speed_or_chance() -> None:
    slow = wrapping("time.sleep(0.06)\nreturn placed, inverse, counts", "import time")
    first, again, late = judged(STRONG), judged(STRONG), judged(slow)
    for name in ("quality", "next_window_balance", "same_window_balance", "paper_balancedness", "duplicates"):
        assert first.metrics[name] == again.metrics[name] == late.metrics[name]
    assert late.metrics["host_ms"] > 60
    assert late.metrics["time_credit"] < first.metrics["time_credit"]
    assert first.score <= first.metrics["score_bound"]


def test_the_time_of_a_round_is_the_referees() -> None:
    patches = (
        "import sys\n"
        "for name, module in list(sys.modules.items()):\n"
        "    if name.endswith('.adapter') and hasattr(module, '_play'):\n"
        "        module._play.__defaults__ = (lambda: 0,)\n"
    )
    slow = wrapping("deadline = real() + 0.06\nwhile real() < deadline: pass\nreturn placed, inverse, counts",
                    "import time\nreal = time.monotonic\n" + patches)  # fmt: skip
    default = ADAPTER._play.__defaults__
    try:
        with pytest.raises(RewardHacking, match="clock does not tell the time"):
            judged(slow)
        quick = judged(STRONG + patches)  # what there is to gain by a lie is bounded, so it is no crime
    finally:
        ADAPTER._play.__defaults__ = default
    assert quick.metrics["host_ms"] > 0.1


def test_no_code_of_a_program_runs_before_the_rehearsals_are_over() -> None:
    source = "import sys\nsys._eplb_loaded = True\n" + STRONG
    program = ADAPTER.load(source)
    assert not hasattr(sys, "_eplb_loaded")
    seen = []
    try:
        for observation, _ in rounds(source, cases()[0], program=program):
            if observation is not None:
                seen.append((observation["op"], hasattr(sys, "_eplb_loaded")))
    finally:
        if hasattr(sys, "_eplb_loaded"):
            del sys._eplb_loaded
    ops = [op for op, _ in seen]
    last = len(ops) - 1 - ops[::-1].index("rehearse")
    assert ops[: last + 1] == ["rehearse"] * (last + 1)
    assert not any(loaded for _, loaded in seen[: last + 1])
    assert ops[last + 1] == "load"
    assert set(ops[last + 2 :]) == {"rebalance", "inspect"}
    assert "rehearse" not in [o["op"] for o, _ in rounds(STRONG, cases()[1]) if o is not None]


def test_no_input_comes_twice_and_no_next_window_comes_at_all() -> None:
    for case in cases():
        told = [
            window.astype(np.int64).tobytes()
            for observation, _ in rounds(STRONG, case)
            if observation is not None and observation["op"] == "rebalance"
            for window in observation["weights"]
        ]
        assert len(set(told)) == len(told) > GAME.ROUNDS
        for each in case.hidden.what.transitions:
            assert told.count(each.now.tobytes()) == 1
            assert each.following.tobytes() not in told


def test_results_that_are_kept_are_never_asked_for_again() -> None:
    keeps = wrapping(
        "key = weight.numpy().tobytes()\nassert key not in KEPT, 'the same input again'\nKEPT.add(key)\n"
        "return placed, inverse, counts",
        "KEPT = set()",
    )
    judged(keeps)


def test_a_program_that_fails_raises_through_the_adapter() -> None:
    with pytest.raises(ZeroDivisionError):
        play(wrapping("return 1 // 0"), cases()[0])
    with pytest.raises(ADAPTER.InterfaceError, match="must define rebalance_experts"):
        play("def rebalance(weight):\n    pass\n", cases()[0])
    with pytest.raises(SyntaxError):
        ADAPTER.load("def rebalance_experts(:")


@pytest.mark.parametrize(
    "reply",
    [
        None,
        3,
        [],
        {},
        {"answers": [], "seconds": np.zeros(1)},
        {"answers": ["x"], "seconds": [0.0]},
        {"answers": ["x"], "seconds": np.array([np.nan])},
        {"answers": ["x"], "seconds": np.array([-1.0])},
        {"answers": ["x"], "seconds": np.zeros(1, np.float32)},
        {"answers": [3], "seconds": np.zeros(1)},
        {"answers": [[1, 2, 3]], "seconds": np.zeros(1)},
        {"answers": [[np.zeros((4, 24), np.int16)] * 3], "seconds": np.zeros(1)},
        {"answers": [{"a": 1}], "seconds": np.zeros(1)},
    ],
)
def test_replies_that_no_adapter_makes_are_malformed(reply: Any) -> None:
    game = HOST.judge.referee(cases()[1])  # type: ignore[attr-defined]
    assert next(game)["op"] == "load"
    assert game.send(0)["op"] == "rebalance"
    with pytest.raises((MalformedOutput, InvalidOutput)):
        game.send(reply)


@pytest.mark.parametrize("findings", [None, 3, {"a": 1}, "line"])
def test_findings_that_no_adapter_makes_are_malformed(findings: Any) -> None:
    game = HOST.judge.referee(cases()[1])  # type: ignore[attr-defined]
    observation = next(game)
    program = ADAPTER.load(STRONG)
    while observation["op"] != "inspect":
        observation = game.send(ADAPTER.act(program, observation))
    with pytest.raises(MalformedOutput, match="expected a list of findings"):
        game.send(findings)


def test_the_device_stage_plays_the_same_game() -> None:
    device = JUDGE.Stage("device", "cpu", 50e-6)
    combined = judged(STRONG, device)
    assert combined.metrics["quality"] == judged(STRONG).metrics["quality"]
    assert combined.metrics["device_ms"] > 0
    assert "host_ms" not in combined.metrics
    assert TASK.judge_of("device").device == "cuda"  # type: ignore[attr-defined]


def test_maps_on_another_device_are_refused() -> None:
    source = wrapping("return placed.to('meta'), inverse, counts")
    with pytest.raises(MalformedOutput, match="physical_to_logical is on meta, expected on cpu"):
        play(source, cases()[0])


def worth(source: str) -> dict[str, float]:
    case = next(case for case in HOST.judge.cases("stress") if case.id == "stress-odd")
    played = play(source, case)
    assert set(HOST.judge.score(case, played)) == {"quality"}
    return dict(played["odd"])


def test_the_policy_for_odd_inputs() -> None:
    strict = worth(STRONG)
    refused = {each.name for each in ODD.odd_inputs() if each.shape is None}
    assert all(strict[name] == 1.0 for name in refused)
    assert all(0.5 < value <= 1.0 for value in strict.values())
    silent = wrapping("return placed, inverse, counts").replace(
        "    if not (np.isfinite(load).all() and load.min() >= 0):\n",
        "    load = np.nan_to_num(abs(load))\n    if False:\n",
    )
    lax = worth(silent)
    not_numbers = {name for name in refused if "divide" not in name and "fewer" not in name}
    assert {name for name, value in lax.items() if value == 0.0} == not_numbers
    timid = worth(wrapping("assert weight.dtype == torch.int64, 'counts only'\nreturn placed, inverse, counts"))
    assert timid["bfloat16"] == timid["not contiguous float32"] == 0.0
    assert timid["all zero"] == 1.0


def test_an_odd_input_with_a_broken_answer_fails_the_program() -> None:
    loses = wrapping("if counts.max() > 4: placed[:] = 0\nreturn placed, inverse, counts")
    with pytest.raises(InvalidOutput, match="odd input: layer 0, expert 1: expected in at least one slot"):
        worth(loses)


@pytest.mark.parametrize("name", ["weak", "medium", "strong", "spread", "deepseek"])
def test_seeds_and_plain_baselines_run_on_all_inputs(name: str) -> None:
    source = TASK.programs()[name].read_text()
    assert 0 < judged(source).score < 1
    values = worth(source)
    assert values["all zero"] == values["one GPU"] == 1.0
    assert sum(value == 0.0 for value in values.values()) <= 5


def test_seeds_stand_between_the_trivial_and_a_good_one() -> None:
    spread, weak, medium, strong = (
        judged(TASK.programs()[name].read_text()).metrics["quality"] for name in ("spread", "weak", "medium", "strong")
    )
    assert spread < weak < medium
    assert medium == pytest.approx(strong, abs=0.01)


def test_a_missing_yardstick_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    def broken() -> Any:
        raise ValueError("heap_lpt needs numba")

    monkeypatch.setattr(YARDSTICK, "BASELINES", {"heap_lpt": type("Lacking", (), {"load": staticmethod(broken)})})
    YARDSTICK._program.cache_clear()
    with pytest.raises(UsageError, match="task eplb times programs against heap_lpt: heap_lpt needs numba"):
        YARDSTICK.ready([PREFILL])


def paper(source: str, transitions: int) -> dict[str, float]:
    """The public figures over the first transitions."""
    judge = load_task("eplb", scoring="paper").in_stage("host").judge
    case = judge.cases("test")[0]
    short = Case(case.id, case.seed, None, case.hidden[:transitions])
    score: Callable[..., Any] = judge.score
    return dict(score(short, play(source, short, judge)))


def needs_recorded() -> Any:
    found = RECORDED.recorded_problem()
    if found is None:
        pytest.skip("needs eplb_deepseek_loads.npz: set ADRS_DATA_DIR or run `adrs data pull eplb`")
    return found


def test_the_public_figures_on_recorded_loads() -> None:
    problem = needs_recorded()
    namespace: dict[str, Any] = {}
    exec(compile(STRONG, "strong", "exec"), namespace)
    balances = []
    for each in problem.transitions:
        placed = namespace["rebalance_experts"](torch.from_numpy(each.now), *problem.sizes)[0].numpy()
        balances.append(slot_balance(placed, each.following))
    assert np.mean(balances) == pytest.approx(0.286731, abs=2e-6)
    assert balances[0] == pytest.approx(0.3410016052206762, abs=2e-6)
    found = paper(STRONG, 1)
    assert found["paper_balancedness"] == pytest.approx(balances[0], abs=1e-6)
    assert found["seconds"] > 0


def test_the_public_evaluator_believes_what_the_sound_one_refuses() -> None:
    needs_recorded()
    assert paper(EVERY_SLOT_FOR_EVERY_EXPERT, 1)["paper_balancedness"] == pytest.approx(1.0, abs=1e-6)
    assert paper("def rebalance_experts(*_):\n    return 1 // 0\n", 1) == {"paper_balancedness": 0.0, "seconds": 0.0}


def test_the_untrusted_side_imports_neither_the_judge_nor_the_system() -> None:
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(repository_root() / 'adrs_ray')!r})\n"
        "from pathlib import Path\n"
        "from private_import import import_private\n"
        f"adapter = import_private(Path({str(TASK.folder)!r}), 'adapter')\n"
        "for part in ('judge', 'game', 'problems', 'odd', 'yardstick', 'gpu_eval', 'adrs_ray'):\n"
        "    print([m for m in sys.modules if part in m.split('.')], end='')\n"
        "import os\n"
        "print(len(os.listdir('/proc/self/task')))\n"
    )
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=alone).stdout
    assert out == "[]" * 7 + "1\n", "and importing it starts no thread"
