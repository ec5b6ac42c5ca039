"""Evaluators with one hole each: found unaided and named; with the hole closed: nothing found."""

from __future__ import annotations

from pathlib import Path

import pytest

from adrs_ray.attack import Options, Report, attack
from adrs_ray.attack.battery import Family
from adrs_ray.config import EvaluatorConfig
from adrs_ray.task import load_task
from tests.attack.folders import write_folder

HOLES = [
    ("scheduling", "reported", Family.METRIC),
    ("scheduling", "dropped", Family.CRASH),
    ("scheduling", "shared", Family.INPUTS),
    ("scheduling", "timed", Family.CLOCK),
    ("scheduling", "revealing", Family.MEMORY),
    ("scheduling", "filed", Family.FILES),
    ("placement", "uncovered", Family.COVERAGE),
    ("placement", "unbounded", Family.EXTRA),
    ("replicas", "inconsistent", Family.INCONSISTENT),
    ("spot", "printed", Family.PRINTED),
    ("ordering", "unchecked", Family.CONSTANT),
]


def attacked(folder: Path) -> Report:
    return attack(load_task(folder), Options(), EvaluatorConfig())


@pytest.mark.parametrize(("problem", "evaluator", "family"), HOLES, ids=lambda value: str(value).replace(" ", "-"))
def test_a_hole_is_found_and_named(tmp_path: Path, problem: str, evaluator: str, family: Family) -> None:
    report = attacked(write_folder(tmp_path, problem, evaluator))
    assert report.tried == report.planned, report.notes
    assert family in {finding.family for finding in report.findings}, report
    assert all(finding.score >= min(report.seed_scores) for finding in report.findings)


@pytest.mark.parametrize("problem", ["scheduling", "placement", "replicas", "spot", "ordering"])
def test_with_the_hole_closed_nothing_is_found(tmp_path: Path, problem: str) -> None:
    report = attacked(write_folder(tmp_path, problem, "sound"))
    assert report.tried == report.planned, report.notes
    assert report.is_clean, report.findings or report.blind
    assert report.families[Family.COVERAGE if problem != "spot" else Family.CONSTANT]["tried"] > 0


def test_an_evaluator_that_sees_no_answer_is_blind_and_nothing_else(tmp_path: Path) -> None:
    report = attacked(write_folder(tmp_path, "scheduling", "blind"))
    assert report.blind is not None
    assert report.blind.unmoved == report.blind.changed >= 8
    assert not report.findings
    assert report.families[Family.MUTANT]["changed"] > 0
