"""Embeddings, reconstructions and scores of a build: the right numbers under the right keys, or no file at all."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from neurt import NeurtForMaskedSignalModeling, NeurtForSequenceClassification, NeurtModel, NeurtProcessor
from neurt.dataset_scripts.parquet_build import read_build
from neurt.inference import embed, evaluate_model, is_classifier, reconstruct, reconstruct_each_frame
from tiny_training import HELD_OUT

KEYS = ["recording_id", "subject_id", "roi_id", "start_frame", "start_s", "sampling_rate"]
RATE = torch.tensor([5.0])


def windows_of(recording, processor):
    """The processor's windows of a recording, with (roi_id, start_frame) of each."""
    windows = processor(recording.traces, recording.centroids, coordinate_unit=recording.coordinate_unit)
    rois = [recording.roi_ids[neuron] for neuron in windows["neuron_index"]]
    return windows, list(zip(rois, windows["start_frame"].tolist(), strict=True))


def rows_by_key(path):
    rows = pq.read_table(path).to_pylist()
    found = {(row["recording_id"], row["roi_id"], row["start_frame"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def test_an_embedding_is_the_mean_of_the_models_embeddings_over_real_frames(pretrained, build, tmp_path):
    counts = embed(pretrained, build, tmp_path / "rows.parquet")
    rows = rows_by_key(tmp_path / "rows.parquet")
    assert list(next(iter(rows.values()))) == [*KEYS, "embedding"]
    model, processor = NeurtModel.from_pretrained(pretrained), NeurtProcessor.from_pretrained(pretrained)
    expected, dropped = 0, {}
    for recording in read_build(build):
        windows, keys = windows_of(recording, processor)
        expected += len(keys)
        dropped[recording.recording_id] = {reason: len(rows) for reason, rows in windows["dropped"].items()}
        for i, (roi, start) in enumerate(keys):
            row = rows[recording.recording_id, roi, start]
            real = int(windows["attention_mask"][i].sum())
            assert real == min(40, 116 - start)
            with torch.no_grad():
                embeddings = model(windows["input_values"][i : i + 1, :real], sampling_rate=RATE).embeddings[0]
            assert row["embedding"] == pytest.approx(embeddings.mean(0).tolist(), abs=1e-5)
            assert row["start_s"] == start / 5 and row["sampling_rate"] == 5
            assert row["subject_id"] == recording.subject_id
    assert len(rows) == expected and counts.pop("dropped") == {name: why for name, why in dropped.items() if why}
    assert counts == {"rows": expected, "recordings": 12, "skipped": {}}


def test_times_keep_the_precision_of_the_frame_rate(pretrained, rebuild, tmp_path):
    fast = rebuild(tmp_path / "build", lambda recording: replace(recording, sampling_rate=7.9))
    embed(pretrained, fast, tmp_path / "rows.parquet")
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert {row["start_s"] for row in rows} == {0, 40 / 7.9, 80 / 7.9}
    assert {row["sampling_rate"] for row in rows} == {7.9}


def test_a_reconstruction_stands_beside_what_was_observed_cut_to_real_frames(pretrained, build, tmp_path):
    counts = reconstruct(pretrained, build, tmp_path / "rows.parquet", span=4)
    rows = rows_by_key(tmp_path / "rows.parquet")
    assert counts["rows"] == len(rows)
    model, processor = (
        NeurtForMaskedSignalModeling.from_pretrained(pretrained),
        NeurtProcessor.from_pretrained(pretrained),
    )
    recording = next(read_build(build))
    windows, keys = windows_of(recording, processor)
    for i, (roi, start) in enumerate(keys):
        row = rows[recording.recording_id, roi, start]
        assert list(row) == [*KEYS, "observed", "reconstruction"]
        real = min(40, 116 - start)
        values = windows["input_values"][i : i + 1, :real]
        assert row["observed"] == pytest.approx(values[0, :, 0].tolist())
        # Spans of 4 frames, every seventh together: the third span and the tenth make one pass.
        hidden = torch.zeros(1, real, dtype=torch.bool)
        hidden[:, 8:12] = hidden[:, 36:40] = True
        with torch.no_grad():
            expected = model(values, bool_masked_pos=hidden, sampling_rate=RATE).reconstruction[0, hidden[0], 0]
        assert np.array(row["reconstruction"])[hidden[0]] == pytest.approx(expected.numpy(), abs=1e-5)
        assert len(row["reconstruction"]) == real


@pytest.mark.parametrize("span", [1, 5, 10])
def test_no_frame_is_predicted_from_its_own_value(pretrained, span):
    model = NeurtForMaskedSignalModeling.from_pretrained(pretrained).eval()
    values = torch.rand(1, 36, 5)
    with torch.inference_mode():
        expected = reconstruct_each_frame(model, {"input_values": values}, span)
        for frame in range(36):
            changed = values.clone()
            changed[0, frame] = torch.tensor([9.0, -7.0, torch.nan, 1e6, 5.0])
            result = reconstruct_each_frame(model, {"input_values": changed}, span)
            assert torch.equal(result[0, frame], expected[0, frame])
            assert not torch.equal(result, expected)


def test_absent_channels_stay_absent_while_frames_are_reconstructed(pretrained):
    model = NeurtForMaskedSignalModeling.from_pretrained(pretrained).eval()
    values, absent = torch.rand(2, 40, 5), torch.zeros(2, 40, 5, dtype=torch.bool)
    absent[1, :, 1:] = True
    changed = values.clone()
    changed[1, :, 1:] = 7
    with torch.inference_mode():
        results = [
            reconstruct_each_frame(model, {"input_values": each, "bool_masked_pos": absent}, 5)
            for each in (values, changed)
        ]
    assert torch.equal(*results)


def test_recordings_without_positions_are_skipped_and_named_or_used(pretrained, rebuild, tmp_path):
    def strip(recording):
        return replace(recording, centroids=None) if recording.subject_id == "sim001" else recording

    partly = rebuild(tmp_path / "build", strip)
    counts = embed(pretrained, partly, tmp_path / "error.parquet")
    assert set(counts["skipped"]) == {"sim001_ses-1_field-1", "sim001_ses-2_field-1"} and counts["recordings"] == 10
    assert "expected centroids, got none" in counts["skipped"]["sim001_ses-1_field-1"]
    counts = embed(pretrained, partly, tmp_path / "mask.parquet", missing_neighbours="mask")
    assert counts["skipped"] == {} and counts["recordings"] == 12
    assert np.isfinite(pq.read_table(tmp_path / "mask.parquet")["embedding"].combine_chunks().flatten()).all()
    evaluation = evaluate_model(pretrained, partly)
    assert set(evaluation.skipped) == {"sim001_ses-1_field-1", "sim001_ses-2_field-1"}


def silence_two_neurons(recording):
    """In one recording a constant trace, and one with NaN; no other loses a neuron."""
    if recording.recording_id != "sim002_ses-1_field-1":
        return recording
    traces = recording.traces.copy()
    traces[2], traces[5, 7] = 3.0, np.nan
    return replace(recording, traces=traces)


def test_neurons_that_give_no_windows_are_counted_by_their_reason(pretrained, build, rebuild, tmp_path):
    partly = rebuild(tmp_path / "build", silence_two_neurons)
    missing = {"sim002_ses-1_field-1": {"NaN or infinite frames": 1, "constant trace": 1}}
    for write in (embed, reconstruct):
        counts = write(pretrained, partly, tmp_path / f"{write.__name__}.parquet", missing_neighbours="mask")
        assert counts["dropped"] == missing
    assert evaluate_model(pretrained, partly, missing_neighbours="mask", output=tmp_path / "a").dropped == missing
    assert json.loads((tmp_path / "a").read_text())["dropped"] == missing
    rows = pq.read_table(tmp_path / "embed.parquet", filters=[("recording_id", "==", "sim002_ses-1_field-1")])
    (changed,) = (one for one in read_build(partly) if one.recording_id == "sim002_ses-1_field-1")
    assert {*changed.roi_ids} - {*rows["roi_id"].to_pylist()} == {changed.roi_ids[2], changed.roi_ids[5]}


def test_nothing_is_left_where_no_recording_gives_windows(pretrained, rebuild, tmp_path):
    bare = rebuild(tmp_path / "build", lambda recording: replace(recording, centroids=None))
    with pytest.raises(ValueError, match="expected centroids, got none"):
        embed(pretrained, bare, tmp_path / "rows.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["build"]


def test_nothing_is_left_of_a_file_that_could_not_be_finished(pretrained, build, tmp_path):
    broken = shutil.copytree(build, tmp_path / "build")
    last = sorted((broken / "data").rglob("*.parquet"))[-1]
    last.write_bytes(last.read_bytes()[:2000])
    for write in (embed, reconstruct):
        with pytest.raises(ValueError, match="a file that cannot be read"):
            write(pretrained, broken, tmp_path / "rows.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["build"]


def test_a_file_that_exists_is_refused_and_left_alone(pretrained, build, tmp_path):
    (tmp_path / "rows").write_text("mine")
    for write in (embed, reconstruct):
        with pytest.raises(ValueError, match="expected an output file that does not exist yet"):
            write(pretrained, build, tmp_path / "rows")
    with pytest.raises(ValueError, match="expected an output file that does not exist yet"):
        evaluate_model(pretrained, build, output=tmp_path / "rows")
    assert (tmp_path / "rows").read_text() == "mine"


def test_a_classifier_and_a_bad_span_are_refused_by_reconstruct(pretrained, classifier, build, tmp_path):
    with pytest.raises(ValueError, match="expected a masked model to reconstruct with, got a classifier"):
        reconstruct(classifier, build, tmp_path / "rows.parquet")
    for span in (0, 11):
        with pytest.raises(ValueError, match=f"expected a span of 1 to 10 frames, got {span}"):
            reconstruct(pretrained, build, tmp_path / "rows.parquet", span=span)
    assert not list(tmp_path.iterdir())


def test_a_classifier_embeds(classifier, build, tmp_path):
    assert embed(classifier, build, tmp_path / "rows.parquet")["recordings"] == 12


def test_an_evaluation_names_the_animals_that_training_has_seen(pretrained, build):
    assert evaluate_model(pretrained, build, subjects=HELD_OUT).seen == []
    assert evaluate_model(pretrained, build, subjects=("sim004", "sim005")).seen == ["sim004"]
    assert evaluate_model(pretrained, build).seen == ["sim001", "sim002", "sim003", "sim004"]


def test_an_evaluation_of_the_held_out_animals_repeats_the_scores_of_training(pretrained, classifier, build):
    for model, label, kind in ((pretrained, None, "reconstruction"), (classifier, "group", "classification")):
        evaluation = evaluate_model(model, build, subjects=HELD_OUT, label=label)
        expected = json.loads((model / "results.json").read_text())[kind]
        found = json.loads(json.dumps(evaluation.scores.to_dict()))
        assert found["measured_on"] == expected["measured_on"]
        # A run of training adds rows of baselines that were fitted on its training animals.
        for row, other in zip(found["rows"], expected["rows"], strict=False):
            assert row.keys() <= other.keys()
            assert all(row[name] == other[name] or row[name] == pytest.approx(other[name], rel=1e-5) for name in row)


def test_an_evaluation_is_written_as_json(classifier, build, tmp_path):
    evaluation = evaluate_model(classifier, build, label="group", output=tmp_path / "new" / "scores.json")
    written = json.loads((tmp_path / "new" / "scores.json").read_text())
    assert written["seen_in_training"] == evaluation.seen == ["sim001", "sim002", "sim003", "sim004"]
    assert written["rows"] == json.loads(json.dumps(evaluation.scores.to_dict()["rows"]))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["scores.json"]


def test_subjects_and_labels_that_are_not_there_are_refused(pretrained, classifier, build):
    with pytest.raises(ValueError, match="expected subjects among sim001, .*, sim006, got mouse7"):
        evaluate_model(pretrained, build, subjects=("sim001", "mouse7"))
    with pytest.raises(ValueError, match="a label with a classifier only; pass --label"):
        evaluate_model(classifier, build)
    with pytest.raises(ValueError, match="a label with a classifier only; a masked model has none"):
        evaluate_model(pretrained, build, label="group")
    with pytest.raises(ValueError, match="expected a label 'genotype'"):
        evaluate_model(classifier, build, label="genotype")


def test_a_label_whose_classes_the_classifier_does_not_know_is_refused(classifier, rebuild, tmp_path):
    renamed = rebuild(tmp_path / "build", lambda recording: replace(recording, labels={"group": "wild type"}))
    with pytest.raises(ValueError, match="among control, planted, got 'wild type'"):
        evaluate_model(classifier, renamed, label="group")


def test_a_classifier_whose_config_names_its_classes_one_way_only_is_scored(classifier, build, tmp_path):
    model = shutil.copytree(classifier, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "label2id": None}))
    scores = evaluate_model(model, build, subjects=("sim005",), label="group").scores
    assert scores.class_names == ("control", "planted")


def test_the_kind_of_a_model_is_read_from_its_folder(pretrained, classifier):
    assert is_classifier(classifier) and not is_classifier(pretrained)


def test_weights_that_are_not_in_the_file_are_never_made_up(pretrained, build, tmp_path):
    model = NeurtModel.from_pretrained(pretrained)
    model.save_pretrained(tmp_path / "encoder")
    NeurtProcessor.from_pretrained(pretrained).save_pretrained(tmp_path / "encoder")
    with pytest.raises(ValueError, match="expected the weights of a NeurtForMaskedSignalModeling, .* lacks decoder"):
        evaluate_model(tmp_path / "encoder", build)
    embed(tmp_path / "encoder", build, tmp_path / "rows.parquet")
    config = model.config
    config.hidden_size = 32
    config.save_pretrained(tmp_path / "encoder")
    with pytest.raises(ValueError, match="or has it in another size"):
        embed(tmp_path / "encoder", build, tmp_path / "other.parquet")


def test_a_model_without_its_processor_is_refused(pretrained, build, tmp_path):
    NeurtForSequenceClassification.from_pretrained(pretrained).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="expected a processor beside the model, .* no processor_config.json"):
        embed(tmp_path / "model", build, tmp_path / "rows.parquet")
