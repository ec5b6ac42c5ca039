"""Routing: who answers a request, and what happens to requests when servers fail, come and go."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.generator import GenerationRequest, Message
from adrs_ray.generator.routing import (
    OVERLOAD,
    SLACK,
    Board,
    Lease,
    NoServerError,
    PoolView,
    Router,
    Server,
    prefix_key,
)

IDS = st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True)


def servers(ids: object, load: float = 0.0) -> list[Server]:
    return [Server(name, f"http://{name}:1/v1", load) for name in ids]  # type: ignore[attr-defined]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def board_of(ids: object, max_in_flight: int = 64, share: float = 1.0) -> Board:
    board = Board(max_in_flight)
    board.update(servers(ids), share)
    return board


def chosen(board: Board, key: bytes = b"k", now: float = 0.0, seed: int = 0, avoid: object = ()) -> str | None:
    server = board.choose(key, now, rng(seed), frozenset(avoid))  # type: ignore[call-overload]
    return None if server is None else server.id


# --- the choice


@given(IDS, st.sampled_from("abcdefgh"), st.binary(min_size=1, max_size=16))
def test_keys_stay_with_their_server_when_others_come_and_go(ids, other, key):
    """Rendezvous hashing: only keys of the server that left move, and they come back with it."""
    before = chosen(board_of(ids), key)
    without = [name for name in ids if name != other]
    if without:
        after = chosen(board_of(without), key)
        assert after == before or before == other
    added = chosen(board_of({*ids, other}), key)
    assert added in (before, other)
    assert chosen(board_of(reversed(ids)), key) == before


def test_keys_spread_over_servers():
    board = board_of("abcd")
    found = Counter(chosen(board, bytes([n])) for n in range(200))
    assert set(found) == set("abcd")
    assert max(found.values()) < 90


def test_an_overloaded_favourite_spills_and_no_sooner():
    board, now = board_of("abcd"), 0.0
    home = chosen(board)
    went = []
    for n in range(60):
        name = chosen(board, seed=n)
        assert name is not None
        went.append(board.begin(name, now).server.id)
    first = next(n for n, name in enumerate(went) if name != home)
    assert first == int(SLACK) + 1
    load = Counter(went)
    assert load[home] == max(load.values())
    assert load[home] <= OVERLOAD * 60 / 4 + SLACK + 1
    assert min(load[name] for name in "abcd") >= 8


def test_what_the_servers_told_counts_and_what_was_ours_counts_once():
    board = board_of("ab")
    home = chosen(board)
    other = "b" if home == "a" else "a"
    for _ in range(6):
        board.begin(other, 0.0)
    board.update([Server(home, "http://h/v1", 20.0), Server(other, "http://o/v1", 6.0)], 1.0)
    # The favourite is said to have 20, none of them ours; the other one's six are all ours.
    assert chosen(board) == other
    board.update([Server(home, "http://h/v1", 2.0), Server(other, "http://o/v1", 6.0)], 1.0)
    assert chosen(board) == home


def test_the_less_loaded_of_two_is_drawn_and_the_draw_is_repeatable():
    board = board_of("abcdef", max_in_flight=10)
    home = chosen(board)
    board.update([Server(s.id, s.base_url, 9.0 if s.id == home else 1.0) for s in board.servers], 1.0)
    draws = [[chosen(board, seed=n) for n in range(40)] for _ in range(2)]
    assert draws[0] == draws[1]
    assert home not in draws[0]
    assert len(set(draws[0])) == 5


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "ok", "fail", "lose", "end", "view", "sleep"]),
        st.integers(0, 2**16),
        st.floats(0, 3),
    ),
    max_size=120,
)


@given(STEPS, st.integers(1, 5), st.sampled_from([0.1, 0.5, 1.0]))
def test_no_open_breaker_no_sleeper_and_no_full_server_is_ever_chosen(steps, max_in_flight, share):
    limit = max(1, math.ceil(max_in_flight * share))
    board, now, held = Board(max_in_flight), 0.0, list[Lease]()
    board.update(servers("abc"), share)
    shut: dict[str, float] = {}
    for what, number, pause in steps:
        now += pause
        lease = held.pop(number % len(held)) if held and what in ("ok", "fail", "lose", "end") else None
        if what == "ask":
            server = board.choose(bytes([number % 7]), now, rng(number))
            if server is None:
                continue
            assert server.accepts
            assert now >= shut.get(server.id, 0.0)
            new = board.begin(server.id, now)
            held.append(new)
            ours = sum(each._seat is new._seat for each in held)
            assert ours <= limit
        elif what == "view":
            gone = board.update(servers("abcdef"[number % 3 : 3 + number % 4]), share)
            assert not gone & {s.id for s in board.servers}
            shut = {name: until for name, until in shut.items() if name not in gone}
        elif what == "sleep":
            board.update([replace(s, accepts=bool(number >> n & 1)) for n, s in enumerate(board.servers)], share)
        elif lease is not None:
            there = any(s.id == lease.server.id for s in board.servers)
            if what == "ok":
                lease.answered()
                shut.pop(lease.server.id, None)
            elif what in ("fail", "lose"):
                lease.failed(now, lost=what == "lose")
            lease.end()
            if there and what == "lose" and lease._seat in board._seats.values():
                shut[lease.server.id] = now + lease._seat.breaker.wait_s(now)
    for lease in held:
        lease.end()
    assert all(seat.own == 0 for seat in board._seats.values())


def test_told_load_bounds_all_but_the_first_request_of_a_process():
    board = Board(8)
    board.update(servers("a", load=50.0), 1.0)
    assert chosen(board) == "a"
    board.begin("a", 0.0)
    assert chosen(board) is None
    assert board.answers(0.0)


def test_who_failed_a_request_is_avoided_as_long_as_anybody_else_has_room():
    board = board_of("ab", max_in_flight=1)
    home = chosen(board)
    other = "b" if home == "a" else "a"
    assert chosen(board, avoid=home) == other
    board.begin(other, 0.0)
    assert chosen(board, avoid=home) == home


def test_islands_with_one_task_have_keys_of_their_own_and_requests_of_an_island_share_one():
    messages = (Message("system", "s"), Message("user", "u"))
    request = GenerationRequest("3-17", "diff", ("x",), (1,), messages=messages)
    later = replace(request, candidate="3-99", messages=(messages[0], Message("user", "other")))
    assert prefix_key(request) == prefix_key(later)
    assert prefix_key(request) != prefix_key(replace(request, candidate="4-17"))
    assert prefix_key(request) != prefix_key(replace(request, messages=messages[1:]))
    assert prefix_key(replace(request, messages=())) is not None


# --- waiting


def view_of(ids: object, share: float = 1.0, key: str | None = "k") -> PoolView:
    return PoolView({"small": tuple(servers(ids))}, share, key)


def router_of(ids: object, max_in_flight: int = 64, share: float = 1.0, **options: object) -> Router:
    router = Router("small", max_in_flight, **options)  # type: ignore[arg-type]
    router.set_view(view_of(ids, share))
    return router


def run(work: object) -> object:
    return asyncio.run(asyncio.wait_for(work, 20))  # type: ignore[arg-type]


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def hold(router: Router, until: asyncio.Event, log: list[str], name: str = "") -> None:
    async with router.lease(b"k", rng()) as lease:
        log.append(name or lease.server.id)
        await until.wait()


def test_who_finds_everybody_full_waits_and_is_served_in_order():
    async def main() -> list[str]:
        router, log = router_of("a", max_in_flight=1, wait_s=0.05), list[str]()
        doors = [asyncio.Event() for _ in range(4)]
        tasks = [asyncio.create_task(hold(router, door, log, str(n))) for n, door in enumerate(doors)]
        await settled()
        assert log == ["0"]
        await asyncio.sleep(0.1)  # longer than one would wait for a server that is away
        for n, door in enumerate(doors):
            door.set()
            await settled()
            assert log == [str(i) for i in range(min(4, n + 2))]
        await asyncio.gather(*tasks)
        return log

    run(main())


def test_who_is_cancelled_frees_its_place_whether_it_waits_or_holds():
    async def main() -> None:
        router, log, never = router_of("a", max_in_flight=2), list[str](), asyncio.Event()
        tasks = [asyncio.create_task(hold(router, never, log)) for _ in range(4)]
        await settled()
        assert len(log) == 2
        tasks[2].cancel()
        tasks[0].cancel()
        await settled()
        assert len(log) == 3
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        done = asyncio.Event()
        done.set()
        await asyncio.gather(*(hold(router, done, log) for _ in range(5)))
        assert len(log) == 8

    run(main())


def test_a_lease_waits_for_a_server_to_come_and_gives_up_in_time():
    async def main() -> None:
        router, log, done = Router("small", 4, wait_s=20.0), list[str](), asyncio.Event()
        done.set()
        early = asyncio.create_task(hold(router, done, log))
        await settled()
        assert log == []
        router.set_view(view_of("a"))
        await early
        assert log == ["a"]
        router = Router("small", 4, wait_s=0.02)
        with pytest.raises(NoServerError, match="no server for it"):
            await hold(router, done, log)
        router.set_view(view_of("ab"))
        for _ in range(2):
            async with router.lease(b"k", rng()) as lease:
                lease.failed(asyncio.get_running_loop().time(), lost=True)
        with pytest.raises(NoServerError, match="none of its 2 servers"):
            await hold(router, done, log)

    run(main())


class Clock:
    """`time` of the module: it stands until it is set, which wakes who waits at the router."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    async def reach(self, seconds: float, router: Router, view: PoolView) -> None:
        self.now = 1000.0 + seconds
        router.set_view(view)
        for _ in range(5):
            await settled()


def given_up(tasks: dict[int, asyncio.Task[None]]) -> set[int]:
    return {name for name, task in tasks.items() if task.done() and isinstance(task.exception(), NoServerError)}


def test_everybody_in_line_gives_up_in_time_from_when_it_asked(monkeypatch):
    async def main() -> None:
        clock, router, log, never = Clock(), Router("small", 4, wait_s=120.0), list[str](), asyncio.Event()
        monkeypatch.setattr("adrs_ray.generator.routing.time", clock)
        tasks = dict[int, asyncio.Task[None]]()
        for second in (0, 0, 0, 1, 2, 60):
            await clock.reach(second, router, view_of(""))
            tasks[len(tasks)] = asyncio.create_task(hold(router, never, log))
            await settled()
        await clock.reach(119, router, view_of(""))
        assert given_up(tasks) == set()
        await clock.reach(120, router, view_of(""))
        assert given_up(tasks) == {0, 1, 2}
        await clock.reach(122, router, view_of(""))
        assert given_up(tasks) == {0, 1, 2, 3, 4}
        await clock.reach(179, router, view_of(""))
        assert not tasks[5].done()
        await clock.reach(180, router, view_of(""))
        assert given_up(tasks) == set(tasks)
        assert log == []

    run(main())


def test_who_waited_behind_a_full_server_gives_up_in_time_from_when_it_was_lost(monkeypatch):
    async def main() -> None:
        clock, router, log, never = Clock(), Router("small", 1, wait_s=120.0), list[str](), asyncio.Event()
        monkeypatch.setattr("adrs_ray.generator.routing.time", clock)
        full, dark = view_of("a", key=None), view_of("", key=None)
        router.set_view(full)
        holding = asyncio.create_task(hold(router, never, log))
        await settled()
        tasks = dict[int, asyncio.Task[None]]()
        for second, view in ((10, full), (400, full), (500, dark), (550, dark)):
            await clock.reach(second, router, view)
            tasks[second] = asyncio.create_task(hold(router, never, log))
            await settled()
        await clock.reach(619, router, dark)
        assert given_up(tasks) == set()
        # A moment with a server, full as it is, is a new beginning for all.
        await clock.reach(619.5, router, view_of("b", key=None))
        assert log == ["a", "b"]
        await clock.reach(700, router, dark)
        await clock.reach(819, router, dark)
        assert given_up(tasks) == set()
        await clock.reach(820, router, dark)
        assert given_up(tasks) == {400, 500, 550}
        for task in (holding, tasks[10]):
            task.cancel()
        await asyncio.gather(holding, tasks[10], return_exceptions=True)

    run(main())


def test_a_draining_run_does_not_wait_for_servers_that_are_away_but_for_full_ones():
    async def main() -> None:
        router, log, door = Router("small", 1), list[str](), asyncio.Event()
        early = asyncio.create_task(hold(router, door, log))
        await settled()
        router.stop_waiting()
        with pytest.raises(NoServerError):
            await early
        router.set_view(view_of("a"))
        tasks = [asyncio.create_task(hold(router, door, log)) for _ in range(2)]
        await settled()
        assert log == ["a"]
        door.set()
        await asyncio.gather(*tasks)
        assert log == ["a", "a"]

    run(main())


def test_a_sleeper_is_waited_for_and_keeps_what_it_has():
    async def main() -> None:
        router, log, door = Router("small", 4, wait_s=0.02), list[str](), asyncio.Event()
        awake = view_of("a")
        asleep = replace(awake, servers={"small": tuple(replace(s, accepts=False) for s in awake.servers["small"])})
        router.set_view(awake)
        first = asyncio.create_task(hold(router, door, log))
        await settled()
        router.set_view(asleep)
        second = asyncio.create_task(hold(router, door, log))
        await asyncio.sleep(0.1)
        assert log == ["a"]
        assert not first.done()
        router.set_view(awake)
        await settled()
        assert log == ["a", "a"]
        door.set()
        await asyncio.gather(first, second)

    run(main())


def test_an_open_breaker_is_waited_out(monkeypatch):
    async def main() -> float:
        router = router_of("a")
        async with router.lease(b"k", rng()) as lease:
            lease.failed(asyncio.get_running_loop().time(), lost=True)
        started = asyncio.get_running_loop().time()
        async with router.lease(b"k", rng()) as lease:
            lease.answered()
        return asyncio.get_running_loop().time() - started

    monkeypatch.setattr("adrs_ray.generator.breaker.FIRST_PAUSE_S", 0.1)
    assert run(main()) >= 0.09  # type: ignore[operator]


async def abandoned(router: Router, entered: asyncio.Event) -> str:
    async with router.lease(b"k", rng()) as lease:
        entered.set()
        try:
            async with asyncio.timeout(15) as scope:
                lease.watch(scope)
                await asyncio.sleep(15)
        except TimeoutError:
            return f"left: {lease.left}"
    return "never"


def test_requests_at_a_server_that_leaves_end_at_once_and_nobody_elses():
    async def main() -> None:
        router, entered, left = router_of("a"), asyncio.Event(), list[str]()
        router.listen(left.append)
        task = asyncio.create_task(abandoned(router, entered))
        await entered.wait()
        router.set_view(view_of("ab"))
        await settled()
        assert not task.done()
        router.set_view(view_of("b"))
        assert await task == "left: True"
        assert left == ["a"]
        # The same name again is a server with nothing under way.
        router.set_view(view_of("a", key=None))
        log, done = list[str](), asyncio.Event()
        done.set()
        await hold(router, done, log)
        assert log == ["a"]

    run(main())


def test_a_foreign_server_that_leaves_may_still_answer_and_is_never_told_the_pools_key():
    async def main() -> None:
        router = Router("small", 1, foreign=True)
        router.set_view(view_of("a", key="secret"))
        assert router.key is None
        assert not router.own
        entered = asyncio.Event()
        task = asyncio.create_task(abandoned(router, entered))
        await entered.wait()
        router.set_view(view_of(""))
        await settled()
        assert not task.done()
        router.set_view(view_of("a"))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        # What ended at the server's former life does not make room beyond the limit in its new one.
        log, door = list[str](), asyncio.Event()
        tasks = [asyncio.create_task(hold(router, door, log)) for _ in range(2)]
        await settled()
        assert log == ["a"]
        door.set()
        await asyncio.gather(*tasks)

    run(main())


def test_the_key_stands_in_no_repr():
    router = router_of("a")
    router.set_view(view_of("a", key="secret-key"))
    assert router.key == "secret-key"
    assert "secret-key" not in f"{router!r} {vars(router)['_board']!r} {view_of('a', key='secret-key')!r}"
