"""The wire between actors, without Ray: servers and clients in one process, and a server in one that is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adrs_ray.errors import RunError, UsageError
from cluster import link, wire
from cluster.wire import Address, ConnectionLostError, WireClient, WireServer

HOST = "127.0.0.1"
EXECUTED: list[str] = []


class OddError(Exception):
    """Pickles, but cannot be made again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd\n  in two lines")


class HeldError(Exception):
    """Cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("held")
        self.held = lambda: None


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return EXECUTED.append, ("unpickled",)


class Service:
    def __init__(self) -> None:
        self.calls = 0
        self.waiting = asyncio.Event()
        self.gate = asyncio.Event()

    async def echo(self, value: Any) -> Any:
        self.calls += 1
        return value

    async def late(self, value: int, after: int) -> int:
        """Answers in another order than asked."""
        for _ in range(after):
            await asyncio.sleep(0)
        return value

    async def hold(self) -> str:
        self.waiting.set()
        await self.gate.wait()
        return "released"

    async def cancelled(self) -> None:
        raise asyncio.CancelledError

    async def fail(self, error: str) -> None:
        raise {
            "usage": UsageError("one line"),
            "key": KeyError("missing"),
            "odd": OddError(1, 2),
            "held": HeldError(),
        }[error]

    async def unpicklable(self) -> Any:
        return lambda: None

    async def secret(self) -> str:
        return "not served"


SERVED = ("echo", "late", "hold", "fail", "unpicklable", "cancelled")


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[Service, WireServer, Address]]:
    service = Service()
    server = WireServer(service, SERVED)
    address = await server.start(HOST)
    try:
        yield service, server, address
    finally:
        await server.close()


def client_of(*addresses: Address) -> WireClient:
    """A client that finds the server at each address in turn, then always at the last."""
    left = list(addresses)

    async def resolve() -> Address:
        return left.pop(0) if len(left) > 1 else left[0]

    return WireClient(resolve)


def test_many_calls_at_once_get_their_own_answers() -> None:
    async def main() -> list[int]:
        async with serving() as (_, _, address):
            client = client_of(address)
            answers = await asyncio.gather(*(client.call("late", n, (n * 7) % 50) for n in range(2000)))
            await client.close()
            return answers

    assert asyncio.run(main()) == list(range(2000))


def test_what_one_turn_sends_travels_in_few_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []
    flush = link.Link._flush
    monkeypatch.setattr(link.Link, "_flush", lambda self: (writes.append(1), flush(self))[1])

    async def main() -> None:
        async with serving() as (_, _, address):
            client = client_of(address)
            await asyncio.gather(*(client.call("echo", n) for n in range(100)))
            await client.close()

    asyncio.run(main())
    assert len(writes) < 20


@pytest.mark.parametrize("size", [0, 1, 255 * 1024, 20_000_000])
def test_frames_of_any_size_arrive_whole(size: int) -> None:
    async def main() -> None:
        async with serving() as (_, _, address):
            client = client_of(address)
            data = os.urandom(size)
            answers = await asyncio.gather(client.call("echo", data), client.call("echo", 1), client.call("echo", data))
            assert answers == [data, 1, data]
            await client.close()

    asyncio.run(main())


def test_what_does_not_fit_a_frame_is_refused_in_one_line_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LARGEST_FRAME_BYTES", 1000)

    class Talker:
        async def talk(self, size: int) -> bytes:
            return bytes(size)

        async def hear(self, heard: bytes) -> None: ...

    async def main() -> None:
        server = WireServer(Talker(), ["talk", "hear"])
        client = client_of(await server.start(HOST))
        with pytest.raises(RunError, match=r"a call of hear has 2,\d+ bytes; at most 1,000"):
            await client.call("hear", bytes(2000))
        with pytest.raises(RunError, match=r"the answer of talk has 2,\d+ bytes; at most 1,000"):
            await client.call("talk", 2000)
        assert await client.call("talk", 10) == bytes(10)
        await client.close()
        await server.close()

    asyncio.run(main())


def test_errors_are_raised_as_they_were_with_the_traceback_of_where() -> None:
    async def main() -> None:
        async with serving() as (_, _, address):
            client = client_of(address)
            with pytest.raises(UsageError) as usage:
                await client.call("fail", "usage")
            assert str(usage.value) == "one line"
            assert "in fail" in usage.value.__notes__[0]
            with pytest.raises(KeyError, match="missing"):
                await client.call("fail", "key")
            await client.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("method", "args", "line"),
    [
        ("fail", ["odd"], "fail failed: OddError: odd in two lines"),
        ("fail", ["held"], "fail failed: HeldError: held"),
        ("cancelled", [], "cancelled was cancelled"),
        ("secret", [], "no method 'secret' is served here"),
        ("__init__", [], "no method '__init__' is served here"),
    ],
)
def test_what_cannot_travel_or_is_not_served_becomes_one_line(method: str, args: list[str], line: str) -> None:
    async def main() -> None:
        async with serving() as (_, _, address):
            client = client_of(address)
            with pytest.raises(RunError) as error:
                await client.call(method, *args)
            assert str(error.value) == line
            assert await client.call("echo", 1) == 1
            await client.close()

    asyncio.run(main())


def test_answers_and_arguments_that_cannot_be_pickled_fail_that_call_alone() -> None:
    async def main() -> None:
        async with serving() as (_, _, address):
            client = client_of(address)
            with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
                await client.call("unpicklable")
            with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
                await client.call("echo", lambda: None)
            assert await client.call("echo", 2) == 2
            await client.close()

    asyncio.run(main())


def test_a_wrong_token_gets_nothing_and_nothing_is_unpickled() -> None:
    async def main() -> None:
        async with serving() as (service, _, address):
            stranger = client_of(replace(address, token=secrets.token_bytes(32)))
            with pytest.raises(ConnectionLostError):
                await stranger.call("echo", Bomb())
            assert service.calls == 0

    EXECUTED.clear()
    asyncio.run(main())
    assert EXECUTED == []


def hostile(nonce: bytes) -> list[bytes]:
    frame = pickle.dumps(("echo", (Bomb(),)), 5)
    framed = link._HEADER.pack(len(frame), 1, link.CALL) + frame
    proof = link.prove(b"guess" * 6, b"client", nonce, bytes(32))
    return [
        b"\n",
        framed,
        bytes(64),
        bytes(64) + framed,
        bytes(32) + proof + framed,
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n" * 20,
        os.urandom(1_000_000),
    ]


@pytest.mark.parametrize("number", range(7))
def test_hostile_bytes_before_the_proof_end_that_connection_alone(number: int) -> None:
    async def main() -> None:
        async with serving() as (service, _, address):
            client = client_of(address)
            assert await client.call("echo", 1) == 1
            reader, writer = await asyncio.open_connection(address.host, address.port)
            greeting = await reader.readexactly(len(link.MAGIC) + link.NONCE_BYTES)
            writer.write(hostile(greeting[len(link.MAGIC) :])[number])
            writer.write_eof()
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
            assert await client.call("echo", 2) == 2
            assert service.calls == 2
            await client.close()

    EXECUTED.clear()
    asyncio.run(main())
    assert EXECUTED == []


async def proven(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has greeted with the right token."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    nonce = (await reader.readexactly(len(link.MAGIC) + link.NONCE_BYTES))[len(link.MAGIC) :]
    writer.write(bytes(32) + link.prove(address.token, b"client", nonce, bytes(32)))
    assert await reader.readexactly(32) == link.prove(address.token, b"server", nonce, bytes(32))
    return reader, writer


def test_malformed_calls_are_answered_with_an_error_and_oversized_ones_end_the_connection() -> None:
    async def main() -> None:
        async with serving() as (_, _, address):
            reader, writer = await proven(address)
            for body in (b"", b"not a pickle", pickle.dumps(7), pickle.dumps(("echo", 7)), pickle.dumps(([], ()))):
                writer.write(link._HEADER.pack(len(body), 9, link.CALL) + body)
                length, call, kind = link._HEADER.unpack(await reader.readexactly(link._HEADER.size))
                assert (call, kind) == (9, link.ERROR)
                assert isinstance(pickle.loads(await reader.readexactly(length)), Exception)
            writer.write(link._HEADER.pack(link.LARGEST_FRAME_BYTES + 1, 9, link.CALL))
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()

    asyncio.run(main())


def test_a_server_that_does_not_know_the_token_is_not_believed() -> None:
    """Somebody else got the port of a server that died: its answer must not be unpickled."""

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(link.MAGIC + bytes(32))
        await reader.readexactly(64)
        answer = pickle.dumps(Bomb())
        writer.write(os.urandom(32) + link._HEADER.pack(len(answer), 1, link.ANSWER) + answer)
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(impostor, HOST, 0)
        port = server.sockets[0].getsockname()[1]
        client = client_of(Address(HOST, port, secrets.token_bytes(32)))
        with pytest.raises(ConnectionLostError):
            await client.call("echo", 1)
        server.close()

    EXECUTED.clear()
    asyncio.run(main())
    assert EXECUTED == []


def test_a_listener_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "CONNECT_S", 0.1)

    async def main() -> None:
        with socket.create_server((HOST, 0)) as silent:
            client = client_of(Address(HOST, silent.getsockname()[1], bytes(32)))
            with pytest.raises(ConnectionLostError, match=r"did not answer within 0.1 s"):
                await client.call("echo", 1)

    asyncio.run(main())


def test_calls_in_flight_fail_when_the_server_goes_and_the_next_finds_its_successor() -> None:
    async def main() -> None:
        async with serving() as (service, server, first), serving() as (_, _, second):
            client = client_of(first, second)
            held = [asyncio.ensure_future(client.call("hold")) for _ in range(3)]
            await service.waiting.wait()
            await server.close()
            outcomes = await asyncio.gather(*held, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [ConnectionLostError] * 3
            assert await client.call("echo", "again") == "again"
            await client.close()

    asyncio.run(main())


def test_nobody_at_the_address_is_a_lost_connection_and_resolves_errors_come_through() -> None:
    async def main() -> None:
        with socket.create_server((HOST, 0)) as listener:
            port = listener.getsockname()[1]
        with pytest.raises(ConnectionLostError, match=f"cannot reach {HOST}:{port}"):
            await client_of(Address(HOST, port, bytes(32))).call("echo", 1)

        async def lost() -> Address:
            raise LookupError("the actor is gone")

        with pytest.raises(LookupError, match="the actor is gone"):
            await WireClient(lost).call("echo", 1)

    asyncio.run(main())


def test_a_caller_that_gives_up_leaves_the_others_alone() -> None:
    async def main() -> None:
        async with serving() as (service, _, address):
            client = client_of(address)
            first, second = (asyncio.ensure_future(client.call("hold")) for _ in range(2))
            await service.waiting.wait()
            first.cancel()
            service.gate.set()
            assert await second == "released"
            assert first.cancelled()
            await client.close()

    asyncio.run(main())


def test_one_connection_serves_all_who_call_first_at_once_even_when_one_gives_up() -> None:
    async def main() -> None:
        async with serving() as (_, server, address):
            client = client_of(address)
            calls = [asyncio.ensure_future(client.call("echo", n)) for n in range(5)]
            await asyncio.sleep(0)
            calls[0].cancel()
            assert await asyncio.gather(*calls[1:]) == [1, 2, 3, 4]
            assert len(server._links) == 1
            await client.close()

    asyncio.run(main())


def test_a_closed_client_fails_what_it_had_in_flight_and_can_be_used_again() -> None:
    async def main() -> None:
        async with serving() as (service, _, address):
            client = client_of(address)
            held = asyncio.ensure_future(client.call("hold"))
            await service.waiting.wait()
            await client.close()
            with pytest.raises(ConnectionLostError):
                await held
            assert await client.call("echo", 3) == 3
            await client.close()

    asyncio.run(main())


SERVER_PROCESS = """
import asyncio, sys
from cluster.wire import WireServer
class Service:
    async def pid(self):
        import os
        return os.getpid()
    async def hold(self):
        print("holding", flush=True)
        await asyncio.sleep(1000)
async def main():
    address = await WireServer(Service(), ["pid", "hold"]).start("127.0.0.1")
    print(address.port, address.token.hex(), flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def server_process() -> AsyncIterator[tuple[asyncio.subprocess.Process, Address]]:
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER_PROCESS, stdout=asyncio.subprocess.PIPE, cwd=root
    )
    assert process.stdout is not None
    port, token = (await process.stdout.readline()).split()
    try:
        yield process, Address(HOST, int(port), bytes.fromhex(token.decode()))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def test_a_server_process_that_is_killed_in_a_call_is_noticed_and_its_successor_answers() -> None:
    async def main() -> None:
        async with server_process() as (first, first_address), server_process() as (second, second_address):
            client = client_of(first_address, second_address)
            held = asyncio.ensure_future(client.call("hold"))
            assert first.stdout is not None
            assert await first.stdout.readline() == b"holding\n"
            os.kill(first.pid, signal.SIGKILL)
            with pytest.raises(ConnectionLostError):
                await held
            assert await client.call("pid") == second.pid
            await client.close()

    asyncio.run(main())


def test_a_client_connects_anew_under_another_event_loop() -> None:
    async def start() -> tuple[WireServer, Address]:
        server = WireServer(Service(), SERVED)
        return server, await server.start(HOST)

    loop = asyncio.new_event_loop()
    server, address = loop.run_until_complete(start())
    client = client_of(address)
    serving_thread = asyncio.to_thread(loop.run_forever)

    async def twice() -> None:
        running = asyncio.ensure_future(serving_thread)
        for n in range(2):
            answer = await asyncio.to_thread(asyncio.run, asyncio.wait_for(client.call("echo", n), 10))
            assert answer == n
        loop.call_soon_threadsafe(loop.stop)
        await running

    asyncio.run(twice())
    loop.run_until_complete(server.close())
    loop.close()


def test_a_token_is_not_shown() -> None:
    token = secrets.token_bytes(32)
    shown = repr(Address(HOST, 1, token))
    assert repr(token) not in shown
    assert token.hex() not in shown


def test_both_ends_make_the_kernel_notice_a_silent_peer() -> None:
    async def main() -> None:
        async with serving() as (_, server, address):
            client = client_of(address)
            await client.call("echo", 1)
            (server_link,) = server._links
            for end in (server_link, client._link):
                assert end is not None
                assert end._transport is not None
                sock = end._transport.get_extra_info("socket")
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
                idle, interval, count, silent = (
                    sock.getsockopt(socket.IPPROTO_TCP, option)
                    for option in (
                        socket.TCP_KEEPIDLE,
                        socket.TCP_KEEPINTVL,
                        socket.TCP_KEEPCNT,
                        socket.TCP_USER_TIMEOUT,
                    )
                )
                assert idle + interval * count <= 10
                assert 0 < silent <= 10_000
            await client.close()

    asyncio.run(main())
