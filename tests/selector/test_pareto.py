from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.selector import Elite
from adrs_ray.selector.pareto import ParetoArchive
from adrs_ray.selector.topk import TopKArchive


def elite(number: int, score: float, *cases: float) -> Elite:
    return Elite(f"0-{number}", score, {}, (0.0, 0.0), f"f{number}", f"s{number}", cases)


def names(archive: ParetoArchive | TopKArchive) -> list[str]:
    return [kept.candidate for kept in archive]


figures = st.sampled_from([0.0, 1.0, 2.0, 3.0])


@given(st.lists(st.tuples(figures, st.tuples(figures, figures, figures)), min_size=1, max_size=30))
def test_with_room_it_is_who_nobody_beats_on_some_case_and_the_best(values):
    archive = ParetoArchive(100)
    offered = [elite(number, score, *cases) for number, (score, cases) in enumerate(values)]
    for candidate in offered:
        archive.add(candidate)
    tops = [max(column) for column in zip(*(e.cases for e in offered), strict=True)]
    best = max(offered, key=lambda e: e.score)
    expected = [e for e in offered if e is best or any(map(float.__eq__, e.cases, tops))]
    assert list(archive) == expected


@given(st.lists(st.tuples(figures, st.integers(0, 20)), max_size=40), st.integers(2, 6))
def test_without_cases_it_is_the_archive_of_the_best_few(values, capacity):
    archive, few = ParetoArchive(capacity), TopKArchive(capacity)
    for number, (score, removed) in enumerate(values):
        assert archive.add(elite(number, score)) == few.add(elite(number, score))
        assert archive.remove(f"0-{removed}") == few.remove(f"0-{removed}")
        assert list(archive) == list(few)


def test_a_specialist_stays_until_it_is_beaten_on_its_case():
    archive = ParetoArchive(10)
    archive.add(elite(0, 5.0, 9.0, 9.0, 0.0))
    archive.add(elite(1, 1.0, 0.0, 0.0, 3.0))
    assert not archive.add(elite(2, 4.0, 8.0, 8.0, 2.0)).kept
    placement = archive.add(elite(3, 2.0, 0.0, 0.0, 4.0))
    assert placement.replaced == ("0-1",)
    assert names(archive) == ["0-0", "0-3"]


def test_beyond_the_capacity_whoever_holds_fewest_cases_goes():
    archive = ParetoArchive(2)
    archive.add(elite(0, 1.0, 9.0, 9.0, 0.0, 0.0))
    archive.add(elite(1, 5.0, 0.0, 0.0, 9.0, 0.0))
    placement = archive.add(elite(2, 0.0, 0.0, 0.0, 0.0, 9.0))  # holds 1 case, as 0-1 does, which is the best
    assert not placement.kept
    assert archive.add(elite(3, 2.0, 9.5, 0.0, 0.0, 9.0)).replaced == ("0-0",)
    assert names(archive) == ["0-1", "0-3"]


def test_a_tie_is_kept_but_holds_nothing():
    archive = ParetoArchive(2)
    archive.add(elite(0, 5.0, 1.0, 1.0))
    assert archive.add(elite(1, 4.0, 1.0, 1.0)).kept
    assert archive.add(elite(2, 4.5, 0.0, 1.0)).replaced == ("0-1",)
    assert not archive.add(elite(3, 4.5, 1.0, 1.0)).kept


def test_cases_of_a_removed_elite_go_to_the_next_best():
    archive = ParetoArchive(10)
    archive.add(elite(0, 5.0, 5.0, 0.0))
    archive.add(elite(1, 1.0, 3.0, 7.0))
    assert archive.remove("0-0")
    assert not archive.add(elite(2, 0.0, 2.0, 0.0)).kept
    assert archive.add(elite(3, 0.0, 3.0, 0.0)).kept


def test_a_figure_that_is_no_number_is_best_nowhere():
    archive = ParetoArchive(10)
    archive.add(elite(0, 5.0, 1.0))
    assert not archive.add(elite(1, 1.0, float("nan"))).kept
    assert archive.add(elite(2, 6.0, float("nan"))).kept
