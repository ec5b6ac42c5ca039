"""A run folded event by event says what counting over the whole journal says."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrs_ray.candidate import Candidate, Evaluation, Failure, FailureKind, Measurement, Refused, Usage
from adrs_ray.outcome import Standing
from adrs_ray.selector import Elite
from adrs_ray.storage.events import (
    generated_event,
    measured_event,
    migrated_event,
    screened_out_event,
    settled_event,
)
from adrs_ray.storage.journal import SETTLED, Event, EventKind, text_ref
from adrs_ray.storage.memory import MemoryJournal
from adrs_ray.storage.views import Improvement, RunView, State

ISLANDS = 3
FAILURES = [FailureKind.CRASH, FailureKind.DUPLICATE, FailureKind.TIMEOUT]


def candidate(island: int, decision: int) -> Candidate:
    name = f"{island}-{decision}"
    parents = (f"{island}-{decision - 1}",) if decision else ()
    return Candidate(name, island, decision, "mutate:literal", parents, f"program {name}", f"print {name}")


def evaluation(score: float, attempts: int = 1) -> Evaluation:
    return Evaluation(score, {"makespan": -score}, (), "verified", 0.1, attempts=attempts)


def failure(kind: FailureKind, attempts: int = 1) -> Failure:
    return Failure(kind, "it broke", attempts=attempts)


def verdicts() -> st.SearchStrategy[Evaluation | Failure]:
    attempts = st.integers(1, 3)
    scores = st.integers(0, 6).map(float)
    return st.builds(evaluation, scores, attempts) | st.builds(failure, st.sampled_from(FAILURES), attempts)


@st.composite
def batches(draw: st.DrawFn) -> list[Event]:
    """What one step of a run appends, valid in itself; over a whole journal the steps come in any order."""
    island, decision = draw(st.integers(0, ISLANDS - 1)), draw(st.integers(0, 8))
    one = candidate(island, decision)
    kind = draw(st.sampled_from(["proposed", "generated", "settled", "screened", "held_out", "other"]))
    if kind == "proposed":
        return [Event(f"{one.id}:proposed", EventKind.PROPOSED, one.id, island, {"decision": decision, "operator": ""})]
    if kind == "generated":
        return [generated_event(one, "mutation", 1)]
    if kind == "screened":
        kind_of_failure = draw(st.sampled_from([FailureKind.DUPLICATE, FailureKind.GENERATION]))
        refused = Refused(one.id, island, decision, "op", one.parents, failure(kind_of_failure))
        return [screened_out_event(refused, Standing())]
    verdict = draw(verdicts())
    if kind == "settled":
        return [
            measured_event(Measurement(one.id, "full", "train", 0, verdict), island),
            settled_event(one, verdict, Standing()),
        ]
    if kind == "held_out":
        split, repeat = draw(st.sampled_from(["validation", "test"])), draw(st.integers(0, 2))
        name = draw(st.sampled_from([one.id, "baseline-fifo"]))
        return [measured_event(Measurement(name, "full", split, repeat, verdict), -1)]
    number = draw(st.integers(0, 5))
    elite = Elite(one.id, 1.0, {}, (0.0, 0.0), one.fingerprint, text_ref(one.source))
    return [
        draw(
            st.sampled_from(
                [
                    Event(f"grant:{number}", EventKind.GRANT, None, island, {"count": number}),
                    Event(f"reopen:{number}", EventKind.GRANT, None, island, {"reopened": number}),
                    Event(f"command:{number}", EventKind.COMMAND, None, -1, {"kind": "stop", "body": {}}),
                    Event(f"run_started:{number}", EventKind.RUN_STARTED, None, -1, {"pid": 1}),
                    Event(f"run_ended:{number}", EventKind.RUN_ENDED, None, -1, {"champion": one.id, "reason": "x"}),
                    Event(
                        f"{one.id}/{number}:answered",
                        EventKind.LOST,
                        one.id,
                        island,
                        {"request": f"{one.id}/{number}", "model": "small", "usage": asdict(Usage(tokens_in=7))},
                    ),
                    migrated_event(elite, island, (island + 1) % ISLANDS),
                ]
            )
        )
    ]


def journaled(steps: list[list[Event]]) -> list[Event]:
    async def append() -> list[Event]:
        journal = MemoryJournal()
        for step in steps:
            await journal.append(step, journal.epoch)
        return await journal.read()

    return asyncio.run(append())


@settings(deadline=None, max_examples=150)
@given(st.lists(batches(), max_size=40))
def test_the_view_agrees_with_a_recount(steps: list[list[Event]]) -> None:
    events = journaled(steps)
    view = RunView.of(events)
    settled = [e for e in events if e.kind in SETTLED]
    admitted = [e for e in settled if e.kind is EventKind.ADMITTED]
    rejected = [e for e in settled if e.kind is EventKind.REJECTED]
    measured = [e for e in events if e.kind is EventKind.MEASURED]

    assert view.states == recounted_states(events)
    assert sum(arm.tried for arm in view.arms.values()) == len(settled)
    assert sum(arm.admitted for arm in view.arms.values()) == len(admitted)
    assert view.terminal == len(settled)
    assert view.failures == Counter(FailureKind(e.body["failure"]) for e in rejected)
    assert view.duplicates == sum(e.body["failure"] == "duplicate" for e in rejected)
    assert view.reexecuted == sum(e.body["verdict"]["attempts"] - 1 for e in measured)
    assert view.test_looks == sum(e.body["split"] == "test" for e in measured)
    lost = sum(e.kind is EventKind.LOST for e in events)
    assert view.lost == Counter({"small": lost} if lost else {})
    assert sum(usage.tokens for usage in view.usage.values()) == 7 * lost
    assert view.commands == {e.id.split(":")[1] for e in events if e.kind is EventKind.COMMAND}
    assert view.resumes == max(0, sum(e.kind is EventKind.RUN_STARTED for e in events) - 1)
    frame = [e for e in events if e.kind in (EventKind.RUN_STARTED, EventKind.RUN_ENDED)]
    ended = bool(frame) and frame[-1].kind is EventKind.RUN_ENDED
    assert view.champion == (frame[-1].body["champion"] if ended else None)

    for number in range(ISLANDS):
        own = [e for e in events if e.island == number]
        island = view.islands.get(number)
        if island is None:
            assert all(e.kind in (EventKind.LOST, EventKind.MEASURED) for e in own)
            continue
        assert island.terminal == sum(e.kind in SETTLED for e in own)
        best = max((e for e in admitted if e.island == number), key=lambda e: e.body["score"], default=None)
        assert (island.best.candidate if island.best else None) == (best.candidate if best else None)
        decided = (EventKind.PROPOSED, EventKind.GENERATED, *SETTLED)
        assert island.decision == max((e.body["decision"] for e in own if e.kind in decided), default=-1)
        assert island.granted == sum(e.body.get("count", 0) for e in own if e.kind is EventKind.GRANT)
        assert island.migrants == sum(e.kind is EventKind.MIGRATED for e in own)

    top = sorted(admitted, key=lambda e: (-e.body["score"], e.seq))
    assert [a.candidate for a in view.top(3)] == [e.candidate for e in top[:3]]
    assert (view.best.candidate if view.best else None) == (top[0].candidate if top else None)
    assert view.since_best == (sum(e.seq > top[0].seq for e in settled) if top else len(settled))


@settings(deadline=None, max_examples=80)
@given(st.lists(batches(), max_size=40))
def test_pending_candidates_and_held_out_results_agree_with_a_recount(steps: list[list[Event]]) -> None:
    events = journaled(steps)
    view = RunView.of(events)
    open_events: dict[str | None, Event] = {}
    ever_measured: set[str | None] = set()
    done: set[str | None] = set()
    for event in events:
        if event.kind in SETTLED:
            open_events.pop(event.candidate, None)
            done.add(event.candidate)
        elif event.kind is EventKind.GENERATED and event.candidate not in done | ever_measured:
            open_events[event.candidate] = event
    assert set(view.pending) == set(open_events)
    for name, pending in view.pending.items():
        body = open_events[name].body
        assert (pending.operator, list(pending.parents)) == (body["operator"], body["parents"])
        assert (pending.source, pending.fingerprint) == (body["source"], body["fingerprint"])
        assert (f"{pending.island}-{pending.decision}", pending.candidate) == (name, name)

    found: dict[tuple[str, str | None], list[Any]] = {}
    for event in events:
        if event.kind is EventKind.MEASURED and event.body["split"] != "train":
            found.setdefault((event.body["split"], event.candidate), []).append(event.body["verdict"])
    assert {(split, name) for split, results in view.held_out.items() for name in results} == set(found)
    for (split, name), results in found.items():
        result = view.held_out[split][str(name)]
        broken = [verdict["failure"] for verdict in results if "failure" in verdict]
        assert result.repeats == len(results)
        assert result.failure == (broken[0] if broken else None)
        if not broken:
            assert result.score == pytest.approx(sum(v["score"] for v in results) / len(results))


@settings(deadline=None, max_examples=50)
@given(st.lists(batches(), max_size=30), st.integers(0, 40))
def test_a_view_goes_on_from_where_it_stopped(steps: list[list[Event]], cut: int) -> None:
    events = journaled(steps)
    view = RunView.of(events[:cut])
    for event in events[cut:]:
        view.apply(event)
    assert view == RunView.of(events)


def recounted_states(events: list[Event]) -> Counter[State]:
    """The furthest state of each candidate; what comes after a terminal state does not count."""
    reached = {
        EventKind.PROPOSED: State.PROPOSED,
        EventKind.GENERATED: State.GENERATED,
        EventKind.MEASURED: State.MEASURED,
        EventKind.ADMITTED: State.ADMITTED,
        EventKind.REJECTED: State.REJECTED,
    }
    furthest: dict[str | None, State] = {}
    for event in events:
        held_out = event.kind is EventKind.MEASURED and event.body["split"] != "train"
        if event.kind in reached and not held_out:
            furthest[event.candidate] = max(furthest.get(event.candidate, State.PROPOSED), reached[event.kind])
    return Counter(furthest.values())


def test_an_event_that_was_seen_is_refused() -> None:
    events = journaled([[generated_event(candidate(0, 0), "m", 1)]])
    view = RunView.of(events)
    with pytest.raises(ValueError, match="already"):
        view.apply(events[0])


def test_a_run_that_goes_on_has_no_champion_yet() -> None:
    start, again = (Event(f"run_started:{n}", EventKind.RUN_STARTED, None, -1, {}) for n in (1, 2))
    end = Event("run_ended:1", EventKind.RUN_ENDED, None, -1, {"champion": "0-1", "reason": "done"})
    events = journaled([[start], [end], [again]])
    assert RunView.of(events[:2]).champion == "0-1"
    assert RunView.of(events).champion is None
    assert RunView.of(events).resumes == 1


def test_improvements_and_lineage_tell_the_story() -> None:
    scores = [1.0, 3.0, 2.0, 3.0, 5.0]
    steps = []
    for decision, score in enumerate(scores):
        one = candidate(0, decision)
        steps += [[generated_event(one, "m", 1)], [settled_event(one, evaluation(score), Standing())]]
    view = RunView.of(journaled(steps))
    assert [type(i) for i in view.improvements] == [Improvement] * 3
    assert [(i.terminal, i.best.candidate) for i in view.improvements] == [(1, "0-0"), (2, "0-1"), (5, "0-4")]
    assert view.lineage["0-4"].parents == ("0-3",)
    assert view.best is not None
    assert view.best.source == text_ref("program 0-4")
    assert view.pending == {}
    assert view.since_best == 0
