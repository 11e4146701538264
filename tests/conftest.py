"""Tiny simulated builds and tiny models, made once: what the tests of training and inference share."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["ACCELERATE_USE_CPU"] = "true"  # the same numbers where there is a GPU

import pytest
import torch
from neurt import NeurtConfig, NeurtForMaskedSignalModeling, NeurtProcessor, cli
from neurt.dataset_scripts.parquet_build import read_build, write_build
from neurt.dataset_scripts.simulate import write_study
from neurt.dataset_scripts.simulation_config import SimulationConfig
from neurt.train import FinetuneOptions, SplitOptions, TrainingOptions, finetune, pretrain
from tiny_training import HELD_OUT

pytest_plugins = ["browser", "pushes"]

# Windows of 40 frames from 116: the third is padded, so that pieces of a batch hide different numbers of frames.
FRAMES, WINDOW = 116, 40
TINY = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": WINDOW,
}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny matrices are fastest so, and sums do not depend on the machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    """Three simulated mice of each group (odd numbers: control), two sessions each."""
    folder = tmp_path_factory.mktemp("data") / "build"
    config = SimulationConfig(subjects_per_group=3, sessions=2, neurons=8, duration=FRAMES / 5, sampling_rate=5)
    write_study(config, folder)
    return folder


@pytest.fixture(scope="session")
def rebuild(build):
    """Write a changed copy of the build: each recording as a function makes it, or leaves it out with None."""

    def write(folder, change):
        changed = filter(None, map(change, read_build(build)))
        write_build(changed, folder, builder="test", parameters={})
        return folder

    return write


@pytest.fixture
def neurt(monkeypatch, capsys):
    """Run the command line as the `neurt` script does; returns its exit code, standard output and standard error."""

    def run(*words):
        monkeypatch.setattr("sys.argv", ["neurt", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def tiny_model():
    """A new masked model; the same weights for the same seed."""

    def make(seed=0, **settings):
        torch.manual_seed(seed)
        return NeurtForMaskedSignalModeling(NeurtConfig(**{**TINY, **settings}))

    return make


@pytest.fixture
def config_file(tmp_path, tiny_model):
    path = tmp_path / "config.json"
    tiny_model().config.to_json_file(path)
    return path


@pytest.fixture
def tiny_pretrain(build, tiny_model):
    """Pretrain a tiny model for an epoch."""

    def train(output, build=build, **overrides):
        defaults = {"model": tiny_model(), "processor": NeurtProcessor(window_length=WINDOW)}
        defaults |= {"split": SplitOptions(test=HELD_OUT), "options": TrainingOptions(epochs=1, batch_size=32)}
        return pretrain(build, output, **{**defaults, **overrides})

    return train


@pytest.fixture(scope="session")
def pretrained(build, tmp_path_factory):
    """A masked model, pretrained on four mice; sim003 chose its weights, sim005 and sim006 were held out."""
    folder = tmp_path_factory.mktemp("models") / "pretrained"
    torch.manual_seed(0)
    pretrain(
        build,
        folder,
        model=NeurtForMaskedSignalModeling(NeurtConfig(**TINY)),
        processor=NeurtProcessor(window_length=WINDOW),
        split=SplitOptions(test=HELD_OUT, validation_fraction=0.1),
        options=TrainingOptions(epochs=2, batch_size=32),
    )
    return folder


@pytest.fixture(scope="session")
def classifier(build, pretrained, tmp_path_factory):
    """A classifier of the two groups, fine-tuned on sim001 to sim004."""
    folder = tmp_path_factory.mktemp("models") / "classifier"
    finetune(
        build,
        folder,
        model=pretrained,
        finetuning=FinetuneOptions("group"),
        split=SplitOptions(test=HELD_OUT),
        options=TrainingOptions(epochs=2, batch_size=32),
    )
    return folder
