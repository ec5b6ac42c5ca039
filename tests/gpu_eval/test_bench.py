"""The two benches from the command line to the page, on shapes small enough for a test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from gpu_eval import bench_eplb, bench_moe, selftest
from gpu_eval.__main__ import main
from gpu_eval.bench_eplb import EplbOptions, Problem, Timed, measured, problems
from gpu_eval.bench_moe import MoeOptions
from gpu_eval.bench_options import default_folder, programs_of, regimes_of, shapes_of
from gpu_eval.maps import maps
from gpu_eval.recorded import save_recorded
from gpu_eval.registry import BASELINES, Baseline
from gpu_eval.results import Interval, read_results
from gpu_eval.shapes import SHAPES, Shape
from gpu_eval.workloads import REGIMES, LoadTrace, generate

pytestmark = pytest.mark.torch
SMALL = Shape(2, 16, 24, 4, 2, 4)
FREE = Shape(2, 16, 24, 4)
TORCH_ONLY = ("deepseek", "paper_zigzag")

NEVER = """
def init(config):
    return config["layers"]


def step(state, load_window, placement):
    assert load_window.shape[1] == state
    return state, None
"""


class Fixed:
    """A rule that always gives the same maps."""

    name, kind, grouped = "fixed", "program", (False,)

    def __init__(self, placed, counts=None):
        self._placed, self._counts = placed, counts

    def answers(self, weights, shape, grouped):
        inverse, counts = maps(self._placed, shape.experts)
        return [(self._placed, inverse, counts if self._counts is None else self._counts)] * len(weights)

    def timed(self, weights, shape, grouped, device):
        return Timed(Interval(1.0, 0.5, 2.0), ("cached results: on purpose",))


def in_order() -> np.ndarray:
    return np.tile(np.arange(SMALL.slots) % SMALL.experts, (SMALL.layers, 1))


def one_problem(windows: int = 2) -> Problem:
    trace = generate(REGIMES["trt"], SMALL.layers, SMALL.experts, windows, 3)
    return Problem.of([trace, trace], SMALL, False)


def test_words_of_the_command_line_name_regimes_shapes_and_programs(tmp_path):
    assert regimes_of(["trt", "trt", "adrs"], False) == ("trt", "adrs")
    assert regimes_of([], False) == tuple(REGIMES)
    assert shapes_of([shape.name for shape in SHAPES], False) == SHAPES
    assert shapes_of([], True) == SHAPES[:1]
    program = tmp_path / "one.py"
    program.write_text("def rebalance_experts(*a):\n    pass\n")
    assert programs_of([program], ["rebalance_experts"]) == (program,)
    folder = default_folder("eplb", {"gpus": [{"name": "NVIDIA H200"}]})
    assert (folder.parts[0], folder.parts[1][:12], folder.name) == ("results", "nvidia-h200-", "eplb")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--regime", "calm"], "--regime calm: accepted are adrs, steady, trt, heavy, decode"),
        (["--shape", "58x256"], "--shape 58x256: expected LAYERSxEXPERTS-SLOTS/GPUS/NODES/GROUPS"),
        (["--shape", "1x8-9/2/1/1"], "--shape 1x8-9/2/1/1: slots (9) is no multiple of gpus (2)"),
        (["--device", "tpu"], "--device tpu: accepted are cpu and cuda"),
        (["--candidates", "gone.py"], "cannot read program gone.py"),
        (["--loads", "gone.npz", "--regime", "adrs"], "--loads and --regime exclude each other"),
        (["--entries-per-window", "3"], "give --loads, too"),
        (["--loads", "gone.npz"], "gone.npz"),
        (["--seed", "-1"], "--seed -1: expected at least 0"),
        (["--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["--candidates"], "argument --candidates: expected at least one argument"),
    ],
)
def test_wrong_words_are_one_line_and_nothing_is_written(words, said, tmp_path, capsys):
    assert code_of(["bench", "eplb", *words, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def code_of(words: list[str]) -> int:
    try:
        return main(words)
    except SystemExit as end:  # of argparse
        return end.code


@pytest.mark.parametrize("bench", ["eplb", "moe_placement"])
def test_a_folder_that_cannot_be_written_is_told_before_anything_is_measured(bench, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(f"gpu_eval.bench_{bench.partition('_')[0]}.run", lambda *given: pytest.fail("measured"))
    (tmp_path / "file").write_text("")
    assert main(["bench", bench, "--device", "cpu", "--out", str(tmp_path / "file" / "out")]) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path / 'file'} is no folder" in told
    assert told.count("\n") == 1


def test_a_program_without_the_entry_or_with_the_name_of_another_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    for path in (tmp_path / "one.py", tmp_path / "a" / "one.py"):
        path.write_text("def init(config): ...\n")
    with pytest.raises(ValueError, match=r"one.py defines no step: the bench calls init and step"):
        programs_of([tmp_path / "one.py"], ["init", "step"])
    with pytest.raises(ValueError, match="have one name: rename one of them"):
        programs_of([tmp_path / "one.py", tmp_path / "a" / "one.py"], ["init"])


def test_a_row_holds_balance_beside_what_is_possible():
    row = measured(Fixed(in_order()), one_problem(), "cpu")
    assert row.status == "ok"
    assert 0 < row.same_balance <= row.gpu_bound <= 1
    assert 0 < row.next_balance <= row.next_bound <= 1
    assert 0 < row.paper_balancedness <= row.slot_bound <= 1
    assert (row.host_ms.median, row.findings) == (1.0, ("cached results: on purpose",))


def test_snapshots_have_no_next_window():
    row = measured(Fixed(in_order()), one_problem(windows=1), "cpu")
    assert (row.next_balance, row.next_bound) == (None, None)
    assert row.same_balance > 0


def test_what_is_no_placement_keeps_its_row_without_numbers():
    lost = in_order()
    lost[1][lost[1] == 5] = 6
    for rule, said in (
        (Fixed(lost), "layer 1, expert 5"),
        (Fixed(in_order(), np.full((2, 16), 24)), "expert_count is 24"),
    ):
        row = measured(rule, one_problem(), "cpu")
        assert said in row.status
        assert (row.same_balance, row.host_ms) == (None, None)


def test_what_fails_on_the_device_costs_no_figure_of_the_host():
    class Halting(Fixed):
        def timed(self, weights, shape, grouped, device):
            if device == "cuda":
                raise RuntimeError("CUDA error: on\npurpose")
            return super().timed(weights, shape, grouped, device)

    row = measured(Halting(in_order()), one_problem(), "cuda")
    assert (row.status, row.host_ms.median, row.device_ms) == ("ok", 1.0, None)
    assert row.findings[1] == "not timed on the device: RuntimeError: CUDA error: on purpose"


def test_a_baseline_that_breaks_costs_its_rows_alone():
    class Broken(Fixed):
        def answers(self, weights, shape, grouped):
            raise OSError("no compiler")

    assert measured(Broken(in_order()), one_problem(), "cpu").status == "OSError: no compiler"


def test_without_the_yardstick_all_are_timed_beside_one_that_needs_torch_alone(monkeypatch):
    broken = Baseline("heap_lpt", "nowhere", ("no_such_module",), True)
    monkeypatch.setitem(bench_eplb.BASELINES, "heap_lpt", broken)
    assert bench_eplb.yardstick().name == "paper_zigzag"
    monkeypatch.setitem(bench_eplb.BASELINES, "heap_lpt", BASELINES["deepseek"])
    assert bench_eplb.yardstick().name == "deepseek"


def test_an_interrupted_bench_gives_the_rows_that_it_has(monkeypatch):
    options = EplbOptions(regimes=("trt",), shapes=(FREE,), baselines=("paper_zigzag", "deepseek"), traces=1)
    before = bench_eplb.measured
    monkeypatch.setattr(bench_eplb, "YARDSTICK", "paper_zigzag")

    def stopping(rule, problem, device):
        if rule.name == "deepseek":
            raise KeyboardInterrupt
        return before(Fixed(np.tile(np.arange(24) % 16, (2, 1))), problem, device)

    monkeypatch.setattr(bench_eplb, "measured", stopping)
    results = bench_eplb.run(options)
    assert (len(results.eplb), results.settings["interrupted"]) == (1, "after 1 rows")
    with pytest.raises(KeyboardInterrupt):
        bench_eplb.run(EplbOptions(regimes=("trt",), shapes=(FREE,), baselines=("deepseek",), traces=1))


def test_groups_stay_on_nodes_only_where_they_can():
    options = EplbOptions(regimes=("adrs",), shapes=(SMALL, FREE), traces=1)
    assert [(p.shape, p.grouped) for p in problems(options)] == [
        (SMALL, True), (SMALL, False), (FREE, False),
    ]  # fmt: skip


def test_recorded_loads_are_rows_of_their_own_kind(tmp_path):
    path = tmp_path / "loads.npz"
    counts = np.arange(3 * 16).reshape(1, 1, 3, 16).astype(np.int64) + 1
    save_recorded(path, [LoadTrace("monday", "recorded", counts, "snapshot")])
    found = list(problems(EplbOptions(shapes=(SMALL,), loads=path)))
    assert [(p.name, p.source, p.shape.layers, p.after) for p in found] == [("monday", "recorded", 3, None)] * 2
    with pytest.raises(ValueError, match="monday has 16 experts, the shapes asked for 256"):
        list(problems(EplbOptions(shapes=SHAPES[:1], loads=path)))


def test_the_bench_of_balancers_from_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_eplb, "YARDSTICK", "paper_zigzag")
    program = tmp_path / "mine.py"
    program.write_text(BASELINES["deepseek"].path.read_text())
    broken = tmp_path / "broken.py"
    broken.write_text("def rebalance_experts(*a):\n    raise ValueError('cannot | <b>')\n")
    options = EplbOptions(
        regimes=("trt",), shapes=(FREE,), baselines=TORCH_ONLY, programs=(program, broken), traces=1, limit_s=0.1
    )
    told = []
    results = bench_eplb.run(options, told.append)
    rows = {row.program: row for row in results.eplb}
    assert len(rows) == len(told) == 4
    ours, mine = rows["deepseek"], rows["mine"]
    assert (mine.same_balance, mine.next_balance) == (ours.same_balance, ours.next_balance)
    assert mine.host_ms.low <= mine.host_ms.median <= mine.host_ms.high
    assert "cannot" in rows["broken"].status
    from gpu_eval.report import write_results

    file, page = write_results(results, tmp_path / "out")
    assert read_results(file) == results
    text = page.read_text()
    assert "not a statement about GPUs" in text
    assert "<b>'" not in text
    assert main(["page", str(file), "--markdown"]) == 0
    assert "| mine (evolved) |" in capsys.readouterr().out.replace("\\", "")


def moe(tmp_path: Path, **programs: str) -> MoeOptions:
    paths = []
    for name, text in programs.items():
        paths.append(tmp_path / f"{name}.py")
        paths[-1].write_text(text)
    return MoeOptions(
        regimes=("heavy",), shapes=(SMALL,), policies=("never",), programs=tuple(paths), windows=3, window_steps=4
    )


def test_the_bench_of_placement_from_end_to_end(tmp_path):
    lost = NEVER.replace("return state, None", "placement[1] = 0\n    return state, placement")
    results = bench_moe.run(moe(tmp_path, mine=NEVER, lost=lost))
    rows = {(row.program, row.phase): row for row in results.moe_placement}
    for phase in ("prefill", "decode"):
        never, mine = rows["never", phase], rows["mine", phase]
        assert never.ratio_never == mine.ratio_never == 1.0
        assert (mine.moved_gib_per_gpu, mine.moves_s) == (0.0, 0.0)
        assert mine.total_s == pytest.approx(mine.steps_s)
        assert "window 0: layer 1, expert 1" in rows["lost", phase].status
    assert {latency.program for latency in results.rank_latencies} == {"never", "mine"}
    assert all(len(latency.seconds[0]) == SMALL.gpus for latency in results.rank_latencies)
    assert [found.pairs for found in results.fidelity] == [2, 2, 2]
    assert [found.dear for found in results.fidelity].count("2 processes, gloo") == 1
    assert "not measured" in results.settings["cost model"]
    assert [(row.program, row.backend, row.world, row.moved_slots) for row in results.multi_gpu] == [
        ("never", "gloo", 2, 0), ("mine", "gloo", 2, 0)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "said"), [(RuntimeError("CUDA\nerror"), "RuntimeError: CUDA error"), (KeyboardInterrupt, "")]
)
def test_rows_by_the_model_outlive_what_goes_wrong_when_they_are_measured(error, said, tmp_path, monkeypatch):
    def broken(*arguments):
        raise error

    monkeypatch.setattr(bench_moe, "measure_rows", broken)
    results = bench_moe.run(moe(tmp_path))
    assert results.moe_placement[0].ratio_never == 1.0
    assert results.rank_latencies == results.fidelity == ()
    if said:
        assert results.settings["not measured"] == f"heavy prefill: {said}; heavy decode: {said}"
    else:
        assert results.settings["interrupted"] == "after 1 rows"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (NEVER.replace("return state, None", "return state, [1, 2]"), "step gave a list as placement"),
        (NEVER.replace("return state, None", "return placement"), "step gave no (state, placement)"),
        (NEVER.replace("return state, None", "import os; os._exit(3)"), "ended with code 3"),
        (NEVER.replace("return state, None", "return state, placement.astype(float)"), "window 0: "),
        (NEVER.replace("def init", "def other"), "has no attribute 'init'"),
    ],
)
def test_what_a_program_does_wrong_is_said_in_its_row(text, said, tmp_path):
    options = moe(tmp_path, mine=text)
    results = bench_moe.run(
        MoeOptions(**{**{f: getattr(options, f) for f in options.__slots__}, "phases": ("decode",)})
    )
    (row,) = (row for row in results.moe_placement if row.program == "mine")
    assert said in row.status
    assert row.total_s is None


def test_the_self_test_says_what_does_not_hold():
    def broken(device):
        raise ZeroDivisionError("on purpose")

    lines = []
    good, bad = selftest.Check("good", lambda device: "seen"), selftest.Check("bad", broken)
    assert not selftest_with(lines, good, bad)
    assert lines[0].startswith("ok  good")
    assert any(line.startswith("NO  bad") and "ZeroDivisionError: on purpose" in line for line in lines)
    assert lines[-1].startswith("SOMETHING DOES NOT HOLD on cpu")


def selftest_with(lines, *checks) -> bool:
    before = selftest.CHECKS
    selftest.CHECKS = checks
    try:
        return selftest.run_checks("cpu", lines.append)
    finally:
        selftest.CHECKS = before


@pytest.mark.slow
def test_every_part_holds_here(monkeypatch):
    monkeypatch.setattr(selftest, "BASELINES", {name: BASELINES[name] for name in TORCH_ONLY})
    lines = []
    assert selftest.run_checks("cpu", lines.append), "\n".join(lines)
    assert len(lines) == len(selftest.CHECKS) + 1


def test_the_module_runs_by_name_and_explains_itself():
    done = subprocess.run([sys.executable, "-m", "gpu_eval", "--help"], capture_output=True, text=True, check=True)
    assert all(word in done.stdout for word in ("bench", "selftest", "page"))
