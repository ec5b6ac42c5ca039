"""The contract of `Journal`, against every implementation that the `writers` fixture knows."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from adrs_ray.storage.journal import Event, EventKind, JournalRefusedError, StaleEpochError, text_ref


def test_recorded_events_carry_seq_epoch_and_time(writers: Any, event: Any, run: Any) -> None:
    journal = writers.first
    before = time.time()
    recorded = run(journal.append([event(1, x=1), event(2, x=[1.5, None, "é"])], journal.epoch))
    assert [e.seq for e in recorded] == [1, 2]
    assert {e.epoch for e in recorded} == {journal.epoch}
    assert all(before <= e.at <= time.time() for e in recorded)
    assert run(journal.read()) == recorded


def test_a_batch_of_nothing_changes_nothing(writers: Any, run: Any) -> None:
    assert run(writers.first.append([], writers.first.epoch)) == []
    assert run(writers.first.read()) == []


def test_an_id_is_recorded_once_and_the_loser_gets_the_winner(writers: Any, event: Any, run: Any) -> None:
    journal = writers.first
    (winner,) = run(journal.append([event(1, score=1.0, text="first")], journal.epoch))
    loser, other = run(journal.append([event(1, score=2.0, text="second"), event(2)], journal.epoch))
    assert loser == winner
    assert loser.body["score"] == 1.0
    assert other.seq == 2
    assert [e.id for e in run(journal.read())] == [winner.id, other.id]
    with pytest.raises(KeyError):
        run(journal.texts([text_ref("second")]))


def test_the_same_id_twice_in_one_batch_is_recorded_once(writers: Any, event: Any, run: Any) -> None:
    journal = writers.first
    first, second = run(journal.append([event(1, x=1), event(1, x=2)], journal.epoch))
    assert first == second
    assert len(run(journal.read())) == 1


def test_concurrent_appends_of_one_id_agree_on_one_winner(writers: Any, event: Any, run: Any) -> None:
    journal = writers.first

    async def race() -> list[Event]:
        appends = (journal.append([event(i % 5, by=i), event(f"own{i}")], journal.epoch) for i in range(60))
        return [batch[0] for batch in await asyncio.gather(*appends)]

    answers = run(race())
    recorded = {e.id: e for e in run(journal.read())}
    assert len(recorded) == 5 + 60
    assert all(recorded[answer.id] == answer for answer in answers)
    assert sorted(e.seq for e in recorded.values()) == list(range(1, 66))


def test_batches_are_not_interleaved_and_an_appenders_order_is_kept(writers: Any, event: Any, run: Any) -> None:
    journal = writers.first

    async def appender(island: int) -> None:
        for i in range(10):
            await journal.append([event(f"{i}.{part}", island) for part in range(3)], journal.epoch)

    async def all_appenders() -> None:
        await asyncio.gather(*(appender(island) for island in range(6)))

    run(all_appenders())
    ids = [e.id for e in run(journal.read())]
    batches = [ids[i : i + 3] for i in range(0, len(ids), 3)]
    wanted = {
        (island, i): [event(f"{i}.{part}", island).id for part in range(3)] for island in range(6) for i in range(10)
    }
    assert sorted(batches) == sorted(wanted.values())
    for island in range(6):
        assert [b for b in batches if b[0].startswith(f"{island}-")] == [wanted[island, i] for i in range(10)]


def test_a_successor_fences_the_first_writer(writers: Any, event: Any, run: Any) -> None:
    first = writers.first
    run(first.append([event(1)], first.epoch))
    second = writers.successor()
    assert second.epoch > first.epoch
    with pytest.raises(StaleEpochError, match="taken") as refused:
        run(first.append([event(2)], first.epoch))
    assert "\n" not in str(refused.value)
    run(second.append([event(3)], second.epoch))
    assert [e.candidate for e in run(second.read())] == ["0-1", "0-3"]


@pytest.mark.parametrize("offset", [-1, 1])
def test_an_epoch_that_is_not_current_is_refused_whole(offset: int, writers: Any, event: Any, run: Any) -> None:
    journal = writers.first
    with pytest.raises(StaleEpochError):
        run(journal.append([event(1), event(2, text="t")], journal.epoch + offset))
    assert run(journal.read()) == []
    with pytest.raises(KeyError):
        run(journal.texts([text_ref("t")]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, b"bytes"])
def test_what_json_does_not_have_is_refused_whole(value: object, writers: Any, event: Any, run: Any) -> None:
    journal = writers.first
    with pytest.raises((ValueError, TypeError)):
        run(journal.append([event(1), event(2, x=value)], journal.epoch))
    assert run(journal.read()) == []


def test_a_bad_append_among_good_ones_fails_alone(writers: Any, event: Any, run: Any) -> None:
    journal = writers.first

    async def together() -> list[Any]:
        appends = [
            journal.append([event(1)], journal.epoch),
            journal.append([event(2)], journal.epoch - 1),
            journal.append([event(3, x=float("nan"))], journal.epoch),
            journal.append([event(4)], journal.epoch),
        ]
        return await asyncio.gather(*appends, return_exceptions=True)

    good, stale, not_json, also_good = run(together())
    assert isinstance(stale, StaleEpochError)
    assert isinstance(not_json, ValueError)
    assert [good[0].id, also_good[0].id] == [e.id for e in run(journal.read())]


def test_reads_are_filtered_and_limited(writers: Any, event: Any, run: Any) -> None:
    journal = writers.first
    kinds = [EventKind.GENERATED, EventKind.MEASURED, EventKind.ADMITTED]
    run(journal.append([event(i, island=i % 2, kind=kinds[i % 3]) for i in range(12)], journal.epoch))
    everything = run(journal.read())
    assert len(everything) == 12
    assert run(journal.read(after_seq=7)) == everything[7:]
    assert run(journal.read(limit=3)) == everything[:3]
    assert run(journal.read(after_seq=99)) == []
    assert run(journal.read(island=1)) == [e for e in everything if e.island == 1]
    assert run(journal.read(kinds=[])) == []
    chosen = run(journal.read(2, [EventKind.MEASURED, EventKind.ADMITTED], 0, 2))
    assert chosen == [e for e in everything if e.seq > 2 and e.kind in kinds[1:] and e.island == 0][:2]


def test_events_are_found_by_id(writers: Any, event: Any, run: Any) -> None:
    journal = writers.first
    recorded = run(journal.append([event(1, x=1), event(2, x=2)], journal.epoch))
    assert run(journal.find([recorded[1].id, "nowhere", recorded[0].id])) == {e.id: e for e in recorded}
    assert run(journal.find([])) == {}


def test_texts_are_kept_apart_from_bodies_and_come_back_exactly(writers: Any, event: Any, run: Any) -> None:
    journal = writers.first
    texts = ["", "x = 1\n", "é\x00\r\n☃", "\udcff lone", "long " * 50_000]
    recorded = run(journal.append([event(i, text=text) for i, text in enumerate(texts)], journal.epoch))
    refs = [e.body["source"] for e in recorded]
    assert run(journal.texts(refs)) == dict(zip(refs, texts, strict=True))
    assert all(e.texts == () for e in [*recorded, *run(journal.read())])
    assert run(journal.texts([])) == {}


def test_an_unknown_text_is_named(writers: Any, event: Any, run: Any) -> None:
    journal = writers.first
    (recorded,) = run(journal.append([event(1, text="here")], journal.epoch))
    with pytest.raises(KeyError, match=text_ref("not here")):
        run(journal.texts([recorded.body["source"], text_ref("not here")]))


def test_bodies_come_back_exactly(writers: Any, event: Any, run: Any) -> None:
    journal = writers.first
    body = {"float": 0.1 + 0.2, "int": 2**70, "string": 'quote " é \u2028 \udcff', "nested": {"a": [True, None, {}]}}
    run(journal.append([event(1, **body)], journal.epoch))
    found = run(journal.read())[0].body
    assert {key: found[key] for key in body} == body


def test_a_closed_journal_refuses_in_one_line(writers: Any, event: Any, run: Any) -> None:
    journal = writers.first
    run(journal.append([event(1)], journal.epoch))
    run(journal.close())
    run(journal.close())
    with pytest.raises(JournalRefusedError, match="closed"):
        run(journal.append([event(2)], journal.epoch))


def test_appends_under_way_when_it_closes_are_recorded(writers: Any, event: Any, run: Any) -> None:
    journal = writers.first

    async def close_behind() -> list[list[Event]]:
        appends = [asyncio.ensure_future(journal.append([event(i)], journal.epoch)) for i in range(20)]
        await asyncio.sleep(0)
        await journal.close()
        return await asyncio.gather(*appends)

    assert len(run(close_behind())) == 20
    successor = writers.successor()
    assert len(run(successor.read())) == 20
    run(successor.close())


def test_a_cancelled_append_does_no_harm(writers: Any, event: Any, run: Any) -> None:
    journal = writers.first

    async def cancel() -> None:
        waiting = asyncio.ensure_future(journal.append([event(1, x=1)], journal.epoch))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await journal.append([event(1, x=1), event(2)], journal.epoch)

    run(cancel())
    assert [e.candidate for e in run(journal.read())] == ["0-1", "0-2"]
