"""The test and the tables of the benchmark of the search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.search_study import Result, Study, config_of

Scores: TypeAlias = NDArray[np.float64]

LEAST_RUNS = 5
"""Fewer runs of a variant on a landscape say nothing: they are left out of the tables."""


class Table:
    """Scores by variant, landscape and seed, of one set of seeds."""

    def __init__(
        self, study: Study, results: Iterable[Result], landscapes: Sequence[str], seeds: Sequence[int]
    ) -> None:
        self.study = study
        self.landscapes = landscapes
        self._results = {
            (r.variant, r.landscape, r.seed): r for r in results if r.landscape in landscapes and r.seed in seeds
        }

    def variants(self, landscapes: Sequence[str]) -> list[str]:
        """Those that ran often enough on each of these landscapes, in the order of the study."""
        names = [variant.name for variant in self.study.variants]
        return [name for name in names if all(self.runs(name, landscape) >= LEAST_RUNS for landscape in landscapes)]

    def mean(self, variant: str, landscapes: Sequence[str]) -> tuple[float, float, float]:
        """Mean final score over seeds, then over landscapes, with its interval."""
        return self._interval([self._column(variant, name) for name in landscapes])

    def difference(self, variant: str, other: str, landscapes: Sequence[str]) -> tuple[float, float, float]:
        """Mean of score less that of `other` on the same landscape seed, with its interval."""
        return self._interval(
            [
                {seed: a - others[seed] for seed, a in self._column(variant, name).items() if seed in others}
                for name in landscapes
                for others in [self._column(other, name)]
            ]
        )

    def best(self, landscapes: Sequence[str]) -> str:
        return max(self.variants(landscapes), key=lambda name: self.mean(name, landscapes)[0])

    def average(self, variant: str, landscapes: Sequence[str], what: Literal["cpu_s", "evaluations"]) -> float:
        return float(
            np.mean([getattr(r, what) for (v, n, _), r in self._results.items() if v == variant and n in landscapes])
        )

    def runs(self, variant: str, landscape: str) -> int:
        return len(self._column(variant, landscape))

    def _column(self, variant: str, landscape: str) -> dict[int, float]:
        return {s: r.score for (v, n, s), r in sorted(self._results.items()) if (v, n) == (variant, landscape)}

    def _interval(self, groups: Sequence[Mapping[int, float]]) -> tuple[float, float, float]:
        test = self.study.test
        columns = [np.array(list(group.values())) for group in groups]
        return interval(columns, test.resamples, test.level)


def interval(groups: Sequence[Scores], resamples: int, level: float) -> tuple[float, float, float]:
    """Mean of the groups' means, and its percentile bootstrap interval: seeds are drawn anew within each group."""
    rng = np.random.default_rng(0)
    drawn = np.mean([group[rng.integers(len(group), size=(resamples, len(group)))].mean(1) for group in groups], axis=0)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(np.mean([group.mean() for group in groups])), float(low), float(high)


def challenger(study: Study, results: Iterable[Result]) -> str | None:
    """The variant with the highest mean on the screening seeds; None before all landscapes have runs there."""
    table = Table(study, results, study.synthetic.landscapes, study.synthetic.screening_seeds)
    return table.best(table.landscapes) if table.variants(table.landscapes) else None


# -- the tables ------------------------------------------------------------------------------------------------------


def markdown(study: Study, results: Sequence[Result]) -> str:
    """All tables, and what the rule says."""
    synthetic, real = study.synthetic, study.real
    screening = Table(study, results, synthetic.landscapes, synthetic.screening_seeds)
    held_out = Table(study, results, synthetic.landscapes, synthetic.held_out_seeds)
    tasks = Table(study, results, real.landscapes, real.seeds)
    parts: list[str] = []
    for title, table in (("Screening seeds", screening), ("Held-out seeds", held_out), ("Tasks", tasks)):
        names = [name for name in table.landscapes if study.default in table.variants([name])]
        if len(names) > 1 and table is not tasks:
            parts.append(rows(f"{title}, overall ({', '.join(names)})", table, names))
        parts += [rows(f"{title}, {name}", table, [name]) for name in names]
    chosen = challenger(study, results)
    if chosen is not None and chosen in held_out.variants(held_out.landscapes):
        parts.append(decision(study, chosen, screening, held_out, tasks))
    return "\n".join(parts)


def rows(title: str, table: Table, landscapes: Sequence[str]) -> str:
    """One table, the best variant first."""
    default, best = table.study.default, table.best(landscapes)
    means = {name: table.mean(name, landscapes) for name in table.variants(landscapes)}
    lines = [
        f"### {title}, {table.runs(default, landscapes[0])} seeds each",
        "",
        "| variant | archive | parents | adapts | final score | less the default | less the best | evals | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in sorted(means, key=lambda name: -means[name][0]):
        variant = table.study.variant(name)
        config = config_of(table.study, variant, 1000, 0)
        selector = config.selector
        kind = (selector.archive, selector.parents) if variant.search == "evolve" else ("-", "seed only")
        adapts = "yes" if config.adaptation.enabled else "no"
        mean = "{:.3f} [{:.3f}, {:.3f}]".format(*means[name])
        against = [_signed(table.difference(name, other, landscapes), name == other) for other in (default, best)]
        evaluations = table.average(name, landscapes, "evaluations")
        cpu_s = table.average(name, landscapes, "cpu_s")
        cells = (name, *kind, adapts, mean, *against, f"{evaluations:.0f}", f"{cpu_s:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _signed(figures: tuple[float, float, float], same: bool) -> str:
    """A difference; bold where its interval excludes 0."""
    if same:
        return "-"
    text = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*figures)
    return f"**{text}**" if figures[1] > 0 or figures[2] < 0 else text


def decision(study: Study, chosen: str, screening: Table, held_out: Table, tasks: Table) -> str:
    """What the rule says of the default and of every choice."""
    lines = [
        "### What the rule says",
        "",
        " ".join(study.test.rule.split()),
        "",
        f"- Challenger (best on screening seeds): `{chosen}`.",
    ]
    if chosen == study.default:
        lines.append("- It is the default, which stays.")
    else:
        gain = held_out.difference(chosen, study.default, held_out.landscapes)
        names = [name for name in tasks.landscapes if chosen in tasks.variants([name])]
        on_tasks = {name: tasks.difference(chosen, study.default, [name]) for name in names}
        lines.append(f"- On held-out seeds it differs from `{study.default}` by {_signed(gain, False)}.")
        lines += [f"- On {name} it differs by {_signed(figures, False)}." for name, figures in on_tasks.items()]
        if gain[1] <= 0 or any(figures[2] < 0 for figures in on_tasks.values()):
            lines.append("- The default stays.")
        elif any(tasks.runs(chosen, name) < len(study.real.seeds) for name in tasks.landscapes):
            lines.append("- The default changes to it if the tasks agree, which have not run in full.")
        else:
            lines.append("- The default changes to it.")
    lines += ["", "| choice | better than the default on | within noise of the best on | kept |", "|---|---|---|---|"]
    for variant in study.variants:
        if variant.name == study.default:
            continue
        names = [name for name in screening.landscapes if variant.name in screening.variants([name])]
        better = [n for n in names if screening.difference(variant.name, study.default, [n])[1] > 0]
        near = [n for n in names if screening.difference(variant.name, screening.best([n]), [n])[2] >= 0]
        cells = (variant.name, ", ".join(better) or "-", ", ".join(near) or "-", "yes" if better or near else "no")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
