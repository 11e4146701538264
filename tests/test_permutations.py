"""P-values of labellings, against hand-counted ones, scipy's, and the level they promise."""

import itertools

import numpy as np
import pytest
from neurt.crossval.permutations import num_groupings, num_labellings, permutation_test, power_note
from scipy.stats import permutation_test as scipy_permutation_test
from scipy.stats import spearmanr

ALIKE = ("",) * 6


def difference_of(values):
    """Statistic: mean of class 1 minus mean of class 0."""
    values = np.asarray(values, dtype=float)
    return lambda targets: values[targets == 1].mean() - values[targets == 0].mean()


def test_an_exact_p_is_the_share_of_labellings_that_are_as_good():
    # Of six ways to choose two of 1, 2, 3, 4, only {3, 4} is better than {2, 4}.
    found = permutation_test(difference_of([1, 3, 2, 4]), np.array([0, 0, 1, 1]), ALIKE[:4])
    assert found.exact and found.num_labellings == 6
    assert (found.statistic, found.p_value) == (1, 2 / 6)
    assert sorted(found.null) == [-2, -1, 0, 0, 2]


def test_labellings_that_differ_by_rounding_alone_are_ties():
    targets = np.array([0, 0, 1, 1])
    wobbling = iter([0.1 + 0.2, 0.3, 0.3, 0.3 + 1e-6, 0.1, 0.2])
    assert permutation_test(lambda _: next(wobbling), targets, ALIKE[:4]).p_value == 4 / 6
    # The scale of the statistic does not matter.
    wobbling = iter(1e-12 * np.array([0.1 + 0.2, 0.3, 0.3, 0.3 + 1e-6, 0.1, 0.2]))
    assert permutation_test(lambda _: next(wobbling), targets, ALIKE[:4]).p_value == 4 / 6


def test_an_exact_p_agrees_with_scipy():
    rng = np.random.default_rng(0)
    values, targets = rng.normal(size=9), np.repeat([0, 1], [4, 5])
    expected = scipy_permutation_test(
        (values[targets == 1], values[targets == 0]),
        lambda first, second: first.mean() - second.mean(),
        alternative="greater",
        n_resamples=np.inf,
    )
    found = permutation_test(difference_of(values), targets, ("",) * 9)
    assert (found.p_value, found.num_labellings) == (pytest.approx(expected.pvalue), 126)


def test_every_different_labelling_is_tried_once_within_strata():
    targets, strata = np.array([0, 1, 2, 1, 0, 0]), ("a", "b", "a", "b", "a", "b")
    seen = []
    permutation_test(lambda labelling: seen.append(tuple(labelling.tolist())) or 0, targets, strata)
    # Stratum a holds 0, 2, 0 (three orders), b holds 1, 1, 0 (three).
    expected = {
        tuple(np.insert(b, [0, 1, 2], a).tolist())
        for a, b in itertools.product(itertools.permutations([0, 2, 0]), itertools.permutations([1, 1, 0]))
    }
    assert len(seen) == len(set(seen)) == num_labellings(targets, strata) == 9
    assert set(seen) == expected and seen[0] == tuple(targets)


@pytest.mark.parametrize("values", [[3.5, 1.0, 2.5, 7.0], [0, 1, 1, 2, 0, 0], [1] * 5, [4.0, 4.0, 1.0]])
def test_the_number_of_labellings_is_that_of_different_permutations(values):
    assert num_labellings(values, ("",) * len(values)) == len(set(itertools.permutations(values)))


def test_numbers_of_labellings_are_exact_however_large():
    assert num_labellings(np.arange(30) / 7, ("",) * 30) == 265252859812191058636308480000000
    assert num_labellings(np.repeat([0, 1], 10), ("",) * 20) == 184756
    assert num_labellings(np.repeat([0, 1], 10), tuple("ab" * 10)) == 252**2


def test_drawn_labellings_stay_in_their_strata_and_the_one_that_is_counts_as_one_of_them():
    values = np.arange(20.0)
    targets, strata = np.repeat([0, 1], 10), tuple("ab" * 10)
    seen = []

    def procedure(labelling):
        seen.append(labelling)
        return difference_of(values)(labelling)

    found = permutation_test(procedure, targets, strata, most=200, seed=1)
    assert not found.exact and found.num_labellings == 252**2 and len(found.null) == 200
    # No labelling is as good as the sorted one.
    assert found.p_value == found.smallest_p == 1 / 201
    seen = np.array(seen)
    for stratum in "ab":
        assert (seen[:, np.array(strata) == stratum].sum(axis=1) == 5).all()
    # Each subject has each label equally often: 100 ± 7 of 200.
    assert np.abs(seen[1:].sum(axis=0) - 100).max() < 4 * 50**0.5
    again = permutation_test(difference_of(values), targets, strata, most=200, seed=1)
    other = permutation_test(difference_of(values), targets, strata, most=200, seed=2)
    assert (again.null == found.null).all() and (other.null != found.null).any()


def test_drawn_labellings_give_about_the_exact_p():
    values = np.random.default_rng(3).normal(size=10)
    targets = np.tile([0, 1], 5)
    exact = permutation_test(difference_of(values), targets, ("",) * 10)
    drawn = permutation_test(difference_of(values), targets, ("",) * 10, most=251)
    assert (exact.exact, drawn.exact) == (True, False)
    assert 0.05 < exact.p_value < 0.95
    assert drawn.p_value == pytest.approx(exact.p_value, abs=4 * (0.25 / 251) ** 0.5)


def test_p_of_a_continuous_target_agrees_with_scipy():
    rng = np.random.default_rng(4)
    scores, ages = rng.normal(size=5), rng.normal(size=5)

    def statistic(targets):
        return spearmanr(scores, targets).statistic

    expected = scipy_permutation_test(
        (ages,), statistic, permutation_type="pairings", alternative="greater", n_resamples=np.inf
    )
    found = permutation_test(statistic, ages, ALIKE[:5])
    assert (found.exact, found.num_labellings) == (True, 120)
    assert found.p_value == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("most", [1000, 19])
def test_p_is_uniform_where_labels_mean_nothing(most):
    """300 studies of six subjects: each of the 20 values of p as often as another, and never too often below any."""
    rng = np.random.default_rng(5)
    targets = np.array([0, 1, 0, 1, 0, 1])
    p_values = [
        permutation_test(difference_of(rng.normal(size=6)), targets, ALIKE, most=most, seed=seed).p_value
        for seed in range(300)
    ]
    for level in np.arange(1, 20) / 20:
        share = np.mean(np.array(p_values) <= level + 1e-12)
        assert abs(share - level) < 3.5 * (level * (1 - level) / 300) ** 0.5


def test_ties_make_p_larger_never_smaller():
    rng = np.random.default_rng(6)
    targets = np.array([0, 1, 0, 1, 0, 1])

    def accuracy(values):
        return lambda labelling: np.mean((values > 0) == labelling)

    p_values = np.array([permutation_test(accuracy(rng.normal(size=6)), targets, ALIKE).p_value for _ in range(150)])
    for level in (0.05, 0.1, 0.25, 0.5):
        assert np.mean(p_values <= level) < level + 3 * (level * (1 - level) / 150) ** 0.5


def test_learners_score_two_labellings_alike_if_only_the_names_of_the_classes_are_exchanged():
    values, targets = np.array([0, 1, 2, 10, 11, 12.0]), np.array([0, 0, 0, 1, 1, 1])

    def leave_pair_out_auc(labels):
        pairs = list(itertools.product(np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)))
        right = 0
        for pair in pairs:
            means = [np.delete(values, pair)[np.delete(labels, pair) == k].mean() for k in (0, 1)]
            right += (values[pair[1]] - values[pair[0]]) * (means[1] - means[0]) > 0
        return right / len(pairs)

    found = permutation_test(leave_pair_out_auc, targets, ALIKE)
    # No groups could be further apart.
    assert (found.statistic, found.p_value, found.smallest_p) == (1, 2 / 20, 2 / 20)


def test_groupings_are_labellings_whose_classes_have_no_names():
    def counted(targets, strata):
        """Labellings as sets of sets of subjects; one has the sizes of classes that are, in each stratum."""
        orders = {order for order in itertools.permutations(targets) if sizes(order, strata) == sizes(targets, strata)}
        members = ({k: frozenset(i for i, t in enumerate(o) if t == k) for k in set(o)}.values() for o in orders)
        return len({frozenset(groups) for groups in members})

    def sizes(labels, strata):
        return sorted(zip(strata, labels, strict=True))

    for targets in (
        [0, 0, 0, 1, 1, 1],
        [0, 0, 1, 1, 1, 1],
        [0, 0, 1, 1, 2, 2],
        [0, 1, 2, 2, 2, 2],
        [0, 1, 0, 1, 0, 1],
    ):
        for strata in ("aaaaaa", "aaabbb", "ababab"):
            assert num_groupings(targets, tuple(strata)) == counted(targets, strata)
    # Numbers are no names.
    assert num_groupings([1.0, 1, 2, 2], ALIKE[:4]) == 6


def test_labels_given_out_by_cage_can_show_nothing():
    # Each cage holds one genotype, so within cages there is nothing to exchange.
    found = permutation_test(difference_of([1, 2, 3, 4]), np.array([0, 0, 1, 1]), ("a", "a", "b", "b"))
    assert (found.p_value, found.num_labellings, len(found.null)) == (1, 1, 0)


def test_the_note_says_how_small_p_can_become_and_when_that_is_not_small_enough():
    start = "Labels can be dealt out to these subjects in "
    for targets, strata, end in [
        ([0, 0, 0, 1, 1], "aaaaa", "10 ways, so p cannot be below 0.1: no result can be significant."),
        ([0, 0, 0, 1, 1, 1, 1], "aaaaaaa", "35 ways, so p cannot be below 0.029."),
        ([0] * 19 + [1], "a" * 20, "20 ways, so p cannot be below 0.05: no result can be significant."),
        ([0, 0, 0, 0, 0, 1], "aaaaaa", "6 ways, so p cannot be below 0.17: no result can be significant."),
        ([0, 0, 1, 1], "aabb", "1 way within their strata, so p cannot be below 1: no result can be significant."),
        (np.arange(200.0), "a" * 200, "more than 999 ways, so p cannot be below 0.001."),
    ]:
        assert power_note(targets, tuple(strata), most=999) == start + end
    assert power_note([0, 0, 0, 1, 1, 1], ALIKE) == (
        f"{start}20 ways, which make 10 different groupings, so p cannot be below 0.1: no result can be significant."
    )


def test_progress_sees_every_labelling_and_their_number():
    totals = []

    def progress(labellings):
        totals.append(len(labellings))
        return labellings

    for most in (20, 19):
        permutation_test(difference_of(range(6)), np.tile([0, 1], 3), ALIKE, most=most, progress=progress)
    assert totals == [19, 19]


def test_what_has_no_p_is_refused():
    targets = np.array([0, 0, 1, 1])
    with pytest.raises(ValueError, match="expected a statistic that is defined for every labelling .* got nan"):
        permutation_test(lambda labelling: 1 if labelling[0] == 0 else np.nan, targets, ALIKE[:4])
    with pytest.raises(ValueError, match="expected a stratum for each target, got 6 for 4"):
        permutation_test(np.mean, targets, ALIKE)
    with pytest.raises(ValueError, match="expected at least one labelling to try, got 0"):
        permutation_test(np.mean, targets, ALIKE[:4], most=0)
