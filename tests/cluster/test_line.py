"""The door of a slot: one job at a time, clients in the order they came, and nobody holds it by going away."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from cluster.line import Line


def test_a_slot_takes_one_job_and_says_to_others_that_it_is_taken():
    async def main() -> None:
        line = Line()
        assert line.begin("a")
        assert not line.begin("b")
        assert not line.begin("a")
        assert line.end()
        assert line.begin("b")

    asyncio.run(main())


def test_who_waits_is_served_in_order_and_the_slot_is_kept_for_it():
    async def main() -> None:
        line = Line()
        assert line.begin("a")
        waits = [asyncio.create_task(line.wait(name)) for name in "bc"]
        await asyncio.sleep(0)
        assert line.waiting == 2
        assert not line.end()
        await waits[0]
        assert not waits[1].done()
        assert not line.begin("a")
        assert not line.begin("c")
        assert line.begin("b")
        line.end()
        await waits[1]
        assert line.begin("c")
        assert line.end()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_client_that_has_gone_away_keeps_the_slot_for_a_moment_only():
    async def main() -> None:
        line = Line(kept_s=0.01)
        assert line.begin("a")
        gone, next_one = (asyncio.create_task(line.wait(name)) for name in ("gone", "next"))
        await asyncio.sleep(0)
        line.end()
        await gone
        await next_one
        assert line.begin("next")

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_client_that_needs_it_no_more_passes_it_on():
    async def main() -> None:
        line = Line(kept_s=1e6)
        waits = [asyncio.create_task(line.wait(name)) for name in "abc"]
        await asyncio.sleep(0)
        line.leave("b")
        await waits[0]
        line.leave("a")
        await waits[2]
        assert line.begin("c")

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_paused_slot_begins_nothing_and_forgets_nobody():
    async def main() -> None:
        line = Line()
        assert line.begin("a")
        line.pause()
        waits = asyncio.create_task(line.wait("b"))
        await asyncio.sleep(0)
        assert not line.end()
        assert not line.begin("b")
        assert not waits.done()
        line.resume()
        await waits
        assert line.begin("b")

    asyncio.run(asyncio.wait_for(main(), 30))


def test_asked_twice_by_one_client_it_is_one_place():
    async def main() -> None:
        line = Line()
        assert line.begin("a")
        twice = [asyncio.create_task(line.wait("b")) for _ in range(2)]
        await asyncio.sleep(0)
        assert line.waiting == 1
        twice[0].cancel()
        line.end()
        await twice[1]
        assert line.begin("b")

    asyncio.run(asyncio.wait_for(main(), 30))


@given(
    st.lists(st.tuples(st.sampled_from(["begin", "end", "wait", "leave", "pause", "resume"]), st.sampled_from("abc")))
)
def test_it_never_idles_while_somebody_waits_and_never_runs_two(steps):
    async def main() -> None:
        line, running, paused = Line(kept_s=1e6), 0, False
        told: set[str] = set()
        tasks = set()

        async def wait(client: str) -> None:
            await line.wait(client)
            told.add(client)

        for step, client in steps:
            if step == "begin" and line.begin(client):
                running += 1
                told.discard(client)
            elif step == "end" and running:
                line.end()
                running -= 1
            elif step == "wait":
                tasks.add(asyncio.create_task(wait(client)))
            elif step == "leave":
                line.leave(client)
                told.discard(client)
            elif step == "pause":
                line.pause()
                paused = True
                told.clear()
            elif step == "resume":
                line.resume()
                paused = False
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert running <= 1
            if not running and not paused and line.waiting:
                assert told, "the slot is free, somebody waits, and nobody was told"
        for task in tasks:
            task.cancel()

    asyncio.run(main())
