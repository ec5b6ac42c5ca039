"""`--address`: what of a command line reaches a run elsewhere, and what comes back."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import cluster.control
from adrs_ray.cli import app
from cluster.control import Answer


@pytest.fixture
def asked(monkeypatch):
    """Calls of `ask`, each answered."""
    calls = []

    def ask(address, run, argv, stdin=""):
        calls.append((address, run, argv, stdin))
        return Answer(3, "out\n", "err\n")

    monkeypatch.setattr(cluster.control, "ask", ask)
    return calls


def invoke(*arguments, text=None):
    return CliRunner().invoke(app, [*map(str, arguments)], input=text)


@pytest.mark.parametrize(
    ("line", "argv"),
    [
        ("status night --json", ["status", "--json"]),
        ("best night --top 3 --program", ["best", "--program", "--top=3"]),
        ("show night 0-17", ["show", "--", "0-17"]),
        ("show night", ["show"]),
        ("steer night --hint --pause", ["steer", "--hint=--pause"]),
        ("steer night --budget max_usd=3 --budget max_candidates=5", None),
        ("steer night --pin 0-1 --spawn", ["steer", "--pin=0-1", "--spawn"]),
        ("inbox list night", ["inbox", "list"]),
        ("inbox night", ["inbox", "list"]),
        ("inbox next night --wait 5", ["inbox", "next", "--wait=5.0"]),
    ],
)
def test_a_command_line_is_asked_as_it_was_given(asked, line, argv):
    done = invoke(*line.split(), "--address", "http://head:8265")
    assert done.exit_code == 3, done.output
    assert done.stdout == "out\n"
    assert done.stderr == "err\n"
    expected = argv or ["steer", "--budget=max_usd=3", "--budget=max_candidates=5"]
    assert asked == [("http://head:8265", "night", expected, "")]


def test_a_file_is_read_here(asked, tmp_path):
    (tmp_path / "p.py").write_text("x = 1\n")
    invoke("steer", "night", "--inject", tmp_path / "p.py", "--address", "auto")
    invoke("inbox", "answer", "night", "0-1/0", "--file", tmp_path / "p.py", "--address", "auto")
    invoke("inbox", "answer", "night", "0-1/0", "--file", "-", "--address", "auto", text="typed")
    assert asked == [
        ("auto", "night", ["steer", "--inject=-"], "x = 1\n"),
        ("auto", "night", ["inbox", "answer", "--file=-", "--", "0-1/0"], "x = 1\n"),
        ("auto", "night", ["inbox", "answer", "--file=-", "--", "0-1/0"], "typed"),
    ]


def test_a_file_that_cannot_be_read_is_not_asked_about(asked, tmp_path):
    done = invoke("steer", "night", "--inject", tmp_path / "none.py", "--address", "auto")
    assert "cannot read" in str(done.exception)
    assert asked == []


def test_without_an_address_a_run_folder_is_meant(asked, tmp_path):
    done = invoke("status", tmp_path)
    assert "is no run" in str(done.exception)
    assert asked == []


def test_what_is_forwarded_is_what_the_command_would_read_itself(asked):
    """The words that are sent parse to the parameters that were given."""
    invoke("steer", "night", "--hint", "a b", "--island", "2", "--continue", "all", "--address", "auto")
    command = typer.main.get_command(app).commands["steer"]
    (_, _, argv, _), *_ = asked
    parsed = command.make_context("steer", ["folder", *argv[1:]]).params
    given = {name: value for name, value in parsed.items() if value}
    assert given == {"run": Path("folder"), "hint": "a b", "island": 2, "go_on": "all"}
