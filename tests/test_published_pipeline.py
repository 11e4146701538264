"""A published classifier says of recordings what it said before, through its pipeline, where there is no neurt."""

import json
import shutil

import numpy as np
import pytest
import torch
from elsewhere import run_elsewhere
from hub_server import OWNER, TOKEN, connect, serving_hub
from neurt import NeurtForSequenceClassification
from neurt.pipeline_neurt import TASK
from neurt.publish import model_files, push_model
from small_builds import recording
from transformers import pipeline

NAME = f"{OWNER}/classifier"
WHEN, WAYS = ["pinned", "later"], ["array", "archive", "list", "table", "logits"]
# Of the later revision. If it ran in the place of the pinned one's, or not at all, the labels would tell.
LATER_CODE = """
_probability = NeuronSignalClassificationPipeline._scores
def _later(self, logits):
    return {**_probability(self, logits), "label": "later"}
NeuronSignalClassificationPipeline._scores = _later
"""
OPEN = """
import json
import numpy as np, torch
from transformers import AutoModelForSequenceClassification, pipeline
name, revisions = json.loads(sys.argv[1])
inputs, found = dict(np.load("recording.npz")), {}
windows = torch.from_numpy(np.load("windows.npy"))
facts = {"centroids": inputs["centroids"], "sampling_rate": 5.0, "coordinate_unit": "um"}
for when, revision in revisions.items():
    pinned = {"revision": revision, "trust_remote_code": True}
    classify = pipeline("neuron-signal-classification", model=name, **pinned)
    model = AutoModelForSequenceClassification.from_pretrained(name, **pinned).eval()
    with torch.inference_mode():
        logits = model(windows).logits.tolist()
    found[when] = {
        "array": classify(inputs["traces"], **facts),
        "archive": classify("recording.npz"),
        "list": classify(["recording.csv", "recording.npz"], batch_size=3, **facts)[1],
        "table": classify("recording.csv", missing_neighbours="mask"),
        "logits": logits,
    }
    classify.save_pretrained(f"{when} saved")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the other process runs: an archive, a table and some windows."""
    folder = tmp_path_factory.mktemp("elsewhere")
    one = recording(0, neurons=7, frames=100)
    np.savez(
        folder / "recording.npz", traces=one.traces, centroids=one.centroids, sampling_rate=5.0, coordinate_unit="um"
    )
    table = np.column_stack([np.arange(100) / 5, one.traces.T])
    header = ",".join(["time_s", *one.roi_ids])
    np.savetxt(folder / "recording.csv", table, delimiter=",", header=header, comments="")
    np.save(folder / "windows.npy", np.random.default_rng(0).normal(size=(3, 40, 5)).astype(np.float32))
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
        logits = network(torch.from_numpy(np.load(folder / "windows.npy"))).logits.tolist()
    classify = pipeline(TASK, model=str(model), trust_remote_code=True, device="cpu")
    archive = classify(folder / "recording.npz")
    table = classify(folder / "recording.csv", missing_neighbours="mask")
    return {"array": archive, "archive": archive, "list": archive, "table": table, "logits": logits}


@pytest.fixture(scope="module")
def found(plain, later, folder):
    """What the other process found with the Hub, and after it was gone."""
    with serving_hub() as hub, pytest.MonkeyPatch.context() as patch:
        connect(hub, patch)
        words = json.dumps([NAME, {"pinned": push_model(plain, NAME).commit, "later": "main"}])
        push_model(later, NAME)
        environment = hub.environment(folder / "cache")
        online = run_elsewhere(OPEN, words, folder=folder, environment=environment)
    offline = run_elsewhere(OPEN, words, folder=folder, environment=environment | {"HF_HUB_OFFLINE": "1"})
    assert TOKEN not in online + offline and "already registered" not in online + offline
    return {name: json.loads(said.splitlines()[-1]) for name, said in (("online", online), ("offline", offline))}


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


@pytest.mark.parametrize("when", WHEN)
def test_what_was_opened_from_the_hub_and_saved_is_whole_again(found, classifier, folder, when):
    needed = {name for name in model_files(classifier) if name.endswith((".py", "config.json", ".safetensors"))}
    assert set(model_files(folder / f"{when} saved")) == needed
    assert {"pipeline_neurt.py", "processor_config.json"} <= needed
