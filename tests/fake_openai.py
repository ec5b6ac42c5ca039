"""An OpenAI-compatible server that misbehaves on request; it counts what it was asked, billed and how long it took.

    with FakeServer(lambda body: Reply("hello", latency_s=0.1)) as server:
        ... server.base_url ... server.received ... server.billed_in

    python -m tests.fake_openai --port 0 --latency 0.2 --mode evolve      # prints its base URL as its first line

HTTP/1.1 with keep-alive, by hand: a real server would not drop a connection in the middle of a body.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from tests.fake_evolver import evolve

MESSAGE_TOKENS = 4


@dataclass(frozen=True)
class Reply:
    """An answer; the defaults are a good one."""

    text: str | None = "hello"
    reasoning: str = ""
    finish: str = "stop"
    latency_s: float = 0.0
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None
    """Of a status that is no success."""
    tokens_out: int | None = None
    """Billed for the answer (default: as long as it is)."""
    tokens_cached: int = 0
    usage: Literal["sent", "missing"] = "sent"
    reasoning_field: str = "reasoning_content"
    body: bytes | None = None
    """In place of all of the above, still billed."""
    drop: Literal["never", "before", "middle"] = "never"
    """Close the connection before the answer, or in the middle of its body."""
    drip_s: float = 0.0
    """Send the body in ten pieces with so many seconds between them."""


Answer: TypeAlias = Callable[[dict[str, Any]], "Reply | str"]


def limited(retry_after: str | None = None, status: int = 429) -> Reply:
    """Too many requests, or an overload."""
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return Reply(status=status, headers=headers, error={"message": "try again later", "code": "rate_limited"})


def too_long() -> Reply:
    """The prompt does not fit."""
    message = "This model's maximum context length is 100 tokens."
    return Reply(status=400, error={"message": message, "code": "context_length_exceeded"})


def endless_thinking(tokens: int) -> Reply:
    """All tokens spent, no answer."""
    return Reply("", reasoning="hm, " * tokens, finish="length", tokens_out=tokens)


@dataclass(frozen=True)
class Received:
    """One request as it came in."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


def count_tokens(text: str) -> int:
    return -(-len(text) // 4)


class FakeServer:
    """Serves `POST .../chat/completions` and `GET /stats`, in a thread of its own while used as a context."""

    def __init__(self, answer: Answer, api_key: str | None = None) -> None:
        self._answer = answer
        self._api_key = api_key
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = 0
        self.received: list[Received] = []
        self.billed_in = 0
        self.billed_out = 0
        self.bills: list[tuple[Reply, int]] = []
        """Each success and its tokens, in and out."""
        self.in_flight = 0
        self.most_in_flight = 0
        self.connections = 0
        self.latencies_s: list[float] = []
        """From the last byte of a request to the last byte of its answer."""

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> FakeServer:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    def stats(self) -> dict[str, Any]:
        return {
            "requests": len(self.received),
            "billed_in": self.billed_in,
            "billed_out": self.billed_out,
            "most_in_flight": self.most_in_flight,
            "latency_s": sum(self.latencies_s) / max(1, len(self.latencies_s)),
            "cpu_s": time.process_time(),
        }

    def _run(self) -> None:
        self._loop.run_until_complete(self.serve(0))
        self._loop.close()

    async def serve(self, port: int) -> None:
        """Until the server is stopped; `port` 0 takes any."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", port, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether the connection lives on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        data = await reader.readexactly(int(headers.get("content-length", 0)))
        started = time.perf_counter()
        if (method, path) == ("GET", "/stats"):
            await self._send(writer, Reply(), json.dumps(self.stats()).encode())
            return True
        body = json.loads(data) if data else {}
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            reply = self._reply(Received(path, headers, body))
            content = self._content(body, reply)
            await asyncio.sleep(reply.latency_s)
            return await self._send(writer, reply, content)
        finally:
            self.in_flight -= 1
            self.latencies_s.append(time.perf_counter() - started)

    def _reply(self, received: Received) -> Reply:
        self.received.append(received)
        given = received.headers.get("authorization", "")
        if self._api_key is not None and given != f"Bearer {self._api_key}":
            return Reply(status=401, error={"message": f"Incorrect API key provided: {given}", "code": "invalid_key"})
        if received.path != "/v1/chat/completions":
            return Reply(status=404, error={"message": f"nothing at {received.path}"})
        answer = self._answer(received.body)
        return answer if isinstance(answer, Reply) else Reply(answer)

    def _content(self, body: dict[str, Any], reply: Reply) -> bytes:
        """The body of the answer; a success is billed."""
        if reply.status != 200:
            return json.dumps({"error": reply.error}).encode() if reply.body is None else reply.body
        tokens_in = sum(count_tokens(m["content"]) + MESSAGE_TOKENS for m in body.get("messages", []))
        thought = count_tokens(reply.reasoning)
        tokens_out = count_tokens(reply.text or "") + thought if reply.tokens_out is None else reply.tokens_out
        self.billed_in += tokens_in
        self.billed_out += tokens_out
        self.bills.append((reply, tokens_in + tokens_out))
        if reply.body is not None:
            return reply.body
        message = {"role": "assistant", "content": reply.text}
        if reply.reasoning:
            message[reply.reasoning_field] = reply.reasoning
        completion: dict[str, Any] = {
            "id": f"chatcmpl-{len(self.received)}",
            "object": "chat.completion",
            "created": 0,
            "model": body.get("model"),
            "choices": [{"index": 0, "message": message, "finish_reason": reply.finish}],
        }
        if reply.usage == "sent":
            completion["usage"] = {
                "prompt_tokens": tokens_in,
                "completion_tokens": tokens_out,
                "total_tokens": tokens_in + tokens_out,
                "prompt_tokens_details": {"cached_tokens": reply.tokens_cached} if reply.tokens_cached else None,
                "completion_tokens_details": {"reasoning_tokens": thought} if thought else None,
            }
        return json.dumps(completion).encode()

    async def _send(self, writer: asyncio.StreamWriter, reply: Reply, content: bytes) -> bool:
        if reply.drop == "before":
            return False
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **reply.headers}
        lines = [f"HTTP/1.1 {reply.status} Whatever", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        if reply.drop == "middle":
            writer.write(content[: len(content) // 2])
            await writer.drain()
            return False
        step = -(-len(content) // 10) if reply.drip_s else max(1, len(content))
        for start in range(0, len(content), max(1, step)):
            writer.write(content[start : start + step])
            await writer.drain()
            await asyncio.sleep(reply.drip_s)
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description="A fake OpenAI-compatible server; prints its base URL.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds of every answer")
    parser.add_argument("--mode", choices=["evolve", "hello"], default="evolve")
    parser.add_argument("--api-key")
    options = parser.parse_args()

    def answer(body: dict[str, Any]) -> Reply:
        return Reply(evolve(body) if options.mode == "evolve" else "hello", latency_s=options.latency)

    async def serve() -> None:
        server = FakeServer(answer, options.api_key)
        running = asyncio.create_task(server.serve(options.port))
        while not server.port:
            await asyncio.sleep(0.01)
            if running.done():
                await running
        print(server.base_url, flush=True)
        await running

    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
