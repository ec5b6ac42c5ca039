"""Prints the README's table of what each public rule is worth: `python -m tasks.spot_multi.differences`.

Programs run in this process, without the jail, on the runs of the test split. Columns are mean costs in dollars: as the
public evaluator bills; the same runs with each gap billed in the zone in focus, at that zone's first price; under the
sound rules with free transfers; under the sound rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from adrs_ray.task import Referee, Task, import_private, load_task

from . import public_rules, rules
from .market import Migration, Scenario

_FREE = Migration(checkpoint_gb=0.0)


def run(task: Task, source: str, play: Callable[[Scenario], Referee], scenario: Scenario) -> Any:
    """The ledger of a program's run of `scenario` under the rules `play`, in this process."""
    adapter = import_private(task.folder, "adapter")
    program = adapter.load(source)
    game = play(scenario)
    try:
        observation = next(game)
        while True:
            observation = game.send(adapter.act(program, observation))
    except StopIteration as ended:
        return ended.value


def row(task: Task, source: str) -> list[float]:
    """Public, honestly billed, sound without and with migration: mean costs; then late runs under the public rules."""
    scenarios: dict[str, list[list[float]]] = {}
    late = 0
    for case in task.judge.cases("test"):
        scenario = case.hidden.scenario
        free = replace(scenario, migration=_FREE)
        public = run(task, source, public_rules.play, free)
        late += public.finish_tick * scenario.job.gap_s > scenario.job.deadline_s
        costs = [public.cost, public.honest_cost]
        costs += [run(task, source, rules.play, one).cost for one in (free, scenario)]
        scenarios.setdefault(case.id.rpartition("/")[0], []).append(costs)
    means = [[fmean(column) for column in zip(*costs, strict=True)] for costs in scenarios.values()]
    return [*(fmean(column) for column in zip(*means, strict=True)), late]


def main() -> None:
    task = load_task(Path(__file__).parent)
    print(f"test split: {task.split_note('test') or 'the public runs'}\n")
    print("| program | public | billed where it ran | sound, moves free of transfer | sound | late publicly |")
    print("|---|---|---|---|---|---|")
    for name, path in task.programs().items():
        *costs, late = row(task, path.read_text(encoding="utf-8"))
        print(f"| {name} | {' | '.join(f'{cost:.2f}' for cost in costs)} | {late:.0f} |")


if __name__ == "__main__":
    main()
