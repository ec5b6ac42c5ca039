import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.selector import Elite
from adrs_ray.selector.grid import GridArchive


def elite(number: int, score: float, size: float, distance: float) -> Elite:
    return Elite(f"0-{number}", score, {}, (size, distance), f"f{number}", f"s{number}")


points = st.tuples(st.floats(-5, 5), st.floats(0, 500), st.floats(0, 1))


@given(st.lists(points, max_size=60), st.integers(2, 6), st.integers(2, 20))
def test_every_cell_holds_its_first_best_and_cells_never_drift(values, bins, learn_from):
    archive = GridArchive(bins, learn_from)
    cells_seen: dict[str, tuple[int, int]] = {}
    offered = []
    for number, (score, size, distance) in enumerate(values):
        candidate = elite(number, score, size, distance)
        offered.append(candidate)
        placement = archive.add(candidate)
        assert placement.kept == (candidate.candidate in archive)
        for kept in archive:
            cell = archive.cell_of(kept.descriptor)
            if cell is not None:
                assert cells_seen.setdefault(kept.candidate, cell) == cell
    if archive.bounds is None:
        assert [e.candidate for e in archive] == [e.candidate for e in offered]
        return
    expected: dict[tuple[int, int], Elite] = {}
    for candidate in offered:
        cell = archive.cell_of(candidate.descriptor)
        assert cell is not None
        if cell not in expected or candidate.score > expected[cell].score:
            expected[cell] = candidate
    assert {e.candidate for e in archive} == {e.candidate for e in expected.values()}
    assert len(archive) <= archive.capacity
    best = archive.best()
    assert best is not None
    assert best.score == max(e.score for e in offered)


@given(st.lists(points, min_size=1, max_size=40))
def test_replaying_the_same_adds_and_removes_gives_the_same_archive(values):
    def build() -> GridArchive:
        archive = GridArchive(4, 10)
        rng = np.random.default_rng(1)
        for number, (score, size, distance) in enumerate(values):
            archive.add(elite(number, score, size, distance))
            if rng.random() < 0.3:
                archive.remove(f"0-{rng.integers(number + 1)}")
        return archive

    first, second = build(), build()
    assert list(first) == list(second)
    assert first.bounds == second.bounds


def test_a_removed_elite_leaves_its_cell_to_the_next_comer():
    archive = GridArchive(4, 2)
    archive.add(elite(0, 1.0, 10, 0.1))
    archive.add(elite(1, 5.0, 20, 0.9))
    assert archive.remove("0-1")
    assert not archive.remove("0-1")
    placement = archive.add(elite(2, 0.5, 20, 0.9))
    assert placement.kept
    assert placement.replaced == ()


def test_an_equal_score_does_not_replace():
    archive = GridArchive(4, 2)
    for number in range(4):
        archive.add(elite(number, 1.0, 10, 0.5))
    assert [e.candidate for e in archive] == ["0-0"]
