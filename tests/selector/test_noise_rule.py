"""Who is measured once more: an error that is not known separates nobody."""

from adrs_ray.config import NoiseConfig
from adrs_ray.selector import Elite
from adrs_ray.selector.noise import needs_another


def elite(score: float, error: float = 0.0, repeats: int = 1) -> Elite:
    return Elite("0-1", score, {}, (), "", "", error=error, repeats=repeats)


def test_a_single_measurement_takes_nobodys_place():
    config = NoiseConfig(min_repeats=1, max_repeats=3)
    assert needs_another(elite(2.0), [elite(1.0, 0.01, 3)], config)
    assert not needs_another(elite(2.0), [], config)
    assert not needs_another(elite(0.5), [elite(1.0, 0.01, 3)], config)


def test_it_goes_on_until_the_means_are_apart_or_the_cap_is_hit():
    config = NoiseConfig(min_repeats=2, max_repeats=3)
    assert needs_another(elite(2.0, 0.7, 2), [elite(1.0, 0.1, 2)], config)
    assert not needs_another(elite(2.0, 0.5, 2), [elite(1.0, 0.1, 2)], config)
    assert not needs_another(elite(2.0, 0.7, 3), [elite(1.0, 0.1, 2)], config)
