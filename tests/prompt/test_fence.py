import re

from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.prompt.fence import fenced, line, printable
from tests.prompt.contexts import HOSTILE


@given(st.one_of(st.text(), HOSTILE, st.text("`~\n \r\u2028x")))
def test_a_text_cannot_end_its_fence(text):
    block = fenced(text, "python")
    opening, *body, closing = re.split("\r\n|[\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", block)
    fence = opening.removesuffix("python")
    assert set(fence) == {"`"}
    assert len(fence) >= 3
    assert closing == fence
    assert not any(fence in part for part in body)


@given(st.one_of(st.text(), HOSTILE))
def test_what_is_printable_can_be_encoded_and_shown_on_a_terminal(text):
    shown = printable(text)
    shown.encode("utf-8")
    assert all(char in "\n\t" or ord(char) >= 32 for char in shown)
    assert printable(shown) == shown


def test_a_program_without_odd_characters_is_shown_as_it_is():
    source = 'def f(x):\n\treturn "grün → ✓"  # 数\n'
    assert printable(source) == source
    assert printable("a\r\nb\rc") == "a\nb\nc"
    assert printable("\x1b[31m\u202e\ud800\x00") == r"\x1b[31m\u202e\ud800\x00"


@given(st.one_of(st.text(), HOSTILE), st.integers(4, 400))
def test_a_line_is_one_line_of_bounded_length(text, chars):
    shown = line(text, chars)
    assert len(shown) <= chars
    assert len(shown.splitlines()) <= 1


def test_a_line_that_was_cut_says_so():
    assert line("one\n two", 20) == "one two"
    assert line("x" * 30, 20) == "x" * 17 + "..."
    assert line("x" + " " * 500 + "y", 20) == "x..."
