import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint
from verifier_accuracy import Outcome, corrected, share_of


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_interval_is_exact(num, others):
    share = share_of([True] * num + [False] * others)
    if num + others == 0:
        assert (share.low, share.high) == (0, 1)
        return
    low, high = proportion_confint(num, num + others, method="beta")
    assert (share.num, share.of) == (num, num + others)
    assert share.low == pytest.approx(0 if num == 0 else low, abs=1e-9)
    assert share.high == pytest.approx(1 if others == 0 else high, abs=1e-9)


def outcomes(sens: tuple[int, int], spec: tuple[int, int], clusters: int = 40) -> list[Outcome]:
    flags = [(False, n < sens[0]) for n in range(sens[1])] + [(True, n >= spec[0]) for n in range(spec[1])]
    return [Outcome(n % clusters, supported, rejected) for n, (supported, rejected) in enumerate(flags)]


def samples(rejected: int, total: int) -> list[tuple[int, bool]]:
    return [(n, n < rejected) for n in range(total)]


def test_rogan_and_gladen_by_hand():
    # 80 % sensitive, 90 % specific, 24 % rejected: p = (0.24 + 0.9 - 1) / 0.7 = 0.2, so 80 % are faithful;
    # of the accepted 0.9 * 0.8 / (0.9 * 0.8 + 0.2 * 0.2) = 0.7200 / 0.7600
    estimate = corrected(outcomes((80, 100), (90, 100)), samples(24, 100))
    assert estimate is not None and not estimate.clipped
    assert estimate.of_all.value == pytest.approx(0.8)
    assert estimate.of_accepted.value == pytest.approx(0.72 / 0.76)
    assert estimate.of_all.low < 0.8 < estimate.of_all.high
    assert (
        estimate.of_all == corrected(outcomes((80, 100), (90, 100)), samples(24, 100)).of_all
    )  # same seed, same draws


def test_a_perfect_verifier_corrects_nothing():
    estimate = corrected(outcomes((50, 50), (50, 50)), samples(13, 100))
    assert estimate is not None
    assert (estimate.of_all.value, estimate.of_accepted.value) == (pytest.approx(0.87), pytest.approx(1.0))
    all_rejected = corrected(outcomes((50, 50), (50, 50)), samples(20, 20))
    assert all_rejected is not None and all_rejected.of_all.value == 0


def test_fewer_rejections_than_false_alarms_are_clipped():
    estimate = corrected(outcomes((80, 100), (90, 100)), samples(2, 100))
    assert estimate is not None and estimate.clipped and estimate.of_all.value == 1


@pytest.mark.parametrize(
    ("labeled", "given"),
    [
        (outcomes((50, 100), (50, 100)), samples(5, 10)),  # chance
        (outcomes((10, 100), (50, 100)), samples(5, 10)),  # worse than chance
        (outcomes((11, 20), (11, 20)), samples(5, 10)),  # too near chance
        (outcomes((0, 0), (50, 100)), samples(5, 10)),
        (outcomes((50, 100), (0, 0)), samples(5, 10)),
        (outcomes((50, 100), (90, 100)), []),
    ],
)
def test_where_the_correction_is_undefined_there_is_none(labeled, given):
    assert corrected(labeled, given) is None


def test_the_interval_covers_the_truth_at_about_its_level():
    generator, held, num = np.random.default_rng(7), 0, 40
    for _ in range(num):
        truth = generator.random(150) < 0.2  # unsupported
        rejected = np.where(truth, generator.random(150) < 0.8, generator.random(150) < 0.1)
        labeled = outcomes((generator.binomial(90, 0.8), 90), (generator.binomial(90, 0.9), 90), clusters=30)
        estimate = corrected(labeled, [(n % 30, bool(verdict)) for n, verdict in enumerate(rejected)])
        assert estimate is not None
        held += estimate.of_all.low <= 0.8 <= estimate.of_all.high
    assert held >= 0.85 * num
