"""The tables of knobs in docs/search.md: every setting of the search with default, purpose and what was measured.

    python -m tests.benchmarks.knobs

Put the output between the markers of docs/search.md; a test compares both.
"""

from __future__ import annotations

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from adrs_ray.config import CascadeConfig, IslandOverride, ModelConfig, RunConfig, _scalar

SECTIONS = ("selector", "adaptation", "noise", "seeding", "islands", "generator", "prompt", "health")
NO_MODEL = "no language model has driven it"
UNVARIED = "not varied"

MEASURED = {
    "selector.archive": "none beats `grid` beyond chance overall; `pareto` helps on deceptive landscapes",
    "selector.parents": "none beats the default beyond chance overall; `softmax` helps on smooth ones, `ucb` hurts",
    "selector.exploration": "0.1 with `topk` and the best in 60 % of draws: no better on held-out seeds",
    "selector.exploitation": "as exploration; pure greed wins at 200 candidates, see the study",
    "selector.crossover": "0 instead of 0.15: no difference",
    "adaptation.enabled": "(0.05, 0.3): no better than none, so off",
    "adaptation.exploration": "(0.1, 0.7) was worse than no adaptation beyond chance",
    "adaptation.shift_after": NO_MODEL,
    "noise.min_repeats": "1 instead of 2: no difference beyond chance",
    "noise.max_repeats": "1 instead of 6: no difference beyond chance, 78 % fewer evaluations",
    "seeding.seeds": "4 mutated seeds: no gain, so off; " + NO_MODEL,
    "seeding.variants": "2 of each: no gain, so off; " + NO_MODEL,
    "islands.count": "1 is as good as 2, 4 are worse, at 200 candidates",
    "islands.migration": "`none` is worse than `ring`; `star` equals `ring` at 4 islands",
    "evaluator.cascade.chance": "0.1 loses at most 0.3 % of the best tenth in simulated searches, 0.3 up to 4 %",
    "health.interventions": "changed no final score in 30 runs, so off",
}
"""What was measured of a knob, where anything was: `docs/search_results.md` has the tables."""

DEFAULT_NOTE = {
    "selector": UNVARIED,
    "adaptation": UNVARIED,
    "noise": UNVARIED,
    "seeding": UNVARIED,
    "islands": UNVARIED,
    "generator": NO_MODEL,
    "prompt": NO_MODEL,
    "health": "false alarms: tests/supervision",
    "evaluator.cascade": "simulated only",
    "models.<name>": NO_MODEL,
    "islands.overrides.<number>": "as the knob it overrides",
}


def rows(title: str, section: type[BaseModel]) -> list[str]:
    lines = [
        f"### {title}",
        "",
        (section.__doc__ or "").strip().splitlines()[0],
        "",
        "| knob | default | purpose | measured |",
        "|---|---|---|---|",
    ]
    for key, info in section.model_fields.items():
        default = info.get_default(call_default_factory=True)
        shown = "required" if default is PydanticUndefined else f"`{_scalar(default)}`"
        note = MEASURED.get(f"{title}.{key}", DEFAULT_NOTE[title])
        lines.append(f"| `{title}.{key}` | {shown} | {info.description} | {note} |")
    return [*lines, ""]


def tables() -> str:
    lines: list[str] = []
    for name in SECTIONS:
        annotation = RunConfig.model_fields[name].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        lines += rows(name, annotation)
    lines += rows("evaluator.cascade", CascadeConfig)
    lines += rows("models.<name>", ModelConfig)
    lines += rows("islands.overrides.<number>", IslandOverride)
    return "\n".join(lines)


if __name__ == "__main__":
    print(tables())
