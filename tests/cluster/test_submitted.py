"""A run as a job of a cluster with token authentication: submitted, looked at, stopped and continued from outside."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from adrs_ray.errors import RunError
from adrs_ray.storage.journal import EventKind
from cluster.job_server import JobServer
from cluster.metrics import METRICS
from cluster.submit import STOP_WAIT
from tests.cli.command import adrs, environment
from tests.runs import check_exact, events_of, start, terminal

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
TOKEN = "0f" * 32
NAME = "txn-submitted"


@dataclass
class Head:
    gcs: str
    dashboard: str
    metrics: str
    out: Path
    env: dict[str, str] = field(repr=False)
    process: subprocess.Popen[bytes] = field(repr=False)
    log: Path

    def adrs(self, *arguments, timeout_s=180.0):
        return adrs(*arguments, env=self.env, timeout_s=timeout_s)


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """One node with a dashboard, as `ray start --head` makes it; ended with the module."""
    folder = tmp_path_factory.mktemp("head")
    (folder / "token").write_text(TOKEN)
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token"), "HOME": str(folder)}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # Sockets of Ray need a short path.
    with tempfile.TemporaryDirectory(prefix="adrs-ray-", dir="/tmp", ignore_cleanup_errors=True) as temporary:
        for attempt in (1, 2):
            with started(folder, temporary, {**variables, "PATH": path}) as found:
                if found is not None:
                    yield found
                    return
            assert attempt == 1, (folder / "log").read_text()


@contextmanager
def started(folder, temporary, variables):
    """The head, or None when Ray does not come up: a starved machine can abort its raylet."""
    gcs, dashboard, metrics = free_ports(3)
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"]
    command += ["--node-ip-address=127.0.0.1", f"--port={gcs}", f"--dashboard-port={dashboard}"]
    command += [f"--metrics-export-port={metrics}", f"--temp-dir={temporary}", "--object-store-memory=100000000"]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment(variables), cwd=folder
        )
    try:
        head = Head(
            f"127.0.0.1:{gcs}",
            f"http://127.0.0.1:{dashboard}",
            f"http://127.0.0.1:{metrics}/metrics",
            folder / "runs",
            {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "HOME": str(folder)},
            process,
            folder / "log",
        )
        yield head if is_up(head) else None
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_up(head):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and head.process.poll() is None:
        try:
            server_of(head).jobs()
            return True
        except RunError:
            time.sleep(1)
    return False


@pytest.fixture(scope="module")
def config(head, tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "night.yaml"
    path.write_text(
        "budget: {max_candidates: 100000}\nislands: {count: 1}\nevaluator: {slots: 1}\n"
        "cluster: {drain_s: 20}\nfinish: {test: false, top_k: 1}\n"
    )
    return path


def submit(head, config, *further, timeout_s=240.0):
    arguments = ["txn_offline", "--config", config, "--address", head.dashboard, "--name", NAME, "--out", head.out]
    return head.adrs("submit", *arguments, "--working-dir", config.parent, *further, timeout_s=timeout_s)


def wait_until(holds, seconds, what):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what()
        time.sleep(0.5)


def server_of(head):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        return JobServer(head.dashboard)


def job_of(head, job):
    return server_of(head).job(job)


def job_logs(head):
    server = server_of(head)
    return "\n".join(f"--- {job.id} {job.status} {job.message}\n{server.logs(job.id)}" for job in server.jobs())


def test_a_run_is_submitted_reached_by_both_addresses_stopped_and_continued(head, config):
    done = submit(head, config, "--no-wait")
    assert done.returncode == 0, done.stderr
    job = re.search(rf"run {NAME}, job (\S+)", done.stdout)[1]
    run = head.out / NAME
    wait_until(lambda: terminal(run) >= 3 or job_of(head, job).ended, 180, lambda: job_logs(head))
    assert terminal(run) >= 3, job_logs(head)

    # A job on the head watches by Ray's address; its lines come through the dashboard.
    watch_log = head.out / "watch"
    watching = start_with(head, "watch", NAME, "--address", head.dashboard, log=watch_log)

    # By Ray's address, from a node of the cluster.
    near = head.adrs("status", NAME, "--address", head.gcs, "--json")
    assert near.returncode == 0, near.stderr
    assert json.loads(near.stdout)["state"] == "running"
    nobody = head.adrs("status", "no-such-run", "--address", head.gcs)
    assert nobody.returncode == 2
    assert f"({NAME})" in nobody.stderr, nobody.stderr

    # By the dashboard alone.
    far = head.adrs("status", NAME, "--address", head.dashboard, "--json")
    assert far.returncode == 0, far.stderr + job_logs(head)
    assert json.loads(far.stdout)["candidates"] >= json.loads(near.stdout)["candidates"]

    check_metrics(head)

    stopped = head.adrs("stop", NAME, "--address", head.dashboard)
    assert stopped.returncode == 0, stopped.stderr + job_logs(head)
    wait_until(lambda: job_of(head, job).ended, 120, lambda: job_logs(head))
    assert job_of(head, job).status == "SUCCEEDED", job_logs(head)
    assert watching.wait(60) == 0, watch_log.read_text()
    assert "/100000 candidates" in watch_log.read_text()

    budget = terminal(run) + 5
    again = submit(head, config, "--set", f"budget.max_candidates={budget}")
    assert again.returncode == 0, again.stdout + again.stderr
    events = check_exact(run, budget)
    assert sum(event.kind is EventKind.RUN_STARTED for event in events) == 2
    assert TOKEN not in done.stdout + done.stderr + again.stdout + again.stderr
    assert TOKEN not in "".join(str(event.body) for event in events_of(run))


def check_metrics(head):
    """What this run can tell is there, under the names that the dashboard asks for."""
    expected = {
        *(
            "adrs_candidates",
            "adrs_candidates_limit",
            "adrs_candidates_per_second",
            "adrs_best_score",
            "adrs_since_best",
        ),
        *("adrs_islands", "adrs_starts", "adrs_in_flight", "adrs_slots", "adrs_settled_total"),
    }
    assert {name.removesuffix("_total") for name in expected} <= {metric.name for metric in METRICS}

    def exported():
        with urllib.request.urlopen(head.metrics, timeout=10) as response:
            text = response.read().decode()
        lines = [line for line in text.splitlines() if f'run="{NAME}"' in line]
        return {match[1] for line in lines if (match := re.match(r"ray_(adrs_\w+)\{", line))}

    wait_until(lambda: expected <= exported(), 60, lambda: str(sorted(expected - exported())))


def start_with(head, *arguments, log):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in head.env.items():
            patch.setenv(name, value)
        # `environment` would say otherwise.
        patch.setattr("tests.runs.environment", lambda: environment(head.env))
        return start(*arguments, log=log)


def test_a_job_that_is_told_to_stop_has_the_time_that_it_was_given(head):
    """Ray grants 3 s, unless the job's own environment says more: what `adrs submit` relies on."""
    code = "import signal, sys, time; signal.signal(15, lambda *_: (time.sleep(6), print('drained'), sys.exit(0)))"
    entrypoint = f'exec python -c "{code}; print(chr(42), flush=True); time.sleep(300)"'
    server = server_of(head)
    server.submit(entrypoint, "drains", {"env_vars": {STOP_WAIT: "30"}}, {})
    wait_until(lambda: "*" in server.logs("drains").splitlines(), 60, lambda: server.logs("drains"))
    server.stop("drains")
    assert server.wait("drains", 60).status == "STOPPED"
    assert "drained" in server.logs("drains").splitlines()


def test_the_exit_code_of_a_job_that_fails_comes_back(head, config):
    (config.parent / "bad.yaml").write_text(config.read_text().replace("count: 1", "count: 2"))
    done = submit(head, config.parent / "bad.yaml")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "the run txn-submitted is there with other 'islands'" in done.stdout
    assert "the job ended as failed" in done.stderr


def test_a_wrong_token_is_one_line(head, config):
    wrong = {**head.env, "RAY_AUTH_TOKEN": "0e" * 32}
    done = adrs(
        "submit",
        "txn_offline",
        "--config",
        config,
        "--address",
        head.dashboard,
        "--working-dir",
        config.parent,
        env=wrong,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "0e0e" not in done.stderr
