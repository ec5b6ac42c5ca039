"""SEARCH/REPLACE edits: how they are read, where they belong, and that they change nothing else."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adrs_ray.bundle import join, split
from adrs_ray.generator.edits import MAX_EDITS, MAX_NEAR_CHARS, Edit, Unreadable, apply, frame, parse
from adrs_ray.generator.matching import find_near
from adrs_ray.program import split_lines
from tests.generator.corpus import TYPICAL

PROGRAM = """\
import math

LIMIT = 3


# EVOLVE-BLOCK-START
def first(x):
    if x > LIMIT:
        x = x - 1
        return x
    return 0


def second(x):
    if x > 10:
        x = x - 1
        return x
    return math.sqrt(x)
# EVOLVE-BLOCK-END


def third(x):
    return first(x) + second(x)
"""


def block(search: str, replace: str, marks: int = 7) -> str:
    return f"{'<' * marks} SEARCH\n{search}{'=' * marks}\n{replace}{'>' * marks} REPLACE\n"


def edited(source: str, search: str, replace: str, fuzzy: float = 0.9) -> str | Unreadable:
    edits = parse(block(search, replace))
    assert not isinstance(edits, Unreadable)
    return apply(source, edits, fuzzy)


def reason(result: object) -> str:
    assert isinstance(result, Unreadable), result
    assert result.reason.count("\n") < 4
    return result.reason


# Reading


@pytest.mark.parametrize("marks", [5, 6, 7, 8, 9])
def test_blocks_are_read_with_five_to_nine_marks(marks):
    assert parse("Idea: less\n" + block("a\n  b\n", "c\n", marks)) == (Edit(("a", "  b"), ("c",)),)


@pytest.mark.parametrize("marks", [4, 10])
def test_other_numbers_of_marks_are_no_blocks(marks):
    assert parse(block("a\n", "b\n", marks)) == ()


def test_blocks_stand_in_fences_or_not_and_lines_may_end_in_crlf():
    text = "```python\n" + block("a\n", "b\n") + block("", "c\n") + "```\nand\n" + block("d\n", "")
    wanted = (Edit(("a",), ("b",)), Edit((), ("c",)), Edit(("d",), ()))
    assert parse(text) == wanted
    assert parse(text.replace("\n", "\r\n")) == wanted
    assert parse("no edits here\n=======\n>>>>>>> REPLACE\n") == ()


@pytest.mark.parametrize(
    "heading",
    [
        "file: policy.py",
        "### policy.py",
        "File: `policy.py`",
        "**policy.py**",
        "# ADRS-FILE: policy.py",
        "`policy.py`:",
    ],
)
def test_a_line_before_a_block_may_name_its_file(heading):
    for between in ("\n", "\n```python\n", "\n\n"):
        edits = parse(heading + between + block("a\n", "b\n"))
        assert edits == (Edit(("a",), ("b",), "policy.py"),)


@pytest.mark.parametrize("heading", ["I change policy.py here", "x = 1", "#" * 5000, "policy.py and main.py"])
def test_other_lines_before_a_block_name_nothing(heading):
    assert parse(heading + "\n" + block("a\n", "b\n")) == (Edit(("a",), ("b",)),)


def test_a_block_without_end_is_cut_off():
    assert "block 2 is cut off" in reason(parse(block("a\n", "b\n") + "<<<<<<< SEARCH\na\n=======\nb\n"))
    assert "block 1 is cut off" in reason(parse("<<<<<<< SEARCH\na\n" + block("a\n", "b\n")))


def test_the_line_between_the_halves_is_the_one_as_long_as_the_markers():
    text = '<<<<<<< SEARCH\na\n=======\n"""Title\n=====\n"""\n>>>>>>> REPLACE\n'
    assert parse(text) == (Edit(("a",), ('"""Title', "=====", '"""')),)
    for bad in (block("a\n=======\nb\n", "c\n"), "<<<<<<< SEARCH\na\n>>>>>>> REPLACE\n"):
        assert "exactly one line =======" in reason(parse(bad))


def test_too_much_is_refused():
    assert "more than" in reason(parse(block("a\n", "b\n") * (MAX_EDITS + 1)))
    assert "characters" in reason(parse("x" * 1_000_000))


# Places, one reading after the other


def test_the_same_text_is_replaced():
    result = edited(PROGRAM, "    if x > 10:\n", "    if x > 20:\n")
    assert result == PROGRAM.replace("> 10", "> 20")


def test_a_piece_of_a_line_is_no_place():
    assert "matches nothing" in reason(edited(PROGRAM, "x > 10\n", "x > 20\n"))


def test_what_stands_in_several_places_is_ambiguous_and_the_lines_are_named():
    told = reason(edited(PROGRAM, "        x = x - 1\n        return x\n", ""))
    assert told == "SEARCH block 1 matches 2 places (lines 9, 16): add lines around it to tell which"
    many = "x = 1\n" * 50
    assert "more than 5 places (lines 1, 2, 3, 4, 5, ...)" in reason(edited(many, "x = 1\n", "x = 2\n"))


def test_an_exact_place_goes_before_looser_ones():
    source = "if a:\n    x = 1\nx = 1\n"
    assert edited(source, "x = 1\n", "x = 2\n") == "if a:\n    x = 1\nx = 2\n"
    assert edited(source, "    x = 1\n", "    x = 2\n") == "if a:\n    x = 2\nx = 1\n"
    assert "2 places" in reason(edited(source, "  x = 1\n", "  x = 2\n"))


def test_blanks_inside_and_behind_lines_do_not_count():
    result = edited(PROGRAM, "\n    if  x >  10:   \n\n", "\n    if x > 20:\n\n")
    assert result == PROGRAM.replace("> 10", "> 20")


def test_tabs_stand_for_four_blanks_and_the_program_keeps_its_own():
    tabbed = "def f(x):\n\tif x:\n\t\treturn 1\n\treturn 2\n"
    result = edited(tabbed, "    if x:\n        return 1\n", "    if x:\n        y = 3\n        return y\n")
    assert result == "def f(x):\n\tif x:\n\t\ty = 3\n\t\treturn y\n\treturn 2\n"
    back = edited(tabbed.expandtabs(4), "\tif x:\n\t\treturn 1\n", "\tif x:\n\t\treturn 7\n")
    assert back == tabbed.expandtabs(4).replace("1", "7")


@pytest.mark.parametrize("shift", ["", "  ", "        "])
def test_shifted_lines_are_found_and_the_replacement_moves_along(shift):
    search = f"{shift}if x > 10:\n{shift}    x = x - 1\n"
    replace = f"{shift}if x > 10:\n{shift}    if x:\n{shift}        x = 7\n\n{shift}y = 1\n"
    wanted = "    if x > 10:\n        if x:\n            x = 7\n\n    y = 1\n"
    result = edited(PROGRAM, search, replace)
    assert result == PROGRAM.replace("    if x > 10:\n        x = x - 1\n", wanted)


def test_shifted_lines_in_several_places_are_ambiguous():
    assert "2 places (lines 9, 16)" in reason(edited(PROGRAM, "x = x - 1\nreturn x\n", "pass\n"))


def test_nearly_the_same_lines_are_found_when_they_are_clearly_ahead():
    search = "def second(x):\n    if x >= 10:\n        x = x - 1\n        return x\n    return math.sqrt(x)\n"
    result = edited(PROGRAM, search, "def second(x):\n    return 2\n")
    assert isinstance(result, str)
    assert result.startswith(
        PROGRAM[: PROGRAM.index("def second")] + "def second(x):\n    return 2\n# EVOLVE-BLOCK-END"
    )
    assert "closest lines start at 14" in reason(edited(PROGRAM, search, "pass\n", fuzzy=0.999))


def test_a_line_left_out_of_a_search_is_found():
    search = "def second(x):\n    if x > 10:\n        return x\n    return math.sqrt(x)\n"
    result = edited(PROGRAM, search, "def second(x):\n    return 2\n", fuzzy=0.8)
    assert isinstance(result, str)
    assert result.count("def second") == 1
    assert "sqrt" not in result


def test_lines_whose_indentation_was_lost_are_found():
    search = "def second(x):\nif x > 10:\nx = x - 1\nreturn x\nreturn math.sqrt(x)\n"
    result = edited(PROGRAM, search, "def second(x):\n    return 2\n")
    assert isinstance(result, str)
    assert result.count("return 2") == 1


def test_two_similar_places_are_ambiguous():
    source = "alpha = compute(first_value, 1)\nbeta = 2\ngamma = 3\ndelta = 4\nalpha = compute(first_value, 2)\n"
    told = reason(edited(source, "alpha = compute(first_value, 3)\n", "pass\n"))
    assert "resembles 2 places (lines 1, 5)" in told


def test_similar_lines_are_looked_for_as_long_as_not_too_much_is_searched():
    lines = tuple(f"    a_{n} = {n}" for n in range(MAX_NEAR_CHARS // 10))
    source = "\n".join((*lines, "    total = first + second", ""))
    same, near = Edit(lines, lines), Edit(("    total = first + secon",), ("    pass",))
    assert isinstance(apply(source, [near], 0.9), str)
    assert "matches nothing" in reason(apply(source, [same, near], 0.9))


def test_a_place_outside_the_blocks_is_told():
    for search in ("LIMIT = 3\n", "  return first(x)  + second(x)\n", "# EVOLVE-BLOCK-START\ndef first(x):\n"):
        told = reason(edited(PROGRAM, search, "pass\n"))
        assert "lies outside the evolve blocks (line" in told


def test_what_is_nowhere_is_told():
    assert reason(edited(PROGRAM, "a_wholly_other = program\n", "pass\n")).startswith(
        "SEARCH block 1 matches nothing in the evolve blocks"
    )


def test_edits_apply_to_what_those_before_left():
    edits = (Edit(("    return 0",), ("    return 1",)), Edit(("    return 1",), ("    return 2",)))
    assert apply(PROGRAM, edits, 0.9) == PROGRAM.replace("return 0", "return 2")
    told = apply(PROGRAM, (edits[0], Edit(("    return 0",), ())), 1.0)
    assert "SEARCH block 2 matches nothing" in reason(told)


def test_no_edits_leave_the_program():
    assert apply(PROGRAM, (), 0.9) == PROGRAM


def test_an_empty_search_fills_an_empty_block():
    for inside in ("", "\n  \n"):
        source = f"a = 1\n# EVOLVE-BLOCK-START\n{inside}# EVOLVE-BLOCK-END\n"
        assert edited(source, "", "b = 2\n") == "a = 1\n# EVOLVE-BLOCK-START\nb = 2\n# EVOLVE-BLOCK-END\n"
    assert edited("", "", "b = 2\n") == "b = 2\n"
    assert "block 1 is empty" in reason(edited(PROGRAM, "", "b = 2\n"))
    two = "# EVOLVE-BLOCK-START\n# EVOLVE-BLOCK-END\n" * 2
    assert "2 evolve blocks are (lines 2, 4)" in reason(edited(two, "\n", "b = 2\n"))


@pytest.mark.parametrize(
    "replace", ["# EVOLVE-BLOCK-END\n", "# EVOLVE-BLOCK-END\nx = 1\n# EVOLVE-BLOCK-START\n", "# EVOLVE-BLOCK-START\n"]
)
def test_markers_are_not_put_in(replace):
    assert "leave them out" in reason(edited(PROGRAM, "    return 0\n", replace))
    assert "leave them out" in reason(edited("x = 1\n", "x = 1\n", "# EVOLVE-BLOCK-START\n# EVOLVE-BLOCK-END\n"))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_the_program_are_kept(end):
    source = PROGRAM.replace("\n", end)
    result = edited(source, "    if x > 10:\n        x = x - 1\n", "    if x > 20:\n        x = 1\n        x = 2\n")
    assert result == PROGRAM.replace(
        "    if x > 10:\n        x = x - 1\n", "    if x > 20:\n        x = 1\n        x = 2\n"
    ).replace("\n", end)


def test_a_program_that_does_not_end_its_last_line_goes_on_so():
    assert edited("a = 1\nb = 2", "b = 2\n", "b = 3\nc = 4\n") == "a = 1\nb = 3\nc = 4"
    assert edited("a = 1\nb = 2", "a = 1\n", "a = 3\n") == "a = 3\nb = 2"
    assert edited("a = 1", "a = 1\n", "") == ""


def test_a_program_with_broken_markers_is_told():
    assert "markers are broken" in reason(edited("# EVOLVE-BLOCK-START\nx = 1\n", "x = 1\n", "x = 2\n"))


# Several files

FILES = {"main.py": "import policy\nx = 1\n", "policy.py": "# EVOLVE-BLOCK-START\nx = 1\ny = 2\n# EVOLVE-BLOCK-END\n"}


def test_a_file_is_edited_by_name_or_where_the_lines_are():
    source = join(FILES)
    for file in (None, "policy.py"):
        result = apply(source, (Edit(("y = 2",), ("y = 3",), file),), 0.9)
        assert result == source.replace("y = 2", "y = 3")
    assert "files are main.py, policy.py" in reason(apply(source, (Edit(("y = 2",), (), "other.py"),), 0.9))
    assert "main.py, which has no evolve block" in reason(apply(source, (Edit(("x = 1",), (), "main.py"),), 0.9))


def test_a_name_tells_two_places_apart_and_files_stay_apart():
    source = join({"main.py": "x = 1\n", "policy.py": "x = 1\n", "empty.py": ""})
    assert "2 places" in reason(apply(source, (Edit(("x = 1",), ("x = 2",)),), 0.9))
    result = apply(source, (Edit(("x = 1",), ("x = 2",), "policy.py"), Edit((), ("z = 1",), "empty.py")), 0.9)
    assert isinstance(result, str)
    assert split(result) == {"main.py": "x = 1\n", "policy.py": "x = 2\n", "empty.py": "z = 1\n"}
    across = Edit(("x = 1", "# ADRS-FILE: policy.py", "x = 1"), ())
    assert "outside" in reason(apply(source, (across,), 0.9))
    assert "leave them out" in reason(apply(source, (Edit(("x = 1",), ("# ADRS-FILE: b.py",), "main.py"),), 0.9))


def test_a_name_means_nothing_for_a_program_of_one_file():
    assert apply("x = 1\n", (Edit(("x = 1",), ("x = 2",), "main.py"),), 0.9) == "x = 2\n"


# Whatever comes

BUNDLE = join({"main.py": PROGRAM, "policy.py": TYPICAL.replace("\n", "\r\n"), "free.py": "z = 1\n"})
PARENTS = [PROGRAM, PROGRAM.replace("\n", "\r\n"), TYPICAL, BUNDLE, "a = 1\nb = 2", "", "x = 1\n" * 30]
PIECES = st.sampled_from(
    [
        *split_lines(PROGRAM),
        *split_lines(TYPICAL)[10:30],
        "<<<<<<< SEARCH\n",
        "=======\n",
        ">>>>>>> REPLACE\n",
        "```python\n",
        "```\n",
        "# EVOLVE-BLOCK-START\n",
        "    # EVOLVE-BLOCK-END\r\n",
        "# ADRS-FILE: policy.py\n",
        "file: policy.py\n",
        "x = 1\n",
        "\n",
        "\r",
        "\ud800\x00\x0c\u2028\n",
    ]
)
LINES = st.lists(PIECES | st.text(max_size=12), max_size=8).map("".join)


@st.composite
def answers(draw):
    parts = draw(st.lists(LINES | st.builds(lambda a, b: block(a + "\n", b + "\n"), LINES, LINES), max_size=5))
    return "".join(parts)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PARENTS), answers(), st.sampled_from([0.51, 0.7, 0.9, 1.0]))
@example("x = 1\n", block("x = 1\n", "\r# EVOLVE-BLOCK-END"), 0.9)
def test_no_answer_raises_or_touches_a_byte_outside_the_blocks(parent, text, fuzzy):
    edits = parse(text)
    assert parse(text) == edits
    if isinstance(edits, Unreadable):
        return
    result = apply(parent, edits, fuzzy)
    assert apply(parent, edits, fuzzy) == result
    if isinstance(result, Unreadable):
        assert 0 < len(result.reason) < 400
    else:
        assert frame(result) == frame(parent)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from(PARENTS[:4]), st.lists(st.text("ab \t:é", max_size=8), max_size=4))
def test_a_quoted_piece_is_replaced_or_found_ambiguous(data, parent, replace):
    bare = [line.rstrip("\r\n") for line in split_lines(parent)]
    start = data.draw(st.integers(0, len(bare) - 1))
    stop = data.draw(st.integers(start + 1, min(len(bare), start + 6)))
    result = apply(parent, (Edit(tuple(bare[start:stop]), tuple(replace)),), 0.9)
    if isinstance(result, str):
        lines = split_lines(result)
        assert len(lines) == len(bare) - (stop - start) + len(replace)
        assert [line.rstrip("\r\n") for line in lines] in [
            bare[:at] + replace + bare[at + stop - start :] for at in range(len(bare))
        ]
    else:
        assert any(word in result.reason for word in ("places", "outside", "empty"))


def test_hostile_sizes_are_answered():
    """Texts made to be slow: every one is answered, none takes noticeably longer than an ordinary one."""
    wide = "x = 1\n" * 16_000
    assert "more than 5 places" in reason(edited(wide, "x = 1\n" * 8_000, "y\n"))
    assert "places" in reason(edited(wide, "  x = 1\n" * 8_000, "y\n"))
    assert "nothing" in reason(edited(wide, "x = 1\n" * 8_000 + "y = 2\n", "y\n"))
    assert "resembles" in reason(edited(wide, "x = 1\n" * 700 + "x = 2\n", "y\n"))
    assert "nothing" in reason(edited("a b " * 25_000, "b c\n", "y\n"))
    assert "nothing" in reason(edited("\n" * 99_999, "b c\n", "y\n"))


@given(st.lists(st.sampled_from(["a = 1", "b = 2", "    c", ""]), max_size=12), st.floats(0.5, 1.0))
def test_near_places_lie_in_the_ranges(lines, least):
    near = find_near(lines, ["a = 1", "    c"], [(0, len(lines) // 2), (len(lines) // 2, len(lines))], least)
    for place in (near.place, *near.rivals, near.closest):
        if place is not None:
            assert 0 <= place.start < place.stop <= len(lines)
            assert place.stop <= len(lines) // 2 or place.start >= len(lines) // 2
