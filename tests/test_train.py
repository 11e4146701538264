"""Pretraining and fine-tuning: nothing half-written, nobody tested who was trained on, everything written down."""

import dataclasses
import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from neurt import (
    MaskedSignalCollator,
    NeurtConfig,
    NeurtForMaskedSignalModeling,
    NeurtForSequenceClassification,
    NeurtProcessor,
)
from neurt.dataset_scripts.parquet_build import read_build, write_build
from neurt.masking import PRETRAINING_TASKS
from neurt.splits import split_recordings
from neurt.train import (
    FinetuneOptions,
    SplitOptions,
    TrainingOptions,
    finetune,
    pretrain,
    pretraining_model,
    window_processor,
)
from neurt.training.checkpoints import last_checkpoint
from safetensors.torch import load_file
from tiny_training import HELD_OUT, Interrupted, assert_same_weights, interrupt_after, results


@pytest.fixture
def tiny_finetune(build, pretrained):
    """Fine-tune the tiny pretrained model for an epoch."""

    def train(output, build=build, label="group", **overrides):
        options = TrainingOptions(**{"epochs": 1, "batch_size": 32, **overrides.pop("options", {})})
        split = overrides.pop("split", SplitOptions(test=HELD_OUT))
        finetuning = FinetuneOptions(label, **overrides.pop("finetuning", {}))
        overrides = {"model": pretrained, **overrides}
        return finetune(build, output, finetuning=finetuning, split=split, options=options, **overrides)

    return train


def test_a_fine_tuning_that_was_interrupted_goes_on_as_if_it_had_not_been(tmp_path, tiny_finetune, monkeypatch):
    options = {"epochs": 2, "checkpoint_every": 1}
    tiny_finetune(tmp_path / "whole", options=options)
    with monkeypatch.context() as context, pytest.raises(Interrupted):
        interrupt_after(context, 4)
        tiny_finetune(tmp_path / "cut", options=options)
    tiny_finetune(tmp_path / "cut", options=options, resume=True)
    assert_same_weights(tmp_path / "cut", tmp_path / "whole")
    cut, whole = results(tmp_path / "cut"), results(tmp_path / "whole")
    assert cut.pop("training_hours") is None and 0 < whole.pop("training_hours") < 1
    assert cut == whole


def test_training_and_validation_hide_what_the_tasks_say_and_the_test_hides_spans(
    tmp_path, tiny_pretrain, monkeypatch
):
    hidden, collate = [], MaskedSignalCollator.__call__

    def spy(self, windows):
        batch = collate(self, windows)
        masks = [mask.numpy().tobytes() for mask in batch["bool_masked_pos"]]
        places = zip(batch["recording_id"], batch["roi_id"], batch["start_frame"].tolist(), strict=True)
        hidden.extend(zip(places, batch["mask_task"], masks, strict=True))
        return batch

    monkeypatch.setattr(MaskedSignalCollator, "__call__", spy)
    monkeypatch.setattr("neurt.train.measure_reference", lambda *args, **options: None)  # hides spans everywhere
    split = SplitOptions(test=HELD_OUT, validation_fraction=0.1)
    options = TrainingOptions(epochs=2, batch_size=32)
    found = tiny_pretrain(tmp_path, tasks={"neuron": 1, "far": 3}, split=split, options=options)
    assert found["settings"]["pretraining"] == {"tasks": {"neuron": 1, "far": 3}}
    (validated,) = found["split"]["validation"]
    tasks = {name: {task for (each, *_), task, _ in hidden if each == name} for (name, *_), *_ in hidden}
    assert all(tasks[name] == ({"span"} if name.startswith(HELD_OUT) else {"neuron", "far"}) for name in tasks)
    assert len(tasks) == 12
    # Twice the same, for the validation losses of two epochs are compared.
    validation = [entry for entry in hidden if entry[0][0].startswith(validated)]
    assert len(validation) == 2 * len(set(validation)) > 0


@pytest.mark.parametrize(("subject", "loss"), [("sim001", "training"), ("sim003", "validation")])
def test_a_loss_that_is_not_finite_names_the_recording_and_leaves_the_last_checkpoint(
    tmp_path, rebuild, tiny_pretrain, subject, loss
):
    def deafen(recording):
        if recording.recording_id != f"{subject}_ses-2_field-1":
            return recording
        # Finite, but its squares are not.
        return replace(recording, traces=recording.traces * np.float32(1e25))

    split = SplitOptions(test=HELD_OUT, validation_fraction=0.1)
    processor = NeurtProcessor(window_length=40, normalization="none")
    options = TrainingOptions(epochs=1, batch_size=1, checkpoint_every=1)
    message = (
        rf"finite {loss} loss, got (inf|nan) from \d+ windows of the batch \(recording {subject}_ses-2_field-1 ROI"
    )
    with pytest.raises(FloatingPointError, match=message):
        tiny_pretrain(
            tmp_path / "run",
            build=rebuild(tmp_path / "build", deafen),
            split=split,
            processor=processor,
            options=options,
        )
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["training"]
    checkpoint = last_checkpoint(tmp_path / "run" / "training")
    assert all(weights.isfinite().all() for weights in load_file(checkpoint / "model.safetensors").values())


def test_a_run_is_not_resumed_with_other_animals_held_out(tmp_path, tiny_pretrain, monkeypatch):
    monkeypatch.setattr("neurt.train.evaluate_reconstruction", None)  # fails after training, before the release
    with pytest.raises(TypeError):
        tiny_pretrain(tmp_path)
    with pytest.raises(ValueError, match="got model.pretraining_subjects .*'sim005', 'sim006'.* instead of"):
        tiny_pretrain(tmp_path, split=SplitOptions(test=("sim001",)), resume=True)


def test_a_pretrained_folder_holds_weights_code_processor_results_and_summary(pretrained):
    names = {path.name for path in pretrained.iterdir()}
    code = {path.name for path in pretrained.glob("*.py")}
    model = {"config.json", "model.safetensors", "processor_config.json", "reconstruction_errors.json", *code}
    assert code >= {"configuration_neurt.py", "modeling_neurt.py", "processing_neurt.py"}
    assert names == model | {"README.md", "results.json", "summary.md", "reconstruction.png", "training"}
    summary = (pretrained / "summary.md").read_text()
    assert "simulated" in summary and "linear interpolation" in summary
    assert all(f"- {name}" in summary for name in names - {"training"})
    processor = NeurtProcessor.from_pretrained(pretrained)
    assert (processor.window_length, processor.sampling_rate, processor.trace_kind) == (40, 5.0, "fluorescence")


def test_a_pretraining_says_how_well_it_reconstructs_recordings_and_a_fine_tuning_passes_it_on(
    tmp_path, pretrained, classifier, tiny_finetune
):
    said = json.loads((pretrained / "reconstruction_errors.json").read_text())
    # Few were held out, so those of the three training animals are among them.
    assert said["measured_on"] == {
        "held_out_recordings": 4,
        "training_recordings": 6,
        "simulated": True,
        "seed": 0,
    }
    assert len(said["errors"]) == 10 and min(said["errors"]) > 0
    assert json.loads((classifier / "reconstruction_errors.json").read_text()) == said
    bare = shutil.copytree(pretrained, tmp_path / "bare", ignore=shutil.ignore_patterns("training", "*errors.json"))
    tiny_finetune(tmp_path / "model", model=bare)
    assert not (tmp_path / "model/reconstruction_errors.json").exists()


def test_results_hold_the_split_and_its_hash_the_settings_and_the_scores_beside_baselines(pretrained):
    found = results(pretrained)
    split = {"by": "subject", "train": ["sim001", "sim002", "sim004"], "validation": ["sim003"], "test": [*HELD_OUT]}
    digest = hashlib.sha256(json.dumps(split).encode()).hexdigest()
    assert found["split"] == {**split, "sha256": digest}
    assert found["settings"]["training"]["batch_size"] == 32 and found["settings"]["missing_neighbours"] == "error"
    predictors = {row["predictor"] for row in found["reconstruction"]["rows"]}
    assert predictors == {"model", "linear interpolation", "window mean"}
    assert found["simulated"] is True and found["reconstruction"]["measured_on"]["simulated"] is True
    assert found["reconstruction"]["measured_on"]["subjects"] == [*HELD_OUT]
    assert [entry["epoch"] for entry in found["log"]] == [1, 2]
    assert found["settings"]["pretraining"] == {"tasks": PRETRAINING_TASKS}
    assert found["skipped"] == {} and found["seen_in_training"] == []
    # 116 frames give two windows of 40 and one of 36, of each of 8 neurons in 12 recordings but for those dropped.
    assert set(found["unused_frames"].values()) == {0} and len(found["unused_frames"]) == 12
    num_dropped = sum(sum(reasons.values()) for reasons in found["dropped"].values())
    assert sum(found["padded_windows"].values()) == 12 * 8 - num_dropped
    assert found["padded_windows"].keys() == {"train", "validation", "test"}


def test_the_released_weights_are_the_best_by_validation(pretrained):
    best = min(results(pretrained)["log"], key=lambda entry: entry["validation_loss"])
    assert_same_weights(pretrained, pretrained / "training" / f"best-{best['step']}")


def test_without_validation_the_last_weights_are_released(classifier):
    last = results(classifier)["log"][-1]
    assert "validation_loss" not in last
    assert_same_weights(classifier, classifier / "training" / f"step-{last['step']}")


def test_the_animals_of_training_and_validation_are_stored_with_the_model(pretrained, classifier):
    seen = ["sim001", "sim002", "sim003", "sim004"]
    assert NeurtConfig.from_pretrained(pretrained).pretraining_subjects == seen
    assert NeurtConfig.from_pretrained(classifier).pretraining_subjects == seen


def test_split_by_session_the_animals_are_stored_and_not_the_sessions(tmp_path, tiny_pretrain):
    split = SplitOptions(split_by="session", test=("sim001_ses-1",), allow_shared_subjects=True)
    found = tiny_pretrain(tmp_path, split=split)
    subjects = NeurtConfig.from_pretrained(tmp_path).pretraining_subjects
    assert subjects == [f"sim00{number}" for number in range(1, 7)]
    assert found["seen_in_training"] == ["sim001"]
    assert "| tested although seen in training | 1 | sim001 |" in (tmp_path / "summary.md").read_text()


def test_an_animal_seen_in_an_earlier_training_is_named_when_it_is_tested(tmp_path, pretrained, tiny_finetune):
    found = tiny_finetune(tmp_path, split=SplitOptions(test=("sim001", "sim006")))
    assert found["seen_in_training"] == ["sim001"]
    further = pretraining_model(pretrained)
    assert further.config.pretraining_subjects == ["sim001", "sim002", "sim003", "sim004"]


def test_a_subject_on_both_sides_is_refused_before_anything_is_written(tmp_path, tiny_pretrain):
    split = SplitOptions(split_by="session", test=("sim001_ses-1",))
    with pytest.raises(ValueError, match="no subject in both training and test recordings, got sim001"):
        tiny_pretrain(tmp_path / "model", split=split)
    assert not (tmp_path / "model").exists()


def test_a_subject_that_chooses_the_weights_must_not_be_tested_either(tmp_path, build, rebuild, tiny_pretrain):
    kept = ("sim001_ses-1_field-1", "sim005_ses-1_field-1", "sim005_ses-2_field-1")
    small = rebuild(tmp_path / "build", lambda recording: recording if recording.recording_id in kept else None)
    options = {"by": "session", "test": ("sim005_ses-1",), "validation_fraction": 0.5}
    splits = {seed: split_recordings(list(read_build(small)), seed=seed, **options) for seed in range(20)}
    seed = next(seed for seed, split in splits.items() if split.validation == ("sim005_ses-2",))
    with pytest.raises(ValueError, match="both training and test recordings, got sim005"):
        tiny_pretrain(
            tmp_path / "model",
            build=small,
            split=SplitOptions(split_by="session", test=("sim005_ses-1",), validation_fraction=0.5),
            options=TrainingOptions(batch_size=8, seed=seed),
        )


def test_an_output_folder_with_a_model_is_refused_and_left_alone(tmp_path, tiny_pretrain, pretrained, tiny_finetune):
    before = {path: path.stat().st_mtime_ns for path in pretrained.rglob("*")}
    for train in (tiny_pretrain, tiny_finetune):
        with pytest.raises(ValueError, match="expected an output folder without a model"):
            train(pretrained)
    assert {path: path.stat().st_mtime_ns for path in pretrained.rglob("*")} == before


def test_one_class_only_is_refused(tmp_path, rebuild, tiny_finetune):
    control = rebuild(tmp_path / "build", lambda each: each if each.labels["group"] == "control" else None)
    with pytest.raises(ValueError, match="at least two classes of 'group' to train on, got control"):
        tiny_finetune(tmp_path / "model", build=control, split=SplitOptions(test=("sim005",)))


def test_a_class_that_stands_in_the_test_only_is_refused(tmp_path, tiny_finetune):
    with pytest.raises(ValueError, match="at least two classes of 'group' to train on, got control"):
        tiny_finetune(tmp_path / "model", split=SplitOptions(test=("sim002", "sim004", "sim006")))


def test_a_label_that_is_nowhere_or_missing_somewhere_is_refused(tmp_path, rebuild, tiny_finetune):
    with pytest.raises(ValueError, match="expected a label 'genotype', got labels: group"):
        tiny_finetune(tmp_path / "model", label="genotype")

    def unlabel(recording):
        return replace(recording, labels={}) if recording.subject_id == "sim003" else recording

    partly = rebuild(tmp_path / "build", unlabel)
    with pytest.raises(ValueError, match=r"recording 'sim003_ses-1_field-1': expected a label 'group'"):
        tiny_finetune(tmp_path / "model", build=partly)
    assert not (tmp_path / "model").exists()


def test_windows_longer_than_the_model_has_positions_for_are_refused(tmp_path, tiny_pretrain, tiny_finetune):
    for train in (tiny_pretrain, tiny_finetune):
        with pytest.raises(ValueError, match="windows of at most 40 frames for this model, got 50"):
            train(tmp_path / "model", processor=NeurtProcessor(window_length=50))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("freeze", "frozen"), [("none", "nothing"), ("embeddings", "neurt.embeddings."), ("encoder", "neurt.")]
)
def test_frozen_weights_stay_bit_for_bit_and_the_others_learn(tmp_path, pretrained, tiny_finetune, freeze, frozen):
    tiny_finetune(tmp_path, finetuning={"freeze": freeze}, options={"learning_rate": 1e-2})
    before, after = load_file(pretrained / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    encoder = [name for name in after if name.startswith("neurt.")]
    assert len(encoder) > 30
    for name in encoder:
        assert torch.equal(before[name], after[name]) == name.startswith(frozen), name
    assert after["classifier.weight"].abs().sum() > 0


def test_bf16_fine_tuning_runs_and_its_folder_opens_with_the_names_of_the_classes(tmp_path, tiny_finetune):
    tiny_finetune(tmp_path, options={"mixed_precision": "bf16"})
    model = NeurtForSequenceClassification.from_pretrained(tmp_path)
    assert (tmp_path / "pipeline_neurt.py").is_file()
    assert model.config.id2label == {0: "control", 1: "planted"}
    assert model.config.label2id == {"control": 0, "planted": 1}
    assert model.dtype == torch.float32
    rows = {row["level"]: row["n"] for row in results(tmp_path)["classification"]["rows"]}
    assert rows["subject"] == 2 and rows["recording"] == 4


def test_a_new_head_is_drawn_from_the_seed(tmp_path, tiny_finetune):
    torch.manual_seed(1)
    tiny_finetune(tmp_path / "1")
    torch.manual_seed(2)
    tiny_finetune(tmp_path / "2")
    assert_same_weights(tmp_path / "1", tmp_path / "2")


def test_a_new_model_is_drawn_from_the_seed(config_file):
    first, second = (pretraining_model(config=config_file, seed=seed).neurt.state_dict() for seed in (0, 0))
    third = pretraining_model(config=config_file, seed=1).neurt.state_dict()
    name = "layers.0.mlp.fc1.weight"
    assert torch.equal(first[name], second[name]) and not torch.equal(first[name], third[name])


def test_a_default_model_has_positions_for_one_window():
    model = pretraining_model(window_length=64)
    assert model.config.max_position_embeddings == 64 and isinstance(model, NeurtForMaskedSignalModeling)


def test_training_goes_on_with_windows_cut_as_the_model_is_used_to(tmp_path, pretrained):
    NeurtProcessor(window_length=40, window_stride=20, normalization="zscore").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes((pretrained / "config.json").read_bytes())
    processor = window_processor(tmp_path)
    assert (processor.normalization, processor.window_length, processor.window_stride) == ("zscore", 40, 40)
    assert window_processor(tmp_path, window_stride=8).window_stride == 8
    assert window_processor().window_length == 128
    other = window_processor(neighbour_radius=50.0, radius_unit="um", normalization="zscore")
    assert (other.neighbour_radius, other.radius_unit, other.normalization) == (50.0, "um", "zscore")
    with pytest.raises(ValueError, match="window_stride of at least 1 frame, got -1"):
        window_processor(tmp_path, window_stride=-1)


def test_recordings_without_positions_are_skipped_and_named_or_trained_on(tmp_path, rebuild, tiny_pretrain):
    def strip(recording):
        return replace(recording, centroids=None) if recording.subject_id == "sim001" else recording

    partly = rebuild(tmp_path / "build", strip)
    found = tiny_pretrain(tmp_path / "error", build=partly)
    assert set(found["skipped"]) == {"sim001_ses-1_field-1", "sim001_ses-2_field-1"}
    assert NeurtConfig.from_pretrained(tmp_path / "error").pretraining_subjects == ["sim002", "sim003", "sim004"]
    found = tiny_pretrain(tmp_path / "mask", build=partly, missing_neighbours="mask")
    assert found["skipped"] == {} and found["log"][0]["loss"] > 0


def test_a_side_of_the_split_without_windows_is_named(tmp_path, rebuild, tiny_pretrain):
    def strip(recording):
        return replace(recording, centroids=None) if recording.subject_id in HELD_OUT else recording

    bare = rebuild(tmp_path / "build", strip)
    with pytest.raises(ValueError, match="test recordings: expected recordings that give windows, got none"):
        tiny_pretrain(tmp_path / "model", build=bare)


def test_the_builds_own_test_split_is_held_out(tmp_path, build, tiny_model):
    recordings = list(read_build(build))
    held_out = sorted({recording.subject_id for recording in recordings})[-1]
    stated = {recording.recording_id: "test" for recording in recordings if recording.subject_id == held_out}
    write_build(recordings, tmp_path / "build", split=stated, builder="test", parameters={})
    options = TrainingOptions(epochs=1, batch_size=8)
    results = pretrain(
        tmp_path / "build",
        tmp_path / "out",
        model=tiny_model(),
        processor=NeurtProcessor(window_length=40),
        options=options,
    )
    assert list(results["split"]["test"]) == [held_out]


def test_a_run_does_not_go_on_with_other_recordings(tmp_path, build, rebuild, tiny_pretrain):
    def louder(recording):
        return dataclasses.replace(recording, traces=recording.traces + 1)

    tiny_pretrain(tmp_path / "run")
    with pytest.raises(ValueError, match="data"):
        tiny_pretrain(tmp_path / "run", build=rebuild(tmp_path / "other", louder), resume=True)
