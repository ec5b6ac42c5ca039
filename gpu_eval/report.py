"""A folder of results: `results.json` for programs and `page.html`, one file that works without a network, for people.

The page holds plotly.js (about 5 MB) when plotly is installed; without it, it has the tables only and says so. Texts
from outside (names of programs, findings, the environment of a file that somebody sent) are escaped.
"""

from __future__ import annotations

import html
import os
import tempfile
from pathlib import Path

from gpu_eval.results import Results, to_json
from gpu_eval.tables import Table, banner, environment_lines, tables

RESULTS_FILE = "results.json"
PAGE_FILE = "page.html"

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em; color: #222; background: #fff; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
.banner { background: #b00020; color: #fff; padding: .6em 1em; font-weight: bold; }
.scroll { overflow-x: auto; }
.legend { max-width: 60em; font-size: 13px; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ddd; padding: .25em .6em; text-align: left; white-space: nowrap; }
th { border-bottom: 2px solid #888; }
"""


def check_folder(folder: Path) -> None:
    """Raise ValueError, one line, where `write_results` could not write: to be asked before hours of measuring.

    Nothing stays behind.
    """
    folder = Path(folder).absolute()
    there = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    if not there.is_dir():
        raise ValueError(f"{folder}: cannot write results: {there} is no folder")
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise ValueError(f"{folder}: cannot write results in {there}: {error.strerror or error}") from None


def write_results(results: Results, folder: Path) -> tuple[Path, Path]:
    """Write `results.json` and `page.html` into `folder`, made if need be; each replaces its predecessor whole.

    Returns both paths. Raises ValueError, one line, when the results break their format or the folder cannot be
    written.
    """
    folder = Path(folder)
    text = to_json(results)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / RESULTS_FILE, text)
    except OSError as error:
        raise ValueError(f"{folder}: cannot write results: {error.strerror or error}") from None
    write_page(results, folder / PAGE_FILE)
    return folder / RESULTS_FILE, folder / PAGE_FILE


def write_page(results: Results, path: Path) -> None:
    """Write the page of `results`. Raises ValueError, one line, when `path` cannot be written."""
    try:
        _replace(Path(path), page(results))
    except OSError as error:
        raise ValueError(f"{path}: cannot write the page: {error.strerror or error}") from None


def page(results: Results) -> str:
    """The whole page as text."""
    title = f"{results.bench}, {results.date}, {results.device}"
    parts = [f"<h1>{_safe(title)}</h1>"]
    if (warning := banner(results)) is not None:
        parts.append(f'<p class="banner">{_safe(warning)}</p>')
    parts.append("<ul>" + "".join(f"<li>{_safe(line)}</li>" for line in environment_lines(results)) + "</ul>")
    parts += [_table(table) for table in tables(results)]
    parts += _plots(results)
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{_safe(title)}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{_safe(column)}</th>" for column in table.columns)
    body = "\n".join("<tr>" + "".join(f"<td>{_safe(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return (
        f'<h2>{_safe(table.title)}</h2><p class="legend">{_safe(table.legend)}</p>'
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def _plots(results: Results) -> list[str]:
    try:
        from gpu_eval.plots import plots
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "plotly":
            raise
        return ["<p>No plots: they need plotly, which is not installed where this page was made.</p>"]
    parts = []
    for index, plot in enumerate(plots(results)):
        figure = plot.figure.to_html(
            full_html=False, include_plotlyjs=index == 0, div_id=f"plot-{index}", config={"displaylogo": False}
        )
        parts.append(f"<h2>{_safe(plot.title)}</h2>{figure}")
    return parts


def _replace(path: Path, text: str) -> None:
    """Write `path` so that a reader sees the old text or the new one, whole; the file is readable by all."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _safe(text: str) -> str:
    return html.escape(text)
