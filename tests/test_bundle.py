"""Programs of several files: one text, and how tasks and screens read it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.bundle import MAIN, is_bundle, join, spans, split
from adrs_ray.errors import UsageError
from adrs_ray.program import fingerprint, syntax_problem
from adrs_ray.task import load_task
from tests.tiny import write_tiny_task

NAMES = st.sampled_from(["main.py", "policy.py", "a.py", "_b.py", "c2.py"])
TEXTS = st.text(alphabet="ab#=\n\r \t'é", max_size=30)


def test_a_program_of_one_file_is_its_own_text():
    assert split("x = 1\n") == {MAIN: "x = 1\n"}
    assert join({MAIN: "x = 1"}) == "x = 1"
    assert not is_bundle("x = 1\n# ADRS-FILE: policy.py\n")
    assert list(split("x = 1\n# ADRS-FILE: policy.py\n")) == [MAIN]


@given(st.dictionaries(NAMES, TEXTS, min_size=1))
def test_joined_files_come_apart_again(files):
    source = join(files)
    assert is_bundle(source)
    ended = {name: text if not text or text[-1] in "\r\n" else text + "\n" for name, text in files.items()}
    assert split(source) == ended
    assert list(split(source)) == list(files)
    assert join(split(source)) == source


def test_files_keep_their_line_ends_and_are_found_in_the_text():
    source = "# ADRS-FILE: main.py\r\nimport policy\r\n# ADRS-FILE: policy.py\r\nx = 1\r\n"
    assert split(source) == {"main.py": "import policy\r\n", "policy.py": "x = 1\r\n"}
    assert [(name, source[a:b]) for name, a, b in spans(source)] == list(split(source).items())


@pytest.mark.parametrize(
    "name", ["../x.py", "X.py", "x", "", "a/b.py", "1.py", "x.py.py", "random.py", "candidate.py", "x.py\n", "é.py"]
)
def test_names_that_cannot_be_are_refused(name):
    with pytest.raises(ValueError, match=r"name") as caught:
        join({"main.py": "", name: ""})
    assert "\n" not in str(caught.value)
    if "\n" not in name:
        with pytest.raises(ValueError, match=r"name"):
            split(f"# ADRS-FILE: main.py\n# ADRS-FILE: {name}\n")


def test_two_files_of_one_name_and_texts_that_begin_files_are_refused():
    with pytest.raises(ValueError, match=r"a\.py occurs twice"):
        split("# ADRS-FILE: a.py\n# ADRS-FILE: a.py\n")
    with pytest.raises(ValueError, match="which begins a file"):
        join({"a.py": "x = 1\n# ADRS-FILE: b.py\n"})
    with pytest.raises(ValueError, match="at least one file"):
        join({})


def test_each_file_is_compiled_by_itself():
    good = join({"main.py": "import policy\n", "policy.py": "from __future__ import annotations\nx = 1\n"})
    assert syntax_problem(good) is None
    assert len(fingerprint(good)) == 32
    assert syntax_problem(join({"main.py": "x = (\n", "policy.py": "1)\n"})) == "main.py: line 1: '(' was never closed"
    assert syntax_problem(join({"main.py": "", "policy.py": "x =\n"})) == "policy.py: line 1: invalid syntax"
    assert "occurs twice" in str(syntax_problem("# ADRS-FILE: a.py\n# ADRS-FILE: a.py\n"))


def test_an_evolve_block_lies_in_one_file():
    source = join({"a.py": "# EVOLVE-BLOCK-START\n", "b.py": "# EVOLVE-BLOCK-END\n"})
    assert syntax_problem(source) == "a.py: line 1: EVOLVE-BLOCK-START without EVOLVE-BLOCK-END"


def several(folder: Path, files: str = "[main.py, policy.py]") -> Path:
    task = write_tiny_task(folder)
    (task / "task.yaml").write_text((task / "task.yaml").read_text() + f"files: {files}\n")
    (task / "seed.py").unlink()
    (task / "seed").mkdir()
    (task / "seed" / "main.py").write_text("import policy\n\n\ndef answer(limit):\n    return policy.best(limit)\n")
    (task / "seed" / "policy.py").write_text(
        "# EVOLVE-BLOCK-START\ndef best(limit):\n    return 1\n# EVOLVE-BLOCK-END\n"
    )
    return task


def test_a_task_of_several_files_is_one_text(tmp_path):
    task = load_task(several(tmp_path))
    assert task.spec.files == ("main.py", "policy.py")
    assert list(split(task.seed_source)) == ["main.py", "policy.py"]
    assert split(task.seed_source)["policy.py"] == (task.folder / "seed" / "policy.py").read_text()


def test_a_task_of_one_file_has_a_seed_py(tmp_path):
    task = load_task(write_tiny_task(tmp_path))
    assert task.spec.files == ()
    assert not is_bundle(task.seed_source)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ("[main.py, other.py]", r"seed/other\.py"),
        ("[main.py, Policy.py]", r"task\.yaml: files .*Policy\.py"),
        ("[main.py, main.py]", r"task\.yaml: files .*twice"),
        ("[main.py, random.py]", r"task\.yaml: files .*another module"),
        ("[main.py, 7]", r"task\.yaml: files\.1"),
    ],
)
def test_mistakes_in_files_are_one_line(tmp_path, files, told):
    task = several(tmp_path, files)
    with pytest.raises(UsageError, match=told) as caught:
        load_task(task)
    assert "\n" not in str(caught.value)


def test_a_seed_file_that_cannot_be_joined_is_named(tmp_path):
    task = several(tmp_path)
    (task / "seed" / "policy.py").write_text("# ADRS-FILE: x.py\n")
    with pytest.raises(UsageError, match=r"seed: policy\.py holds a line") as caught:
        load_task(task)
    assert "\n" not in str(caught.value)


def test_a_seed_whose_blocks_are_open_is_refused(tmp_path):
    task = several(tmp_path)
    (task / "seed" / "policy.py").write_text("# EVOLVE-BLOCK-START\n")
    with pytest.raises(UsageError, match=r"seed/policy\.py: line 1: EVOLVE-BLOCK-START without"):
        load_task(task)
