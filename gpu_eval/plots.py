"""The plots of a results page, by plotly. Recorded and generated loads never share a figure.

Plotly reads a little HTML in every text, so whatever comes from outside is escaped before it becomes a name.
"""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from plotly import graph_objects
from plotly.colors import qualitative
from plotly.subplots import make_subplots

from gpu_eval.results import EplbRow, Interval, MoePlacementRow, RankLatency, Results

_PALETTE = qualitative.Dark24
_HEIGHT = 380
"""Height of one row of plots, in pixels."""
_COLUMNS = 3
_DASHED = {"line": {"dash": "dash", "color": "gray"}}

_Row = TypeVar("_Row")
_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Plot:
    """One figure under a title of plain text."""

    title: str
    figure: Any
    """`plotly.graph_objects.Figure`."""


def plots(results: Results) -> list[Plot]:
    """Every plot that the results have numbers for."""
    return [
        *_time_against_balance(results.eplb, "host"),
        *_time_against_balance(results.eplb, "device"),
        *_next_against_same(results.eplb),
        *_moves_against_gain(results.moe_placement),
        *_latency_by_rank(results.rank_latencies),
        *_latency_maps(results.rank_latencies),
    ]


def _time_against_balance(rows: Sequence[EplbRow], track: str) -> list[Plot]:
    """Up and to the left is better; the dashed line is what no placement exceeds.

    The balance is that of the next window, or of the same one where snapshots have no next.
    """
    timed = [row for row in rows if row.same_balance is not None and _track(row, track) is not None]
    keys = [(row.source, row.shape, row.grouped, row.next_balance is not None) for row in timed]
    made = []
    for (source, shape, grouped, has_next), group in _grouped(timed, keys):
        regimes = _grouped(group, [row.regime for row in group])
        figure = _subplots([regime for regime, _ in regimes])
        colours, lines = _Colours(figure), list[dict[str, Any]]()
        for number, (_, panel) in enumerate(regimes):
            for row in panel:
                time = _track(row, track)
                assert time is not None
                colours.point(
                    row, time.median, row.next_balance if has_next else row.same_balance, number, _error(time)
                )
            bounds = [row.next_bound if has_next else row.gpu_bound for row in panel]
            lines += _across(bounds, number)
        figure.update_layout(shapes=lines)
        figure.update_xaxes(type="log", title_text=f"{track} ms per call")
        figure.update_yaxes(title_text=f"balance per GPU, {'next' if has_next else 'same'} window")
        where = "groups on their nodes" if grouped else "groups free"
        made.append(Plot(f"{track.capitalize()} time against balance: {shape}, {where}, {source} loads", figure))
    return made


def _next_against_same(rows: Sequence[EplbRow]) -> list[Plot]:
    """What a placement is worth a window later; the bounds of both windows are dashed."""
    both = [row for row in rows if row.next_balance is not None and row.same_balance is not None]
    made = []
    for (source, shape), group in _grouped(both, [(row.source, row.shape) for row in both]):
        regimes = _grouped(group, [(row.regime, row.grouped) for row in group])
        figure = _subplots([f"{regime}, {'grouped' if grouped else 'free'}" for (regime, grouped), _ in regimes])
        colours, lines = _Colours(figure), list[dict[str, Any]]()
        for number, (_, panel) in enumerate(regimes):
            for row in panel:
                colours.point(row, row.same_balance, row.next_balance, number)
            lines += _upright([row.gpu_bound for row in panel], number)
            lines += _across([row.next_bound for row in panel], number)
        figure.update_layout(shapes=lines)
        figure.update_xaxes(title_text="same window")
        figure.update_yaxes(title_text="next window")
        made.append(Plot(f"Balance in the next window against the same one: {shape}, {source} loads", figure))
    return made


def _moves_against_gain(rows: Sequence[MoePlacementRow]) -> list[Plot]:
    """How much of the total time moving bought, against never moving; less than 0: it cost more than it gained."""
    moved = [row for row in rows if row.moved_gib_per_gpu is not None and row.ratio_never is not None]
    made = []
    for key, group in _grouped(moved, [(row.source, row.shape, row.phase, row.stage) for row in moved]):
        source, shape, phase, stage = key
        panels = _grouped(group, [(row.regime, row.network) for row in group])
        figure = _subplots([f"{regime}, {network}" for (regime, network), _ in panels])
        colours, lines = _Colours(figure), list[dict[str, Any]]()
        for number, (_, panel) in enumerate(panels):
            for row in panel:
                assert row.ratio_never is not None
                colours.point(row, row.moved_gib_per_gpu, 100 * (1 - row.ratio_never), number)
            lines += _across([0], number)
        figure.update_layout(shapes=lines)
        figure.update_xaxes(title_text="GiB moved per GPU")
        figure.update_yaxes(title_text="% of total time saved")
        made.append(Plot(f"Moves against gain: {shape}, {phase}, {stage}, {source} loads", figure))
    return made


def _latency_by_rank(rows: Sequence[RankLatency]) -> list[Plot]:
    """A box over ranks of the time each is busy in the layers; the diamond: the sum of each layer's slowest rank, which
    is the step where the layers are all of it."""
    made = []
    for (source, regime, shape, phase, stage), group in _latencies(rows):
        figure = graph_objects.Figure()
        for row in group:
            milliseconds = 1000 * np.asarray(row.seconds, dtype=np.float64)
            name = _safe(row.program)
            figure.add_box(y=milliseconds.sum(axis=0).tolist(), name=name, boxpoints="all", showlegend=False)
            figure.add_scatter(
                x=[name],
                y=[float(milliseconds.max(axis=1).sum())],
                mode="markers",
                marker={"symbol": "diamond", "size": 10, "color": "black"},
                hovertext=f"{name}: slowest rank of each layer",
                showlegend=False,
            )
        figure.update_yaxes(title_text=f"ms, {_layers(group)}", rangemode="tozero")
        _sized(figure, 1)
        where = f"{regime}, {shape}, {phase}, {stage}, {source} loads"
        made.append(Plot(f"Latency by rank (diamond: slowest of each layer): {where}", figure))
    return made


def _latency_maps(rows: Sequence[RankLatency]) -> list[Plot]:
    """Milliseconds of every rank in every layer, one colour scale for all programs of a figure."""
    made = []
    for (source, regime, shape, phase, stage), group in _latencies(rows):
        figure = _subplots([row.program for row in group])
        for number, row in enumerate(group):
            milliseconds = (1000 * np.asarray(row.seconds, dtype=np.float64)).tolist()
            figure.add_trace(graph_objects.Heatmap(z=milliseconds, coloraxis="coloraxis"), **_cell(number))
        figure.update_layout(coloraxis={"colorscale": "Viridis", "colorbar": {"title": {"text": "ms"}}})
        figure.update_xaxes(title_text="rank")
        figure.update_yaxes(title_text=_layers(group), autorange="reversed")
        made.append(Plot(f"Latency of ranks and layers: {regime}, {shape}, {phase}, {stage}, {source} loads", figure))
    return made


class _Colours:
    """Points of one figure: one colour and one entry of the legend per program."""

    def __init__(self, figure: Any) -> None:
        self._figure = figure
        self._seen: dict[str, str] = {}

    def point(
        self,
        row: EplbRow | MoePlacementRow,
        x: float | None,
        y: float | None,
        panel: int,
        error: dict[str, Any] | None = None,
    ) -> None:
        name = _safe(row.program)
        new = name not in self._seen
        colour = self._seen.setdefault(name, _PALETTE[len(self._seen) % len(_PALETTE)])
        symbol = "circle" if row.kind == "baseline" else "star"
        self._figure.add_trace(
            graph_objects.Scatter(
                x=[x],
                y=[y],
                error_x=error,
                mode="markers",
                name=name,
                legendgroup=name,
                showlegend=new,
                marker={"color": colour, "symbol": symbol, "size": 10},
            ),
            **_cell(panel),
        )


def _subplots(titles: Sequence[str]) -> Any:
    columns = min(_COLUMNS, len(titles))
    rows = -(-len(titles) // columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[_safe(title) for title in titles],
        horizontal_spacing=0.08,
        vertical_spacing=min(0.15, 0.4 / rows),
    )
    _sized(figure, rows)
    return figure


def _sized(figure: Any, rows: int) -> None:
    figure.update_layout(height=_HEIGHT * rows + 80, margin={"t": 50}, template="plotly_white")


def _across(bounds: Iterable[float | None], panel: int) -> list[dict[str, Any]]:
    """Dashed lines at some heights of the panel with that number, from 0, as shapes of the layout."""
    axis = "" if panel == 0 else str(panel + 1)
    line = {"type": "line", "xref": f"x{axis} domain", "yref": f"y{axis}", "x0": 0, "x1": 1}
    return [line | {"y0": bound, "y1": bound} | _DASHED for bound in _distinct(bounds)]


def _upright(bounds: Iterable[float | None], panel: int) -> list[dict[str, Any]]:
    """Likewise at some places from left to right."""
    axis = "" if panel == 0 else str(panel + 1)
    line = {"type": "line", "xref": f"x{axis}", "yref": f"y{axis} domain", "y0": 0, "y1": 1}
    return [line | {"x0": bound, "x1": bound} | _DASHED for bound in _distinct(bounds)]


def _distinct(bounds: Iterable[float | None]) -> list[float]:
    return sorted({bound for bound in bounds if bound is not None})


def _cell(panel: int) -> dict[str, int]:
    """Row and column, from 1, of the panel with that number, from 0."""
    return {"row": panel // _COLUMNS + 1, "col": panel % _COLUMNS + 1}


def _layers(rows: Sequence[RankLatency]) -> str:
    """How many there are, since they may be a sample."""
    counts = sorted({len(row.seconds) for row in rows})
    return f"{' or '.join(map(str, counts))} layer{'s' * (counts != [1])} measured"


def _latencies(
    rows: Sequence[RankLatency],
) -> list[tuple[tuple[str, str, str, str, str], list[RankLatency]]]:
    return _grouped(rows, [(row.source, row.regime, row.shape, row.phase, row.stage) for row in rows])


def _grouped(rows: Sequence[_Row], keys: Sequence[_Key]) -> list[tuple[_Key, list[_Row]]]:
    """Rows by key, in the order in which keys first come."""
    groups: dict[_Key, list[_Row]] = defaultdict(list)
    for row, key in zip(rows, keys, strict=True):
        groups[key].append(row)
    return list(groups.items())


def _track(row: EplbRow, track: str) -> Interval | None:
    return row.host_ms if track == "host" else row.device_ms


def _error(time: Interval) -> dict[str, Any]:
    above, below = max(0.0, time.high - time.median), max(0.0, time.median - time.low)
    return {"type": "data", "symmetric": False, "array": [above], "arrayminus": [below]}


def _safe(text: str) -> str:
    return html.escape("".join(letter if letter.isprintable() else "?" for letter in text))
