"""Leaks are refused where they are certain, and measured where they are a matter of degree."""

import dataclasses
import zlib

import numpy as np
import pytest
from neurt import NeurtConfig
from neurt.crossval.cohort import REGRESSION, make_cohort
from neurt.crossval.embeddings import WindowFeatures
from neurt.crossval.folds import Fold, leave_one_out, stratified_folds
from neurt.crossval.leaks import (
    HALVES,
    RECORDINGS,
    check_folds,
    identity_decoding,
    seen_in_pretraining,
    window_split_optimism,
)
from neurt.crossval.learners import logistic, ridge
from neurt.dataset_scripts.recording import Recording

LENGTH = 40


def recording(name, mouse, seed=None, **options):
    rng = np.random.default_rng(zlib.crc32(name.encode()) if seed is None else seed)
    traces = rng.random((3, 40)).astype(np.float32)
    number = int(mouse[1:])
    labels = {"group": "ab"[number % 2], "age": str(number)}
    return Recording(traces, 5.0, name, mouse, "day", ("1", "2", "3"), labels=labels, **options)


def mice(count=6, recordings=2):
    return [recording(f"m{number}-{day}", f"m{number}") for number in range(count) for day in range(recordings)]


def windows_of(cohort, *, per_recording=60, signature=0.0, effect=0.0, session=0.0, seed=0, features=12):
    """Windows of random features, each recording's in ten windows' time, with what mice, sessions and groups add."""
    rng = np.random.default_rng(seed)
    of_mice = signature * rng.normal(size=(len(cohort.subjects), features))
    of_mice[:, 0] += effect * cohort.targets
    of_recordings = of_mice[cohort.recording_subjects]
    of_recordings = of_recordings + session * rng.normal(size=of_recordings.shape)
    places = np.repeat(np.arange(len(cohort.recording_ids)), per_recording)
    values = (of_recordings[places] + rng.normal(size=(len(places), features))).astype(np.float32)
    start = np.tile(np.arange(per_recording) % 10 * LENGTH, len(cohort.recording_ids))
    return WindowFeatures(values, places, cohort.recording_ids, start)


def cohort_of(count=10, recordings=2, **options):
    return make_cohort(mice(count, recordings), options.pop("label", "group"), **options)


def decoded(cohort, **options):
    return identity_decoding(windows_of(cohort, **options), cohort, logistic, LENGTH)


def test_folds_of_whole_animals_pass():
    cohort = make_cohort(mice(), "group")
    check_folds(mice(), cohort, leave_one_out(cohort))
    check_folds(mice(), cohort, stratified_folds(cohort, 3, 0))


def test_an_animal_on_both_sides_is_refused():
    cohort = make_cohort(mice(), "group")
    with pytest.raises(ValueError, match="expected no subject on both sides of a fold, got m1, m2; hold out"):
        check_folds(mice(), cohort, [Fold(np.array([0, 1, 2, 3]), np.array([1, 2, 4, 5]))])


@pytest.mark.parametrize(
    ("twins", "names"),
    [
        ([recording("x", "m0", seed=1), recording("y", "m1", seed=1)], "x, y, of subjects m0, m1"),
        ([recording("x", "m0"), recording("x", "m1", seed=3)], "x, x, of subjects m0, m1"),
        (
            [recording("x", "m0", source={"sha256": "5"}), recording("y", "m1", source={"sha256": "5"})],
            "x, y, of subjects m0, m1",
        ),
    ],
    ids=["the same traces", "the same name", "the same source"],
)
def test_the_same_data_under_two_animals_are_refused(twins, names):
    recordings = [*mice(), *twins]
    cohort = make_cohort(recordings, "group")
    with pytest.raises(ValueError, match=f"expected no data on both sides of a fold, got the same in {names}"):
        check_folds(recordings, cohort, leave_one_out(cohort))
    # On one side of every fold they are no leak.
    together = Fold(np.array([2, 3, 4, 5]), np.array([0, 1]))
    check_folds(recordings, cohort, [together])


def test_the_same_data_twice_of_one_animal_are_no_leak():
    recordings = [*mice(), recording("x", "m0", seed=1), recording("y", "m0", seed=1)]
    cohort = make_cohort(recordings, "group")
    check_folds(recordings, cohort, leave_one_out(cohort))


def test_animals_of_the_pretraining_are_named():
    cohort = make_cohort(mice(), "group")
    assert seen_in_pretraining(NeurtConfig(pretraining_subjects=["m4", "other", "m0"]), cohort) == ["m0", "m4"]
    assert seen_in_pretraining(NeurtConfig(), cohort) == []


def test_splitting_windows_looks_excellent_where_mice_have_signatures_and_groups_no_effect():
    cohort = cohort_of()
    studies = [windows_of(cohort, per_recording=20, signature=2, seed=seed) for seed in range(30)]
    found = [window_split_optimism(study, cohort, logistic, seed=seed) for seed, study in enumerate(studies)]
    assert min(one.random_windows for one in found) > 0.8
    assert np.mean([one.random_windows for one in found]) > 0.95
    # The standard deviation over studies of ten mice is about 0.23.
    assert np.mean([one.whole_animals for one in found]) == pytest.approx(0.5, abs=0.13)
    assert (found[0].num_windows, found[0].num_folds) == (20 * 20, 5)


def test_splitting_windows_is_not_optimistic_where_only_groups_differ():
    cohort = cohort_of()
    found = window_split_optimism(windows_of(cohort, effect=2), cohort, logistic)
    # Two normal distributions 2 SD apart: AUC = Φ(2 / √2) = 0.921.
    assert found.random_windows == pytest.approx(0.921, abs=0.03)
    assert found.whole_animals == pytest.approx(0.921, abs=0.03)


def test_splitting_windows_finds_nothing_where_there_is_nothing():
    cohort = cohort_of()
    found = window_split_optimism(windows_of(cohort), cohort, logistic)
    assert abs(found.random_windows - 0.5) < 0.06 and abs(found.whole_animals - 0.5) < 0.06


def test_more_classes_and_numbers_are_split_likewise():
    numbers = cohort_of(label="age", problem_type=REGRESSION)
    three = dataclasses.replace(cohort_of(9), targets=np.arange(9) % 3, class_names=("a", "b", "c"))
    for cohort, learner, num_folds in ((numbers, ridge, 5), (three, logistic, 3)):
        studies = [windows_of(cohort, per_recording=10, signature=3, seed=seed) for seed in range(20)]
        found = [window_split_optimism(study, cohort, learner) for study in studies]
        assert np.mean([one.random_windows for one in found]) > 0.8
        assert np.mean([one.whole_animals for one in found]) == pytest.approx(0.5, abs=0.15)
        assert {one.num_folds for one in found} == {num_folds}


def test_folds_whose_animals_all_have_one_number_are_passed_over():
    numbers = cohort_of(4, label="age", problem_type=REGRESSION)
    alike = dataclasses.replace(numbers, targets=np.array([1.0, 1, 1, 2]))
    assert 0 <= window_split_optimism(windows_of(alike, per_recording=10), alike, ridge).whole_animals <= 1


def test_at_most_4000_windows_are_looked_at_a_like_number_of_each_recording():
    cohort = cohort_of(4, 2)
    windows = windows_of(cohort, per_recording=1000, features=2)
    first = (windows.recording == 0) & (windows.start_frame > 0)
    kept = {name: getattr(windows, name)[~first] for name in ("values", "recording", "start_frame")}
    found = window_split_optimism(dataclasses.replace(windows, **kept), cohort, logistic)
    assert found.num_windows == 100 + 7 * 500


def test_animals_weigh_the_same_however_many_windows_they_have():
    cohort, given = cohort_of(4, 1), []
    windows = windows_of(cohort, per_recording=100)
    stays = (windows.recording > 0) | (windows.start_frame == 0)
    kept = {name: getattr(windows, name)[stays] for name in ("values", "recording", "start_frame")}

    def learner(features, targets, weights):
        given.append(weights)
        return logistic(features, targets, weights)

    window_split_optimism(dataclasses.replace(windows, **kept), cohort, learner)
    by_animal = sorted((np.unique(weights.round(9)).tolist() for weights in given[2:]), key=len)
    # Of the first mouse's 10 windows and another's 100 each weighs 55 / 10 or 55 / 100.
    assert by_animal == [[1], [0.55, 5.5]]


def test_mice_that_are_alike_are_told_apart_at_chance():
    found = decoded(cohort_of())
    assert [(one.group, one.subjects, one.chance, one.split_by) for one in found] == [
        ("a", 5, 0.2, RECORDINGS),
        ("b", 5, 0.2, RECORDINGS),
    ]
    assert np.mean([one.balanced_accuracy for one in found]) == pytest.approx(0.2, abs=0.06)


def test_a_signature_of_each_mouse_is_decoded_across_its_recordings():
    assert min(one.balanced_accuracy for one in decoded(cohort_of(), signature=2)) > 0.9


def test_what_is_of_the_session_alone_is_not_taken_for_the_mouse_where_it_has_several():
    several, single = decoded(cohort_of(), session=2), decoded(cohort_of(recordings=1), session=2)
    assert np.mean([one.balanced_accuracy for one in several]) < 0.5
    assert np.mean([one.balanced_accuracy for one in single]) > 0.9
    assert {one.split_by for one in single} == {HALVES}


def test_groups_are_of_no_help_in_telling_mice_apart():
    assert np.mean([one.balanced_accuracy for one in decoded(cohort_of(), effect=5)]) < 0.3


@pytest.mark.parametrize("stride", [7, LENGTH])
def test_the_halves_of_a_recording_share_no_frame(stride):
    cohort = cohort_of(4, 1)
    windows = windows_of(cohort, per_recording=20, features=1)
    start = np.tile(np.arange(20) * stride, 4)
    windows = dataclasses.replace(windows, values=start[:, None].astype(float), start_frame=start)
    seen = []

    def learner(features, targets, weights):
        def score(unseen):
            seen.append((features, unseen))
            return np.zeros((len(unseen), 2))

        return score

    identity_decoding(windows, cohort, learner, LENGTH)
    assert len(seen) == 2 * 2  # two groups, both ways round
    for fitted, tested in seen:
        assert np.abs(fitted - tested.T).min() >= LENGTH


def test_mice_without_windows_on_both_sides_are_left_out():
    cohort = cohort_of(6, 1)
    windows = windows_of(cohort, signature=2)
    stays = (windows.recording > 0) | (windows.start_frame == 0)
    kept = {name: getattr(windows, name)[stays] for name in ("values", "recording", "start_frame")}
    windows = dataclasses.replace(windows, **kept)
    first, second = identity_decoding(windows, cohort, logistic, LENGTH)
    assert (first.subjects, first.chance, second.subjects) == (2, 0.5, 3)
    nowhere = dataclasses.replace(windows, start_frame=np.zeros_like(windows.start_frame))
    assert all(np.isnan(one.balanced_accuracy) for one in identity_decoding(nowhere, cohort, logistic, LENGTH))


def test_numbers_are_decoded_as_one_group():
    cohort = cohort_of(4, label="age", problem_type=REGRESSION)
    (found,) = decoded(cohort, signature=2)
    assert (found.group, found.subjects) == ("all", 4) and found.balanced_accuracy > 0.8


def test_windows_of_other_recordings_are_refused():
    cohort = cohort_of()
    windows = dataclasses.replace(windows_of(cohort), recording_ids=tuple("x" * 20))
    for check in (
        lambda: window_split_optimism(windows, cohort, logistic),
        lambda: identity_decoding(windows, cohort, logistic, LENGTH),
    ):
        with pytest.raises(ValueError, match="expected windows of the cohort's recordings, got some of x"):
            check()
