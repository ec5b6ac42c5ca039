"""What the client of language models loses: requests in flight against the server's own measured latency.

    python -m tests.benchmarks.model_client [--requests 640] [--in-flight 16] [--latency 0.2 1.0]

The server is `tests.fake_openai` in its own process; prompts are 6,000 characters, answers 1,500. `ideal` is what so
many in flight can do at the latency that the server measured itself, from the last byte of a request to the last byte
of its answer: what is missing is the client's and the connection's. Bare sockets, which send the same bytes and read
the answer without looking at it, show what the machine allows at all. CPU is that of each process, per request, its
start left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from adrs_ray.config import ModelConfig
from adrs_ray.generator import GenerationRequest, Message
from adrs_ray.generator.limits import LocalLimiter
from adrs_ray.generator.openai_model import OpenAIModel

PROGRAM = "# EVOLVE-BLOCK-START\n" + "\n".join(f"x{n} = {n} * 3" for n in range(90)) + "\n# EVOLVE-BLOCK-END"
PROMPT = "Improve this program.\n\n" + "The task in words. " * 240 + f"\n\n```python\n{PROGRAM}\n```\n"


Drive: TypeAlias = Callable[[str, int, int], Coroutine[Any, Any, tuple[float, float]]]
"""(base URL, in flight, requests) -> (seconds, CPU seconds of this process)."""


@dataclass(frozen=True)
class Measured:
    client: str
    in_flight: int
    latency_s: float
    server_latency_s: float
    most_in_flight: int
    requests_per_s: float
    client_cpu_ms: float
    server_cpu_ms: float

    @property
    def ideal(self) -> float:
        return self.in_flight / self.server_latency_s


def stats(base_url: str) -> dict[str, Any]:
    with urllib.request.urlopen(base_url.removesuffix("/v1") + "/stats") as answer:
        found: dict[str, Any] = json.load(answer)
    return found


async def drive(ask: Callable[[int], Awaitable[None]], in_flight: int, requests: int) -> tuple[float, float]:
    """(seconds, CPU seconds of this process) for so many requests, always `in_flight` of them under way.

    Two rounds in front (connections, imports) and what is still under way at the end are left out.
    """
    clocks: list[tuple[float, float]] = []

    async def worker() -> None:
        while len(clocks) < requests + 2 * in_flight:
            await ask(len(clocks))
            clocks.append((time.perf_counter(), time.process_time()))

    await asyncio.gather(*(worker() for _ in range(in_flight)))
    (started, cpu), (ended, cpu_at_end) = clocks[2 * in_flight - 1], clocks[requests + 2 * in_flight - 1]
    return ended - started, cpu_at_end - cpu


async def openai_model(base_url: str, in_flight: int, requests: int) -> tuple[float, float]:
    config = ModelConfig(base_url=base_url, model="fake", max_in_flight=in_flight)
    model = OpenAIModel("fake", config, LocalLimiter({"fake": config}))

    async def ask(number: int) -> None:
        messages = (Message("system", "You improve programs."), Message("user", PROMPT))
        done = await model.complete(GenerationRequest(f"0-{number}", "diff", (PROGRAM,), (number,), messages=messages))
        assert done.text is not None, done.detail

    found = await drive(ask, in_flight, requests)
    await model.close()
    return found


async def bare_sockets(base_url: str, in_flight: int, requests: int) -> tuple[float, float]:
    body = json.dumps({"model": "fake", "messages": [{"role": "user", "content": PROMPT}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    place = urlsplit(base_url)

    async def ask(number: int) -> None:
        reader, writer = idle.pop() if idle else await asyncio.open_connection(place.hostname, place.port)
        writer.write(head + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(answer.lower().partition(b"content-length:")[2].split()[0]))
        idle.append((reader, writer))

    found = await drive(ask, in_flight, requests)
    for _, writer in idle:
        writer.close()
    return found


def measure(client: str, drive_it: Drive, in_flight: int, latency_s: float, requests: int) -> Measured:
    command = [sys.executable, "-m", "tests.fake_openai", "--latency", str(latency_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            base_url = server.stdout.readline().strip()
            before = stats(base_url)
            seconds, cpu_s = asyncio.run(drive_it(base_url, in_flight, requests))
            after = stats(base_url)
        finally:
            server.terminate()
    return Measured(
        client,
        in_flight,
        latency_s,
        after["latency_s"],
        after["most_in_flight"],
        requests / seconds,
        1000 * cpu_s / requests,
        1000 * (after["cpu_s"] - before["cpu_s"]) / after["requests"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=640)
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.2, 1.0])
    options = parser.parse_args()
    clients: dict[str, Drive] = {"OpenAIModel": openai_model, "bare sockets": bare_sockets}
    found = [
        measure(name, client, options.in_flight, latency, options.requests)
        for latency in options.latency
        for name, client in clients.items()
    ]
    table = Table(title=f"{options.requests} requests each")
    table.add_column("")
    rows: dict[str, list[str]] = {
        "in flight": [str(m.in_flight) for m in found],
        "most in flight, as the server saw it": [str(m.most_in_flight) for m in found],
        "latency of the server, as measured there [s]": [f"{m.server_latency_s:.4f}" for m in found],
        "requests/s": [f"{m.requests_per_s:.2f}" for m in found],
        "ideal: in flight / latency": [f"{m.ideal:.2f}" for m in found],
        "ratio (aim: at least 95 %)": [f"{m.requests_per_s / m.ideal:.1%}" for m in found],
        "CPU of the client per request [ms]": [f"{m.client_cpu_ms:.2f}" for m in found],
        "CPU of the server per request [ms]": [f"{m.server_cpu_ms:.2f}" for m in found],
    }
    for m in found:
        table.add_column(f"{m.latency_s:g} s, {m.client}", justify="right")
    for name, cells in rows.items():
        table.add_row(name, *cells)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
