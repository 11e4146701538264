"""Fine-tuning in folds: nothing of held-out animals, classes and animals balanced, interrupted and resumed."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from neurt.crossval import finetuning
from neurt.crossval.cohort import Cohort
from neurt.crossval.data import PROBE, StudyOptions, open_study_data
from neurt.crossval.finetuning import (
    RECIPES,
    BalancedWindows,
    Finetuned,
    Recipe,
    StudySource,
    finetune_fold,
    parse_recipe,
    stand_aside,
)
from neurt.crossval.folds import stratified_folds
from neurt.crossval.protocol import Scheme
from neurt.training.options import TrainingOptions

OPTIONS = StudyOptions("group", permutations=0, windows=6, finetune="default")
QUICK = Recipe(training=TrainingOptions(epochs=2, batch_size=8, learning_rate=1e-3, patience=1))


@pytest.fixture(scope="module")
def source(build, pretrained):
    return StudySource(build, pretrained, OPTIONS)


@pytest.fixture(scope="module")
def data(source):
    return open_study_data(source.build, source.model, source.options)


@pytest.fixture(scope="module")
def tuned(data, source, tmp_path_factory):
    return Finetuned(data, source, QUICK, tmp_path_factory.mktemp("folds"))


def cohort(targets, class_names=("a", "b")):
    targets = np.asarray(targets)
    names = tuple(f"m{i:02d}" for i in range(len(targets)))
    return Cohort(names, np.arange(len(targets)), names, targets, class_names, ("",) * len(targets))


def test_each_class_counts_the_same_and_within_it_each_animal():
    windows = [{"input_values": i} for i in range(100)]
    groups = [np.arange(0, 40), np.arange(40, 50), np.arange(50, 100)]
    balanced = BalancedWindows(windows, groups, np.array([0, 0, 1]), regression=False, seed=0)
    drawn = [balanced[i] for i in range(len(balanced))]
    animals = [int(np.searchsorted([40, 50, 100], window["input_values"], "right")) for window in drawn]
    assert np.bincount(animals).tolist() == [25, 25, 50]
    assert [window["labels"] for window in drawn] == [[0, 0, 1][animal] for animal in animals]
    # The animal with ten windows shows each two or three times, the one with forty none twice.
    assert np.bincount(balanced.rows)[40:50].tolist() == pytest.approx([2.5] * 10, abs=0.6)
    assert np.bincount(balanced.rows)[:40].max() == 1
    before = balanced.rows.copy()
    balanced.set_epoch(1)
    assert not np.array_equal(before, balanced.rows)
    balanced.set_epoch(0)
    np.testing.assert_array_equal(before, balanced.rows)


def test_a_fifth_of_each_class_stands_aside_where_three_can_be_spared():
    members = cohort([0] * 10 + [1] * 5)
    aside = stand_aside(members, np.arange(15), seed=0)
    assert members.targets[aside].tolist() == [0, 0, 1]
    assert not len(stand_aside(members, np.array([0, 1, 2, 10, 11]), seed=0))
    assert len(stand_aside(cohort(np.linspace(0, 1, 10), ()), np.arange(10), seed=0)) == 2


def test_held_out_animals_are_neither_trained_on_nor_choose_anything(data, source, tmp_path, monkeypatch):
    seen, fit = [], finetuning.fit

    def spy(model, groups, train, *rest, **options):
        seen.append({window["subject_id"] for window in map(train.__getitem__, range(len(train)))})
        return fit(model, groups, train, *rest, **options)

    monkeypatch.setattr(finetuning, "fit", spy)
    fold = stratified_folds(data.cohort, 3, 0)[0]
    found = finetune_fold(data, source.model, QUICK, data.cohort, fold, tmp_path / "fold")
    tested = {data.cohort.subjects[subject] for subject in fold.test}
    assert seen[0] == {data.cohort.subjects[subject] for subject in fold.train}
    owners = {data.recordings[row].subject_id for row in data.window_recordings[found.rows]}
    assert owners == tested and found.logits.shape == (6 * 2 * 2, 2)
    assert not found.logits[:, 0].any() and found.logits[:, 1].std() > 0


def test_labels_of_held_out_animals_change_no_score(data, source, tmp_path):
    fold = stratified_folds(data.cohort, 3, 0)[0]
    other = data.cohort.targets.copy()
    other[fold.test] = 1 - other[fold.test]
    found = [
        finetune_fold(data, source.model, QUICK, data.cohort.with_targets(targets), fold, tmp_path / str(i)).logits
        for i, targets in enumerate((data.cohort.targets, other))
    ]
    np.testing.assert_array_equal(*found)


def test_scores_of_recordings_are_means_over_their_windows_and_levels_agree(data, tuned):
    scheme = Scheme("stratified", 3)
    found = tuned.score_folds(data.cohort, scheme.make(data.cohort))
    windows = tuned.window_logits(data.cohort, scheme)
    for fold in found:
        for row, scores in zip(fold.rows, fold.scores, strict=True):
            np.testing.assert_allclose(scores, windows[data.window_recordings == row].mean(axis=0))
    # Two animals of a class are left to train on, too few for any to stand aside.
    np.testing.assert_allclose(tuned.calibrated(data.cohort, scheme)[found[0].rows], found[0].scores)


def test_a_fold_that_was_made_is_not_made_again_and_another_labelling_is(data, tuned, monkeypatch, tmp_path):
    folds = Scheme("stratified", 3).make(data.cohort)
    first = tuned.score_folds(data.cohort, folds)

    def interrupted(*_):
        raise InterruptedError

    monkeypatch.setattr(finetuning, "finetune_fold", interrupted)
    again = tuned.score_folds(data.cohort, folds)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)
    with pytest.raises(InterruptedError):
        tuned.score_folds(data.cohort.with_targets(1 - data.cohort.targets), folds)
    with pytest.raises(InterruptedError):
        dataclasses.replace(tuned, recipe=Recipe()).score_folds(data.cohort, folds)
    fewer = dataclasses.replace(OPTIONS, left_out=data.cohort.recording_ids[:1])
    with pytest.raises(InterruptedError):
        of_source(tuned, options=fewer).score_folds(data.cohort, folds)
    # The same weights, but windows that are cut otherwise.
    other = shutil.copytree(tuned.source.model, tmp_path / "model", ignore=shutil.ignore_patterns("training"))
    settings = json.loads((other / "processor_config.json").read_text())
    (other / "processor_config.json").write_text(json.dumps(settings | {"normalization": "zscore"}))
    with pytest.raises(InterruptedError):
        of_source(tuned, model=other).score_folds(data.cohort, folds)


def of_source(tuned, **changes):
    return dataclasses.replace(tuned, source=dataclasses.replace(tuned.source, **changes))


def test_folds_in_processes_of_their_own_give_the_same_scores(data, source, tuned, tmp_path):
    folds = Scheme("stratified", 3).make(data.cohort)[:2]
    apart = Finetuned(data, source, QUICK, tmp_path, jobs=2).score_folds(data.cohort, folds)
    together = tuned.score_folds(data.cohort, folds)
    for one, other in zip(apart, together, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".npz", ".npz"]


def test_numbers_are_predicted_in_their_own_unit(data, source, tmp_path):
    ages = cohort(np.array([100.0, 120, 140, 160, 180, 200]), ())
    numbers = dataclasses.replace(data.cohort, targets=ages.targets, class_names=())
    found = finetune_fold(data, source.model, QUICK, numbers, stratified_folds(numbers, 3, 0)[0], tmp_path / "fold")
    assert found.logits.ndim == 1 and (np.abs(found.logits - 150) < 60).all()


def test_the_original_recipe_has_its_learning_rates():
    recipe = parse_recipe("original")
    assert recipe.training.learning_rate == recipe.head_learning_rate == 1e-6
    assert (recipe.training.batch_size, recipe.layer_decay) == (256, 0.9)
    with pytest.raises(ValueError, match="expected a recipe among default, original, got 'mine'"):
        parse_recipe("mine")


def test_a_study_with_fine_tuning_puts_it_first_and_keeps_its_folds(neurt, build, pretrained, tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, "default", QUICK)
    words = [
        "--label",
        "group",
        "--model",
        pretrained,
        "--finetune",
        "default",
        "--permutations",
        "3",
        "--windows",
        "6",
    ]
    code, out, err = neurt("crossval", build, *words, "--output", tmp_path / "out")
    assert code == 0, err
    found = json.loads((tmp_path / "out/results.json").read_text())
    assert list(found["predictors"])[:2] == ["NEuRT, fine-tuned", PROBE]
    assert found["options"]["scheme"] == "3 stratified folds, seed 0"
    assert "p_value" not in found["predictors"]["NEuRT, fine-tuned"] and "p_value" in found["predictors"][PROBE]
    assert len(list((tmp_path / "out.folds").glob("*.npz"))) == 3
