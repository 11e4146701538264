"""The pipeline gives of a recording what the model gives of its windows."""

import dataclasses

import numpy as np
import pytest
import torch
from neurt import NeurtConfig, NeurtForSequenceClassification, NeurtProcessor
from neurt.pipeline_neurt import TASK, NeuronSignalClassificationPipeline
from small_builds import recording as random_recording
from transformers import pipeline

SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def recording():
    return random_recording(0, neurons=7, frames=100, trace_kind="dff")


@pytest.fixture(scope="module")
def classify():
    torch.manual_seed(0)
    names = {0: "WT", 1: "5xFAD", 2: "else"}
    model = NeurtForSequenceClassification(NeurtConfig(**SIZES, id2label=names, max_position_embeddings=40))
    torch.nn.init.normal_(model.classifier.weight, std=0.5)
    processor = NeurtProcessor(window_length=40)
    return NeuronSignalClassificationPipeline(model.eval(), processor=processor, device="cpu")


@pytest.fixture(scope="module")
def folder(classify, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    classify.save_pretrained(folder)
    return folder


def facts(recording):
    names = ("centroids", "coordinate_unit", "sampling_rate")
    return {name: getattr(recording, name) for name in names}


def archive(path, recording, **changes):
    np.savez(path, **{"traces": recording.traces, **facts(recording), **changes})
    return path


def test_scores_are_those_of_the_mean_logits_of_windows(classify, recording):
    found = classify(recording)
    windows = classify.processor(recording.traces, **facts(recording))
    owners = windows.pop("neuron_index").numpy()
    inputs = {name: windows[name] for name in ("input_values", "attention_mask", "sampling_rate")}
    with torch.inference_mode():
        logits = classify.model(**inputs).logits.double().numpy()

    def softmax(row):
        return np.exp(row) / np.exp(row).sum()

    assert list(found["scores"]) == ["WT", "5xFAD", "else"]
    np.testing.assert_allclose(list(found["scores"].values()), softmax(logits.mean(0)), rtol=1e-4)
    assert found["label"] == max(found["scores"], key=found["scores"].get)
    assert [window["start_frame"] for window in found["windows"][:2]] == [0, 40]
    assert len(found["windows"]) == len(logits)
    assert [row["neuron"] for row in found["neurons"]] == sorted(set(owners))
    assert {n for dropped in found["dropped"].values() for n in dropped} == set(range(7)) - set(owners)
    second = found["neurons"][1]
    expected = softmax(logits[owners == second["neuron"]].mean(0))
    np.testing.assert_allclose(list(second["scores"].values()), expected, rtol=1e-4)
    np.testing.assert_allclose(list(found["windows"][5]["scores"].values()), softmax(logits[5]), rtol=1e-4)


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_batches_change_nothing(classify, recording, size):
    expected = classify(recording)["scores"]
    assert classify(recording, batch_size=size)["scores"] == pytest.approx(expected, rel=1e-5)


def test_every_way_to_give_a_recording_gives_the_same(classify, recording, tmp_path):
    path = archive(tmp_path / "a.npz", recording)
    expected = classify(recording)
    mapping = {"traces": recording.traces, **facts(recording)}
    for given in (mapping, path, str(path)):
        assert classify(given) == expected
    assert classify(recording.traces, **facts(recording)) == expected
    assert classify([mapping, path]) == [expected, expected]


def test_rejected_neurons_are_left_out(classify, recording, tmp_path):
    accepted = np.arange(7) != 2
    expected = classify(recording.only(accepted))["scores"]
    assert classify(dataclasses.replace(recording, accepted=accepted))["scores"] == expected
    assert classify(archive(tmp_path / "b.npz", recording, accepted=accepted))["scores"] == expected


def test_a_table_gives_what_its_array_gives(classify, recording, tmp_path):
    names, times = [f"cell{i}" for i in range(7)], np.arange(100) / 5
    table = np.column_stack([times, recording.traces.T])
    np.savetxt(tmp_path / "c.csv", table, delimiter=",", header=",".join(["time_s", *names]), comments="")
    expected = classify(recording.traces, sampling_rate=5.0, missing_neighbours="mask")["scores"]
    assert classify(tmp_path / "c.csv", missing_neighbours="mask")["scores"] == pytest.approx(expected, rel=1e-4)
    header = ",".join(map(str, range(7)))
    np.savetxt(tmp_path / "d.csv", recording.traces.T, delimiter=",", header=header, comments="")
    options = {"missing_neighbours": "mask", "sampling_rate": 5.0}
    assert classify(tmp_path / "d.csv", **options)["scores"] == pytest.approx(expected, rel=1e-4)


class Hostile:
    """Unpickled, it would raise an error of its own."""

    def __reduce__(self):
        return eval, ("1 / 0",)


def test_python_objects_are_never_opened(classify, tmp_path):
    objects = np.empty(1, dtype=object)
    objects[0] = Hostile()
    np.savez(tmp_path / "hostile.npz", traces=objects)
    with pytest.raises(ValueError, match="plain arrays"):
        classify(tmp_path / "hostile.npz")


@pytest.mark.parametrize(
    "lines, message",
    [
        ("a,b\n1,2\n3\n", "table of numbers"),
        ("a,b,c\n1,2\n3,4\n", "as many numbers in a line as names, 3, got 2"),
        ("time_s,b\n0,2\n1,4\n9,5\n", "grow by the same step"),
        ("0.5,1\n1,2\n3,4\n", "names in the first line"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(classify, tmp_path, lines, message):
    (tmp_path / "bad.csv").write_text(lines)
    with pytest.raises(ValueError, match=message):
        classify(tmp_path / "bad.csv")


def test_what_cannot_be_read_is_said_in_one_line(classify, tmp_path):
    with pytest.raises(ValueError, match="there is none"):
        classify(tmp_path / "absent.npz")
    (tmp_path / "movie.tif").touch()
    with pytest.raises(ValueError, match="import other formats with neurt import"):
        classify(tmp_path / "movie.tif")
    with pytest.raises(ValueError, match="expected options among .*, got sampling_rates"):
        classify(np.zeros((7, 100)), sampling_rates=5)
    np.savez(tmp_path / "empty.npz", trace=np.zeros((7, 100)))
    with pytest.raises(ValueError, match='expected an array "traces"'):
        classify(tmp_path / "empty.npz")
    np.savez(tmp_path / "few.npz", traces=np.zeros((7, 100)), accepted=np.ones(6))
    with pytest.raises(ValueError, match="expected accepted and centroids of every neuron"):
        classify(tmp_path / "few.npz")
    with pytest.raises(ValueError, match="expected traces and maybe"):
        classify({"trace": np.zeros((7, 100))})


def test_a_saved_folder_carries_its_pipeline(folder, classify, recording):
    assert (folder / "pipeline_neurt.py").is_file()
    again = pipeline(TASK, model=str(folder), trust_remote_code=True, device="cpu")
    assert again(recording)["scores"] == pytest.approx(classify(recording)["scores"], rel=1e-5)
