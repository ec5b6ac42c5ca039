"""`adrs job --detach` on a real cluster: the run goes on without the job, and its actor ends with it."""

import json
import time

import pytest

from tests.cli.command import adrs
from tests.cluster.nodes import SmallCluster
from tests.processes import wait_gone
from tests.runs import check_exact
from tests.tiny import write_tiny_task

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_detached_run_ends_by_itself_and_a_second_start_or_a_mistake_is_one_line(tmp_path):
    task, run = write_tiny_task(tmp_path), tmp_path / "out" / "night"
    with SmallCluster(((3, 0),)) as nodes:
        where = ("--name", "night", "--out", tmp_path / "out", "--address", nodes.address, "--detach")
        wrong = adrs("job", "nothing", *where)
        assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1), wrong.stderr
        started = adrs("job", task, *where, "--no-baselines", "--set", "budget.max_candidates=80")
        assert started.returncode == 0, started.stderr
        assert "run night goes on on" in started.stdout
        second = adrs("job", task, *where)
        assert second.returncode == 2
        assert "is there already" in second.stderr
        deadline = time.monotonic() + 120
        while not json.loads(adrs("status", run, "--json").stdout or "{}").get("state", "").startswith("ended"):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        check_exact(run, 80)
        parts = ("DetachedRun", "IslandActor", "EvaluatorActor", "LedgerActor")
        assert wait_gone({pid for part in parts for pid in nodes.pids(part)}, 10) == {}
