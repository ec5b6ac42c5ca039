"""Plots: the right numbers stand on the right axes, bounds are lines, and names are harmless."""

from __future__ import annotations

import html
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("plotly")

from gpu_eval.plots import plots
from gpu_eval.results import Results
from tests.gpu_eval.example_results import HOSTILE, eplb_results, eplb_row, moe_results, moe_row


def figure(results: Results, title: str) -> Any:
    """The first figure whose title begins so, as plain data."""
    return next(plot.figure for plot in plots(results) if plot.title.startswith(title)).to_plotly_json()


def test_time_stands_on_a_log_axis_against_the_next_window_under_its_bound() -> None:
    only = replace(eplb_results(), eplb=(eplb_row("deepseek"),))
    made = figure(only, "Host time")
    assert made["layout"]["xaxis"]["type"] == "log"
    assert [(list(trace["x"]), list(trace["y"])) for trace in made["data"]] == [([1.3], [0.7801])]
    assert made["data"][0]["error_x"]["array"] == pytest.approx([0.2])
    assert [shape["y0"] for shape in made["layout"]["shapes"]] == [0.931]


def test_snapshots_without_a_next_window_show_the_same_one() -> None:
    row = replace(eplb_row("deepseek", "recorded"), next_balance=None, next_bound=None)
    made = figure(replace(eplb_results(), eplb=(row,)), "Host time")
    assert [list(trace["y"]) for trace in made["data"]] == [[0.9229]]
    assert made["layout"]["yaxis"]["title"]["text"] == "balance per GPU, same window"
    assert [shape["y0"] for shape in made["layout"]["shapes"]] == [0.929]


def test_gain_is_what_moving_saved_against_never_moving() -> None:
    made = figure(moe_results(), "Moves against gain")
    assert [(trace["x"][0], trace["y"][0]) for trace in made["data"]] == [(0.0, 0.0), (20.4, pytest.approx(10))]


def test_a_program_has_one_colour_and_one_entry_in_the_legend() -> None:
    rows = (moe_row("a", 1, 0.9), moe_row("b", 2, 0.8), replace(moe_row("a", 3, 0.7), network="h800"))
    made = figure(replace(moe_results(), moe_placement=rows), "Moves against gain")
    assert [trace["showlegend"] for trace in made["data"]] == [True, True, False]
    colours = [trace["marker"]["color"] for trace in made["data"]]
    assert colours[0] == colours[2] != colours[1]


def test_a_step_is_the_sum_of_the_slowest_ranks() -> None:
    box, step, *_ = figure(moe_results(), "Latency by rank")["data"]
    assert list(box["y"]) == pytest.approx([4, 6])
    assert list(step["y"]) == pytest.approx([6])
    shown = figure(moe_results(), "Latency by rank")["layout"]
    assert shown["yaxis"]["title"]["text"] == "ms, 2 layers measured"
    heat = figure(moe_results(), "Latency of ranks and layers")["data"][0]
    assert [list(layer) for layer in heat["z"]] == [[1, 2], [3, 4]]


def test_names_are_escaped() -> None:
    names = [trace["name"] for trace in figure(eplb_results(), "Host time")["data"]]
    assert html.escape(HOSTILE.partition("\x1b")[0]) in names[1]
    assert not any("<" in name for name in names)
    titles = figure(eplb_results(), "Host time")["layout"]["annotations"]
    assert not any("<" in title["text"] for title in titles)


def test_bounds_stand_in_the_panel_of_their_regime() -> None:
    rows = tuple(eplb_row("deepseek", regime=f"regime {index}") for index in range(10))
    made = figure(replace(eplb_results(), eplb=rows), "Host time")
    assert len(made["data"]) == 10
    drawn = [(shape["xref"], shape["yref"]) for shape in made["layout"]["shapes"]]
    axes = [(f"{trace['xaxis']} domain", trace["yaxis"]) for trace in made["data"]]
    assert drawn == axes
