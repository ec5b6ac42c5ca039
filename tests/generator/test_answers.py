"""A model's answer: the program it means, or words to send back; and what it says it tried."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adrs_ray.bundle import join, split
from adrs_ray.candidate import Completion
from adrs_ray.generator import Form, GenerationRequest
from adrs_ray.generator.answers import NOTE_CHARS, Unreadable, note_of, program_of
from adrs_ray.generator.edits import frame
from adrs_ray.generator.mutate import MutationModel
from tests.generator.test_edits import BUNDLE, FILES, PARENTS, PROGRAM, answers, block

NEW = "def first(x):\n    return 1\n\n\ndef second(x):\n    return 2\n"
HEAD, TAIL = PROGRAM[: PROGRAM.index("def first")], PROGRAM[PROGRAM.index("# EVOLVE-BLOCK-END") :]
CHILD = HEAD + NEW + TAIL
NESTED = "def f(x):\n    y = 1\n    # EVOLVE-BLOCK-START\n    y = 2\n    # EVOLVE-BLOCK-END\n    return y\n"
TWO = "# EVOLVE-BLOCK-START\na = 1\n# EVOLVE-BLOCK-END\nmiddle = 0\n# EVOLVE-BLOCK-START\nb = 1\n# EVOLVE-BLOCK-END\n"


def fenced(code: str, tag: str = "python") -> str:
    return f"```{tag}\n{code}```\n"


def read(
    parent: str, text: str | None, form: Form = "rewrite", fuzzy: float = 0.9, detail: str = ""
) -> str | Unreadable:
    request = GenerationRequest("0-1", form, (parent,), (1,), form=form)
    return program_of(request, Completion(text, "m", form, detail), fuzzy)


def reason(result: object) -> str:
    assert isinstance(result, Unreadable), result
    return result.reason


# Forms


def test_a_program_is_taken_as_it_is():
    assert read("x = 1\n", "what\r\never", "program") == "what\r\never"


def test_nothing_is_unreadable_with_the_models_own_reason():
    assert reason(read("x = 1\n", None, detail="all tokens spent")) == "all tokens spent"
    assert reason(read("x = 1\n", None))


def test_text_is_no_program():
    request = GenerationRequest("0-1", "summarize", (), (1,), form="text")
    with pytest.raises(ValueError, match="no program"):
        program_of(request, Completion("x = 1", "m", "summarize"), 0.9)


def test_a_diff_is_applied():
    text = "Idea: twenty\n\n" + fenced(block("    if x > 10:\n", "    if x > 20:\n"))
    assert read(PROGRAM, text, "diff") == PROGRAM.replace("> 10", "> 20")
    assert "2 places" in reason(read(PROGRAM, block("        return x\n", ""), "diff"))
    assert "cut off" in reason(read(PROGRAM, "<<<<<<< SEARCH\n    if x > 10:\n", "diff"))


def test_blocks_in_place_of_a_rewrite_are_applied():
    for text in (block("    if x > 10:\n", "    if x > 20:\n"), fenced(block("    if x > 10:\n", "    if x > 20:\n"))):
        assert read(PROGRAM, text) == PROGRAM.replace("> 10", "> 20")
    assert "2 places" in reason(read(PROGRAM, block("        return x\n", "")))
    assert reason(read(PROGRAM, "<<<<<<< SEARCH\n    if x > 10:\n"))


def test_the_similarity_is_the_callers():
    text = block("def second(y):\n    if x > 11:\n", "def second(x):\n    if x > 7:\n")
    assert isinstance(read(PROGRAM, text, "diff", 0.8), str)
    assert isinstance(read(PROGRAM, text, "diff", 1.0), Unreadable)


@pytest.mark.parametrize("code", [CHILD, NEW, HEAD + NEW, "\n" + HEAD.replace("# EVOLVE-BLOCK-START\n", "") + NEW])
def test_a_diff_without_blocks_may_be_a_rewrite(code):
    if code == HEAD + NEW:
        assert "markers are broken" in reason(read(PROGRAM, fenced(code), "diff"))
    else:
        assert read(PROGRAM, "I rewrite it.\n" + fenced(code), "diff") == CHILD


@pytest.mark.parametrize(
    "text",
    ["", "I would rather not.", fenced("def first(x):\n    return 1\n"), fenced(NEW) + fenced(NEW), fenced("x = \n")],
)
def test_a_diff_without_blocks_is_no_rewrite_when_it_leaves_something_out(text):
    assert "no SEARCH/REPLACE blocks" in reason(read(PROGRAM, text, "diff"))


# Rewrites


@pytest.mark.parametrize("tag", ["python", "Python", "py", "", "python3", "python:main.py"])
def test_the_fenced_code_is_the_evolve_block(tag):
    assert read(PROGRAM, "Idea: constants\n" + fenced(NEW, tag) + "That is all.\n") == CHILD


def test_a_whole_program_gives_its_blocks_only():
    changed = CHILD.replace("LIMIT = 3", "LIMIT = 99").replace("third", "fourth").replace("import math", "import os")
    assert changed != CHILD
    assert read(PROGRAM, fenced(changed)) == CHILD
    assert read(TWO, fenced(TWO.replace("= 1", "= 5").replace("= 0", "= 5"))) == TWO.replace("= 1", "= 5")


def test_a_whole_program_without_markers_loses_what_stands_outside():
    bare = CHILD.replace("# EVOLVE-BLOCK-START\n", "").replace("# EVOLVE-BLOCK-END\n", "")
    assert read(PROGRAM, fenced(bare)) == CHILD
    assert read(PROGRAM, fenced(bare.replace("\n\n\n", "\n").replace(" = ", "  = "))) == CHILD.replace(
        "\n\n\ndef second", "\ndef second"
    )
    assert read(PROGRAM, fenced(bare[: bare.index("\n\ndef third")])) == CHILD


def test_code_that_is_only_what_stands_outside_is_taken_as_it_is():
    assert read(PROGRAM, fenced("import math\n\nLIMIT = 3\n")) == HEAD + "import math\n\nLIMIT = 3\n" + TAIL


def test_a_program_without_markers_is_rewritten_whole_and_gets_none():
    assert read("x = 1\n", fenced("y = 2\n")) == "y = 2\n"
    assert read("x = 1\n", fenced("# EVOLVE-BLOCK-START\ny = 2\n# EVOLVE-BLOCK-END\n")) == "y = 2\n"


def test_the_block_keeps_its_indentation():
    for code in (
        "y = 3\nif y:\n    y = 4\n",
        "    y = 3\n    if y:\n        y = 4\n",
        "\n  y = 3\n  if y:\n      y = 4\n",
    ):
        wanted = "    y = 3\n    if y:\n        y = 4\n"
        assert read(NESTED, fenced(code)) == NESTED.replace("    y = 2\n", wanted)
    empty = NESTED.replace("    y = 2\n", "")
    assert read(empty, fenced("y = 3\n")) == NESTED.replace("2", "3")


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_of_the_parent_are_kept(end):
    parent = PROGRAM.replace("\n", end)
    for text in (fenced(NEW), fenced(CHILD), fenced(NEW).replace("\n", "\r\n")):
        assert read(parent, text) == CHILD.replace("\n", end)


def test_the_last_code_that_is_no_example_counts():
    text = fenced("x = 1\n") + "no, better\n" + fenced(NEW) + "Use it so:\n" + fenced("first(3)\n") + fenced("3\n", "")
    assert read(PROGRAM, text) == CHILD
    assert read(PROGRAM, fenced(NEW.replace("1", "7")) + fenced(NEW)) == CHILD
    assert read(PROGRAM, fenced(CHILD) + fenced(PROGRAM.replace("# EVOLVE", "# ").strip() + "\n")) == CHILD
    assert read(PROGRAM, fenced("$ run\n", "bash") + fenced(NEW) + fenced("{}\n" * 99, "json")) == CHILD


def test_indented_and_tilde_fences_count():
    text = (
        "1. so:\n\n   ```python\n" + "".join(f"   {line}".rstrip(" ") + "\n" for line in NEW.splitlines()) + "   ```\n"
    )
    assert read(PROGRAM, text) == CHILD
    assert read(PROGRAM, f"~~~python\n{NEW}~~~\n") == CHILD
    assert read(PROGRAM, f"````python\n{NEW}s = '''\n```\n'''\n````\n") == HEAD + NEW + "s = '''\n```\n'''\n" + TAIL


def test_backticks_that_are_indented_as_code_do_not_end_a_block():
    new = NEW.replace("    return 1\n", '    """Such as\n\n    ```\n    first(1)\n    ```\n    """\n    return 1\n')
    assert read(PROGRAM, f"Idea: a docstring\n\n{fenced(HEAD + new + TAIL)}") == HEAD + new + TAIL
    assert note_of(Completion(f"{fenced(new)}Afterwards.", "m", "rewrite")) == "Afterwards."


def test_bare_python_is_code():
    assert read(PROGRAM, CHILD) == CHILD
    assert read(PROGRAM, NEW) == CHILD
    assert "no fenced code block" in reason(read(PROGRAM, "None"))


@pytest.mark.parametrize(
    ("parent", "text", "told"),
    [
        (PROGRAM, f"```python\n{NEW}", "cut off"),
        (PROGRAM, fenced(NEW) + "```\nmore", "cut off"),
        (PROGRAM, "Nothing to do.", "no fenced code block"),
        (PROGRAM, fenced("  \n"), "no fenced code block"),
        (PROGRAM, fenced("rm -r\n", "bash"), "no fenced code block"),
        (TWO, fenced("a = 2\n"), "the program has 2 evolve blocks"),
        (PROGRAM, fenced(TWO), "the code has 2 evolve blocks, the program has 1"),
        (PROGRAM, fenced("# EVOLVE-BLOCK-START\nx = 1\n"), "markers are broken"),
        ("# EVOLVE-BLOCK-START\nx = 1\n", fenced("x = 2\n"), "the program's own markers are broken"),
        ("# ADRS-FILE: X.py\n", fenced("x = 2\n"), "the program's own markers are broken"),
        (PROGRAM, "x" * 500_000, "characters"),
    ],
)
def test_what_cannot_be_read_is_told(parent, text, told):
    said = reason(read(parent, text))
    assert told in said
    assert len(said) < 400


# Several files


def test_files_are_rewritten_by_name():
    source = join(FILES)
    wanted = source.replace("x = 1\ny = 2\n", "z = 3\n")
    named = [
        "file: policy.py\n" + fenced("z = 3\n"),
        "### policy.py\n\n" + fenced("# EVOLVE-BLOCK-START\nz = 3\n# EVOLVE-BLOCK-END\n"),
        fenced("# ADRS-FILE: policy.py\nz = 3\n"),
        fenced("# ADRS-FILE: main.py\nimport os\n# ADRS-FILE: policy.py\nz = 3\n"),
        fenced("z = 3\n"),
        "file: main.py\n" + fenced("import os\n") + "file: policy.py\n" + fenced("z = 3\n"),
    ]
    for text in named:
        assert read(source, text) == wanted, text


def test_files_without_any_marker_are_all_open():
    source = join({"main.py": "x = 1\n", "policy.py": "y = 1\n"})
    result = read(source, "file: main.py\n" + fenced("x = 5\n") + "file: policy.py\n" + fenced("y = 5\n"))
    assert isinstance(result, str)
    assert split(result) == {"main.py": "x = 5\n", "policy.py": "y = 5\n"}
    assert "say which file" in reason(read(source, fenced("x = 5\n")))
    assert "a file other.py" in reason(read(source, fenced("# ADRS-FILE: other.py\nx = 5\n")))
    assert "ADRS-FILE lines are broken" in reason(read(source, fenced("# ADRS-FILE: ../x\nx = 5\n")))
    assert "leave them as they are" in reason(read(source, "file: main.py\n" + fenced("x = 5\n# ADRS-FILE: z.py\n")))


def test_a_file_with_two_blocks_is_named_in_the_answer():
    source = join({"main.py": TWO, "policy.py": TWO})
    assert reason(read(source, "file: policy.py\n" + fenced("a = 1\n"))).startswith("policy.py: the program has 2")


# Notes


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("Idea: sort by slack.\n```python\nx = 1\n```\n", "sort by slack."),
        ("Some words.\n**Idea:** sort *by* slack\n", "sort *by* slack"),
        ("- idea : use a heap\n", "use a heap"),
        ("## Idea:\n\nuse a heap\n", "use a heap"),
        ("```\nIdea: not this\n```\nI use a heap. Then more.\n", "I use a heap."),
        (block("Idea: not this\n", "nor this. Never\n") + "So it is faster", "So it is faster"),
        ("### Plan\nIt is 2.5 times faster! Yes.", "It is 2.5 times faster!"),
        ("```python\nx = 1\n", ""),
        ("", ""),
        ("Idea: a\x1b[31mb\u202ec\td", "a\\x1b[31mb\\u202ec d"),
    ],
)
def test_the_note_says_what_was_tried(text, note):
    assert note_of(Completion(text, "m", "diff")) == note


def test_an_answer_that_is_one_fence_still_says_its_idea():
    text = "Idea: twenty\n\n" + block("    if x > 10:\n", "    if x > 20:\n")
    assert note_of(Completion(fenced(text, ""), "m", "diff")) == "twenty"
    assert note_of(Completion(fenced(NEW), "m", "rewrite")) == ""


def test_no_answer_has_no_note():
    assert note_of(Completion(None, "m", "diff")) == ""


@settings(deadline=None)
@given(answers() | st.text().map("Idea: {}".format))
@example("Idea: " + "\x00" * 1000)
@example("word " * 100_000)
def test_a_note_is_one_short_printable_line(text):
    note = note_of(Completion(text, "m", "diff"))
    assert len(note) <= NOTE_CHARS
    assert note == "" or note.isprintable()


# Whatever comes


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([*PARENTS, TWO, NESTED]), answers(), st.sampled_from(["diff", "rewrite"]), st.booleans())
@example(PROGRAM, "```python\n" + "`" * 1000, "rewrite", False)
@example(BUNDLE, fenced("# ADRS-FILE: policy.py\n\n"), "rewrite", False)
def test_no_answer_raises_or_changes_a_byte_outside_the_blocks(parent, text, form, fence):
    text = f"```python\n{text}\n```\n" if fence else text
    result = read(parent, text, form)
    assert read(parent, text, form) == result
    if isinstance(result, Unreadable):
        assert 0 < len(result.reason) < 400
    else:
        assert frame(result) == frame(parent)


def test_hostile_answers_are_answered():
    for text in ("```" + "a" * 300_000 + "`", "`" * 300_000, " " * 300_000 + "`", "```\n" * 50_000, "#" * 300_000,
                 "idea" * 70_000, "* " * 150_000, "<" * 300_000, "# EVOLVE-BLOCK-START\n" * 9_000):  # fmt: skip
        for form in ("diff", "rewrite"):
            result = read(PROGRAM, text, form)
            assert isinstance(result, Unreadable)
            assert len(result.reason) < 400
        assert len(note_of(Completion(text, "m", "diff"))) <= NOTE_CHARS


def test_a_mutated_program_passes_through():
    request = GenerationRequest("0-1", "mutate", (PROGRAM,), (1, 2))
    completion = asyncio.run(MutationModel().complete(request))
    assert program_of(request, completion, 0.9) == completion.text
