"""OpenEvolve-style folders: how they are read, run and judged; through the jail at the end."""

from __future__ import annotations

import _multiprocessing
import asyncio
import json
import multiprocessing.heap
import multiprocessing.synchronize
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adrs_ray.candidate import CaseResult, Evaluation, Failure, FailureKind, Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob, openevolve_adapter
from adrs_ray.evaluator.doctor import evaluate_once
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.evaluator.openevolve_semaphores import PipeSemaphore
from adrs_ray.openevolve import MAX_ARTIFACT_CHARS, is_openevolve_folder
from adrs_ray.task import Combined, Judge, MalformedOutput, Task, load_task

PROGRAM = """
# EVOLVE-BLOCK-START
def answer():
    return 42
# EVOLVE-BLOCK-END
"""

EVALUATE = """
import importlib.util

def answer_of(path):
    spec = importlib.util.spec_from_file_location("program", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.answer()

def evaluate(path):
    return {"near": 1.0 / (1 + abs(answer_of(path) - 40)), "right": answer_of(path) == 42}
"""

CASCADE = (
    EVALUATE
    + """
from openevolve.evaluation_result import EvaluationResult

def evaluate_stage1(path):
    return {"combined_score": answer_of(path) / 84, "one": 1}

def evaluate_stage2(path):
    value = answer_of(path)
    if value == 13:
        raise RuntimeError("thirteen")
    return EvaluationResult(metrics={"combined_score": value / 50, "two": 2.0}, artifacts={"said": f"it is {value}"})

def evaluate_stage3(path):
    return {"combined_score": 0.95, "three": True}
"""
)


@pytest.fixture(autouse=True)
def _adapter_leaves_no_trace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The adapter is written for a process of its own."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.chdir(scratch)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("_multiprocessing.SemLock", _multiprocessing.SemLock)
    monkeypatch.setattr("multiprocessing.synchronize.SEM_VALUE_MAX", multiprocessing.synchronize.SEM_VALUE_MAX)
    monkeypatch.setattr("multiprocessing.heap.Arena._dir_candidates", multiprocessing.heap.Arena._dir_candidates)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {"openevolve", "evaluation_module", "program", "sibling"}:
            del sys.modules[name]


def write_folder(
    parent: Path, evaluator: str, *, config: str | None = None, name: str = "Forty-Two", **files: str
) -> Path:
    folder = parent / name
    folder.mkdir()
    (folder / "initial_program.py").write_text(PROGRAM)
    (folder / "evaluator.py").write_text(textwrap.dedent(evaluator))
    if config is not None:
        (folder / "config.yaml").write_text(textwrap.dedent(config))
    for stem, text in files.items():
        (folder / f"{stem}.py").write_text(textwrap.dedent(text))
    return folder


def raw_output(task: Task, source: str) -> Any:
    """What the jailed child would send: the adapter's answer after a trip through JSON."""
    openevolve_adapter.configure(dict(task.foreign), str(task.folder))
    program = openevolve_adapter.load(source)
    return json.loads(json.dumps(openevolve_adapter.run(program, None)))


def judged(task: Task, raw: Any) -> Combined:
    judge: Judge = task.judge
    (case,) = judge.cases("train")
    return judge.combine([CaseResult(case.id, judge.score(case, raw), 0.0, 0.0)])


def with_answer(value: int) -> str:
    return PROGRAM.replace("42", str(value))


def test_plain_evaluator(tmp_path: Path) -> None:
    task = load_task(write_folder(tmp_path, EVALUATE))
    assert (task.kind, task.name, task.seed_source) == ("openevolve", "forty_two", PROGRAM)
    assert task.spec.splits == ("train",)
    assert task.spec.limits.case_timeout_s == 300
    result = judged(task, raw_output(task, PROGRAM))
    assert result.metrics == {"near": pytest.approx(1 / 3), "right": 1.0}
    assert result.score == pytest.approx((1 / 3 + 1) / 2)


@pytest.mark.parametrize(
    ("value", "passed", "score", "keys"),
    [
        (21, 0, 21 / 84, {"one"}),
        (42, 2, 42 / 50, {"one", "two", "three"}),
    ],
)
def test_cascade_thresholds(tmp_path: Path, value: int, passed: int, score: float, keys: set[str]) -> None:
    task = load_task(write_folder(tmp_path, CASCADE, config="evaluator: {cascade_thresholds: [0.5, 0.75, 0.99]}"))
    result = judged(task, raw_output(task, with_answer(value)))
    assert result.metrics["stages_passed"] == passed
    assert result.metrics.keys() - {"combined_score", "stages_passed"} == keys
    assert result.score == pytest.approx(0.95 if passed == 2 else score)


def test_cascade_to_the_end_merges_metrics_and_artifacts(tmp_path: Path) -> None:
    task = load_task(write_folder(tmp_path, CASCADE))
    result = judged(task, raw_output(task, PROGRAM))
    assert result.metrics == {"combined_score": 0.95, "one": 1.0, "two": 2.0, "three": 1.0, "stages_passed": 3.0}
    assert result.artifacts == {"said": "it is 42"}


def test_cascade_second_gate(tmp_path: Path) -> None:
    task = load_task(write_folder(tmp_path, CASCADE, config="evaluator: {cascade_thresholds: [0.1, 0.75, 0.9]}"))
    result = judged(task, raw_output(task, with_answer(20)))
    assert result.score == pytest.approx(0.4)
    assert result.metrics["stages_passed"] == 1
    assert "three" not in result.metrics


def test_a_later_stage_that_raises_leaves_the_earlier_result(tmp_path: Path) -> None:
    task = load_task(write_folder(tmp_path, CASCADE, config="evaluator: {cascade_thresholds: [0.1, 0.75, 0.9]}"))
    result = judged(task, raw_output(task, with_answer(13)))
    assert result.score == pytest.approx(13 / 84)
    assert result.metrics["stages_passed"] == 1
    assert "RuntimeError: thirteen" in result.artifacts["stage2_traceback"]


def test_a_program_that_raises_is_no_result(tmp_path: Path) -> None:
    task = load_task(write_folder(tmp_path, CASCADE))
    with pytest.raises(ZeroDivisionError):
        raw_output(task, "def answer():\n    return 1 / 0\n")
    with pytest.raises(SyntaxError):
        raw_output(task, "def answer(:\n")


def test_cascade_switched_off(tmp_path: Path) -> None:
    task = load_task(write_folder(tmp_path, CASCADE, config="evaluator: {cascade_evaluation: false}"))
    result = judged(task, raw_output(task, PROGRAM))
    assert result.metrics.keys() == {"near", "right"}
    assert task.spec.metrics == {}


def test_sibling_modules_and_a_decorated_dataclass(tmp_path: Path) -> None:
    evaluator = """
        from __future__ import annotations
        import dataclasses, os, tempfile
        from sibling import WEIGHT

        @dataclasses.dataclass
        class Outcome:
            value: float

        def evaluate(path):
            assert os.path.basename(path) == "program.py"
            assert open(os.path.join(os.path.dirname(__file__), "sibling.py")).read()
            return {"combined_score": Outcome(2.0).value * WEIGHT}
    """
    task = load_task(write_folder(tmp_path, evaluator, sibling="WEIGHT = 3\n"))
    assert judged(task, raw_output(task, PROGRAM)).score == 6.0


def test_metrics_of_other_number_types_and_texts(tmp_path: Path) -> None:
    evaluator = """
        import decimal, fractions
        import numpy as np

        def evaluate(path):
            return {
                "a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": fractions.Fraction(1, 4),
                "e": decimal.Decimal("0.25"), "f": np.array(2.0), 7: 1.0,
                "note": "slow", "vector": np.arange(3), "pairs": [(1, 2)], "error": "none to speak of",
            }
    """
    task = load_task(write_folder(tmp_path, evaluator))
    result = judged(task, raw_output(task, PROGRAM))
    assert result.metrics == {"a": 0.5, "b": 3.0, "c": 1.0, "d": 0.25, "e": 0.25, "f": 2.0, "7": 1.0}
    assert result.score == pytest.approx(8 / 7)
    assert result.artifacts == {
        "note": "slow",
        "vector": "[0 1 2]",
        "pairs": "[[1, 2]]",
        "error": "none to speak of",
    }


def test_artifacts_are_texts_of_bounded_length(tmp_path: Path) -> None:
    evaluator = """
        from openevolve.evaluation_result import EvaluationResult

        def evaluate(path):
            result = EvaluationResult.from_dict({"combined_score": 1})
            result.artifacts.update({"bytes": b"\\xffok", "long": "a" * 10**6 + "end"})
            assert result.has_artifacts() and result.get_artifact_size("bytes") == 3
            return result
    """
    task = load_task(write_folder(tmp_path, evaluator))
    artifacts = judged(task, raw_output(task, PROGRAM)).artifacts
    assert artifacts["bytes"] == "�ok"
    assert len(artifacts["long"]) <= MAX_ARTIFACT_CHARS
    assert artifacts["long"].endswith("aend")


def test_an_error_in_the_metrics_shows_in_the_artifacts(tmp_path: Path) -> None:
    task = load_task(write_folder(tmp_path, "def evaluate(path):\n    return {'combined_score': 0.0, 'error': 0.0}"))
    result = judged(task, raw_output(task, PROGRAM))
    assert (result.score, result.artifacts) == (0.0, {"error": "0.0"})


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("None", "evaluate returned NoneType, expected a dict of metrics or an EvaluationResult"),
        ("{}", "the evaluator returned no numeric metric"),
        ("{'error': 'no such file'}", "no numeric metric: no such file"),
        ("{'good': 1.0, 'bad': float('nan')}", "metric 'bad' is nan"),
        ("{'bad': 10**400}", "metric 'bad' is inf"),
        ("{'bad': float('-inf')}", "metric 'bad' is -inf"),
    ],
)
def test_results_that_are_no_score(tmp_path: Path, returned: str, said: str) -> None:
    task = load_task(write_folder(tmp_path, f"def evaluate(path):\n    return {returned}\n"))
    with pytest.raises(MalformedOutput, match=said.replace("(", r"\(")):
        judged(task, raw_output(task, PROGRAM))


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [1.0],
        {},
        {"metrics": [1.0]},
        {"metrics": {"a": "1.0"}},
        {"metrics": {"a": 10**400}},
        {"metrics": {"a" * 201: 1.0}},
        {"metrics": {str(n): 1.0 for n in range(1000)}},
        {"metrics": {"a": 1.0}, "stage": 4},
        {"metrics": {"a": 1.0}, "stage": True},
        {"malformed": ["deep"]},
    ],
)
def test_forged_raw_outputs(tmp_path: Path, raw: Any) -> None:
    """The child need not run our adapter at all: whatever it sends, the judge answers with one exception type."""
    task = load_task(write_folder(tmp_path, EVALUATE))
    with pytest.raises(MalformedOutput):
        judged(task, raw)


def test_forged_artifacts_are_capped_or_dropped(tmp_path: Path) -> None:
    task = load_task(write_folder(tmp_path, EVALUATE))
    raw = {"metrics": {"a": 1.0}, "artifacts": {"x": "y" * 10**6, "z": 3, **{f"k{n}": "" for n in range(500)}}}
    artifacts = judged(task, raw).artifacts
    assert len(artifacts["x"]) == MAX_ARTIFACT_CHARS
    assert "z" not in artifacts
    assert len(artifacts) == 64
    assert judged(task, {"metrics": {"a": 1.0}, "artifacts": 5}).artifacts == {}


def test_config_that_matters_and_config_that_does_not(tmp_path: Path) -> None:
    config = """
        max_iterations: 100
        llm: {models: [{name: some-model, weight: 1.0}], api_base: "${NOT_SET}"}
        prompt: {system_message: "Find the answer.", num_top_programs: 3}
        evaluator: {timeout: 7, parallel_evaluations: 4, use_llm_feedback: false}
        database:
    """
    task = load_task(write_folder(tmp_path, EVALUATE, config=config))
    assert task.spec.limits.case_timeout_s == 7
    assert task.spec.statement == "Find the answer."
    assert load_task(write_folder(tmp_path, EVALUATE, config="evaluator:\n", name="b")).spec.limits.processes == 16


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("evaluator: {timeout: soon}", "evaluator.timeout is 'soon': "),
        ("evaluator: {timeout: -1}", "evaluator.timeout is -1: "),
        ("evaluator: {cascade_evaluation: 3}", "evaluator.cascade_evaluation is 3: "),
        ("evaluator: {cascade_thresholds: 0.5}", "evaluator.cascade_thresholds is 0.5: "),
        ("evaluator: {cascade_thresholds: [0.5, high]}", "evaluator.cascade_thresholds.1 is 'high': "),
        ("evaluator: {cascade_thresholds: [.nan]}", "evaluator.cascade_thresholds is [nan]: expected finite"),
        ("evaluator: [1]", "evaluator is [1]: "),
        ("prompt: {system_message: [x]}", "prompt.system_message is ['x']: "),
        ("- a", "expected a mapping of sections, got list"),
        ("a: [", "is not YAML"),
    ],
)
def test_wrong_config_is_one_line(tmp_path: Path, config: str, said: str) -> None:
    folder = write_folder(tmp_path, EVALUATE, config=config)
    with pytest.raises(UsageError) as caught:
        load_task(folder)
    assert said in str(caught.value)
    assert "config.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_folders_are_one_line(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "def evaluate_stage1(path):\n    return {}\n")
    with pytest.raises(UsageError, match=r"evaluator\.py must define evaluate\(program_path\)"):
        load_task(folder)
    (folder / "initial_program.py").write_text("def answer(\n")
    with pytest.raises(UsageError, match=r"initial_program\.py is no Python: "):
        load_task(folder)
    (folder / "evaluator.py").write_text("def evaluate(\n")
    (folder / "initial_program.py").write_text(PROGRAM)
    with pytest.raises(UsageError, match=r"evaluator\.py is no Python: "):
        load_task(folder)
    (folder / "evaluator.py").write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"cannot read .*evaluator\.py"):
        load_task(folder)
    (folder / "evaluator.py").unlink()
    assert not is_openevolve_folder(folder)
    with pytest.raises(UsageError, match="is no task folder"):
        load_task(folder)


def test_which_folders_count_and_how_they_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "from sibling import *\n", name="2 Circles!", sibling=EVALUATE)
    (folder / "initial_program.py").rename(folder / "initial.py")
    assert is_openevolve_folder(folder)
    task = load_task(folder)
    assert task.name == "task_2_circles"
    assert judged(task, raw_output(task, PROGRAM)).metrics["right"] == 1.0
    (folder / "task.yaml").write_text("name: native\n")
    assert not is_openevolve_folder(folder)


def test_only_train(tmp_path: Path) -> None:
    task = load_task(write_folder(tmp_path, EVALUATE))
    with pytest.raises(UsageError, match="only the split train, not test"):
        task.judge.cases("test")
    assert "own evaluator" in (task.split_note("train") or "")


def test_loading_does_not_run_the_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')\n" + EVALUATE)
    task = load_task(folder)
    openevolve_adapter.configure(dict(task.foreign), str(task.folder))
    assert not (tmp_path / "ran").exists()


def test_an_installed_openevolve_takes_precedence_over_the_stand_in(tmp_path: Path) -> None:
    task = load_task(write_folder(tmp_path, EVALUATE))
    installed = tmp_path / "site" / "openevolve"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    (installed / "evaluation_result.py").write_text("ORIGIN = 'installed'\n")
    bare = tmp_path / "bare"
    (bare / "evaluator").mkdir(parents=True)
    for path in task.adapter_path.parent.glob("openevolve_*.py"):
        shutil.copy(path, bare / "evaluator")
    script = (
        "import json, sys\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from evaluator import openevolve_adapter\n"
        "openevolve_adapter.configure(json.loads(sys.argv[1]), '')\n"
        "preloaded = 'openevolve' in sys.modules\n"
        "from openevolve import evaluation_result\n"
        "print(preloaded, getattr(evaluation_result, 'ORIGIN', 'stand-in'))\n"
    )
    command = [sys.executable, "-I", "-c", script, json.dumps(dict(task.foreign)), str(bare)]
    alone = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert alone.stdout.split() == ["True", "stand-in"]
    command[3] = script.replace("sys.path.insert", f"sys.path.append({str(installed.parent)!r})\nsys.path.insert", 1)
    beside = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=dict(os.environ))
    assert beside.stdout.split() == ["False", "installed"]


def test_a_pipe_semaphore_behaves_like_the_native_one() -> None:
    for make in (_multiprocessing.SemLock, PipeSemaphore):
        name = f"/adrs-test-{os.getpid()}"
        two = make(1, 2, 2, name, True)
        assert (two._get_value(), two._is_zero(), two._count(), two._is_mine()) == (2, False, 0, False)
        assert two.acquire()
        assert two.acquire(False)
        assert (two._get_value(), two._is_zero(), two._count(), two._is_mine()) == (0, True, 2, True)
        assert not two.acquire(False)
        assert not two.acquire(True, 0.01)
        assert not two.acquire(True, -1)
        two.release()
        assert two.acquire(True, 10)
        two.release()
        two.release()
        with pytest.raises(ValueError, match="released too many times"):
            two.release()
        recursive = make(0, 1, 1, name, True)
        with pytest.raises(AssertionError):
            recursive.release()
        with recursive, recursive:
            assert (recursive._count(), recursive._get_value()) == (2, 0)
            got: list[bool] = []
            thread = threading.Thread(target=lambda: got.append(recursive.acquire(False)))  # noqa: B023
            thread.start()
            thread.join()
            assert got == [False]
        assert (recursive._count(), recursive._get_value()) == (0, 1)


def test_a_pipe_semaphore_wakes_who_waits() -> None:
    lock = PipeSemaphore(1, 0, 1, "", True)
    threading.Timer(0.05, lock.release).start()
    assert lock.acquire(True, 60)
    waiting = threading.Thread(target=lock.acquire)
    waiting.start()
    time.sleep(0.05)
    assert waiting.is_alive()
    lock.release()
    waiting.join(60)
    assert not waiting.is_alive()


# Through the jail


UNCHANGED = """
    import os, subprocess, sys, tempfile
    from openevolve.evaluation_result import EvaluationResult
    from sibling import TARGET

    def run_apart(path):
        with tempfile.NamedTemporaryFile("w", suffix=".py", delete=False) as script:
            script.write("import sys\\nsys.path.insert(0, sys.argv[1])\\nimport program\\nprint(program.answer())\\n")
        try:
            command = [sys.executable, script.name, os.path.dirname(path)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        finally:
            os.unlink(script.name)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return int(done.stdout)

    def evaluate_stage1(path):
        print("a line for whoever reads it", flush=True)
        return {"combined_score": 0.6}

    def evaluate_stage2(path):
        value = run_apart(path)
        here = os.path.dirname(os.path.abspath(__file__))
        text = open(os.path.join(here, "numbers.txt")).read()
        return EvaluationResult(
            metrics={"combined_score": value / TARGET, "lines": len(text.split())},
            artifacts={"value": f"the program says {value}", "folder": os.getcwd() == os.path.dirname(path)},
        )

    def evaluate(path):
        return evaluate_stage2(path)
"""


def in_jail(task: Task, source: str) -> Verdict:
    return evaluate_once(task, source, "train", EvaluatorConfig(slots=1))


def evaluated(verdict: Verdict) -> Evaluation:
    assert isinstance(verdict, Evaluation), f"{verdict.kind}: {verdict.detail}\n{dict(verdict.artifacts)}"
    return verdict


def test_a_folder_with_stages_artifacts_and_a_subprocess_runs_unchanged(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, UNCHANGED, sibling="TARGET = 50\n")
    (folder / "numbers.txt").write_text("1\n2\n3\n")
    verdict = evaluated(in_jail(load_task(folder), PROGRAM))
    assert verdict.score == pytest.approx(0.84)
    assert verdict.metrics == {"combined_score": 0.84, "lines": 3.0, "stages_passed": 2.0}
    assert verdict.trust == "candidate-side"
    assert verdict.artifacts["value"] == "the program says 42"
    assert verdict.artifacts["folder"] == "True"
    assert sorted(os.listdir(folder)) == ["evaluator.py", "initial_program.py", "numbers.txt", "sibling.py"]


def test_artifacts_of_evaluations_at_once_are_not_mixed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, UNCHANGED, sibling="TARGET = 50\n")
    (folder / "numbers.txt").write_text("1\n")
    values = (42, 50, 43, 49, 44, 48)

    async def at_once() -> list[Verdict]:
        evaluator = LocalEvaluator(load_task(folder), EvaluatorConfig(slots=2))
        await evaluator.start()
        try:
            jobs = [EvaluationJob(f"candidate-{value}", with_answer(value)) for value in values]
            return await asyncio.gather(*map(evaluator.evaluate, jobs))
        finally:
            await evaluator.close()

    said = [evaluated(verdict).artifacts["value"] for verdict in asyncio.run(at_once())]
    assert said == [f"the program says {value}" for value in values]


HOSTILE = """
    import os, pathlib, signal, socket, subprocess, sys

    OUTSIDE = pathlib.Path({outside!r})
    FOLDER = pathlib.Path(__file__).parent

    def connect():
        socket.create_connection(("127.0.0.1", 9), timeout=1)

    ATTEMPTS = {{
        "new file outside": lambda: (OUTSIDE / "written").write_text("x"),
        "overwrite outside": lambda: (OUTSIDE / "kept").write_text("x"),
        "truncate outside": lambda: os.truncate(OUTSIDE / "kept", 0),
        "remove outside": lambda: (OUTSIDE / "kept").unlink(),
        "rename outside": lambda: (OUTSIDE / "kept").rename(OUTSIDE / "moved"),
        "mode outside": lambda: os.chmod(OUTSIDE / "kept", 0o777) or (OUTSIDE / "kept").stat().st_mode & 0o022 or 1 / 0,
        "read outside": lambda: (OUTSIDE / "kept").read_text(),
        "own folder": lambda: (FOLDER / "evaluator.py").write_text("x"),
        "link out and write": lambda: (os.symlink(OUTSIDE / "kept", "link"), open("link", "w")),
        "hard link": lambda: os.link(OUTSIDE / "kept", "hard"),
        "socket": connect,
        "signal": lambda: os.kill(os.getppid(), signal.SIGTERM),
        "child writes": lambda: subprocess.run(
            [sys.executable, "-c", f"open({{str(OUTSIDE / 'child')!r}}, 'w')"], check=True, capture_output=True
        ),
        "secret": lambda: os.environ["ADRS_TEST_SECRET"],
        "write in scratch": lambda: pathlib.Path("allowed").write_text("x"),
        "child writes in scratch": lambda: subprocess.run([sys.executable, "-c", "open('child', 'w')"], check=True),
    }}

    def evaluate(path):
        done = []
        for name, attempt in ATTEMPTS.items():
            try:
                attempt()
                done.append(name)
            except Exception:
                pass
        return {{"combined_score": 1.0, "attempts": len(ATTEMPTS), "done": ", ".join(done)}}
"""


def test_a_hostile_evaluator_cannot_reach_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADRS_TEST_SECRET", "canary")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("as it was")
    (outside / "kept").chmod(0o644)
    folder = write_folder(tmp_path, HOSTILE.format(outside=str(outside)))
    before = (folder / "evaluator.py").read_text()
    verdict = evaluated(in_jail(load_task(folder), PROGRAM))
    assert verdict.artifacts["done"] == "write in scratch, child writes in scratch"
    assert verdict.metrics["attempts"] == 16
    assert os.listdir(outside) == ["kept"]
    assert (outside / "kept").read_text() == "as it was"
    assert (outside / "kept").stat().st_mode & 0o777 == 0o644
    assert (folder / "evaluator.py").read_text() == before


CONCURRENT = """
    import multiprocessing, threading
    from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

    def double(value):
        return 2 * value

    def put(queue, value):
        queue.put(value)

    def add(counter, lock, gate):
        gate.wait(30)
        for _ in range(50):
            with lock:
                counter.value += 1

    def through_queue():
        queue = multiprocessing.Queue()
        process = multiprocessing.Process(target=put, args=(queue, 5))
        process.start()
        value = queue.get(timeout=30)
        process.join()
        return value

    def through_lock():
        counter, lock, gate = multiprocessing.Value("i", 0), multiprocessing.RLock(), multiprocessing.Event()
        processes = [multiprocessing.Process(target=add, args=(counter, lock, gate)) for _ in range(2)]
        for process in processes:
            process.start()
        gate.set()
        for process in processes:
            process.join()
        return counter.value

    def evaluate(path):
        with ProcessPoolExecutor(2) as pool:
            executor = sum(pool.map(double, range(10)))
        with multiprocessing.Pool(2) as pool:
            workers = sum(pool.map(double, range(10)))
        with ThreadPoolExecutor(12) as pool:
            gate = threading.Barrier(12)
            threads = len({pool.submit(lambda: (gate.wait(30), threading.get_ident())) for _ in range(12)})
        alone = {"executor": executor, "pool": workers, "threads": threads}
        return {**alone, "queue": through_queue(), "lock": through_lock()}
"""


def test_an_evaluator_that_uses_pools_queues_and_locks(tmp_path: Path) -> None:
    verdict = evaluated(in_jail(load_task(write_folder(tmp_path, CONCURRENT)), PROGRAM))
    assert verdict.metrics == {"executor": 90.0, "pool": 90.0, "threads": 12.0, "queue": 5.0, "lock": 100.0}


def test_processes_that_an_evaluator_leaves_are_ended(tmp_path: Path) -> None:
    marker = f"left-behind-{os.getpid()}"
    evaluator = f"""
        import subprocess, sys

        def evaluate(path):
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", {marker!r}])
            return {{"combined_score": 1.0}}
    """
    assert evaluated(in_jail(load_task(write_folder(tmp_path, evaluator)), PROGRAM)).score == 1.0
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            commands.append(path.read_bytes())
        except OSError:
            continue  # ended meanwhile
    assert not [command for command in commands if marker.encode() in command]


def test_the_timeout_of_the_config_holds(tmp_path: Path) -> None:
    evaluator = "import time\ndef evaluate(path):\n    time.sleep(600)\n"
    verdict = in_jail(load_task(write_folder(tmp_path, evaluator, config="evaluator: {timeout: 1.5}")), PROGRAM)
    assert isinstance(verdict, Failure)
    assert (verdict.kind, verdict.trust) == (FailureKind.TIMEOUT, "candidate-side")


@pytest.mark.parametrize(
    ("evaluator", "source", "kind", "said"),
    [
        (EVALUATE, "def answer(:\n", FailureKind.SYNTAX, ""),
        (EVALUATE, "def answer():\n    return 1 / 0\n", FailureKind.CRASH, "ZeroDivisionError"),
        ("def evaluate(path):\n    return {'a': float('nan')}\n", PROGRAM, FailureKind.OUTPUT, "metric 'a' is nan"),
        ("def evaluate(path):\n    return 1.0\n", PROGRAM, FailureKind.OUTPUT, "evaluate returned float"),
        ("import no_such_module\n" + EVALUATE, PROGRAM, FailureKind.CRASH, "no_such_module"),
    ],
    ids=["syntax", "program-raises", "nan", "no-dict", "evaluator-import"],
)
def test_failures_are_named(tmp_path: Path, evaluator: str, source: str, kind: FailureKind, said: str) -> None:
    verdict = in_jail(load_task(write_folder(tmp_path, evaluator)), source)
    assert isinstance(verdict, Failure)
    assert (verdict.kind, verdict.trust) == (kind, "candidate-side")
    assert said in verdict.detail
