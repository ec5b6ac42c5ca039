"""Looking on while another writes: the same status, at the cost of what is new."""

import asyncio
from dataclasses import replace

import pytest

from adrs_ray.config import RunConfig, override
from adrs_ray.errors import UsageError
from adrs_ray.following import Follower
from adrs_ray.ledger import Ledger
from adrs_ray.storage.journal import Event, EventKind
from adrs_ray.storage.runfolder import RunFolder
from adrs_ray.storage.sqlite import SqliteJournal
from tests.cli.command import adrs
from tests.runs import start, wait_for
from tests.tiny import write_tiny_task


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that has ended."""
    folder = tmp_path_factory.mktemp("following")
    task, run = write_tiny_task(folder), folder / "run"
    done = adrs("run", task, "--local", "--max-candidates", 25, "--out", run)
    assert done.returncode == 0, done.stderr
    return run


def budget_order(number, limit):
    body = {"kind": "budget", "body": {"values": {"max_candidates": limit}}}
    return Event(f"command:{number}", EventKind.COMMAND, None, -1, body)


def test_the_status_is_that_of_the_runs_own_ledger(finished):
    async def both():
        journal = SqliteJournal.open(finished / "journal.db")
        ledger = await Ledger.open(journal, RunFolder.open(finished).config)
        own = await ledger.status()
        await ledger.close()
        follower = Follower(finished)
        seen = await follower.look()
        assert await follower.look() == seen
        follower.close()
        return own, seen

    own, seen = asyncio.run(both())
    assert seen == own
    assert seen.candidates == 25
    assert seen.leaders


def test_a_look_sees_what_was_appended_since_and_a_changed_budget(tmp_path):
    async def look():
        config = override(RunConfig(), {"budget.max_candidates": 50})
        folder = RunFolder.create(tmp_path / "run", config, "txn_offline", True)
        journal = SqliteJournal.open(folder.journal)
        ledger = await Ledger.open(journal, config)
        await ledger.start_epoch()
        follower = Follower(folder.path)
        limits = [(await follower.look()).max_candidates]
        await ledger.append([budget_order(1, 70)], ledger.epoch)
        limits.append((await follower.look()).max_candidates)
        await ledger.close()
        # Resumed with a budget of its own, which an older command does not change.
        folder.rewrite(override(config, {"budget.max_candidates": 90}), local=True)
        journal = SqliteJournal.open(folder.journal)
        ledger = await Ledger.open(journal, RunFolder.open(folder.path).config)
        await ledger.start_epoch()
        status = await follower.look()
        limits.append(status.max_candidates)
        assert status == replace(await ledger.status(), journal_lag_s=None)
        assert status.resumes == 1
        follower.close()
        await ledger.close()
        return limits

    assert asyncio.run(look()) == [50, 70, 90]


def test_a_folder_without_a_run_or_a_journal_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="is no run"):
        Follower(tmp_path)
    RunFolder.create(tmp_path / "run", RunConfig(), "txn_offline", True)
    with pytest.raises(UsageError, match="no journal"):
        Follower(tmp_path / "run")


def test_watch_ends_at_once_where_nothing_runs(finished):
    done = adrs("watch", finished)
    assert done.returncode == 0, done.stderr
    assert "25/25 candidates" in done.stdout
    assert "is not running any more" in done.stdout


def test_watch_shows_a_run_of_another_process_until_it_ends(tmp_path):
    task, run, log = write_tiny_task(tmp_path), tmp_path / "run", tmp_path / "log"
    process = start("run", task, "--local", "--max-candidates", 100_000, "--out", run, log=log)
    watch_log = tmp_path / "watch"
    try:
        wait_for(run, 3, process, log)
        watching = start("watch", run, log=watch_log)
        try:
            wait_for(run, 10, process, log)
            assert watching.poll() is None
            process.terminate()
            assert process.wait(60) == 0
            assert watching.wait(60) == 0
        finally:
            watching.kill()
    finally:
        process.kill()
        process.wait()
    assert "/100000 candidates" in watch_log.read_text()
    assert "is not running any more" in watch_log.read_text()


def test_watch_of_no_run_is_wrong_use(tmp_path):
    done = adrs("watch", tmp_path)
    assert done.returncode == 2
    assert "is no run" in done.stderr
