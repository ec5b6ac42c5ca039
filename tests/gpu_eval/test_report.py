"""Tables and pages: everything is there, nothing from outside acts, recorded and generated loads stand apart."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gpu_eval.report import check_folder, page, write_page, write_results
from gpu_eval.results import Results, read_results
from gpu_eval.tables import CPU_BANNER, markdown_table, tables, text_table
from tests.gpu_eval.example_results import HOSTILE, eplb_results, moe_results


class Tags(HTMLParser):
    """Tags and attributes of a page, and its text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] not in ("script", "style"):
            self.text += data


def test_recorded_and_generated_loads_never_share_a_table() -> None:
    made = tables(eplb_results())
    assert [table.title.split(" (")[0] for table in made] == [
        "Rebalancing, generated loads",
        "Rebalancing, recorded loads",
    ]
    assert [row[1] for row in made[1].rows] == ["my traffic"]
    assert "my traffic" not in [row[1] for row in made[0].rows]


def test_a_dropped_program_says_why() -> None:
    row = next(row for row in tables(eplb_results())[0].rows if row[0] == "numba_only")
    assert row[-1] == "dropped: numba is not installed"
    assert set(row[4:-1]) == {"-"}


def test_the_terminal_gets_aligned_columns_and_no_control_characters() -> None:
    text = text_table(eplb_results())
    assert CPU_BANNER in text
    assert all(letter == "\n" or letter.isprintable() for letter in text)
    lines = text.split("\n\n")[2].splitlines()
    lines = lines[next(number for number, line in enumerate(lines) if line.startswith("program ")) :]
    assert {line.index("58x256") for line in lines[1:]} == {lines[0].index("shape")}
    end = lines[0].index("next") + len("next")
    assert [line[:end].split(" ")[-1] for line in lines[1:]] == ["0.7801", "0.7801", "0.7801", "-"]


def test_markdown_has_as_many_cells_in_every_row() -> None:
    text = markdown_table(eplb_results())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {16}
    assert "<script" not in text
    assert "\x1b" not in text


def test_every_table_says_what_its_columns_are_and_which_way_is_better() -> None:
    for results in (eplb_results(), moe_results()):
        for table in tables(results):
            assert re.search(r"(more|less) is better", table.legend, re.IGNORECASE)
            start = table.legend[:15]
            assert all(start in render(results) for render in (text_table, markdown_table, page))


def test_a_run_that_was_interrupted_says_so_above_its_numbers() -> None:
    for results in (eplb_results(), moe_results()):
        cut_short = replace(results, settings={"interrupted": "after 2 rows"})
        for render in (text_table, markdown_table, page):
            assert "interrupted after 2 rows: not complete" in render(cut_short)[:3000]
            assert "not complete" not in render(results)


def test_only_cpu_results_carry_the_banner() -> None:
    for render in (text_table, markdown_table):
        assert CPU_BANNER in render(eplb_results())
        assert CPU_BANNER not in render(moe_results())


@pytest.mark.parametrize("make", [eplb_results, moe_results])
def test_a_page_works_alone_and_names_cannot_act(make: Callable[[], Results]) -> None:
    pytest.importorskip("plotly")
    text = page(make())
    assert (CPU_BANNER in text) == (make().device == "cpu")
    seen = Tags(text)
    assert seen.tags.count("h1") == 1
    assert "img" not in seen.tags
    assert not [value for name, value in seen.attributes if name in ("src", "href")]
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert "alert(1)</script>" not in text
    assert "<script>alert" not in text
    assert HOSTILE.partition("\x1b")[0] in seen.text


def test_a_page_has_the_plots_that_its_numbers_allow() -> None:
    pytest.importorskip("plotly")
    titles = {
        bench: re.findall(r"<h2>([^<]*)</h2><div style", page(results))
        for bench, results in (("eplb", eplb_results()), ("moe", moe_results()))
    }
    assert [title.partition(":")[0] for title in titles["eplb"]] == [
        *["Host time against balance"] * 3,
        "Device time against balance",
        *["Balance in the next window against the same one"] * 2,
    ]
    assert sum("recorded" in title for title in titles["eplb"]) == 2
    assert [title.partition(":")[0] for title in titles["moe"]] == [
        "Moves against gain",
        "Latency by rank (diamond",
        "Latency of ranks and layers",
    ]


def test_without_plotly_a_page_has_its_tables_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "plotly"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "gpu_eval.plots", raising=False)
    monkeypatch.setitem(sys.modules, "plotly", None)
    text = page(eplb_results())
    assert "No plots: they need plotly" in text
    assert text.count("<table>") == 2
    assert len(text) < 100_000


def test_a_folder_is_written_whole_and_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "gpu-2026"
    for results in (eplb_results(), moe_results()):
        json_path, page_path = write_results(results, folder)
        assert read_results(json_path) == results
        assert results.bench in page_path.read_text()
    assert sorted(path.name for path in folder.iterdir()) == ["page.html", "results.json"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write results: "):
        write_results(eplb_results(), tmp_path / "file" / "folder")
    with pytest.raises(ValueError, match=rf"cannot write results: {tmp_path / 'file'} is no folder"):
        check_folder(tmp_path / "file" / "folder")
    check_folder(tmp_path / "a" / "b")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file"]
    with pytest.raises(ValueError, match=r"cannot write the page: No such file"):
        write_page(eplb_results(), tmp_path / "nowhere" / "page.html")
