"""The Jinja2 side of prompts: where templates come from, which variables and filters they have.

Values reach templates as variables only, so that Jinja2 syntax inside a program is text like any other.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from adrs_ray.prompt.fence import fenced, line
from adrs_ray.prompt.view import case_figures, figures

TEMPLATES = Path(__file__).parent / "templates"
VARIABLES = (
    "operator",
    "task",
    "parent",
    "partner",
    "inspirations",
    "attempts",
    "hints",
    "scratchpad",
    "cases_in_all",
)
"""What every operator's template gets: the fields of PromptContext, and how many cases the parent has in all."""
PARTIAL_VARIABLES = ("program", "title", "shown_as")
"""What templates of ours set for the partials they include."""


def template_names() -> tuple[str, ...]:
    """The templates that a folder may replace, operators' and partials."""
    return tuple(sorted(path.name for path in TEMPLATES.glob("*.jinja")))


@lru_cache(maxsize=64)
def environment(folder: str | None) -> jinja2.Environment:
    """Templates, compiled once: those of a folder before ours. A file that changes later does not change a run."""
    return fresh_environment(folder)


def fresh_environment(folder: str | None) -> jinja2.Environment:
    """As `environment`, reading every file anew. `ours/<name>` is our template where a folder has one of that name."""
    ours = jinja2.FileSystemLoader(TEMPLATES)
    loaders: list[jinja2.BaseLoader] = [ours, jinja2.PrefixLoader({"ours": ours})]
    if folder is not None:
        loaders.insert(0, jinja2.FileSystemLoader(Path(folder).expanduser()))
    made = ImmutableSandboxedEnvironment(
        loader=jinja2.ChoiceLoader(loaders),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    made.filters.update(_FILTERS)
    return made


def figure(value: float) -> str:
    """Six significant digits."""
    return f"{value:.6g}"


def gain(value: float) -> str:
    """A change of the score in words."""
    return "score unchanged" if value == 0 else f"score {value:+.4g}"


def direction(value: str) -> str:
    return "lower is better" if value == "min" else "higher is better"


_FILTERS: dict[str, Any] = {
    "case_figures": case_figures,
    "direction": direction,
    "fenced": fenced,
    "figure": figure,
    "figures": figures,
    "gain": gain,
    "line": line,
}
