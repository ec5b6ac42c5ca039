"""What every child of the model-free generator keeps, whatever its parents look like."""

from __future__ import annotations

import ast
import asyncio
import re
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrs_ray.candidate import Completion
from adrs_ray.generator import GenerationRequest, Model
from adrs_ray.generator.crossover import CROSSOVERS
from adrs_ray.generator.mutate import OPERATORS, MutationModel
from adrs_ray.program import evolve_blocks, fingerprint
from tests.generator.corpus import CRLF, HOPELESS, NO_NEWLINE, PROGRAMS, SEVERAL_BLOCKS, SIBLING, TABS, TYPICAL


def ask(operator: str, parents: tuple[str, ...], *key: int, mutations: int = 3) -> Completion:
    model: Model = MutationModel(max_mutations=mutations)
    return asyncio.run(model.complete(GenerationRequest("0-1", operator, parents, key)))


def outside(source: str) -> list[str]:
    cuts = [0, *(cut for block in evolve_blocks(source) for cut in (block.start, block.stop)), len(source)]
    return [source[a:b] for a, b in list(pairwise(cuts))[::2]]


def signatures(source: str) -> Counter[str]:
    """Every definition by kind, name and parameters."""
    nodes = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    classes = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ClassDef)]
    functions = Counter(f"{type(n).__name__} {n.name}({ast.dump(n.args)})" for n in nodes)
    return functions + Counter(f"class {n.name}" for n in classes)


def comments(source: str) -> list[str]:
    return re.findall(r"#.*", source)


@given(st.sampled_from(sorted(PROGRAMS)), st.integers(0, 2**40), st.integers(1, 8))
@settings(max_examples=80, deadline=None)
def test_a_mutant_keeps_its_promises(name, key, mutations):
    parent = PROGRAMS[name]
    child = ask("mutate", (parent,), key, mutations=mutations)
    assert child.text is not None, child.detail
    compile(child.text, "child", "exec")
    assert outside(child.text) == outside(parent)
    assert signatures(child.text) == signatures(parent)
    assert fingerprint(child.text) != fingerprint(parent)
    kind, _, names = child.operator.partition(":")
    assert kind == "mutate"
    assert 1 <= len(names.split("+")) <= mutations
    assert set(names.split("+")) <= set(OPERATORS)


@given(st.sampled_from(sorted(PROGRAMS)), st.sampled_from(sorted(PROGRAMS)), st.integers(0, 2**40))
@settings(max_examples=80, deadline=None)
def test_a_crossing_keeps_its_promises(first, second, key):
    parents = PROGRAMS[first], PROGRAMS[second]
    child = ask("crossover", parents, key)
    assert child.text is not None, child.detail
    compile(child.text, "child", "exec")
    assert outside(child.text) == outside(parents[0])
    assert signatures(parents[0]) <= signatures(child.text)
    assert fingerprint(child.text) not in {fingerprint(p) for p in parents}
    kind, _, names = child.operator.partition(":")
    assert kind in ("crossover", "mutate")
    assert set(names.split("+")) <= {*OPERATORS, *CROSSOVERS}


@given(st.lists(st.integers(0, 2**30), min_size=1, max_size=3), st.sampled_from(sorted(PROGRAMS)))
@settings(max_examples=10, deadline=None)
def test_generations_of_mutants_stay_sound(keys, name):
    """Edits pile up on edited text: twenty generations of it still parse and keep what is outside."""
    source = PROGRAMS[name]
    for generation in range(20):
        child = ask("mutate", (source,), *keys, generation)
        source = child.text or source
    assert outside(source) == outside(PROGRAMS[name])
    assert signatures(source) == signatures(PROGRAMS[name])


@given(st.text(max_size=80), st.integers(0, 2**20))
@settings(deadline=None)
def test_no_text_raises(source, key):
    for operator in ("mutate", "crossover"):
        child = ask(operator, (source, TYPICAL), key)
        assert (child.text is None) == bool(child.detail)


@pytest.mark.parametrize("name", sorted(HOPELESS))
def test_what_cannot_be_mutated_is_said_in_one_line(name):
    for operator in ("mutate", "crossover"):
        child = ask(operator, (HOPELESS[name], "x = 3\n"), 1)
        assert child.text is None
        assert child.detail
        assert "\n" not in child.detail


@pytest.mark.parametrize("name", ["broken", "deep", "surrogate", "markers"])
def test_a_hopeless_partner_leaves_mutation(name):
    child = ask("crossover", (TYPICAL, HOPELESS[name]), 3)
    assert child.operator.startswith("mutate:")
    assert child.text is not None


def test_a_crossing_without_a_partner_is_a_mutation():
    assert ask("crossover", (TYPICAL,), 3).operator.startswith("mutate:")


def test_equal_parents_have_a_mutant():
    assert ask("crossover", (NO_NEWLINE, NO_NEWLINE), 3).operator.startswith("mutate:")


def test_equal_requests_get_equal_completions():
    for operator in ("mutate", "crossover"):
        asked = [ask(operator, (TYPICAL, SIBLING), 5, 6, draw) for draw in (0, *range(12))]
        assert asked[0] == asked[1]
        assert len({a.text for a in asked}) > 3


def test_unknown_operators_and_settings_are_programming_errors():
    with pytest.raises(ValueError, match="rewrite"):
        ask("rewrite", (TYPICAL,), 1)
    with pytest.raises(ValueError, match="max_mutations"):
        MutationModel(max_mutations=0)


def test_every_operator_is_reached_and_the_weights_are_felt():
    drawn = Counter(ask("mutate", (TYPICAL,), k, mutations=1).operator.removeprefix("mutate:") for k in range(300))
    assert set(drawn) == set(OPERATORS)
    assert drawn.most_common(1)[0][0] == "literal"


def test_every_crossover_is_reached():
    drawn = Counter(ask("crossover", (TYPICAL, SIBLING), k).operator for k in range(60))
    assert {f"crossover:{name}" for name in CROSSOVERS} <= set(drawn)


def test_most_mutants_are_new_programs():
    texts = [ask("mutate", (TYPICAL,), k).text or TYPICAL for k in range(200)]
    prints = [fingerprint(text) for text in texts]
    assert prints.count(fingerprint(TYPICAL)) == 0
    assert len(set(prints)) > 180


@pytest.mark.parametrize("parent", [TYPICAL, CRLF, TABS, SEVERAL_BLOCKS], ids=["typical", "crlf", "tabs", "several"])
def test_comments_and_line_ends_survive_a_mutation(parent):
    """Only comments on the lines of a changed statement may go."""
    for key in range(40):
        child = ask("mutate", (parent,), key, mutations=1)
        assert child.text is not None
        lost = Counter(comments(parent)) - Counter(comments(child.text))
        assert lost.total() <= 1, child.operator
        if parent is CRLF:
            assert not re.search(r"(?<!\r)\n", child.text)
