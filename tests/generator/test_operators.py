"""Each mutation operator does what its name says, and only that."""

from __future__ import annotations

import ast
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.generator.draft import Draft
from adrs_ray.generator.literals import literal, number, perturb
from adrs_ray.generator.mutate import OPERATORS


def outcomes(name: str, source: str, draws: int = 40) -> set[str]:
    """Everything an operator makes of a program: all sites, many draws."""
    operator = OPERATORS[name][0]
    found = set()
    for index in range(len(operator.sites(Draft(source)))):
        for key in range(draws):
            draft = Draft(source)
            child = operator.apply(draft, operator.sites(draft)[index], np.random.default_rng(key))
            if child is not None:
                found.add(child.source)
    return found


def test_literal_changes_numbers_and_nothing_else():
    made = outcomes("literal", "a = 3; b = 'text'; c = None; d = f'{4}'\n")
    assert len(made) > 2
    for source in made:
        a, rest = source.split("; ", 1)
        assert isinstance(ast.literal_eval(a.removeprefix("a = ")), int)
        assert rest == "b = 'text'; c = None; d = f'{4}'\n"


def test_literal_takes_a_minus_sign_as_part_of_the_number():
    made = outcomes("literal", "a = -8\n")
    values = {ast.literal_eval(source.removeprefix("a = ").strip()) for source in made}
    assert 8 in values  # the sign may flip
    assert sum(v < 0 for v in values) > len(values) / 2
    assert not any("--" in source for source in made)


@given(
    st.integers(-(2**250), 2**250) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans(), st.integers(0)
)
def test_perturbed_numbers_keep_their_type_and_differ(value, key):
    other = perturb(value, np.random.default_rng(key))
    assert type(other) is type(value)
    assert other != value or value == value / 2  # halving the least float above zero gives zero or itself
    assert math.isfinite(other) if isinstance(other, float) else True
    node = ast.parse(ast.unparse(literal(other)), mode="eval").body
    assert number(node) == other


def test_float_steps_are_of_the_order_of_the_float():
    rng = np.random.default_rng(0)
    for value in (1e-6, 0.3, 5e8):
        factors = np.array([abs(perturb(value, rng) / value) for _ in range(500)])
        assert 0.8 < np.median(factors) < 1.25
        assert factors.min() > 0.01
        assert factors.max() < 100


def test_zero_and_one_get_small_neighbours():
    rng = np.random.default_rng(0)
    assert {perturb(0, rng) for _ in range(200)} == {1, 2, -1}
    assert {perturb(1, rng) for _ in range(200)} == {0, 2, 3, -1}
    assert all(0 < abs(perturb(0.0, rng)) <= 1 for _ in range(50))


def test_swap_compare():
    made = outcomes("swap_compare", "x = a < b\n")
    assert made == {f"x = a {op} b\n" for op in ("<=", ">", ">=")}
    assert outcomes("swap_compare", "x = a is b\n") == {"x = a is not b\n"}
    assert outcomes("swap_compare", "x = a not in b\n") == {"x = a in b\n"}
    assert outcomes("swap_compare", "x = a == 'k'\n") == {"x = a != 'k'\n"}
    assert "x = 1 < a >= 3\n" in outcomes("swap_compare", "x = 1 < a <= 3\n")


def test_swap_compare_keeps_the_layout_round_the_operator():
    source = "x = (a[ 'k' ]  # left\n     < (b))  # right\n"
    assert source.replace("<", "<=") in outcomes("swap_compare", source)


def test_swap_boolean():
    assert outcomes("swap_boolean", "x = a and b\n") == {"x = a or b\n"}
    assert outcomes("swap_boolean", "x = a or b or c\n") == {"x = a and b and c\n"}
    # `or` binds less tightly, so parentheses have to come
    assert outcomes("swap_boolean", "x = not a and b and c\n") == {"x = not a or b or c\n"}
    assert "x = a and (b or c)\n" in outcomes("swap_boolean", "x = a and (b and c)\n")


def test_swap_arithmetic_minds_precedence():
    made = outcomes("swap_arithmetic", "x = a + b * c\n")
    assert {"x = a - b * c\n", "x = a + b / c\n", "x = a * (b * c)\n", "x = a + (b + c)\n"} <= made
    for source in made:
        ast.parse(source)


def test_swap_arithmetic_in_augmented_assignments_keeps_the_comment():
    assert "x -= (a)  # note\n" in outcomes("swap_arithmetic", "x += (a)  # note\n")


def test_swap_arithmetic_leaves_text_alone():
    assert outcomes("swap_arithmetic", "x = 'a' + b\ny = '%s' % b\nz += f'{x}'\n") == set()


def test_negate_condition_both_ways():
    assert outcomes("negate_condition", "if a == 1: b = 2\n") == {"if not a == 1: b = 2\n"}
    assert outcomes("negate_condition", "x = [i for i in y if not i]\n") == {"x = [i for i in y if i]\n"}
    assert outcomes("negate_condition", "x = 1 if a or b else 2\n") == {"x = 1 if not (a or b) else 2\n"}
    assert outcomes("negate_condition", "while a: b = 2\n") == set()


def test_loop_bound_of_range():
    made = outcomes("loop_bound", "for i in range(n): f(i)\n")
    assert made == {f"for i in range({b}): f(i)\n" for b in ("n + 1", "n - 1", "n // 2", "n * 2")}
    assert outcomes("loop_bound", "for i in range(0, 9): f(i)\n") == {
        f"for i in range({b}): f(i)\n" for b in ("1, 9", "-1, 9", "0, 8", "0, 10")
    }


def test_loop_bound_does_not_pile_up_offsets():
    made = outcomes("loop_bound", "for i in range(n + 1): f(i)\n")
    assert {"for i in range(n + 2): f(i)\n", "for i in range(n): f(i)\n"} <= made


def test_loop_bound_of_slices():
    assert {"x = y[1:]\n", "x = y[:-1]\n"} == outcomes("loop_bound", "x = y[:]\n")
    assert "x = y[2:k:2, 0]\n" in outcomes("loop_bound", "x = y[1:k:2, 0]\n")


def test_swap_arguments_keeps_keywords_and_layout():
    assert outcomes("swap_arguments", "x = f( a,  b + 1, k=3 )\n") == {"x = f( b + 1,  a, k=3 )\n"}
    assert outcomes("swap_arguments", "x = f(*a, b); y = max(a, b); z = f(a)\n") == set()


def test_replace_call_by_a_related_builtin():
    assert "x = max(a, key=f)\n" in outcomes("replace_call", "x = min(a, key=f)\n")
    assert outcomes("replace_call", "x = np.floor(a)\n") == {"x = np.ceil(a)\n"}


def test_replace_call_by_a_function_of_fitting_arity():
    source = (
        "def one(a): return a\ndef two(a, b=1): return b\ndef three(a, b, c): return c\n"
        "def kw(a, *, k): return k\ndef use(v):\n    def near(a): return -a\n    return one(v)\n"
    )
    names = {s.split("return ")[-1].strip() for s in outcomes("replace_call", source)}
    assert names == {"two(v)", "near(v)"}


def test_replace_call_by_a_sibling_method():
    source = (
        "class A:\n    def __init__(self, a): pass\n    def f(self, a): return a\n    def g(self, a): return -a\n"
        "    def h(self): return self.f(1)\n    @property\n    def p(self): return 1\n"
    )
    assert {s.split("return self.")[-1].split("\n")[0] for s in outcomes("replace_call", source)} == {"g(1)"}


def test_replace_name_reads_another_local():
    made = outcomes("replace_name", "def f(a, b):\n    c = a\n    return print(c)\n")
    lines = {tuple(s.splitlines()[1:]) for s in made}
    assert ("    c = b", "    return print(c)") in lines
    assert ("    c = a", "    return print(b)") in lines
    assert not any("print" not in s for s in made)


BODY = "def f(a):\n    # first\n    a += 1  # one\n    if a:\n        a -= 2\n    return a\n"


def test_delete_statement_takes_its_lines_and_leaves_pass_where_one_is_needed():
    assert outcomes("delete_statement", BODY) == {
        BODY.replace("    a += 1  # one\n", ""),
        BODY.replace("    if a:\n        a -= 2\n", ""),
        BODY.replace("a -= 2", "pass"),
    }


def test_delete_statement_leaves_definitions_imports_and_final_returns():
    source = "import os\ndef f():\n    global g\n    def h(): return 1\n    return h\n"
    assert outcomes("delete_statement", source) == set()


def test_delete_statement_between_semicolons():
    assert outcomes("delete_statement", "a = 1; b = 2\n") == {"pass; b = 2\n", "a = 1; pass\n"}


def test_duplicate_statement_copies_within_the_function():
    made = outcomes("duplicate_statement", BODY)
    assert BODY.replace("        a -= 2\n", "        a -= 2\n        a += 1  # one\n") in made
    assert BODY.replace("    return", "    a -= 2\n    return") in made
    assert all(s.count("\n") > BODY.count("\n") for s in made)
    assert all(s.rstrip().endswith("return a") for s in made)  # nothing lands behind the return


def test_move_statement_takes_and_puts_the_same_lines():
    made = outcomes("move_statement", BODY)
    assert "def f(a):\n    # first\n    if a:\n        a -= 2\n        a += 1  # one\n    return a\n" in made
    assert all(s.count("a += 1") == 1 and s.count("a -= 2") == 1 for s in made)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_copied_lines_take_the_indentation_and_line_ends_of_their_place(newline):
    source = newline.join(["def f(a):", "\ta += 1", "\tif a:", "\t\tif a > 1:", "\t\t\ta = 2", "\treturn a", ""])
    made = outcomes("duplicate_statement", source)
    assert source.replace(f"\t\t\ta = 2{newline}", f"\t\t\ta = 2{newline}\t\t\ta += 1{newline}") in made
    for child in made:
        assert child.count("\n") == child.count(newline)


def test_only_the_block_inside_a_function_changes():
    source = "def f(a):\n    a += 1\n    # EVOLVE-BLOCK-START\n    a *= 2\n    # EVOLVE-BLOCK-END\n    return a + 3\n"
    for name in OPERATORS:
        for child in outcomes(name, source):
            assert child.startswith("def f(a):\n    a += 1\n    # EVOLVE-BLOCK-START\n")
            assert child.endswith("    # EVOLVE-BLOCK-END\n    return a + 3\n")


def test_parameters_annotations_decorators_and_bases_are_never_sites():
    source = "@d(1)\nclass A(b(2), k=3):\n    @d(4)\n    def f(self, x: Literal[5] = 6) -> g(7):\n        y: h(8)\n"
    assert outcomes("literal", source) == set()


def test_columns_behind_wide_characters_are_found():
    assert outcomes("swap_compare", "größe = '数', a is b; ü = 1\n") == {"größe = '数', a is not b; ü = 1\n"}
