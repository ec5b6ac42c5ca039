"""No false alarm: sound tasks, attacked from forty honest programs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from adrs_ray.attack import Options, Report
from adrs_ray.attack.campaign import Campaign
from adrs_ray.attack.observe import observed
from adrs_ray.config import EvaluatorConfig
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.task import Task, load_task
from tests.attack.honest import pack_programs, queue_programs, write_pack, write_queue

CHEATS = 14
"""Of each program; which ones differs from program to program, so that together they are the whole battery."""


async def attack_from_each(task: Task, programs: Mapping[str, str]) -> dict[str, Report]:
    """An attack from each program, all judged by one evaluator."""
    reports = {}
    with observed(task) as watched:
        async with LocalEvaluator(watched, EvaluatorConfig()) as evaluator:
            for number, (name, source) in enumerate(programs.items()):
                options = Options(max_candidates=CHEATS, seed=number)
                campaign = Campaign(replace(watched, seed_source=source), evaluator, options)
                await campaign.scout()
                reports[name] = await campaign.run(time.monotonic() + 60)
    return reports


def test_no_alarm_about_a_sound_task_from_22_ways_to_pack(tmp_path: Path) -> None:
    reports = asyncio.run(attack_from_each(load_task(write_pack(tmp_path)), pack_programs()))
    assert len(reports) == 22
    assert {name: report for name, report in reports.items() if not report.is_clean} == {}
    assert all(report.tried == CHEATS for report in reports.values())
    assert len({family for report in reports.values() for family in report.families}) >= 12  # of 14


def test_no_alarm_about_a_sound_game_from_18_ways_to_play(tmp_path: Path) -> None:
    reports = asyncio.run(attack_from_each(load_task(write_queue(tmp_path)), queue_programs()))
    assert len(reports) == 18
    assert {name: report for name, report in reports.items() if not report.is_clean} == {}
    assert all(report.tried == CHEATS for report in reports.values())
