"""Blocks, fingerprints, descriptors and syntax checks of program texts."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.program import (
    block_tokens,
    describe,
    evolve_blocks,
    features,
    fingerprint,
    parse,
    shape,
    shingles,
    similarity,
    split_lines,
    syntax_problem,
)

BLOCKED = "a = 1\n# EVOLVE-BLOCK-START\nb = 2\nc = 3\n# EVOLVE-BLOCK-END\nd = 4\n"


def test_block_is_the_lines_between_the_markers():
    (block,) = evolve_blocks(BLOCKED)
    assert (block.first_line, block.last_line, block.text) == (3, 4, "b = 2\nc = 3\n")
    assert BLOCKED[block.start : block.stop] == block.text


def test_blocks_may_be_indented_empty_several_and_carry_a_remark():
    source = (
        "# EVOLVE-BLOCK-START\r\n# EVOLVE-BLOCK-END\r\ndef f():\r\n"
        "\t# EVOLVE-BLOCK-START the heart\r\n\treturn 1\r\n\t# EVOLVE-BLOCK-END\r\n"
    )
    first, second = evolve_blocks(source)
    assert (first.first_line, first.last_line, first.text) == (2, 1, "")
    assert (second.first_line, second.last_line, second.text) == (5, 5, "\treturn 1\r\n")


@pytest.mark.parametrize("source", ["a = 1\nb = 2", "", "s = 'EVOLVE-BLOCK-START'\n"])
def test_without_markers_the_whole_source_is_one_block(source):
    (block,) = evolve_blocks(source)
    assert block.text == source
    assert block.last_line == len(split_lines(source))


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("# EVOLVE-BLOCK-START\nx\n", "line 1: EVOLVE-BLOCK-START without"),
        ("x\n# EVOLVE-BLOCK-END\n", "line 2: EVOLVE-BLOCK-END without"),
        ("# EVOLVE-BLOCK-START\n# EVOLVE-BLOCK-START\n# EVOLVE-BLOCK-END\n", "line 2: EVOLVE-BLOCK-START inside"),
    ],
)
def test_unbalanced_markers_are_named_with_their_line(source, line):
    with pytest.raises(ValueError, match=line):
        evolve_blocks(source)
    assert line in (syntax_problem(source) or "")


def test_lines_are_counted_as_python_counts_them():
    source = "a = '\u2028'\r\nb = 1 \x0c\rc = 2"
    assert split_lines(source) == ["a = '\u2028'\r\n", "b = 1 \x0c\r", "c = 2"]


@given(st.text(st.sampled_from("a\r\n\x0c\u2028\x85 "), max_size=30))
def test_lines_join_to_the_source(source):
    assert "".join(split_lines(source)) == source


BASE = "def f(a, b=1):\n    '''Doc.'''\n    x = a + 1  # note\n    return {'k': (x, b)}\n"
SAME = [
    'def f(a,b = 1):\n  x=(a+1);\n  return {"k":(x,b,)}',
    "# head\n\ndef f(a, b=1):\n    pass\n    x = a + 1\n    return {u'k': (x, b)}\n    pass\n",
    "'''Module.'''\r\ndef f(a, b=0x1):\r\n\tx = a \\\r\n + 1\r\n\treturn {'k': (x, b)}\r\n",
]
OTHER = [
    "def f(a, b=1.0):\n    x = a + 1\n    return {'k': (x, b)}\n",
    "def f(a, b=True):\n    x = a + 1\n    return {'k': (x, b)}\n",
    "def f(a, *, b=1):\n    x = a + 1\n    return {'k': (x, b)}\n",
    "def f(a, b=1):\n    x = a - 1\n    return {'k': (x, b)}\n",
    "def f(a, b=1):\n    x = a + 1\n    return {'k': ((x, b),)}\n",
    "def f(a, b=1):\n    x = a + 1\n    return {'k': [x, b]}\n",
    "def f(a, b=1):\n    x = a + 1\nreturn_ = {'k': (f, f)}\n",
    "async def f(a, b=1):\n    x = a + 1\n    return {'k': (x, b)}\n",
]


@pytest.mark.parametrize("source", SAME)
def test_layout_does_not_change_the_fingerprint(source):
    assert fingerprint(source) == fingerprint(BASE)


def test_different_programs_have_different_fingerprints():
    assert len({fingerprint(source) for source in [BASE, *OTHER]}) == len(OTHER) + 1


def test_fingerprint_is_32_hex_digits_and_stays_the_same_over_versions():
    assert fingerprint("def f(x): return x - 1\n") == "86d17ddf02a5a33e18a22fc48704109f"


def test_constants_are_told_apart_by_type_and_sign():
    constants = ["0", "0.0", "False", "None", "...", "'0'", "b'0'", "0j", "1e999", str(2**70), "0x" + "f" * 6000]
    assert len({fingerprint(f"x = {c}") for c in constants}) == len(constants)
    assert fingerprint("x = 0x" + "f" * 6000) != fingerprint("x = 0x" + "e" * 6000)


@pytest.mark.parametrize(
    "source",
    ["def f(:", "x = 1\0", "x = '\ud800'", "(" * 1000, "-" * 100_000 + "1", "+".join(["a"] * 100_000)],
    ids=["syntax", "null", "surrogate", "parentheses", "unary", "sum"],
)
def test_what_cannot_be_parsed_is_a_syntax_error(source):
    with pytest.raises(SyntaxError):
        fingerprint(source)
    problem = syntax_problem(source)
    assert problem
    assert "\n" not in problem


@given(st.text(max_size=60))
def test_any_text_has_a_fingerprint_or_a_syntax_error(source):
    try:
        assert len(fingerprint(source)) == 32
    except SyntaxError:
        assert syntax_problem(source) is not None


@pytest.mark.parametrize("source", ["return 1\n", "def f():\n    nonlocal x\n", "break\n", "def f(a, a): pass\n"])
def test_what_parses_but_does_not_compile_is_a_problem(source):
    assert (syntax_problem(source) or "").startswith("line ")


def test_a_sound_program_has_no_problem_and_its_warnings_are_its_own():
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("ignore", module="<candidate>")
        assert syntax_problem("x = '\\d' is 'y'\n") is None
    assert caught == []


def test_tokens_leave_out_comments_blanks_and_what_is_outside():
    source = (
        "before = 0\n# EVOLVE-BLOCK-START\n# a 'quoted' remark\nx  **= 1.5e-3+y\\\n  if a!=b else rb'\\'#' \n"
        "s = '''t\n\"u\" ''' f\"{x}\"\n# EVOLVE-BLOCK-END\nafter = 0\n"
    )
    expected = ["x", "**=", "1.5e-3", "+", "y", "if", "a", "!=", "b", "else", "rb'\\'#'", "s", "=", "'''t\n\"u\" '''"]
    assert list(block_tokens(source)) == [*expected, 'f"{x}"']


@given(st.text(max_size=200))
def test_tokens_of_any_text_are_its_own_pieces_in_order(source):
    source = source.replace("EVOLVE", "")
    position = 0
    for token in block_tokens(source):
        position = source.index(token, position) + len(token)


def test_descriptor_counts_tokens_and_measures_the_way_from_the_seed():
    seed = block_tokens(BLOCKED)
    assert describe(BLOCKED, seed) == describe(BLOCKED.replace("c = 3", "c  =  3 # three"), seed)
    assert describe(BLOCKED, seed).distance == 0
    assert describe(BLOCKED, seed).size == 6
    assert describe(BLOCKED.replace("d = 4", "d = e(f)"), seed).distance == 0  # outside
    near = describe(BLOCKED.replace("c = 3", "c = 9"), seed)
    assert near.distance == pytest.approx(3 / 8)  # 3 of the 8 padded 3-grams hold the changed token
    assert describe("while True: break", seed).distance == 1
    assert describe("", block_tokens("")).distance == 0
    assert describe("", seed).distance == 1


@given(st.text(st.sampled_from("ab=+ \n"), max_size=40), st.text(st.sampled_from("ab=+ \n"), max_size=40))
def test_distance_is_symmetric_and_between_0_and_1(a, b):
    there, back = describe(a, block_tokens(b)).distance, describe(b, block_tokens(a)).distance
    assert there == pytest.approx(back)
    assert 0 <= there <= 1
    if block_tokens(a) == block_tokens(b):
        assert there == 0


def test_similarity_is_dice_over_shingles_inside_the_blocks():
    a, b = shingles(BLOCKED), shingles(BLOCKED.replace("c = 3", "c = 9").replace("d = 4", "d = e(f)"))
    assert a.total() == 8
    assert similarity(a, a) == 1
    assert similarity(a, b) == similarity(b, a) == pytest.approx(5 / 8)
    assert similarity(a, shingles("")) == 0
    assert similarity(shingles(""), shingles("# nothing\n")) == 1


@given(st.text(st.sampled_from("ab=+ \n"), max_size=40), st.text(st.sampled_from("ab=+ \n"), max_size=40))
def test_distance_is_what_similarity_leaves(a, b):
    assert describe(a, block_tokens(b)).distance == pytest.approx(1 - similarity(shingles(a), shingles(b)))


ALIKE = [
    ("x = 1\n", "x = 27.5\n"),
    ("x = 1\n", "x = -3\n"),
    ("x = -a + 2\n", "x = -a + +2j\n"),
    ("x = 'one\\ntwo'\n", "x = None\n"),
    ("f(True, k=b'')\n", "f(..., k=0x" + "f" * 6000 + ")\n"),
    ("x = f'{a}: {b:.2f}'\n", "x = f'{a}; {b:.3f}'\n"),
    ("match x:\n    case 1 | True: y\n", "match x:\n    case -2 | None: y\n"),
    ("def f():\n    'Doc.'\n    return 1\n", "def f():\n    return 2  # two\n"),
]


@pytest.mark.parametrize(("a", "b"), ALIKE)
def test_literals_do_not_change_the_shape(a, b):
    assert shape(a) == shape(b)
    assert fingerprint(a) != fingerprint(b)
    assert shape(a) != fingerprint(a)


def test_different_trees_have_different_shapes():
    others = [
        "x = -a\n",
        "x = a\n",
        "x = [1]\n",
        "x = [1, 1]\n",
        "y = 1\n",
        "x = 1\nx = 1\n",
        "x = not 1\n",
        "x = --1\n",
    ]
    assert len({shape(source) for source in ["x = 1\n", *others]}) == len(others) + 1


literals = st.builds(
    repr, st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.binary() | st.booleans()
)


@given(st.lists(literals, max_size=5))
def test_any_literals_may_stand_in_the_same_shape(texts):
    source = "".join(f"x{n} = f({text})\n" for n, text in enumerate(texts))
    assert shape(source) == shape("".join(f"x{n} = f(None)\n" for n in range(len(texts))))


def test_features_count_what_the_tree_holds():
    assert features("") == (0,) * 10
    source = """
class A:
    def f(self, xs, k=3):
        for x in xs:
            while x > 1.5:
                x = [y + 2 for y in xs if y] or {1: {2}}
        else:
            self.g(x).g(lambda: k if x else True)
        match k:
            case 1: (f)(0)(0)
    async def g(self):
        try:
            async for x in y: sorted(x)
        except ValueError:
            pass
"""
    functions, loops, nesting, branches, comprehensions, calls, names, numbers, collections, depth = features(source)
    assert (functions, loops, nesting, branches, comprehensions) == (3, 3, 3, 3, 1)
    assert (calls, names) == (5, 3)  # g twice, f, what f gave, sorted
    assert (numbers, collections) == (8, 2)
    assert depth == 9  # module, class, f, for, while, x =, or, list, +, 2
    assert all(type(number) is float for number in features(source))


def test_features_see_outside_the_blocks_and_not_the_layout():
    assert features(BLOCKED) != features(BLOCKED.replace("d = 4", "d = e(f)"))
    assert features(BASE) == features("# head\n" + BASE.replace("x = a + 1", "x  =  (a+1)"))


@pytest.mark.parametrize("of", [features, shape])
@pytest.mark.parametrize(
    "source", ["def f(:", "x = 1\0", "(" * 1000, "#" * 100_001], ids=["syntax", "null", "parentheses", "long"]
)
def test_what_cannot_be_parsed_has_neither_shape_nor_features(of, source):
    with pytest.raises(SyntaxError):
        of(source)


def test_a_tree_deeper_than_the_stack_has_features():
    source = "x = " + "+".join(["a"] * 2_000)
    try:
        parse(source)
    except SyntaxError:
        pytest.skip("this Python does not parse it")
    assert features(source)[-1] > 1_900


def nested_finally(depth: int) -> str:
    """Each `finally` block is compiled twice, and with it those inside."""
    lines = ["def f():"]
    for level in range(1, depth + 1):
        lines += [" " * level + "try: a()", " " * level + "finally:"]
    return "\n".join([*lines, " " * (depth + 1) + "b()", ""])


def test_nested_finally_blocks_are_not_compiled_here() -> None:
    """18 of them took the compiler 0.8 GB and 5 s, one more twice that."""
    assert syntax_problem(nested_finally(5)) is None
    assert syntax_problem(nested_finally(19)) == "`finally` blocks are nested too deeply"
    leaving = "def f(x):\n try:\n" + "  if x: return\n" * 300 + " finally:\n" + "  a()\n" * 300
    assert syntax_problem(leaving) == "`finally` blocks are nested too deeply"
    honest = "def f(x):\n try:\n  for i in x:\n   if i: return i\n finally:\n  x.close()\n"
    assert syntax_problem(honest * 200) is None


@pytest.mark.parametrize(
    "source",
    ["x = [" + "0," * 60_000 + "]\n", "#" + "x" * 10**7, "a;" * 60_000, "def f():\n return f'" + "{a}" * 6_000 + "'\n"],
    ids=["list", "comment", "statements", "f-string"],
)
def test_programs_too_long_for_the_trusted_process_are_refused(source: str) -> None:
    """A syntax tree takes some 200 bytes per character, an f-string time quadratic in its length."""
    for refused in (parse, fingerprint):
        with pytest.raises(SyntaxError, match=r"more than 100000|too long"):
            refused(source)
    assert syntax_problem(source) is not None


def test_a_long_template_is_no_long_fstring() -> None:
    template = 'def f(x):\n    return f"""' + "words " * 5_000 + '{x} {x!r}"""\n'
    source = template + "SET = {" + "1," * 5_000 + "}\n" + "A = {}\n" * 400
    assert syntax_problem(source) is None
    assert fingerprint(source)


def test_a_text_full_of_stray_quotes_is_read_in_linear_time():
    # Half a minute each when every quote looked for its end; the tests' own timeout is the bound.
    for text in ('\\"' * 45_000, "{" * 400 + '\\"' * 45_000, "f" + "\\'" * 45_000):
        assert len(block_tokens(text)) > 40_000
        assert syntax_problem(text) is not None
