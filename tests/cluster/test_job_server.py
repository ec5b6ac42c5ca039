"""A dashboard's REST interface as an adversary would have it, and the comparison of both sides."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from adrs_ray.errors import RunError, UsageError
from cluster.job_server import (
    LOST_FOR_S,
    RECONNECT_S,
    JobServer,
    JobView,
    Versions,
    image,
    mismatch,
    read_token,
    source_of,
)

TOKEN = "canary-token-77c1"
HERE = Versions("2.60.0", "3.11.7")


@pytest.fixture
def dashboard(monkeypatch, tmp_path):
    """Answers GETs from `answers` (path -> status, body, or their source; None hangs up), remembers what was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.seen.append((self.path, self.headers.get("Authorization")))
            answer = server.answers.get(self.path, (404, b"{}"))
            if callable(answer):
                answer = answer()
            if answer is None:
                return
            status, body = answer
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answers, server.seen = {}, []
    server.address = f"http://127.0.0.1:{server.server_address[1]}"
    say(server, "/api/authentication_mode", {"authentication_mode": "disabled"})
    say(server, "/api/version", {"version": "4", "ray_version": "2.60.0", "ray_commit": "x"})
    say(server, "/api/v0/cluster_metadata", {"result": True, "data": {"pythonVersion": "3.11.9"}})
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def say(server, path, data, status=200):
    server.answers[path] = (status, json.dumps(data).encode())


def test_the_same_ray_and_minor_python_go_together():
    assert mismatch(HERE, Versions("2.60.0", "3.11.12")) is None
    assert mismatch(HERE, Versions("2.60.0", None)) is None


@pytest.mark.parametrize(
    ("there", "differs"),
    [
        (Versions("2.49.1", "3.11.7"), "Ray 2.49.1 there, 2.60.0 here"),
        (Versions("2.60.0", "3.10.4"), "Python 3.10.4 there, 3.11.7 here"),
        (Versions("2.49.1", "3.10.4"), "Ray 2.49.1 there, 2.60.0 here, Python 3.10.4 there, 3.11.7 here"),
    ],
)
def test_what_differs_is_one_line_with_an_image_that_fits(there, differs):
    line = mismatch(HERE, there)
    assert differs in line
    assert "rayproject/ray:2.60.0-py311-gpu" in line
    assert "\n" not in line


def test_images_are_named_as_ray_names_them():
    assert image(Versions("2.60.0", "3.12.1")) == "rayproject/ray:2.60.0-py312-gpu"


def test_a_server_says_its_versions(dashboard):
    assert JobServer(dashboard.address).versions() == Versions("2.60.0", "3.11.9")


def test_the_address_that_is_given_counts_not_one_in_the_environment(dashboard, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    JobServer(dashboard.address)
    assert ("/api/version", None) in dashboard.seen


def test_a_token_goes_only_to_who_wants_one(dashboard, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    JobServer(dashboard.address).versions()
    assert {sent for _, sent in dashboard.seen} == {None}
    dashboard.seen.clear()
    say(dashboard, "/api/authentication_mode", {"authentication_mode": "token"})
    JobServer(dashboard.address).versions()
    assert {sent for path, sent in dashboard.seen if path != "/api/authentication_mode"} == {f"Bearer {TOKEN}"}


def test_a_missing_token_is_one_line(dashboard):
    say(dashboard, "/api/authentication_mode", {}, status=401)
    with pytest.raises(UsageError, match="wants a token: set RAY_AUTH_TOKEN"):
        JobServer(dashboard.address)


def test_a_wrong_token_is_one_line_without_it(dashboard, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    say(dashboard, "/api/authentication_mode", {"authentication_mode": "token"})
    dashboard.answers["/api/version"] = (403, b"Forbidden: Invalid authentication token")
    with pytest.raises(RunError) as raised:
        JobServer(dashboard.address)
    assert "\n" not in str(raised.value)
    assert TOKEN not in str(raised.value)


def test_tokens_are_where_ray_has_them(tmp_path):
    assert read_token({}, tmp_path) is None
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("from home\n")
    (tmp_path / "file").write_text("from file")
    assert read_token({}, tmp_path) == "from home"
    assert read_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "file")}, tmp_path) == "from file"
    assert read_token({"RAY_AUTH_TOKEN": "given", "RAY_AUTH_TOKEN_PATH": "x"}, tmp_path) == "given"
    with pytest.raises(UsageError, match="RAY_AUTH_TOKEN_PATH"):
        read_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}, tmp_path)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/version", b"<html>"),
        ("/api/version", b"[1]"),
        ("/api/version", b'{"ray_version": 3}'),
        ("/api/version", b'{"ray_version": "rm -rf\\n"}'),
        ("/api/version", b"\xff\xfe"),
        ("/api/version", b"[" * 100_000),
    ],
)
def test_what_is_no_dashboard_is_one_line(dashboard, path, body):
    server = JobServer(dashboard.address)
    dashboard.answers[path] = (200, body)
    with pytest.raises(RunError, match="is it the address of a Ray dashboard") as raised:
        server.versions()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("body", [b"<html>", b'{"data": 1}', b'{"data": {"pythonVersion": ["3"]}}', b"{}"])
def test_an_unknown_python_is_not_compared(dashboard, body):
    dashboard.answers["/api/v0/cluster_metadata"] = (200, body)
    assert JobServer(dashboard.address).versions() == Versions("2.60.0", None)


def test_nobody_there_is_one_line():
    with pytest.raises(RunError, match=r"no Ray dashboard answers at http://127\.0\.0\.1:1: "):
        JobServer("http://127.0.0.1:1")


@pytest.mark.parametrize(
    "address", ["head:8265", "ray://head:10001", "http://", "http://user:pw@head:8265", "http://h:x"]
)
def test_other_addresses_are_refused_without_echoing_a_password(address):
    with pytest.raises(UsageError) as raised:
        JobServer(address)
    assert "pw" not in str(raised.value)


class Clock:
    """`time` of the module, in which nothing takes time but sleep."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("cluster.job_server.time", clock)
    return clock


RUNNING, SUCCEEDED, AWAY, PROXY = "RUNNING", "SUCCEEDED", None, (503, b"upstream")


def job_says(dashboard, *steps, then):
    """What the server says of job j: steps in turn, at last `then` for ever."""
    left = list(steps)

    def next_answer():
        step = left.pop(0) if left else then
        if isinstance(step, str):
            job = {"type": "SUBMISSION", "submission_id": "j", "status": step, "entrypoint": "adrs job t"}
            return 200, json.dumps(job).encode()
        return step

    dashboard.answers["/api/jobs/j"] = next_answer
    return left


MISSES = int(LOST_FOR_S / RECONNECT_S)
"""Looks without an answer that are borne in a row."""


def test_a_dashboard_that_is_away_for_moments_ends_neither_view(dashboard, clock):
    away = [AWAY, PROXY] * (MISSES // 2)
    # The log is reached by no WebSocket here, so that every look finds the connection lost.
    logs = iter([AWAY, PROXY, (200, json.dumps({"logs": "one\ntwo\n"}).encode())])
    dashboard.answers["/api/jobs/j/logs"] = lambda: next(logs)
    server, written = JobServer(dashboard.address), []
    left = job_says(dashboard, RUNNING, *away, RUNNING, *away, RUNNING, *away, then=SUCCEEDED)
    assert server.follow("j", written.append).status == SUCCEEDED
    assert (left, "".join(written)) == ([], "one\ntwo\n")
    left = job_says(dashboard, *away, RUNNING, *away, then=SUCCEEDED)
    assert server.wait("j", 3 * LOST_FOR_S).status == SUCCEEDED
    assert left == []


@pytest.mark.parametrize("answer", [AWAY, PROXY])
def test_a_dashboard_that_stays_away_is_given_up_in_one_line(dashboard, clock, answer):
    server = JobServer(dashboard.address)
    for look in (lambda: server.follow("j", print), lambda: server.wait("j", 10 * LOST_FOR_S)):
        left = job_says(dashboard, RUNNING, *[answer] * (MISSES + 1), then=SUCCEEDED)
        with pytest.raises(RunError) as raised:
            look()
        assert left == []
        assert "\n" not in str(raised.value)


def test_who_waits_for_less_gives_up_sooner(dashboard, clock):
    server = JobServer(dashboard.address)
    job_says(dashboard, then=AWAY)
    with pytest.raises(RunError, match="Connection"):
        server.wait("j", 10.0)
    assert clock.now <= 1000.0 + 10.0 + RECONNECT_S
    job_says(dashboard, then=RUNNING)
    with pytest.raises(RunError, match="has not ended in 10 s"):
        server.wait("j", 10.0)


def test_code_that_asks_for_a_run_comes_from_that_runs_job():
    env = {"working_dir": "gcs://one.zip", "env_vars": {"KEY": "secret"}}
    other = {"working_dir": "gcs://two.zip"}
    marked = JobView("a", "RUNNING", "x", {"adrs_run": "night"}, env)
    named = JobView("b", "RUNNING", "adrs job t --name night --out /r", {}, env)
    unnamed = JobView("c", "RUNNING", "exec adrs job t", {}, other)
    foreign = JobView("d", "RUNNING", "python train.py --name nights", {}, other)
    over = JobView("e", "SUCCEEDED", "x", {"adrs_run": "night"}, other)
    assert source_of("night", [unnamed, foreign, over, named]) == {"working_dir": "gcs://one.zip"}
    assert source_of("night", [named, marked]) == {"working_dir": "gcs://one.zip"}
    assert source_of("night", [foreign, unnamed]) == {"working_dir": "gcs://two.zip"}
    assert source_of("night", [foreign, over]) == {}
