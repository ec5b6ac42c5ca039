"""Crossover carries over what it says, and looks at names before it transplants."""

from __future__ import annotations

import numpy as np

from adrs_ray.generator.crossover import _ALIGNMENT_STEPS, CROSSOVERS, _aligned, _Effort
from adrs_ray.generator.draft import Draft
from adrs_ray.program import parse


def outcomes(name: str, receiver: str, donor: str, draws: int = 60) -> set[str]:
    children = (CROSSOVERS[name][0](Draft(receiver), Draft(donor), np.random.default_rng(key)) for key in range(draws))
    return {child.source for child in children if child is not None}


def test_function_crossover_takes_the_body_with_its_comments_and_keeps_head_and_docstring():
    ours = "def f(a, b=1):\n    '''Ours.'''\n    return a\n\ndef g(): return 2\n"
    theirs = "def f(a, b=1):\n  '''Theirs.'''\n  # why\n  c = a * b  # both\n  return c\n\ndef g(): return 2\n"
    expected = "def f(a, b=1):\n    '''Ours.'''\n    c = a * b  # both\n    return c\n\ndef g(): return 2\n"
    assert outcomes("function", ours, theirs) == {expected}


def test_function_crossover_renames_parameters_of_the_same_arity():
    assert outcomes("function", "def f(a, b):\n    return a\n", "def f(x, y):\n    return x - y\n") == {
        "def f(a, b):\n    return a - b\n"
    }


def test_function_crossover_needs_name_arity_and_kind_to_agree():
    ours = "def f(a):\n    return a\n"
    for theirs in (
        "def g(a):\n    return 2\n",
        "def f(a, b):\n    return 2\n",
        "async def f(a):\n    return 2\n",
        ours,
    ):
        assert outcomes("function", ours, theirs) == set()


def test_methods_are_matched_by_their_class():
    ours = "class A:\n    def f(self): return 1\nclass B:\n    def f(self): return 2\n"
    theirs = "class B:\n    def f(self): return 3\n"
    assert outcomes("function", ours, theirs) == {ours.replace("2", "3")}


OURS = "def f(a):\n    b = a + 1\n    for i in range(3):\n        b += i  # add\n    d = b\n    return d\n"
THEIRS = "def f(a):\n    b = a + 2\n    for i in range(3):\n        b -= i\n    extra(b)\n    d = b\n    return d\n"


def test_block_crossover_takes_over_any_of_the_differences():
    made = outcomes("block", OURS, THEIRS, 200)
    a, b, c = ("a + 1", "a + 2"), ("b += i  # add", "b -= i"), ("    d = b", "    extra(b)\n    d = b")
    for exchanged in ([a], [b], [c], [a, b], [b, c], [a, c]):
        expected = OURS
        for old, new in exchanged:
            expected = expected.replace(old, new)
        assert expected in made
        made.discard(expected)
    assert made <= {THEIRS}


def test_block_crossover_of_equal_programs_has_nothing_to_give():
    assert outcomes("block", OURS, OURS.replace("b = a", "b  =  a")) == set()


def test_block_crossover_of_module_level_constants():
    assert outcomes("block", "A = 1\nB = 2\n", "A = 1\nB = 5\n") == {"A = 1\nB = 5\n"}


def test_transplant_prefers_statements_whose_names_are_bound_at_the_new_place():
    ours = "def f(a, b):\n    c = a\n    return c\n"
    theirs = "def g(a, b):\n    a *= b\n    zz(yy)\n    xx += yy\n"
    made = [CROSSOVERS["transplant"][0](Draft(ours), Draft(theirs), np.random.default_rng(key)) for key in range(100)]
    texts = [child.source for child in made if child is not None]
    assert len(texts) > 90
    assert sum("yy" not in text for text in texts) > 60
    assert all("a *= b" in text or "yy" in text for text in texts)


def test_transplant_never_brings_definitions_or_imports():
    made = outcomes("transplant", OURS, "def g(a):\n    import os\n    def h(): return 1\n")
    assert made
    assert all("return 1" in text and "def h" not in text and "import" not in text for text in made)


def test_programs_of_thousands_of_equal_statements_are_not_aligned() -> None:
    """Aligning two lists of equal statements takes the cube of their length: 5,000 of them took half a minute."""
    trees = [parse("a = 1\n" * n).body for n in (40, 400)]
    assert list(_aligned(trees[0], trees[1], _Effort(_ALIGNMENT_STEPS)))
    assert not list(_aligned(trees[1], trees[1] + trees[0], _Effort(_ALIGNMENT_STEPS)))
    effort = _Effort(40**3 + 10)
    assert list(_aligned(trees[0], trees[0][1:], effort))
    assert not list(_aligned(trees[0], trees[0][1:], effort)), "what was spent is gone"
