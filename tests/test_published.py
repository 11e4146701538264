"""What was published opens in a process that cannot import neurt: from the Hub, then without one, as it was before.

All kinds of repositories in one process, since each that imports torch and transformers takes seconds.
"""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from elsewhere import run_elsewhere
from hub_server import OWNER, TOKEN, connect, serving_hub
from neurt import NeurtConfig, NeurtForMaskedSignalModeling, NeurtForSequenceClassification, NeurtProcessor
from neurt.dataset_scripts.window_streams import stream_windows
from neurt.pipeline_neurt import TASK
from neurt.publish import model_files, push_dataset, push_model
from small_builds import PROCESSOR, indices, recording, write
from transformers import Trainer, TrainingArguments, pipeline

LISTED, BY_MODEL, BY_TRAINER = MODELS = [f"{OWNER}/{way}" for way in ("listed", "by-model", "by-trainer")]
BUILD, CLASSIFIER = f"{OWNER}/build", f"{OWNER}/classifier"
WHEN, WAYS = ["pinned", "later"], ["array", "archive", "list", "table", "logits"]
# Of the later revision. If it ran in the place of the pinned one's, or not at all, the labels would tell.
LATER_CODE = """
_probability = NeuronSignalClassificationPipeline._scores
def _later(self, logits):
    return {**_probability(self, logits), "label": "later"}
NeuronSignalClassificationPipeline._scores = _later
"""
RECORDINGS = [recording(number, neurons=8, frames=60) for number in range(3)]
OPEN = """
import json
import numpy as np, torch
from datasets import load_dataset
from transformers import AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification
from transformers import AutoProcessor, pipeline
models, build, classifier, classifiers, output = json.loads(sys.argv[1])
inputs, found = np.load("inputs.npz"), {}
windows, hidden = torch.from_numpy(inputs["windows"]), torch.from_numpy(inputs["hidden"])
for name, revision in models.items():
    pinned = {"revision": revision, "code_revision": revision, "trust_remote_code": True}
    processor = AutoProcessor.from_pretrained(name, **pinned)
    model = AutoModelForPreTraining.from_pretrained(name, **pinned).eval()
    encoder = AutoModel.from_pretrained(name, **pinned).eval()
    with torch.inference_mode():
        found[f"{name} reconstruction"] = model(windows, bool_masked_pos=hidden).reconstruction
        found[f"{name} state"] = encoder(windows).last_hidden_state
    cut = processor(inputs["traces"], inputs["centroids"], sampling_rate=5.0, coordinate_unit="um")
    found[f"{name} windows"] = cut["input_values"]
for way in ("kept", "streamed"):
    rows = load_dataset(build[0], revision=build[1], split="train", streaming=way == "streamed")
    found[f"{way} ids"] = [row["roi_id"] for row in rows]
    found[f"{way} traces"] = np.stack([row["trace"] for row in rows])
np.savez(output, **{name: np.asarray(value) for name, value in found.items()})
model.save_pretrained("saved again")
processor.save_pretrained("saved again")

one, found = np.load("recording.npz"), {}
facts = {"centroids": one["centroids"], "sampling_rate": 5.0, "coordinate_unit": "um"}
for when, revision in classifiers.items():
    pinned = {"revision": revision, "trust_remote_code": True}
    classify = pipeline("neuron-signal-classification", model=classifier, **pinned)
    model = AutoModelForSequenceClassification.from_pretrained(classifier, **pinned).eval()
    with torch.inference_mode():
        logits = model(windows).logits.tolist()
    found[when] = {
        "array": classify(one["traces"], **facts),
        "archive": classify("recording.npz"),
        "list": classify(["recording.csv", "recording.npz"], batch_size=3, **facts)[1],
        "table": classify("recording.csv", missing_neighbours="mask"),
        "logits": logits,
    }
    classify.save_pretrained(f"{when} saved")
crossed = {"revision": classifiers["pinned"], "code_revision": classifiers["later"], "trust_remote_code": True}
found["crossed"] = pipeline("neuron-signal-classification", model=classifier, **crossed)("recording.npz")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the other process runs: nothing but what it reads."""
    folder = tmp_path_factory.mktemp("elsewhere")
    rng = np.random.default_rng(0)
    hidden = np.zeros((2, 40), dtype=bool)
    hidden[:, 10:15] = True
    windows = rng.normal(size=(2, 40, 5)).astype(np.float32)
    np.savez(
        folder / "inputs.npz",
        windows=windows,
        hidden=hidden,
        traces=rng.random((8, 100)).astype(np.float32),
        centroids=100 * rng.random((8, 2)),
    )
    one = recording(0, neurons=7, frames=100)
    np.savez(
        folder / "recording.npz", traces=one.traces, centroids=one.centroids, sampling_rate=5.0, coordinate_unit="um"
    )
    table = np.column_stack([np.arange(100) / 5, one.traces.T])
    header = ",".join(["time_s", *one.roi_ids])
    np.savetxt(folder / "recording.csv", table, delimiter=",", header=header, comments="")
    return folder


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A model as it is in memory, with the processor that belongs to it, and both in a folder."""
    torch.manual_seed(3)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    # Without the correction the decoder does not begin at zero, and the reconstruction is the model's own.
    config = NeurtConfig(max_position_embeddings=40, predict_correction=False, **sizes)
    model, processor = NeurtForMaskedSignalModeling(config).eval(), NeurtProcessor(window_length=40)
    folder = tmp_path_factory.mktemp("released")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor, folder


def another_model(model, processor, folder):
    """A folder with other weights."""
    changed = copy.deepcopy(model)
    torch.nn.init.normal_(changed.decoder.weight)
    changed.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plain(classifier, tmp_path_factory):
    """The classifier as `save_pretrained` of the model and of the processor leaves it, without its pipeline."""
    folder = tmp_path_factory.mktemp("models") / "plain"
    shutil.copytree(classifier, folder, ignore=shutil.ignore_patterns("pipeline_neurt.py", "training"))
    config = json.loads((folder / "config.json").read_text())
    del config["custom_pipelines"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def later(classifier, tmp_path_factory):
    """The classifier with other weights, and a pipeline with other code."""
    folder = tmp_path_factory.mktemp("models") / "later"
    shutil.copytree(classifier, folder)
    model = NeurtForSequenceClassification.from_pretrained(classifier)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(folder)
    with open(folder / "pipeline_neurt.py", "a", encoding="utf-8") as file:
        file.write(LATER_CODE)
    return folder


@pytest.fixture(scope="module")
def expected(classifier, later, folder):
    """What the models say in this process, where neurt is."""
    return {"pinned": said_of(classifier, folder), "later": said_of(later, folder)}


def said_of(model, folder):
    network = NeurtForSequenceClassification.from_pretrained(model).eval()
    with torch.inference_mode():
        logits = network(torch.from_numpy(np.load(folder / "inputs.npz")["windows"])).logits.tolist()
    classify = pipeline(TASK, model=str(model), trust_remote_code=True, device="cpu")
    archive = classify(folder / "recording.npz")
    table = classify(folder / "recording.csv", missing_neighbours="mask")
    return {"array": archive, "archive": archive, "list": archive, "table": table, "logits": logits}


@pytest.fixture(scope="module")
def found(released, plain, later, folder, tmp_path_factory):
    """What the other process found with the Hub, and after it was gone."""
    model, processor, source = released
    trained, build = tmp_path_factory.mktemp("trained"), tmp_path_factory.mktemp("data") / "build"
    with serving_hub() as hub, pytest.MonkeyPatch.context() as patch:
        connect(hub, patch)
        push_model(source, LISTED)
        model.push_to_hub(BY_MODEL, private=True)
        processor.push_to_hub(BY_MODEL)
        arguments = TrainingArguments(trained, hub_model_id=BY_TRAINER, use_cpu=True, report_to="none")
        Trainer(model, arguments, processing_class=processor).push_to_hub()
        push_dataset(write(build, RECORDINGS), BUILD)
        revisions = {name: hub.repositories["model", name].at("main") for name in MODELS}
        models = {name: commit.oid for name, commit in revisions.items()}
        dataset = [BUILD, hub.repositories["dataset", BUILD].at("main").oid]
        classifiers = {"pinned": push_model(plain, CLASSIFIER).commit, "later": "main"}
        # What comes later must not be seen at the revisions that are pinned.
        push_model(another_model(model, processor, tmp_path_factory.mktemp("later")), LISTED)
        push_dataset(write(build.with_name("later"), RECORDINGS[:1]), BUILD)
        push_model(later, CLASSIFIER)
        words = [models, dataset, CLASSIFIER, classifiers]
        environment = hub.environment(folder / "cache")
        online = open_elsewhere(folder, [*words, "online.npz"], environment)
    offline = open_elsewhere(folder, [*words, "offline.npz"], environment | {"HF_HUB_OFFLINE": "1"})
    return {"online": online, "offline": offline, "repositories": revisions, "trained": trained}


def open_elsewhere(folder, words, environment):
    """Run the process; returns what it found, that of the pipelines under the names of `WHEN`."""
    said = run_elsewhere(OPEN, json.dumps(words), folder=folder, environment=environment)
    assert TOKEN not in said and "already registered" not in said
    return dict(np.load(folder / words[-1])) | json.loads(said.splitlines()[-1])


@pytest.mark.parametrize("way", ["online", "offline"])
@pytest.mark.parametrize("name", MODELS)
def test_a_published_model_gives_the_outputs_it_gave_before(released, folder, found, name, way):
    model, processor, _ = released
    inputs = np.load(folder / "inputs.npz")
    windows, hidden = torch.from_numpy(inputs["windows"]), torch.from_numpy(inputs["hidden"])
    with torch.inference_mode():
        expected = {
            "reconstruction": model(windows, bool_masked_pos=hidden).reconstruction,
            "state": model.base_model(windows).last_hidden_state,
        }
    cut = processor(inputs["traces"], inputs["centroids"], sampling_rate=5.0, coordinate_unit="um")
    for what, value in {**expected, "windows": cut["input_values"]}.items():
        np.testing.assert_allclose(found[way][f"{name} {what}"], value, rtol=0, atol=1e-6)
    assert np.ptp(expected["reconstruction"].numpy()) > 0.1


@pytest.mark.parametrize("kept", ["kept", "streamed"])
@pytest.mark.parametrize("way", ["online", "offline"])
def test_a_published_build_gives_the_traces_it_had(found, way, kept):
    assert list(found[way][f"{kept} ids"]) == [roi for each in RECORDINGS for roi in each.roi_ids]
    traces = np.concatenate([each.traces for each in RECORDINGS])
    np.testing.assert_array_equal(found[way][f"{kept} traces"], traces)


def test_the_windows_of_a_published_build_are_streamed_as_those_of_the_folder(tmp_path, monkeypatch):
    build = write(tmp_path / "build", RECORDINGS)
    with serving_hub() as hub:
        connect(hub, monkeypatch)
        push_dataset(build, BUILD)
        streamed = list(stream_windows(f"hf://datasets/{BUILD}", PROCESSOR))
    expected = list(stream_windows(build, PROCESSOR))
    assert indices(streamed) == indices(expected) and len(streamed) > 0
    for window, same in zip(streamed, expected, strict=True):
        np.testing.assert_array_equal(window["input_values"], same["input_values"])


def test_the_trainer_publishes_a_pickle_and_what_it_saved_is_published_without(found):
    assert "training_args.bin" in found["repositories"][BY_TRAINER].files
    assert (found["trained"] / "training_args.bin").exists()
    names = set(model_files(found["trained"]))
    assert names == set(found["repositories"][LISTED].files) - {".gitattributes"} | {"README.md"}


def test_what_was_opened_from_the_hub_and_saved_is_whole_again(folder, found):
    whole = set(found["repositories"][LISTED].files) - {".gitattributes", "README.md"}
    assert set(model_files(folder / "saved again")) == whole


def by_place(found, place=()):
    """Every number and word of a result, by where it stands."""
    if not isinstance(found, dict | list):
        return {place: found}
    parts = found.items() if isinstance(found, dict) else enumerate(found)
    return {where: value for name, part in parts for where, value in by_place(part, (*place, str(name))).items()}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("network", ["online", "offline"])
def test_a_published_classifier_says_what_it_said_before(found, expected, network, when, way):
    assert by_place(found[network][when][way]) == pytest.approx(by_place(expected[when][way]), abs=1e-6)


def test_the_revisions_differ_in_weights_and_in_code(expected):
    pinned, later = (expected[when]["archive"] for when in WHEN)
    assert (pinned["label"] == "later", later["label"]) == (False, "later")
    differences = [abs(pinned["scores"][name] - score) for name, score in later["scores"].items()]
    assert min(differences) > 0.01
    assert len(pinned["windows"]) > len(pinned["neurons"]) > 1


@pytest.mark.parametrize("network", ["online", "offline"])
def test_code_of_one_revision_runs_with_the_weights_of_another(found, expected, network):
    crossed = found[network]["crossed"]
    assert crossed["label"] == "later"
    assert crossed["scores"] == pytest.approx(expected["pinned"]["archive"]["scores"], abs=1e-6)


@pytest.mark.parametrize("when", WHEN)
def test_a_pipeline_that_was_opened_from_the_hub_and_saved_is_whole_again(found, classifier, folder, when):
    needed = {name for name in model_files(classifier) if name.endswith((".py", "config.json", ".safetensors"))}
    assert set(model_files(folder / f"{when} saved")) == needed
    assert {"pipeline_neurt.py", "processor_config.json"} <= needed
