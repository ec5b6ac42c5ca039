from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from adrs_ray.selector import Elite
from adrs_ray.selector.behaviour import Quantiles, rows
from adrs_ray.selector.cvt import CVTArchive

figures = st.floats(allow_nan=True, allow_infinity=True)


def population(count: int, cases: int, correlation: float, seed: int = 0) -> list[Elite]:
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        skill = rng.normal()
        results = correlation * skill + (1 - correlation**2) ** 0.5 * rng.normal(size=cases)
        descriptor = (100 + 20 * rng.normal(), rng.random(), float(rng.integers(5)))
        found.append(Elite(f"0-{number}", skill, {}, descriptor, f"f{number}", "", tuple(map(float, results))))
    return found


def filled(elites: list[Elite], cells: int = 48, learn_from: int = 24) -> CVTArchive:
    archive = CVTArchive(cells, learn_from)
    for elite in elites:
        archive.add(elite)
    return archive


def test_each_cell_holds_its_first_best_once_cells_are_fixed():
    elites = population(200, 5, 0.5)
    archive = filled(elites)
    expected: dict[int, Elite] = {}
    for elite in elites:
        cell = archive.cell_of(elite.descriptor, elite.cases)
        assert cell is not None
        if cell not in expected or elite.score > expected[cell].score:
            expected[cell] = elite
    assert {e.candidate for e in archive} == {e.candidate for e in expected.values()}


def test_cells_are_unknown_while_they_are_learned():
    archive = filled(population(5, 3, 0.5), learn_from=6)
    assert archive.cell_of((1.0, 0.5, 1.0), (0.0, 0.0, 0.0)) is None
    assert len(archive.centroids) == 0
    archive.freeze()
    assert archive.centroids.shape == (48, 6)
    assert archive.cell_of((1.0, 0.5, 1.0)) is not None


def test_cells_do_not_depend_on_anything_but_the_first_candidates():
    elites = population(60, 5, 0.5)
    assert (filled(elites).centroids == filled(elites[:24]).centroids).all()
    assert (filled(elites).centroids != filled(elites[1:]).centroids).any()


def test_programs_spread_over_most_cells_where_cases_rise_and_fall_together():
    assert len(filled(population(400, 30, 0.9))) > 40


def test_programs_alike_but_for_one_case_can_both_stay():
    elites = population(24, 4, 0.0)
    archive = filled(elites)
    low, high = ((0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 9.0))
    cells = {archive.cell_of((100.0, 0.5, 2.0), cases) for cases in (low, high)}
    assert len(cells) == 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.tuples(figures, figures), st.lists(figures, max_size=3)), min_size=1, max_size=8))
def test_any_figures_and_any_number_of_cases_have_a_cell(points):
    archive = CVTArchive(4, 3)
    for number, (descriptor, cases) in enumerate(points):
        archive.add(Elite(f"0-{number}", 0.0, {}, descriptor, f"f{number}", "", tuple(cases)))
    archive.freeze()
    assert np.isfinite(archive.centroids).all()
    for elite in archive:
        assert archive.cell_of(elite.descriptor, elite.cases) in range(4)


def test_figures_become_quantiles_of_what_was_learned_from():
    table = np.array([[0.0, 7.0, 1.0], [10.0, 7.0, 1.0], [1000.0, 7.0, 5.0]])
    quantiles = Quantiles(table)
    assert quantiles(table).tolist() == [[0.0, 0.5, 0.25], [0.5, 0.5, 0.25], [1.0, 0.5, 1.0]]
    later = np.array([[5.0, 9.0, 3.0], [-4.0, 7.0, np.nan], [1e9, 7.0, 0.0]])
    assert quantiles(later).tolist() == [[0.25, 0.5, 0.625], [0.0, 0.5, 0.5], [1.0, 0.5, 0.25]]


def test_missing_figures_do_not_shift_those_behind_them():
    elites = [Elite("0-0", 0.0, {}, (1.0,), "", "", (5.0, 6.0)), Elite("0-1", 0.0, {}, (1.0, 2.0, 3.0), "", "", ())]
    table = rows(elites, (2, 2))
    expected = [[1.0, np.nan, 5.0, 6.0], [1.0, 2.0, np.nan, np.nan]]
    assert np.array_equal(table, expected, equal_nan=True)
