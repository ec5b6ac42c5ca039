"""Names read before they are bound, as far as the text tells."""

from __future__ import annotations

import ast

import pytest

from adrs_ray.generator.scope import bound_names, unbound_reads
from tests.generator.corpus import AWKWARD, MODERN, SEVERAL_BLOCKS, SIBLING, TYPICAL


def unbound(source: str) -> set[tuple[str, str]]:
    return set(unbound_reads(ast.parse(source)))


@pytest.mark.parametrize("source", [TYPICAL, SIBLING, SEVERAL_BLOCKS, MODERN, AWKWARD])
def test_sound_programs_read_nothing_unbound(source):
    assert unbound(source) == set()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = y\n", {("", "y")}),
        ("x = x + 1\n", {("", "x")}),
        ("x += 1\n", {("", "x")}),
        ("def f():\n    a = b\n    b = 1\n", {(".f", "b")}),
        ("def f():\n    return g() + later\nlater = 1\ndef g(): return 1\n", set()),
        ("g()\ndef g(): return 1\n", {("", "g")}),
        ("def f(x):\n    return [y for y in x if y] + [y]\n", {(".f", "y")}),
        ("x = lambda a, b=1: a + b + c\n", {("", "c")}),
        ("x = lambda a: [b for b in a]\n", set()),
        ("class A:\n    k = 1\n    def f(self): return k\n", {(".A.f", "k")}),
        ("class A:\n    k = 1\n    m = k\n", set()),
        ("def f():\n    global g\n    g = 1\n    return h\n", {(".f", "h")}),
        ("try:\n    x = 1\nexcept OSError as e:\n    print(e)\n", set()),
        ("from x import *\nprint(anything)\n", set()),
        ("import a.b\nfrom c import d as e\nprint(a, e, b)\n", {("", "b")}),
        (
            "def f(x):\n    match x:\n        case [a, *b] | {'k': a, **b}:\n            return a, b\n    return c\n",
            {(".f", "c")},
        ),
        ("def f(x):\n    if (n := len(x)) > 2:\n        return n\n", set()),
        ("def f():\n    with g as h:\n        return h\n", {(".f", "g")}),
    ],
)
def test_unbound_reads(source, expected):
    assert unbound(source) == expected


def test_bound_names_are_the_scope_s_own():
    (function,) = ast.parse(
        "def f(a, *b, c=1, **d):\n    global e\n    e = g = 1\n    def h(i): j = 2\n    [k for k in a]\n"
        "    import l.m\n"
    ).body
    assert isinstance(function, ast.FunctionDef)
    assert bound_names(function) == {"a", "b", "c", "d", "g", "h", "l"}
