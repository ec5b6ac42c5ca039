"""The tables of knobs in docs/search.md: every setting of the search with default, purpose and what was measured.

    python -m tests.benchmarks.knobs

Put the output between the markers of docs/search.md; a test compares both.
"""

from __future__ import annotations

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from adrs_ray.config import IslandOverride, ModelConfig, RunConfig, _scalar

SECTIONS = ("selector", "adaptation", "noise", "seeding", "islands", "generator", "prompt", "health", "replay")
NO_MODEL = "no language model has driven it"
LIMIT = "a limit, nothing to measure"
STUDY = "docs/search_results.md"

MEASURED: dict[str, str] = {}
"""What was measured of a knob, where anything was; the rest says what it would need."""

DEFAULT_NOTE = {
    "selector": STUDY,
    "adaptation": STUDY,
    "noise": STUDY,
    "seeding": STUDY,
    "islands": STUDY,
    "generator": NO_MODEL,
    "prompt": NO_MODEL,
    "health": "false alarms: tests/supervision",
    "replay": "a test replays runs with other numbers of slots",
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
    lines += rows("models.<name>", ModelConfig)
    lines += rows("islands.overrides.<number>", IslandOverride)
    return "\n".join(lines)


if __name__ == "__main__":
    print(tables())
