"""Results as tables of text: one list of columns for the terminal, Markdown and the page.

Loads that were recorded and loads that were generated stand in tables of their own. Names of programs come from
outside: `text_table` and `markdown_table` make them harmless for their reader, whoever takes `tables` must do so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import wrap

from gpu_eval import legends
from gpu_eval.results import OK, EplbRow, Fidelity, Interval, MoePlacementRow, MultiGpuRow, Results, Source

CPU_BANNER = "measured on CPU: not a statement about GPUs"
_NONE = "-"
_LEGEND_WIDTH = 120
_WIDEST = 40
"""Characters of a terminal's column; the last one, notes, is not cut."""


@dataclass(frozen=True, slots=True)
class Table:
    """Cells are plain text as it came; every row has a cell per column."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    legend: str
    """What the columns are, in which unit, and which way is better; plain text, ours."""


def banner(results: Results) -> str | None:
    """What must stand above every rendering, or None."""
    cut_short = results.settings.get("interrupted")
    said = [CPU_BANNER] if results.device == "cpu" else []
    said += [f"interrupted {cut_short}: not complete"] if cut_short else []
    return "; ".join(said) or None


def tables(results: Results) -> list[Table]:
    """Tables that have rows, those of generated loads first."""
    made: list[Table] = []
    sources: tuple[Source, ...] = ("generated", "recorded")
    for source in sources:
        made += [
            _eplb(source, [row for row in results.eplb if row.source == source]),
            _moe_placement(source, [row for row in results.moe_placement if row.source == source]),
            _multi_gpu(source, [row for row in results.multi_gpu if row.source == source]),
            _fidelity(source, [row for row in results.fidelity if row.source == source]),
        ]
    return [table for table in made if table.rows]


def environment_lines(results: Results) -> list[str]:
    """Bench, date, device and machine, a line each."""
    about = results.environment
    lines = [f"bench {results.bench}, {results.date}, device {results.device}"]
    gpus = about.get("gpus")
    for gpu in gpus if isinstance(gpus, list) else []:
        if isinstance(gpu, dict):
            lines.append(", ".join(f"{name} {value}" for name, value in gpu.items() if value is not None))
    machine = [
        f"{name} {about[name]}" for name in ("cpu", "cores", "memory_gib", "load_1m") if about.get(name) is not None
    ]
    state = (
        "idle" if about.get("idle") is True else "not idle" if about.get("idle") is False else "idle or not: unknown"
    )
    lines.append(", ".join([*machine, state]))
    versions = about.get("packages")
    known = {"python": about.get("python"), "cuda": about.get("cuda")}
    known |= versions if isinstance(versions, dict) else {}
    lines.append(", ".join(f"{name} {value}" for name, value in known.items() if value is not None))
    if results.settings:
        lines.append("settings: " + ", ".join(f"{name} {value}" for name, value in results.settings.items()))
    return [line for line in lines if line]


def text_table(results: Results) -> str:
    """For a terminal: columns aligned, control characters replaced, no escape codes; ends with a newline."""
    parts = [] if banner(results) is None else [_printable(f"*** {banner(results)} ***")]
    parts.append("\n".join(_printable(line) for line in environment_lines(results)))
    parts += [_aligned(table) for table in tables(results)]
    return "\n\n".join(parts) + "\n"


def markdown_table(results: Results) -> str:
    """For a document: the same tables in GitHub's Markdown."""
    parts = [] if banner(results) is None else [f"**{_markdown(banner(results) or '')}**"]
    parts.append("\n".join(f"- {_markdown(line)}" for line in environment_lines(results)))
    for table in tables(results):
        lines = [table.columns, ("---",) * len(table.columns), *table.rows]
        body = "\n".join("| " + " | ".join(_markdown(cell) for cell in line) + " |" for line in lines)
        parts.append(f"### {_markdown(table.title)}\n\n{_markdown(table.legend)}\n\n{body}")
    return "\n\n".join(parts) + "\n"


def _eplb(source: Source, rows: Sequence[EplbRow]) -> Table:
    columns = (
        "program",
        "regime",
        "shape",
        "groups",
        "next",
        "next bound",
        "same",
        "same bound",
        "slots (paper)",
        "slot bound",
        "duplicates",
        "off group",
        "host ms",
        "device ms",
        "notes",
    )
    cells = [
        (
            _name(row),
            row.regime,
            row.shape,
            "on nodes" if row.grouped else "free",
            _number(row.next_balance, 4),
            _number(row.next_bound, 4),
            _number(row.same_balance, 4),
            _number(row.gpu_bound, 4),
            _number(row.paper_balancedness, 4),
            _number(row.slot_bound, 4),
            _count(row.duplicates),
            _count(row.group_violations),
            _interval(row.host_ms),
            _interval(row.device_ms),
            _notes(row.status, row.findings),
        )
        for row in rows
    ]
    return Table(f"Rebalancing, {source} loads", columns, tuple(cells), legends.EPLB)


def _moe_placement(source: Source, rows: Sequence[MoePlacementRow]) -> Table:
    columns = (
        "program",
        "regime",
        "shape",
        "phase",
        "stage",
        "network",
        "total s",
        "steps s",
        "decisions s",
        "moves s",
        "GiB per GPU",
        "p99 step ms",
        "/ never",
        "/ deepseek every",
        "/ oracle",
        "notes",
    )
    cells = [
        (
            _name(row),
            row.regime,
            row.shape,
            row.phase,
            row.stage,
            row.network,
            _significant(row.total_s),
            _significant(row.steps_s),
            _significant(row.decisions_s),
            _significant(row.moves_s),
            _number(row.moved_gib_per_gpu, 2),
            _significant(None if row.p99_step_s is None else 1000 * row.p99_step_s),
            _number(row.ratio_never, 3),
            _number(row.ratio_deepseek_every, 3),
            _number(row.ratio_oracle, 3),
            _notes(row.status, row.findings),
        )
        for row in rows
    ]
    return Table(f"Placement over time, {source} loads", columns, tuple(cells), legends.MOE_PLACEMENT)


def _multi_gpu(source: Source, rows: Sequence[MultiGpuRow]) -> Table:
    columns = (
        "program",
        "regime",
        "phase",
        "backend",
        "world",
        "virtual ranks",
        "step ms",
        "model ms",
        "moved slots",
        "moved GiB",
        "copy ms",
        "slow-down",
        "notes",
    )
    cells = [
        (
            row.program,
            row.regime,
            row.phase,
            row.backend,
            _count(row.world),
            _count(row.virtual_ranks),
            _interval(Interval(1000 * row.step_s.median, 1000 * row.step_s.low, 1000 * row.step_s.high)),
            _significant(None if row.model_s is None else 1000 * row.model_s),
            _count(row.moved_slots),
            _number(row.moved_gib, 3),
            _significant(None if row.copy_s is None else 1000 * row.copy_s),
            _number(row.slow_down, 3),
            _notes(OK, row.notes),
        )
        for row in rows
    ]
    return Table(f"Several processes, {source} loads", columns, tuple(cells), legends.MULTI_GPU)


def _fidelity(source: Source, rows: Sequence[Fidelity]) -> Table:
    columns = ("cheap", "dear", "regime", "phase", "pairs", "Spearman", "median error")
    cells = [
        (
            row.cheap,
            row.dear,
            row.regime,
            row.phase,
            _count(row.pairs),
            _number(row.spearman, 3),
            _number(row.median_error, 3),
        )
        for row in rows
    ]
    title = f"How well one measurement foretells another, {source} loads"
    return Table(title, columns, tuple(cells), legends.FIDELITY)


def _name(row: EplbRow | MoePlacementRow) -> str:
    return row.program if row.kind == "baseline" else f"{row.program} (evolved)"


def _notes(status: str, findings: Iterable[str]) -> str:
    return "; ".join([*([] if status == OK else [f"dropped: {status}"]), *findings])


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def _significant(value: float | None) -> str:
    return _NONE if value is None else f"{value:.4g}"


def _count(value: int | None) -> str:
    return _NONE if value is None else str(value)


def _interval(value: Interval | None) -> str:
    return _NONE if value is None else f"{value.median:.3g} [{value.low:.3g}, {value.high:.3g}]"


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _cells(line: Sequence[str]) -> list[str]:
    shown = [_printable(cell) for cell in line]
    return [cell if len(cell) <= _WIDEST else cell[: _WIDEST - 3] + "..." for cell in shown[:-1]] + shown[-1:]


def _is_number(cell: str) -> bool:
    try:
        float(cell.partition(" ")[0])
    except ValueError:
        return cell == _NONE
    return True


def _aligned(table: Table) -> str:
    lines = [_cells(line) for line in (table.columns, *table.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.columns))]
    right = [all(_is_number(line[column]) for line in lines[1:]) for column in range(len(table.columns))]
    shown = [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    ]
    return "\n".join([_printable(table.title), *wrap(table.legend, _LEGEND_WIDTH), *shown])


def _markdown(text: str) -> str:
    shown = _printable(text)
    for special in ("\\", "|", "`", "*", "_", "[", "]"):
        shown = shown.replace(special, "\\" + special)
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
