"""Cohorts read off recordings, and folds that never split an animal."""

import itertools

import numpy as np
import pytest
from neurt.crossval.cohort import REGRESSION, make_cohort
from neurt.crossval.folds import leave_one_out, leave_pair_out, stratified_folds
from neurt.dataset_scripts.recording import Recording


def recording(number, subject, **labels):
    traces = np.random.default_rng(number).random((3, 40)).astype(np.float32)
    return Recording(traces, 5.0, f"r{number}", subject, "day", ("1", "2", "3"), labels=labels)


def mice(**genotypes):
    """Two recordings of each mouse."""
    return [
        recording(2 * place + day, mouse, genotype=genotype, cage="AB"[place % 2])
        for place, (mouse, genotype) in enumerate(genotypes.items())
        for day in (0, 1)
    ]


def cohort(**options):
    return make_cohort(mice(d="tg", a="wt", c="tg", b="wt", e="wt"), "genotype", **options)


def test_animals_are_sorted_and_recordings_point_to_them():
    found = cohort(stratum="cage")
    assert found.subjects == ("a", "b", "c", "d", "e") and found.class_names == ("tg", "wt")
    assert found.targets.tolist() == [1, 1, 0, 0, 1]
    assert found.recording_subjects.tolist() == [3, 3, 0, 0, 2, 2, 1, 1, 4, 4]
    assert found.recording_targets.tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 1, 1]
    assert found.strata == ("B", "B", "A", "A", "A")
    assert found.rows_of(np.array([0, 4])).tolist() == [2, 3, 8, 9]


def test_groups_are_the_animals_of_each_class_or_all():
    found = cohort()
    assert {name: members.tolist() for name, members in found.groups.items()} == {
        "tg": [False, False, True, True, False],
        "wt": [True, True, False, False, True],
    }
    numbers = make_cohort(mice(a="1", b="2"), "genotype", problem_type=REGRESSION)
    assert {name: members.tolist() for name, members in numbers.groups.items()} == {"all": [True, True]}


def test_other_labels_change_the_targets_alone():
    changed = cohort().with_targets(np.array([0, 1, 0, 1, 0]))
    assert changed.recording_targets.tolist() == [1, 1, 0, 0, 0, 0, 1, 1, 0, 0]
    assert changed.subjects == cohort().subjects


def test_some_animals_keep_their_recordings_and_labels():
    whole = cohort(stratum="cage")
    some = whole.only(np.array([1, 3]))
    assert some.subjects == ("b", "d") and some.targets.tolist() == [1, 0] and some.strata == ("B", "A")
    assert some.recording_ids == ("r0", "r1", "r6", "r7") and some.recording_subjects.tolist() == [1, 1, 0, 0]


def test_a_number_is_a_target_on_request():
    ages = [recording(i, mouse, age=age) for i, (mouse, age) in enumerate({"a": "3.5", "b": "10", "c": "7"}.items())]
    found = make_cohort(ages, "age", problem_type=REGRESSION)
    assert found.targets.tolist() == [3.5, 10, 7] and not found.class_names
    with pytest.raises(ValueError, match="expected different numbers as age, got 7 of every subject"):
        make_cohort([recording(i, mouse, age=7) for i, mouse in enumerate("abcd")], "age", problem_type=REGRESSION)
    with pytest.raises(ValueError, match="expected numbers as genotype, got 'tg'"):
        make_cohort(mice(a="tg", b="wt"), "genotype", problem_type=REGRESSION)


def test_an_animal_with_two_labels_and_a_class_of_one_animal_are_refused():
    with pytest.raises(ValueError, match="expected one genotype for each subject, got 'wt' and 'tg' for 'a'"):
        make_cohort([recording(0, "a", genotype="wt"), recording(1, "a", genotype="tg")], "genotype")
    with pytest.raises(ValueError, match="got 1 of tg, 2 of wt"):
        make_cohort(mice(a="wt", b="wt", c="tg"), "genotype")
    with pytest.raises(ValueError, match="expected a label 'diet', got labels: genotype, cage"):
        make_cohort(mice(a="wt", b="wt"), "diet")


@pytest.mark.parametrize("folds", [leave_one_out, leave_pair_out, lambda c: stratified_folds(c, 2, 0)])
def test_every_animal_is_on_one_side_of_each_fold(folds):
    found = folds(cohort())
    for fold in found:
        assert sorted([*fold.train, *fold.test]) == [0, 1, 2, 3, 4]
    assert set(np.concatenate([fold.test for fold in found])) == {0, 1, 2, 3, 4}


def test_leave_one_out_holds_out_each_and_leave_pair_out_each_pair_of_two_classes():
    assert [fold.test.tolist() for fold in leave_one_out(cohort())] == [[0], [1], [2], [3], [4]]
    pairs = [fold.test.tolist() for fold in leave_pair_out(cohort())]
    assert pairs == [[0, 2], [1, 2], [2, 4], [0, 3], [1, 3], [3, 4]]


def test_stratified_folds_hold_all_classes_and_depend_on_the_seed():
    tests = [[fold.test.tolist() for fold in stratified_folds(cohort(), 2, seed)] for seed in range(6)]
    for folds in tests:
        assert all(set(cohort().targets[test]) == {0, 1} for test in folds)
    assert len({str(folds) for folds in tests}) > 1
    with pytest.raises(ValueError, match="expected from 2 to 2 folds, as many as the rarest class has subjects"):
        stratified_folds(cohort(), 3, 0)


def test_each_fold_of_numbers_holds_small_and_large_ones():
    ages = [recording(i, f"m{i}", age=age) for i, age in enumerate([9, 2, 7, 1, 8, 3, 6, 4, 5, 10])]
    found = make_cohort(ages, "age", problem_type=REGRESSION)
    for seed in range(5):
        tests = [set(found.targets[fold.test].tolist()) for fold in stratified_folds(found, 3, seed)]
        # Ranks 1 to 3, 4 to 6, and the rest: one of each of the first two for each fold.
        assert all(len(test & {1, 2, 3}) == len(test & {4, 5, 6}) == 1 for test in tests)
        assert sorted(len(test & {7, 8, 9, 10}) for test in tests) == [1, 1, 2]
    with pytest.raises(ValueError, match="expected from 2 to 5 folds, half as many as there are subjects, got 6"):
        stratified_folds(found, 6, 0)


@pytest.mark.parametrize("ages", [(3, 3, 9, 9), (1, 1, 1, 2, 2, 2), (1, 1, 1, 1, 1, 1, 2)])
def test_tied_numbers_can_be_compared_however_they_are_dealt_out(ages):
    mice_of = [recording(i, f"m{i}", age=age) for i, age in enumerate(ages)]
    found = make_cohort(mice_of, "age", problem_type=REGRESSION)
    for order in set(itertools.permutations(found.targets)):
        folds = stratified_folds(found.with_targets(np.array(order)), len(ages) // 2, 0)
        assert any(len({order[place] for place in fold.test}) > 1 for fold in folds)
