"""Intervals over subjects: who is drawn, and how often they hold the truth."""

import numpy as np
import pytest
from neurt.crossval.intervals import bootstrap_over_subjects
from neurt.crossval.ranking import pairs_within_folds
from scipy.stats import bootstrap, norm


def mean_of(values):
    return lambda counts: counts @ values / counts.sum(axis=1)


def test_subjects_are_drawn_with_replacement_within_their_class():
    targets = np.array([0, 1, 0, 1, 1, 2])
    drawn = []
    bootstrap_over_subjects(lambda counts: drawn.append(counts) or counts[:, 0], targets, samples=4000)
    (counts,) = drawn
    assert counts.shape == (4000, 6)
    for label, size in enumerate([2, 3, 1]):
        assert (counts[:, targets == label].sum(axis=1) == size).all()
    # Of three subjects, one is left out of 8 in 27 samples and fills one in 27.
    assert np.mean(counts[:, 1] == 0) == pytest.approx(8 / 27, abs=0.03)
    assert np.mean(counts[:, 1] == 3) == pytest.approx(1 / 27, abs=0.012)


def test_subjects_with_a_continuous_target_are_drawn_among_all():
    drawn = []
    bootstrap_over_subjects(lambda counts: drawn.append(counts) or counts[:, 0], np.array([0.5, 0.5, 1.5]))
    assert (drawn[0].sum(axis=1) == 3).all()
    assert {*drawn[0][:, 2]} == {0, 1, 2, 3}


def test_the_interval_agrees_with_scipy():
    values = np.random.default_rng(0).gamma(2, size=15)
    found = bootstrap_over_subjects(mean_of(values), np.zeros(15, int), samples=20000)
    expected = bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=1).confidence_interval
    assert found == pytest.approx((expected.low, expected.high), abs=0.02)


def test_an_interval_of_95_percent_holds_the_mean_of_20_subjects_about_so_often():
    held = []
    for seed in range(400):
        values = np.random.default_rng(seed).normal(size=20)
        low, high = bootstrap_over_subjects(mean_of(values), np.zeros(20, int), samples=500, seed=seed)
        held.append(low <= 0 <= high)
    assert 0.9 < np.mean(held) < 0.97


@pytest.mark.parametrize(("per_class", "share"), [(10, 0.933), (5, 0.863)])
def test_an_interval_of_95_percent_holds_the_auc_as_often_as_the_docstring_says(per_class, share):
    targets = np.repeat([0, 1], per_class)
    truth = norm.cdf(1 / 2**0.5)
    held = []
    for seed in range(300):
        values = np.random.default_rng(seed).normal(size=len(targets)) + targets
        pairs = pairs_within_folds([np.arange(len(targets))], [values], targets)
        low, high = bootstrap_over_subjects(pairs.share, targets, samples=500, seed=seed)
        held.append(low <= truth <= high)
    assert np.mean(held) == pytest.approx(share, abs=0.01)


def test_the_interval_depends_on_the_seed_alone():
    values, targets = np.arange(9.0), np.zeros(9, int)
    first, again, other = (bootstrap_over_subjects(mean_of(values), targets, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_samples_for_which_there_is_no_score_are_left_out():
    targets = np.array([0, 0, 1, 1])
    pairs = pairs_within_folds([[0, 2], [1, 3]], [np.array([0, 1.0]), np.array([1.0, 0])], targets)
    # A pair that is right and one that is wrong; in one of eight samples none of them is left.
    assert bootstrap_over_subjects(pairs.share, targets) == (0, 1)
    with pytest.raises(ValueError, match="defined for some sample of the subjects, got only NaN"):
        bootstrap_over_subjects(lambda counts: np.full(len(counts), np.nan), targets)


def test_the_interval_of_a_perfect_score_has_no_width():
    targets = np.repeat([0, 1], 4)
    pairs = pairs_within_folds([np.arange(8)], [np.arange(8.0)], targets)
    assert bootstrap_over_subjects(pairs.share, targets) == (1, 1)
