"""A stand-in for `python -m vllm.entrypoints.openai.api_server`: the same arguments, paths and names of metrics.

    pool.python = write_interpreter(folder)       # a script that runs this module whatever module is asked for

It answers as `tests.fake_evolver` does, has a child that ignores SIGTERM and leaves its session, as an EngineCore may,
and misbehaves as the environment variable ADRS_FAKE (JSON of `Manner`; `EngineConfig.env`) says.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.fake_evolver import evolve
from tests.fake_openai import FakeServer, Received, Reply, count_tokens

CORE = "import os, signal, time; os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"
KEYLESS = ("/health", "/metrics", "/sleep", "/wake_up", "/is_sleeping")


@dataclass(frozen=True)
class Manner:
    """How it behaves; the defaults are good."""

    start_s: float = 0.0
    """Until it answers at all."""
    latency_s: float = 0.0
    says: str = ""
    """Told to standard error at the start."""
    crash: bool = False
    """End with exit status 3 at the start."""
    crash_once: str = ""
    """A file: while it is not there, make it and crash."""
    bind_lost: str = ""
    """A file: while it is not there, make it and say that the port is in use."""
    die_after: int | None = None
    """End in the middle of the answer to so many chats; the warm-up counts."""
    sick_when: str = ""
    """Say 503 to everything, /health too, while this file is there."""
    insomnia: bool = False
    """Refuse to sleep."""

    @property
    def env(self) -> dict[str, str]:
        return {"ADRS_FAKE": json.dumps(asdict(self))}


def write_interpreter(folder: Path) -> str:
    """A script for `pool.python`."""
    script = folder / "python-with-engine"
    here = Path(__file__).resolve().parent.parent
    script.write_text(f'#!/bin/sh\ncd "{here}" && exec "{sys.executable}" -m tests.fake_engine "$@"\n')
    script.chmod(0o755)
    return str(script)


class FakeEngine(FakeServer):
    """Everything of an engine that the pool uses."""

    def __init__(self, served: str, manner: Manner, key: str | None, sleeps: bool) -> None:
        super().__init__(self._chat, key)
        self._served = served
        self._manner = manner
        self._sleeps = sleeps
        self._chats: list[Reply] = []
        self._begun = 0
        self._asleep = False
        self._seen: set[str] = set()
        self._tokens = {"queries": 0, "hits": 0, "out": 0}

    async def run(self, host: str, port: int) -> None:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        await asyncio.start_server(self._connection, sock=sock, backlog=1024)
        await asyncio.Event().wait()

    def _chat(self, body: dict[str, Any]) -> Reply:
        self._begun += 1
        if body.get("model") != self._served:
            return Reply(status=404, error={"message": f"The model {body.get('model')!r} does not exist."})
        prompt = body["messages"][0]["content"]
        tokens = count_tokens(prompt)
        self._tokens["queries"] += tokens
        self._tokens["hits"] += tokens if prompt in self._seen else 0
        self._seen.add(prompt)
        text = evolve(body)
        self._tokens["out"] += count_tokens(text)
        reply = Reply(text, latency_s=self._manner.latency_s)
        self._chats.append(reply)
        return reply

    def _reply(self, received: Received) -> Reply:
        path, _, query = received.path.partition("?")
        if self._manner.sick_when and Path(self._manner.sick_when).exists():
            return Reply(status=503, error={"message": "the engine is dead"})
        if path == "/v1/models":
            return _json({"object": "list", "data": [{"id": self._served, "object": "model"}]})
        if path not in KEYLESS:
            return super()._reply(received)
        if path == "/metrics":
            return Reply(body=self._metrics().encode(), headers={"Content-Type": "text/plain"})
        if path in ("/sleep", "/wake_up"):
            if not self._sleeps:
                return Reply(status=404, error={"message": "Not Found"})
            if self._manner.insomnia:
                return Reply(status=500, error={"message": "cannot sleep"})
            assert path == "/wake_up" or query == "level=1"
            self._asleep = path == "/sleep"
        return _json({"is_sleeping": self._asleep})

    async def _send(self, writer: asyncio.StreamWriter, reply: Reply, content: bytes) -> bool:
        if reply in self._chats and self._manner.die_after is not None and self._begun >= self._manner.die_after:
            os.kill(os.getpid(), signal.SIGKILL)
        self._chats = [chat for chat in self._chats if chat is not reply]
        return await super()._send(writer, reply, content)

    def _metrics(self) -> str:
        labels = f'{{engine="0",model_name="{self._served}"}}'
        samples = {
            "num_requests_running": len(self._chats),
            "num_requests_waiting": 0,
            "prompt_tokens_total": self._tokens["queries"],
            "generation_tokens_total": self._tokens["out"],
            "prefix_cache_queries_total": self._tokens["queries"],
            "prefix_cache_hits_total": self._tokens["hits"],
        }
        lines = [f"vllm:{name}{labels} {float(value)}" for name, value in samples.items()]
        lines.append(f'vllm:engine_sleep_state{{engine="0",sleep_state="awake"}} {float(not self._asleep)}')
        return "\n".join(["# HELP vllm:num_requests_running ...", *lines]) + "\n"


def _json(value: dict[str, Any]) -> Reply:
    return Reply(body=json.dumps(value).encode())


def _misbehave(manner: Manner) -> None:
    """What goes wrong at the start."""
    print(manner.says, file=sys.stderr, flush=True)
    if _once(manner.bind_lost):
        sys.exit("OSError: [Errno 98] Address already in use")
    if manner.crash or _once(manner.crash_once):
        print("ValueError: this model cannot be", file=sys.stderr, flush=True)
        sys.exit(3)


def _once(path: str) -> bool:
    """Whether the file was not there; it is now."""
    if not path:
        return False
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-m", dest="module", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--enable-sleep-mode", action="store_true")
    options, _ = parser.parse_known_args(argv)
    assert options.module == "vllm.entrypoints.openai.api_server"
    manner = Manner(**json.loads(os.environ.get("ADRS_FAKE", "{}")))
    subprocess.Popen([sys.executable, "-c", CORE])
    _misbehave(manner)
    time.sleep(manner.start_s)
    sleeps = options.enable_sleep_mode and os.environ.get("VLLM_SERVER_DEV_MODE") == "1"
    engine = FakeEngine(options.served_model_name, manner, os.environ.get("VLLM_API_KEY"), sleeps)
    asyncio.run(engine.run(options.host, options.port))


if __name__ == "__main__":
    main(sys.argv[1:])
