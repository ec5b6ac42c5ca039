import traceback

from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.program import FILENAME
from adrs_ray.prompt.artifacts import MAX_ARTIFACTS, own_frames, shortened, trimmed_artifacts
from tests.prompt.contexts import HOSTILE


@given(st.text(), st.integers(0, 300))
def test_a_shortened_text_keeps_head_and_tail_and_says_how_much_is_missing(text, chars):
    cut = shortened(text, chars)
    assert len(cut) <= chars
    if len(text) <= chars:
        assert cut == text


def test_head_and_tail_and_what_is_left_out_add_up():
    text = "HEAD" + "x" * 10_000 + "TAIL"
    cut = shortened(text, 200)
    head, gap, tail = cut.split("\n")
    assert head.startswith("HEAD")
    assert tail.endswith("TAIL")
    assert gap == f"[... {len(text) - len(head) - len(tail)} characters left out ...]"
    assert len(cut) > 190


def _traceback_of(source: str) -> str:
    try:
        exec(compile(source, FILENAME, "exec"), {"sorted_by": lambda key: sorted([1], key=key)})
    except Exception:
        return traceback.format_exc()
    raise AssertionError("did not raise")


def test_a_traceback_keeps_the_frames_of_the_program_and_counts_the_others():
    text = _traceback_of("def key(x):\n    return 1 / 0\n\nsorted_by(key)\n")
    kept = own_frames(text)
    assert __file__ not in kept
    assert kept.count(f'File "{FILENAME}"') == 2
    assert kept.count("[1 frame outside of the program left out]") == 2
    assert kept.endswith("ZeroDivisionError: division by zero")
    assert kept.startswith("Traceback (most recent call last):")


def test_a_program_file_counts_as_the_program_and_its_folder_is_not_told():
    text = (
        'Traceback (most recent call last):\n  File "/srv/tasks/x/evaluator.py", line 9, in evaluate\n    f()\n'
        '  File "/tmp/scratch-8/program.py", line 2, in f\n    return [][0]\nIndexError: list index out of range\n'
    )
    assert own_frames(text) == (
        "Traceback (most recent call last):\n  [1 frame outside of the program left out]\n"
        '  File "program.py", line 2, in f\n    return [][0]\nIndexError: list index out of range'
    )


def test_a_traceback_without_a_frame_of_the_program_keeps_its_last_frames():
    frames = "".join(f'  File "/lib/m{n}.py", line {n}, in f\n    code{n}\n' for n in range(6))
    kept = own_frames(frames + "ValueError: x")
    assert "[3 frames outside of the program left out]" in kept
    assert "code2" not in kept
    assert all(f"code{n}" in kept for n in (3, 4, 5))


def test_a_traceback_as_our_children_write_it_stays_as_it_is():
    text = '  File "<candidate>", line 8, in place\n    return 1 / 0\n           ~~^~~\nZeroDivisionError: by zero'
    assert own_frames(text) == text


def test_artifacts_come_errors_first_bounded_in_size_and_number():
    many = {f"out{n}": "word " * 1000 for n in range(MAX_ARTIFACTS + 5)} | {"stderr": "bad", "blank": " \n"}
    shown = trimmed_artifacts(many, tokens=100, chars_per_token=3.0)
    assert next(iter(shown)) == "stderr"
    assert len(shown) == MAX_ARTIFACTS
    assert all(len(text) <= 300 for text in shown.values())
    assert "characters left out" in shown["out0"]
    assert trimmed_artifacts(many, tokens=0, chars_per_token=3.0) == {}
    assert trimmed_artifacts({"blank": " \n"}, tokens=10, chars_per_token=3.0) == {}


@given(st.dictionaries(HOSTILE, HOSTILE, max_size=12), st.integers(0, 200))
def test_whatever_a_program_printed_is_escaped_and_bounded(artifacts, tokens):
    shown = trimmed_artifacts(artifacts, tokens, 3.0)
    assert len(shown) <= MAX_ARTIFACTS
    for name, text in shown.items():
        assert len(text) <= tokens * 3
        assert all(char in "\n\t" or ord(char) >= 32 for char in name + text)
        (name + text).encode("utf-8")
