from itertools import pairwise

from hypothesis import given, settings

from adrs_ray.config import PromptConfig
from adrs_ray.prompt import PromptContext
from adrs_ray.prompt.artifacts import is_error
from adrs_ray.prompt.ladder import ladder
from adrs_ray.prompt.view import selected
from tests.prompt.contexts import PARTNER, contexts, full, model, operators


def sizes(context: PromptContext) -> dict[str, int]:
    """How much of each part there is."""
    parent, partner = context.parent, context.partner
    artifacts = parent.artifacts if parent is not None else {}
    return {
        "printed": sum(len(text) + 1 for name, text in artifacts.items() if not is_error(name)),
        "errors": sum(len(text) + 1 for name, text in artifacts.items() if is_error(name)),
        "inspirations": len(context.inspirations),
        "texts": sum(len(program.source) for program in context.inspirations),
        "attempts": len(context.attempts),
        "cases": sum(len(p.cases) for p in (parent, partner) if p is not None),
        "scratchpad": len(context.scratchpad),
        "task hints": len(context.task.hints),
        "hints": len(context.hints),
        "partner": int(partner is not None),
    }


@given(operators, contexts)
@settings(max_examples=40)
def test_every_step_takes_something_and_gives_nothing_back(operator, context):
    steps = list(ladder(operator, context))
    for before, after in pairwise(steps):
        assert all(sizes(after)[part] <= size for part, size in sizes(before).items())
        assert sizes(after) != sizes(before)
        assert after.parent is not None
        assert before.parent is not None
        assert after.parent.source == before.parent.source
        assert after.task.statement == before.task.statement
    last = sizes(steps[-1])
    last["partner"] = 0 if operator != "crossover" and context.partner is None else last["partner"]
    assert all(size == 0 for part, size in last.items() if part != "partner")


@given(contexts)
@settings(max_examples=40)
def test_the_less_useful_part_is_gone_before_the_more_useful_one_is_touched(context):
    whole = sizes(context)
    for step in ladder("diff", context):
        now = sizes(step)
        if now["inspirations"] < whole["inspirations"]:
            assert now["printed"] == 0
        if now["attempts"] < whole["attempts"]:
            assert now["inspirations"] <= 1
        if now["cases"] < whole["cases"]:
            assert now["attempts"] <= 4
        if now["scratchpad"] < whole["scratchpad"]:
            assert all(len(p.cases) <= 6 for p in (step.parent, step.partner) if p is not None)
        if now["errors"] < whole["errors"]:
            assert now["cases"] == now["attempts"] == now["inspirations"] == now["scratchpad"] == 0
        if now["task hints"] < whole["task hints"]:
            assert now["errors"] == 0
        if now["hints"] < whole["hints"]:
            assert now["task hints"] == 0
        if now["partner"] < whole["partner"]:
            assert now["hints"] == 0


def test_an_operator_about_other_programs_shortens_them_late_and_before_it_drops_one():
    long = tuple(p.__class__(p.candidate, p.source + "# more\n" * 2000, p.score) for p in full().inspirations)
    shortened = False
    for step in ladder("paradigm_shift", full(inspirations=long)):
        now = sizes(step)
        if now["texts"] < sizes(full(inspirations=long))["texts"]:
            assert now["attempts"] == now["cases"] == now["scratchpad"] == now["errors"] == 0
        shortened |= len(step.inspirations) == 2 and any(len(p.source) < len(long[0].source) for p in step.inspirations)
        if len(step.inspirations) < 2:
            assert shortened
            assert all("characters left out" in p.source for p in step.inspirations)


def test_the_latest_attempts_the_worst_cases_and_the_first_inspiration_stay_longest():
    context = selected("crossover", full(partner=PARTNER), model(), PromptConfig())
    for step in ladder("crossover", context):
        assert step.attempts == context.attempts[len(context.attempts) - len(step.attempts) :]
        assert step.inspirations == context.inspirations[: len(step.inspirations)]
        assert step.parent is not None
        assert context.parent is not None
        assert step.parent.cases == context.parent.cases[: len(step.parent.cases)]
        assert step.hints == context.hints[len(context.hints) - len(step.hints) :]


def test_an_empty_error_stays_while_what_was_printed_goes():
    context = full(parent=full().parent.__class__("p", "x = 1\n", artifacts={"stdout": "", "traceback": ""}))
    steps = list(ladder("diff", context))
    assert steps[1].parent is not None
    assert dict(steps[1].parent.artifacts) == {"traceback": ""}
