"""What every archive promises, by any sequence of adds and removes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrs_ray.config import SelectorConfig
from adrs_ray.selector import Archive, Elite
from adrs_ray.selector.archives import ARCHIVES, make_archive

few = settings(max_examples=50, deadline=None)
every_archive = pytest.mark.parametrize("name", sorted(ARCHIVES))

figures = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 3.0])
elites = st.builds(
    lambda score, descriptor, cases: Elite("", score, {}, descriptor, "", "", cases),
    figures,
    st.tuples(st.floats(0, 500), st.floats(0, 1), figures),
    st.lists(figures, max_size=4).map(tuple),
)
histories = st.lists(st.tuples(elites, st.none() | st.integers(0, 30)), min_size=1, max_size=30)
"""Elites to add, each with the number of a candidate to remove afterwards."""


def build(name: str, **changes: int) -> Archive:
    values = {"archive": name, "bins": 3, "cells": 5, "capacity": 5, "learn_bounds_from": 8} | changes
    return make_archive(SelectorConfig.model_validate(values))


def named(elite: Elite, number: int) -> Elite:
    return replace(elite, candidate=f"0-{number}", fingerprint=f"f{number}", source=f"s{number}")


def play(archive: Archive, history: list[tuple[Elite, int | None]]) -> Archive:
    for number, (elite, removed) in enumerate(history):
        archive.add(named(elite, number))
        if removed is not None:
            archive.remove(f"0-{removed}")
    return archive


@every_archive
@few
@given(history=histories)
def test_the_same_history_gives_the_same_archive(name, history):
    assert list(play(build(name), history)) == list(play(build(name), history))


@every_archive
@few
@given(history=histories)
def test_placements_tell_who_is_in_and_who_went(name, history):
    archive = build(name)
    inside: list[str] = []
    for number, (elite, removed) in enumerate(history):
        placement = archive.add(named(elite, number))
        assert placement.kept == (f"0-{number}" in archive)
        assert set(placement.replaced) <= set(inside)
        inside = [c for c in inside if c not in placement.replaced]
        inside += [f"0-{number}"] if placement.kept else []
        if removed is not None:
            assert archive.remove(f"0-{removed}") == (f"0-{removed}" in inside)
            inside = [c for c in inside if c != f"0-{removed}"]
        assert [e.candidate for e in archive] == inside  # in the order of entry
        assert len(archive) == len(inside)
        assert all(c in archive for c in inside)


@every_archive
@few
@given(history=histories)
def test_the_best_is_lost_by_removal_only_and_stays_among_equals(name, history):
    archive = build(name)
    for number, (elite, _) in enumerate(history):
        before = archive.best()
        archive.add(named(elite, number))
        best = archive.best()
        assert best is not None
        if before is None or elite.score > before.score:
            assert best.candidate == f"0-{number}"
        else:
            assert best == before


@every_archive
@few
@given(history=histories)
def test_the_capacity_holds_once_cells_are_fixed(name, history):
    archive = play(build(name), history)
    archive.freeze()
    assert len(archive) <= archive.capacity
    kept = list(archive)
    archive.freeze()
    assert list(archive) == kept


@every_archive
def test_freezing_an_empty_archive_leaves_it_as_it_was(name):
    archive = build(name)
    archive.freeze()
    assert archive.best() is None
    for number in range(3):
        placement = archive.add(Elite(f"0-{number}", float(number), {}, (10.0, 0.5), f"f{number}", ""))
        assert placement.kept
        assert placement.replaced == ()
    assert len(archive) == 3


@every_archive
@few
@given(history=histories, newcomer=elites)
def test_a_newcomer_is_kept_exactly_if_it_beats_its_rivals(name, history, newcomer):
    archive = play(build(name), history)
    archive.freeze()
    newcomer = named(newcomer, 99)
    kept = list(archive)
    rivals = archive.rivals(newcomer)
    assert list(archive) == kept
    assert all(rival in kept for rival in rivals)
    beaten = all(newcomer.score > rival.score for rival in rivals)
    assert archive.add(newcomer).kept == beaten
    assert newcomer not in archive.rivals(newcomer)


@every_archive
def test_nobody_is_a_rival_while_the_archive_is_empty_or_learns(name):
    archive = build(name)
    newcomer = Elite("0-0", 1.0, {}, (10.0, 0.5), "f0", "")
    assert archive.rivals(newcomer) == ()
    archive.add(newcomer)
    assert archive.rivals(newcomer) == ()


@every_archive
@few
@given(history=histories)
def test_one_that_was_removed_may_come_back_with_another_score(name, history):
    archive = play(build(name), history)
    archive.freeze()
    for elite in list(archive):
        if not archive.remove(elite.candidate):
            continue  # pushed out by the one before, which beat it on all its cases
        assert not archive.remove(elite.candidate)
        assert elite.candidate not in archive
        again = replace(elite, score=100.0, repeats=2)
        assert archive.add(again).kept
        assert archive.best() == again
        assert archive.remove(elite.candidate)


@every_archive
def test_removing_all_leaves_an_archive_that_still_works(name):
    archive = build(name)
    for number in range(12):
        archive.add(Elite(f"0-{number}", float(number), {}, (10.0 * number, 0.1), f"f{number}", "", (float(number),)))
    for elite in list(archive):
        archive.remove(elite.candidate)
    assert len(archive) == 0
    assert archive.best() is None
    assert archive.add(Elite("0-50", -5.0, {}, (10.0, 0.1), "f", "", (-5.0,))).kept
