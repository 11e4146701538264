"""What the tests of publishing publish, where to, and what they ask of it afterwards."""

import pickle
import traceback

import pytest
from hub_server import OWNER, TOKEN, connect, serving_hub
from neurt import NeurtProcessor
from small_builds import recording, write

NAME = f"{OWNER}/name"
CODE = {
    "configuration_neurt.py",
    "layers_neurt.py",
    "modeling_neurt.py",
    "processing_neurt.py",
    "signal_neurt.py",
}
MODEL = CODE | {"config.json", "model.safetensors", "processor_config.json"}
RESULTS = {"README.md", "results.json", "summary.md", "reconstruction.png", "reconstruction_errors.json"}
BUILD = {
    "README.md",
    "manifest.json",
    "data/train/r0.parquet",
    "data/test/r1.parquet",
    "units/train.parquet",
    "units/test.parquet",
}


@pytest.fixture
def hub(monkeypatch):
    with serving_hub() as hub:
        connect(hub, monkeypatch)
        yield hub


@pytest.fixture
def model_folder(tiny_model, tmp_path):
    """A folder as training leaves it, among what is nobody's business."""
    folder = tmp_path / "model"
    tiny_model().save_pretrained(folder)
    NeurtProcessor(window_length=40).save_pretrained(folder)
    for name in RESULTS:
        (folder / name).write_bytes(b"---\nlicense: apache-2.0\n---\n")
    for name in ("training_args.bin", "pytorch_model.bin", "training/step-1/state.pkl", ".cache/a", "raw.csv", "x.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(pickle.dumps("private"))
    (folder / ".env").write_text(f"HF_TOKEN={TOKEN}")
    return folder


@pytest.fixture
def small_build(tmp_path):
    folder = write(tmp_path / "build", [recording(number, frames=60) for number in range(2)], split={"r1": "test"})
    (folder / "data" / "train" / "raw.parquet").write_bytes(b"not of the manifest")
    (folder / "notes.txt").write_text("private")
    return folder


def files(hub, kind="model", revision="main", name=NAME):
    """What the repository holds."""
    return dict(hub.repositories[kind, name].state()[revision][1])


def published(hub, kind="model", revision="main"):
    return set(files(hub, kind, revision)) - {".gitattributes"}


def refused(act, *kinds, words):
    """The one line in which something is refused, in which the token is nowhere, nor in what lies behind it."""
    with pytest.raises(kinds or ValueError, match=words) as error:
        act()
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert TOKEN not in "".join(traceback.format_exception(error.value))
    return str(error.value)


def different(weights):
    """The bytes of a file of weights with another last number."""
    content = weights.read_bytes()
    return content[:-1] + bytes([content[-1] ^ 1])
