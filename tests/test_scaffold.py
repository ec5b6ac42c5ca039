"""A new task folder works as it stands, and each way to break one is found and named."""

from __future__ import annotations

import os
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adrs_ray.case_checks import content_digest
from adrs_ray.errors import UsageError
from adrs_ray.evaluator.codec import UnencodableError
from adrs_ray.scaffold import Finding, check_folder, new_folder
from adrs_ray.task import LEVELS, CaseResult, InvalidOutput, MalformedOutput, Task, import_private, load_task


def score_of(task: Task, source: str, split: str) -> float:
    """A program's score without a jail."""
    program = types.ModuleType("candidate")
    exec(compile(source, "candidate", "exec"), program.__dict__)
    adapter = import_private(task.folder, "adapter")
    results = [
        CaseResult(case.id, task.judge.score(case, adapter.run(program, case.public)), 0.0, 0.0)
        for case in task.judge.cases(split)  # type: ignore[arg-type]
    ]
    return task.judge.combine(results).score


def faults(folder: Path) -> list[Finding]:
    return [finding for finding in check_folder(folder, run_seed=False) if not finding.usable]


def warnings(folder: Path) -> list[str]:
    return [finding.what for finding in check_folder(folder, run_seed=False) if finding.level == "warn"]


def change(folder: Path, file: str, old: str, new: str) -> None:
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))


def test_a_new_folder_passes_every_check(tmp_path: Path) -> None:
    folder = new_folder("my_task", tmp_path)
    findings = check_folder(folder, run_seed=False)
    assert [finding for finding in findings if finding.level != "ok"] == []
    assert len(findings) > 8
    task = load_task(folder)
    assert task.name == "my_task"
    assert sorted(task.baselines()) == ["best_fit_decreasing", "first_fit"]
    assert "my_task" in (folder / "README.md").read_text()
    assert not [path for path in folder.rglob("*") if path.suffix == ".j2"]
    assert os.listdir(tmp_path) == ["my_task"]


def test_the_template_leaves_the_search_something_to_find(tmp_path: Path) -> None:
    task = load_task(new_folder("bins", tmp_path))
    baselines = {name: path.read_text() for name, path in task.baselines().items()}
    for split in task.spec.splits:
        seed = score_of(task, task.seed_source, split)
        first_fit = score_of(task, baselines["first_fit"], split)
        best_fit_decreasing = score_of(task, baselines["best_fit_decreasing"], split)
        assert 0.5 < seed < first_fit - 0.05
        assert first_fit < best_fit_decreasing < 1.0


def test_two_small_edits_of_the_template_seed_are_a_large_step(tmp_path: Path) -> None:
    """A model-free search must find a slope: flipping one flag and one comparison gives best fit decreasing."""
    task = load_task(new_folder("bins", tmp_path))
    flipped = task.seed_source.replace("reverse=False", "reverse=True")
    both = flipped.replace("left > best_left", "left < best_left")
    assert len({task.seed_source, flipped, both}) == 3
    scores = [score_of(task, source, "train") for source in (task.seed_source, flipped, both)]
    assert scores[0] + 0.1 < scores[1]
    assert scores[1] <= scores[2]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda sizes: [0] * len(sizes), InvalidOutput),
        (lambda sizes: list(range(len(sizes) - 1)), MalformedOutput),
        (lambda sizes: [-number for number in range(len(sizes))], MalformedOutput),
        (lambda sizes: [float(number) for number in range(len(sizes))], MalformedOutput),
        (lambda sizes: None, MalformedOutput),
    ],
)
def test_the_template_judge_refuses(
    tmp_path: Path, answer: Callable[[list[int]], object], error: type[Exception]
) -> None:
    judge = load_task(new_folder("bins", tmp_path)).judge
    case = judge.cases("train")[0]
    with pytest.raises(error):
        judge.score(case, answer(case.public["sizes"]))


@pytest.mark.parametrize("name", ["", "Upper", "with-dash", "1st", "a b", "../up", "a/b", "ä", "_x", "name\n"])
def test_bad_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        new_folder(name, tmp_path)
    assert "expected a lower-case letter" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_names_and_places_that_are_taken_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("taken", "dangling"):
        with pytest.raises(UsageError, match=f"{name} exists"):
            new_folder(name, tmp_path)
    with pytest.raises(UsageError, match="nowhere is no folder"):
        new_folder("fine", tmp_path / "nowhere")
    with pytest.raises(UsageError, match="taken is no folder"):
        new_folder("fine", tmp_path / "taken")
    monkeypatch.setattr("adrs_ray.scaffold.builtin_tasks", lambda: {"eplb": tmp_path})
    with pytest.raises(UsageError, match="'eplb' is that of a built-in task"):
        new_folder("eplb", tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["dangling", "taken"]


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UsageError, match=r"cannot write .*fine: No space left on device"):
        new_folder("fine", tmp_path)
    assert os.listdir(tmp_path) == []


def test_no_folder_and_an_empty_one(tmp_path: Path) -> None:
    assert [finding.level for finding in check_folder(tmp_path / "nowhere")] == ["missing"]
    missing = check_folder(tmp_path)
    assert {finding.what.split()[0] for finding in missing} == {"task.yaml", "seed.py", "judge.py", "adapter.py"}
    assert {finding.level for finding in missing} == {"missing"}


BREAKAGES = {
    "unknown key": ("task.yaml", "summary:", "sumary: x\nsummary:", "wrong", "unknown key 'sumary'"),
    "no yaml": ("task.yaml", "entry: [pack]", "entry: [pack", "wrong", "task.yaml is not YAML"),
    "no train": ("task.yaml", "[train, ", "[", "wrong", "splits lacks train"),
    "no markers": ("seed.py", "# EVOLVE-BLOCK-", "# ", "missing", "seed.py has no evolve markers"),
    "open marker": ("seed.py", "# EVOLVE-BLOCK-END\n", "", "wrong", "seed.py: line "),
    "no entry": ("seed.py", "def pack(", "def packed(", "wrong", "seed.py does not define pack"),
    "seed syntax": ("seed.py", "def pack(", "def pack((", "wrong", "seed.py is no Python"),
    "baseline entry": (
        "baselines/first_fit.py",
        "def pack(",
        "def fit(",
        "wrong",
        "baselines/first_fit.py does not define pack",
    ),
    "judge import": ("judge.py", "import math\n", "import no_such_module\n", "wrong", "judge.py does not import"),
    "judge function": ("judge.py", "def combine(", "def combined(", "wrong", "must define combine"),
    "cases raise": ("judge.py", "CASES[split])]", "CASES['?'])]", "wrong", "cases('train') raises KeyError: '?'"),
    "empty split": ("judge.py", '"stress": 6', '"stress": 0', "wrong", "cases('stress') is empty"),
    "same ids": ("judge.py", 'id=f"{split}-{seed}"', "id=split", "wrong", "has the id 'train' twice"),
    "seed no int": ("judge.py", "seed=seed,", "seed=str(seed),", "wrong", "seed is '1000', expected an int"),
    "set in public": (
        "judge.py",
        '"sizes": sizes,',
        '"sizes": sizes, "all": [set(sizes)],',
        "wrong",
        "case train-1000: public: a set cannot",
    ),
    "not a Case": ("judge.py", "return Case(", "return dict(", "wrong", "holds a dict, expected adrs_ray.task.Case"),
    "changes by call": (
        "judge.py",
        "rng = random.Random(seed)",
        "rng = random.Random()",
        "wrong",
        "differ from one call to the next",
    ),
    "changes by process": (
        "judge.py",
        "rng = random.Random(seed)",
        'rng = random.Random(seed + hash("x"))',
        "wrong",
        "differ from one process to the next",
    ),
    "adapter": ("adapter.py", "def run(", "def walk(", "missing", "adapter.py defines neither run nor act"),
    "act alone": ("adapter.py", "def run(", "def act(", "wrong", "adapter.py lacks run: judge.py has no referee"),
    "run alone": (
        "judge.py",
        "def combine(",
        "def referee(case):\n    yield case.public\n\n\ndef combine(",
        "wrong",
        "adapter.py lacks act: judge.py has a referee",
    ),
    "no entry named": (
        "task.yaml",
        "entry: [pack]\n",
        "",
        "missing",
        "task.yaml names no entry and adapter.py has no load(source)",
    ),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_each_fault_is_found_and_named(tmp_path: Path, breakage: str) -> None:
    file, old, new, level, said = BREAKAGES[breakage]
    folder = new_folder("bins", tmp_path)
    change(folder, file, old, new)
    found = faults(folder)
    assert [finding for finding in found if finding.level == level and said in finding.what], found
    assert all(finding.hint and "\n" not in finding.what for finding in found)


@pytest.mark.parametrize("file", ["task.yaml", "seed.py", "judge.py", "adapter.py", "baselines/first_fit.py"])
def test_a_file_that_is_no_text(tmp_path: Path, file: str) -> None:
    folder = new_folder("bins", tmp_path)
    (folder / file).write_bytes(b"\xff\xfe\x00")
    assert any(finding.level == "wrong" for finding in faults(folder))


def test_the_same_input_in_two_splits_is_a_warning(tmp_path: Path) -> None:
    folder = new_folder("bins", tmp_path)
    change(folder, "judge.py", "rng = random.Random(seed)", "rng = random.Random(seed % 1000)")
    assert faults(folder) == []
    said = warnings(folder)
    assert "train and validation share 8 inputs (train-1000 = validation-2000)" in said
    assert "train and test share 8 inputs (train-1000 = test-3000)" in said
    assert "validation and test share 8 inputs (validation-2000 = test-3000)" in said


def test_metrics_and_splits_not_declared_are_warnings(tmp_path: Path) -> None:
    folder = new_folder("bins", tmp_path)
    change(folder, "task.yaml", "splits: [train, validation, test, stress]", "splits: [train]")
    assert faults(folder) == []
    assert warnings(folder) == ["task.yaml: splits lacks validation", "task.yaml: splits lacks test"]


def test_recorded_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new_folder("bins", tmp_path)
    monkeypatch.setenv("ADRS_DATA_DIR", str(tmp_path / "data"))
    data = f"data:\n- {{file: sizes.bin, sha256: '{'a' * 64}', url: 'https://example.org/sizes', provides: sizes}}\n"
    (folder / "task.yaml").write_text((folder / "task.yaml").read_text() + data)
    assert warnings(folder) == ["recorded data sizes.bin is not here"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sizes.bin").write_text("other")
    assert ["is not the expected file" in finding.what for finding in faults(folder)] == [True]


def test_openevolve_folders(tmp_path: Path) -> None:
    (tmp_path / "evaluator.py").write_text("def evaluate(path):\n    return {'combined_score': 1.0}\n")
    assert [finding.what for finding in faults(tmp_path)] == ["initial_program.py is missing"]
    (tmp_path / "initial_program.py").write_text("x = 1\n")
    assert faults(tmp_path) == []
    said = warnings(tmp_path)
    assert "initial_program.py has no evolve markers: all of it would be changed" in said
    assert any("candidate-side" in what for what in said)
    (tmp_path / "config.yaml").write_text("evaluator: {timeout: soon}\n")
    assert ["evaluator.timeout is 'soon'" in finding.what for finding in faults(tmp_path)] == [True]
    (tmp_path / "evaluator.py").unlink()
    assert [finding.what for finding in faults(tmp_path)] == ["evaluator.py is missing"]


def test_content_digest_tells_apart_what_differs() -> None:
    values = [
        None,
        0,
        0.0,
        False,
        "0",
        [],
        [[]],
        {},
        {"a": 1},
        {"a": [1]},
        [1, 2],
        [12],
        ["1, 2"],
        np.zeros(2),
        np.zeros(2, np.float32),
        np.zeros((1, 2)),
        np.arange(2),
    ]
    assert len({content_digest(value) for value in values}) == len(values)
    assert content_digest((1, 2)) == content_digest([1, 2])
    assert content_digest(np.arange(6)[::2]) == content_digest(np.array([0, 2, 4]))
    for bad in ([{3}], b"x", np.array(["x"]), np.array([object()])):
        with pytest.raises(UnencodableError):
            content_digest(bad)


def test_the_new_folder_is_judged_in_the_jail(tmp_path: Path) -> None:
    findings = check_folder(new_folder("bins", tmp_path))
    assert [finding for finding in findings if finding.level != "ok"] == []
    assert findings[-1].what.startswith("the seed scores 0.732864 on train in ")


def test_a_seed_that_fails_is_wrong_and_says_why(tmp_path: Path) -> None:
    folder = new_folder("bins", tmp_path)
    change(folder, "seed.py", "if left >= 0 and ", "if ")
    assert faults(folder) == []
    (failed,) = [finding for finding in check_folder(folder) if not finding.usable]
    assert failed.level == "wrong"
    assert failed.what.startswith("the seed fails on train: invalid (case train-1000): the items in bin ")


def test_a_metric_that_task_yaml_does_not_declare_is_a_warning(tmp_path: Path) -> None:
    folder = new_folder("bins", tmp_path)
    change(folder, "task.yaml", "  bins: {", "  boxes: {")
    said = [finding.what for finding in check_folder(folder) if finding.level == "warn"]
    assert said == ["task.yaml does not declare bins"]


def test_the_seed_of_an_openevolve_folder_is_evaluated(tmp_path: Path) -> None:
    (tmp_path / "evaluator.py").write_text("def evaluate(path):\n    return {'combined_score': 0.25, 'other': 3}\n")
    (tmp_path / "initial_program.py").write_text("# EVOLVE-BLOCK-START\nx = 1\n# EVOLVE-BLOCK-END\n")
    findings = check_folder(tmp_path)
    assert [finding.level for finding in findings] == ["ok", "ok", "warn", "ok"]
    assert findings[-1].what.startswith("the seed scores 0.25 on train")


def test_a_machine_that_cannot_jail_is_no_fault_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise UsageError("no jail here")

    monkeypatch.setattr("adrs_ray.placement.place", refuse)
    findings = check_folder(new_folder("bins", tmp_path))
    assert (findings[-1].level, findings[-1].what) == ("warn", "the seed was not evaluated: no jail here")


def of_two_files(parent: Path) -> Path:
    """The template's task with its seed in two files, and as every level."""
    folder = new_folder("bins", parent)
    change(folder, "task.yaml", "entry: [pack]\n", "entry: [pack]\nfiles: [main.py, packing.py]\n")
    (folder / "seed").mkdir()
    (folder / "seed.py").rename(folder / "seed" / "packing.py")
    (folder / "seed" / "main.py").write_text("from packing import pack\n")
    (folder / "seeds").mkdir()
    for level in LEVELS:
        (folder / "seeds" / f"{level}.py").write_text(load_task(folder).seed_source)
    return folder


def test_a_folder_whose_program_is_several_files_passes(tmp_path: Path) -> None:
    findings = check_folder(of_two_files(tmp_path))
    assert [finding for finding in findings if not finding.usable] == []
    told = [finding.what for finding in findings if finding.level == "ok"]
    assert {"seed/packing.py: 1 evolve block", "seed/main.py defines its entry", "seeds/weak.py defines its entry"} <= {
        *told
    }
    assert any(what.startswith("the seed scores 0.732864 on train in ") for what in told)


@pytest.mark.parametrize(
    ("file", "old", "new", "level", "said"),
    [
        (
            "seed/packing.py",
            "# EVOLVE-BLOCK-",
            "# ",
            "missing",
            "seed/main.py and seed/packing.py have no evolve markers",
        ),
        ("seed/packing.py", "# EVOLVE-BLOCK-END\n", "", "wrong", "seed/packing.py: line "),
        ("seed/packing.py", "def pack(", "def pack((", "wrong", "packing.py is no Python"),
        ("seed/main.py", "import pack", "import pack as fit", "wrong", "seed/main.py does not define pack"),
        ("seed/main.py", "from", "# ADRS-FILE: x.py\nfrom", "wrong", "main.py holds a line that starts with"),
        (
            "seeds/weak.py",
            "FILE: packing.py",
            "FILE: other.py",
            "wrong",
            "seeds/weak.py holds main.py, other.py, not main",
        ),
        ("seeds/weak.py", "FILE: packing.py", "FILE: ../x.py", "wrong", "seeds/weak.py: '../x.py' is no name"),
        ("seeds/weak.py", "import pack", "import pack as fit", "wrong", "seeds/weak.py does not define pack"),
        ("seeds/strong.py", "def pack(", "def pack((", "wrong", "strong.py: packing.py is no Python"),
        ("seeds/medium.py", "reverse=False", "reverse=True", "wrong", "seed/ is not seeds/medium.py"),
    ],
)
def test_each_fault_in_one_of_several_files_is_found(
    tmp_path: Path, file: str, old: str, new: str, level: str, said: str
) -> None:
    folder = of_two_files(tmp_path)
    change(folder, file, old, new)
    found = faults(folder)
    assert [finding for finding in found if finding.level == level and said in finding.what], found
    assert all(finding.hint and "\n" not in finding.what for finding in found)


def test_each_of_several_files_is_missed(tmp_path: Path) -> None:
    folder = of_two_files(tmp_path)
    (folder / "seed" / "packing.py").unlink()
    assert [(finding.level, finding.what) for finding in faults(folder)] == [("missing", "seed/packing.py is missing")]
