"""Splits: whole animals on one side, the same share of each class, the same draw for the same seed."""

import hashlib
import json

import numpy as np
import pytest
from neurt.dataset_scripts.recording import Recording
from neurt.splits import Split, check_disjoint, group_of, split_recordings


def recording(subject, session=1, group=None, **labels):
    labels = labels if group is None else {**labels, "group": group}
    name = f"{subject}_ses-{session}"
    traces = np.zeros((1, 2), dtype=np.float32)
    return Recording(traces, 5.0, f"{name}_field-0", subject, name, roi_ids=("0",), labels=labels)


def cohort(count, sessions=2, prefix="m", **options):
    return [recording(f"{prefix}{i:02}", s, **options) for i in range(count) for s in range(1, sessions + 1)]


def two_groups(first=10, second=5):
    return cohort(first, prefix="wt", group="wild type") + cohort(second, prefix="ad", group="5xFAD")


def parts(split):
    return [split.train, split.validation, split.test]


@pytest.mark.parametrize("seed", range(5))
def test_every_animal_stands_on_one_side_and_none_is_lost(seed):
    recordings = cohort(10)
    split = split_recordings(recordings, test_fraction=0.3, validation_fraction=0.3, seed=seed)
    assert [len(part) for part in parts(split)] == [5, 2, 3]  # 3 of 10, then 0.3 of 7
    assert sorted(sum(parts(split), ())) == [f"m{i:02}" for i in range(10)]
    sides = [split.recordings(recordings, name) for name in ("train", "validation", "test")]
    assert [len(side) for side in sides] == [10, 4, 6]
    for side, ids in zip(sides, parts(split), strict=True):
        assert {item.subject_id for item in side} == set(ids)
    check_disjoint(sides[0] + sides[1], sides[2])


@pytest.mark.parametrize("seed", range(5))
def test_the_same_share_of_each_class_is_drawn(seed):
    split = split_recordings(two_groups(), test_fraction=0.2, validation_fraction=0.25, label="group", seed=seed)
    counts = [[sum(name.startswith(group) for name in part) for group in ("wt", "ad")] for part in parts(split)]
    assert counts == [[6, 3], [2, 1], [2, 1]]


def test_the_share_is_rounded_to_whole_animals():
    assert [len(split_recordings(cohort(9), test_fraction=share).test) for share in (0.15, 0.18, 0.3)] == [1, 2, 3]


def test_at_least_one_animal_of_each_class_is_drawn():
    split = split_recordings(two_groups(10, 2), test_fraction=0.1, label="group")
    assert [name[:2] for name in split.test] == ["ad", "wt"]


def test_a_draw_depends_on_the_seed_and_not_on_the_order_of_recordings():
    recordings = two_groups()
    options = {"test_fraction": 0.4, "validation_fraction": 0.4, "label": "group"}
    draws = [split_recordings(recordings, seed=seed, **options) for seed in range(10)]
    assert draws == [split_recordings(recordings[::-1], seed=seed, **options) for seed in range(10)]
    assert len({draw.test for draw in draws}) > 5
    assert len({draw.validation for draw in draws}) > 5


def test_named_animals_are_held_out_whatever_the_fraction_and_the_seed():
    splits = [
        split_recordings(cohort(6), test=("m04", "m01", "m04"), test_fraction=0.9, seed=seed) for seed in range(3)
    ]
    assert set(splits) == {Split("subject", ("m00", "m02", "m03", "m05"), (), ("m01", "m04"))}


def test_an_animal_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ValueError, match="subjects to hold out among m00, m01, got m1, m7"):
        split_recordings(cohort(2), test=("m00", "m7", "m1"))


def test_one_animal_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match="one to test on, got 1 in all, 1 for the test .*; split by session"):
        split_recordings(cohort(1))


def test_two_animals_leave_none_to_train_on_beside_a_validation():
    message = "got 2 in all, 1 for the test and 1 for validation; hold out fewer"
    with pytest.raises(ValueError, match=message):
        split_recordings(cohort(2), validation_fraction=0.1)
    assert len(split_recordings(cohort(2)).train) == 1


def test_no_recordings_are_refused():
    with pytest.raises(ValueError, match="got 0 in all"):
        split_recordings([])


def test_holding_out_every_animal_is_refused():
    with pytest.raises(ValueError, match="got 2 in all, 2 for the test and 0 for validation; hold out fewer"):
        split_recordings(cohort(2), test=("m00", "m01"))


def test_sessions_of_one_animal_are_split():
    recordings = cohort(1, sessions=4)
    split = split_recordings(recordings, by="session", test=("m00_ses-2",), validation_fraction=0.3)
    assert split.by == "session"
    assert split.test == ("m00_ses-2",)
    assert sorted(sum(parts(split), ())) == [f"m00_ses-{i}" for i in range(1, 5)]
    assert [item.session_id for item in split.recordings(recordings, "test")] == ["m00_ses-2"]
    assert {group_of(item, "subject") for item in recordings} == {"m00"}


def test_one_session_is_refused_without_advice_to_split_by_session():
    with pytest.raises(ValueError, match="at least one session to train on .*; hold out fewer"):
        split_recordings(cohort(1, sessions=1), by="session")


def test_fields_of_one_session_stay_together():
    recordings = [recording("m00", session) for session in (1, 1, 2, 2, 3)]
    split = split_recordings(recordings, by="session", test=("m00_ses-1",))
    assert len(split.recordings(recordings, "test")) == 2
    assert len(split.recordings(recordings, "train")) == 3


def test_an_unknown_unit_to_split_by_is_refused():
    with pytest.raises(ValueError, match="split by subject or session, got 'window'"):
        split_recordings(cohort(3), by="window")


def test_an_animal_with_two_classes_is_refused():
    recordings = [*two_groups(), recording("wt03", 9, group="5xFAD")]
    with pytest.raises(ValueError, match="one group for each subject, got 'wild type' and '5xFAD' for 'wt03'"):
        split_recordings(recordings, label="group")
    assert split_recordings(recordings)


def test_a_recording_without_the_label_is_refused_by_name():
    recordings = [*two_groups(), recording("m7", 1, sex="f")]
    with pytest.raises(ValueError, match="recording 'm7_ses-1_field-0': expected a label 'group', got labels: sex"):
        split_recordings(recordings, label="group")


def test_an_animal_on_both_sides_is_refused_by_name():
    train, test = cohort(3), [recording("m01", 5), recording("m02", 6), recording("m09")]
    with pytest.raises(ValueError, match="no subject in both .*, got m01, m02; hold out whole animals"):
        check_disjoint(train, test)
    check_disjoint(train, test[2:])


def test_sessions_of_one_animal_on_both_sides_are_the_same_subject():
    recordings = cohort(1, sessions=2)
    with pytest.raises(ValueError, match="got m00"):
        check_disjoint(recordings[:1], recordings[1:])


def test_the_digest_is_that_of_the_ids_and_survives_json():
    split = Split("subject", ("a", "b"), (), ("c",))
    text = '{"by": "subject", "train": ["a", "b"], "validation": [], "test": ["c"]}'
    stored = json.loads(json.dumps(split.to_dict()))
    assert stored == {**json.loads(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    # Results that were published name their split by it: it must never change.
    assert stored["sha256"].startswith("08f9b542c99367aa")


def test_the_digest_tells_parts_apart():
    digests = {
        Split(by, train, validation, test).to_dict()["sha256"]
        for by in ("subject", "session")
        for train, validation, test in [
            (("a", "b"), (), ("c",)),
            (("a",), ("b",), ("c",)),
            (("a",), (), ("b", "c")),
            (("a", "b", "c"), (), ()),
        ]
    }
    assert len(digests) == 8
