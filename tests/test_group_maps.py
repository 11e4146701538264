"""Maps averaged over animals: profiles by hand, p-values by other implementations, and what is said of few animals."""

import itertools

import numpy as np
import pytest
import torch
from neurt.crossval.intervals import bootstrap_over_subjects
from neurt.explain.explained import ExplainedWindows
from neurt.explain.group_maps import compare_groups, profile_by_activity, subjects_of
from scipy.stats import permutation_test, ttest_ind

NAMES = ("control", "planted")


def windows_of(subjects, classes, own=None, real=None):
    """A window of each entry of `subjects`, each of its own recording."""
    own = np.zeros((len(subjects), 4)) if own is None else np.array(own)
    values = torch.zeros(*own.shape, 5)
    values[..., 0] = torch.as_tensor(own)
    mask = torch.ones(own.shape, dtype=torch.long) if real is None else torch.as_tensor(real)
    number = len(subjects)
    return ExplainedWindows(
        inputs={"input_values": values, "attention_mask": mask},
        recording=np.arange(number),
        recording_ids=tuple(f"r{place}" for place in range(number)),
        subject_ids=tuple(subjects),
        class_ids=None if classes is None else np.array(classes),
        roi_ids=("a",) * number,
        neuron_index=np.zeros(number, int),
        start_frame=np.zeros(number, int),
    )


def compare(profiles, classes, **options):
    return compare_groups(profiles, classes, **{"class_names": NAMES, "simulated": False, **options})


def test_animals_are_sorted_and_have_one_class_each():
    subjects, classes = subjects_of(windows_of(["m2", "m1", "m2"], [1, 0, 1]))
    assert subjects == ("m1", "m2") and classes.tolist() == [0, 1]
    with pytest.raises(ValueError, match="recordings of one class for each animal, got two for 'm2'"):
        subjects_of(windows_of(["m2", "m1", "m2"], [1, 0, 0]))
    with pytest.raises(ValueError, match="pass --label"):
        subjects_of(windows_of(["m1"], None))


def test_a_profile_by_activity_ranks_the_frames_of_each_window_by_itself():
    rng = np.random.default_rng(0)
    own = np.stack([rng.permutation(20), 1000 + 3 * rng.permutation(20), rng.permutation(20)]).astype(float)
    own = np.pad(own, ((0, 0), (0, 5)))
    real = np.pad(np.ones((3, 20), int), ((0, 0), (0, 5)))
    # A map that is the rank itself: two frames in each tenth, on average 0.5, 2.5 ...
    values = np.pad(np.argsort(np.argsort(own[:, :20], axis=1), axis=1).astype(float), ((0, 0), (0, 5)))
    values += np.array([[0], [4], [100]])
    found = profile_by_activity(values, windows_of(["b", "b", "a"], [0, 0, 0], own, real))
    # Animals in order, windows of each averaged.
    np.testing.assert_allclose(found, np.arange(10) * 2 + 0.5 + np.array([[100], [2]]))


def test_frames_of_equal_activity_share_the_tenth_of_their_middle_rank():
    own = np.array([[0.0] * 8 + [3, 7]])
    found = profile_by_activity(np.array([[*range(8), 50.0, 60]]), windows_of(["a"], [0], own))
    # Eight zeros have the middle rank 4.5 of 10, in the fifth tenth; the others are ninth and tenth.
    np.testing.assert_array_equal(found, [[np.nan] * 4 + [3.5] + [np.nan] * 3 + [50, 60]])


@pytest.fixture(scope="module")
def planted():
    """Five animals against six; bin 2 differs by three standard deviations, in a bin of small numbers."""
    profiles = np.random.default_rng(3).normal(size=(11, 4))
    classes = np.array([0, 1] * 5 + [1])
    profiles[:, 2] += 3 * classes
    profiles[:, 2] /= 100
    return profiles, classes


def test_difference_and_means_are_those_of_animals(planted):
    profiles, classes = planted
    found = compare(profiles, classes)
    expected = [profiles[0:10:2].mean(0), np.concatenate([profiles[1:10:2], profiles[10:]]).mean(0)]
    np.testing.assert_allclose(found.means, expected)
    np.testing.assert_allclose(found.difference, expected[1] - expected[0])
    assert (found.low < found.difference).all() and (found.difference < found.high).all()
    assert found.low[2] > 0


def test_one_bin_has_the_p_value_of_scipys_permutation_test(planted):
    profiles, classes = planted
    for place in range(4):
        one = profiles[:, place]
        expected = permutation_test(
            (one[classes == 1], one[classes == 0]), lambda a, b: abs(a.mean() - b.mean()), alternative="greater"
        )
        found = compare(profiles[:, [place]], classes)
        assert found.test.exact and found.test.num_labellings == 462
        assert found.p_values[0] == pytest.approx(expected.pvalue)


def test_p_values_are_those_of_the_largest_t_over_bins(planted):
    profiles, classes = planted
    members = np.array(list(itertools.combinations(range(11), 6)))
    others = np.array([np.setdiff1d(range(11), chosen) for chosen in members])
    largest = np.abs(ttest_ind(profiles[members], profiles[others], axis=1).statistic).max(1)
    own = np.abs(ttest_ind(profiles[classes == 1], profiles[classes == 0]).statistic)
    expected = [np.mean(largest >= each * (1 - 1e-9)) for each in own]
    found = compare(profiles, classes)
    np.testing.assert_allclose(found.p_values, expected)
    assert found.significant.tolist() == [False, False, True, False]
    assert found.test.p_value == found.p_values.min()


def test_where_labels_mean_nothing_any_bin_is_significant_no_more_often_than_p_says():
    profiles = np.cumsum(np.random.default_rng(0).normal(size=(8, 12)), axis=1)
    smallest = []
    for members in itertools.combinations(range(8), 4):
        smallest.append(compare(profiles, np.isin(range(8), members).astype(int)).p_values.min())
    # Which group is called which changes nothing: each p-value comes twice.
    np.testing.assert_allclose(sorted(smallest), np.repeat(np.arange(1, 36) / 35, 2))


def test_intervals_are_those_of_each_bin_by_itself(planted):
    profiles, classes = planted
    found = compare(profiles, classes)
    for place in range(4):

        def difference(counts, values=profiles[:, place]):
            means = [(counts * (classes == label)) @ values / np.sum(classes == label) for label in (0, 1)]
            return means[1] - means[0]

        expected = bootstrap_over_subjects(difference, classes)
        assert (found.low[place], found.high[place]) == pytest.approx(expected)


def test_two_animals_of_a_class_have_no_p_value_and_it_is_said():
    found = compare(np.array([[1.0, 2], [1, 3], [2, 3], [5, 3], [6, 3]]), np.array([0, 0, 1, 1, 1]))
    assert found.test is None
    for values in (found.p_values, found.low, found.high):
        assert np.isnan(values).all()
    assert found.sentence(["0 s", "1 s"]) == (
        "2 control against 3 planted animals: the clearest of 2 differences is at 0 s, planted minus control +3.33. "
        "Fewer than 3 animals of a class: no p-value and no interval."
    )


def test_the_sentence_says_where_how_much_and_how_sure(planted):
    words = compare(*planted, simulated=True).sentence(["a", "b", "c", "d"])
    assert words.startswith(
        "5 simulated control against 6 simulated planted animals: the clearest of 4 differences is at c, planted "
        "minus control +0.0"
    )
    assert "p = 0.015 over all bins, exact): 1 bin with p below 0.05." in words
    drawn = compare(*planted, most=100).sentence(["a", "b", "c", "d"])
    assert "100 labellings drawn" in drawn and "simulated" not in drawn


def test_three_against_three_cannot_be_significant_and_it_is_said():
    found = compare(np.array([[1.0], [2], [3], [14], [15], [16]]), np.array([0, 0, 0, 1, 1, 1]))
    assert found.p_values.tolist() == [0.1]
    assert found.sentence(["bin"]).endswith(
        "no bin differs beyond chance. Labels can be dealt out to these subjects in 20 ways, which make 10 different "
        "groupings, so p cannot be below 0.1: no result can be significant."
    )


def test_bins_that_an_animal_lacks_are_not_compared_and_bins_that_are_alike_do_not_differ():
    profiles = np.random.default_rng(0).normal(size=(6, 3))
    profiles[0, 0] = np.nan
    profiles[:, 1] = 0.1
    classes = np.array([0, 0, 0, 1, 1, 1])
    found = compare(profiles, classes)
    assert np.isnan(found.p_values).tolist() == [True, False, False]
    assert np.isnan(found.difference).tolist() == [True, False, False]
    assert found.p_values[1] == 1 and found.p_values[2] == compare(profiles[:, [2]], classes).p_values[0]
    nothing = compare(np.full((6, 2), np.nan), classes)
    assert nothing.sentence(["a", "b"]).endswith("no bin is known of every animal, so none was compared.")


@pytest.mark.parametrize(
    ("classes", "names"), [([0, 0, 0, 0], NAMES), ([0, 1, 2, 0], NAMES), ([0, 1, 2, 0], ("a", "b", "c"))]
)
def test_anything_but_two_classes_is_refused(classes, names):
    with pytest.raises(ValueError, match="expected animals of two classes to compare.*two at a time"):
        compare(np.zeros((4, 2)), np.array(classes), class_names=names)
