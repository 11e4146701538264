"""The examples run as they stand there, with tiny data, and say what they promise."""

import runpy
from pathlib import Path

import pytest
from hub_server import OWNER, connect, serving_hub
from neurt import NeurtForSequenceClassification
from neurt.dataset_scripts.parquet_build import read_build
from neurt.pipeline_neurt import TASK
from neurt.publish import push_dataset
from transformers import pipeline

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(monkeypatch, capsys):
    """Run an example with the words that would follow its name; returns what it prints."""

    def run(name, *words):
        monkeypatch.setattr("sys.argv", [name, *map(str, words)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_a_gap_is_filled_by_the_weights_that_are_shipped(example):
    said = example("fill_a_gap.py", EXAMPLES.parent)
    errors = [float(line.split("error ")[1].split()[0]) for line in said.splitlines()]
    assert said.count("90 windows") == 2 and errors[0] < errors[1]


@pytest.mark.parametrize("name", ["finetune_with_trainer.py", "finetune_with_accelerate.py"])
def test_fine_tuning_is_scored_on_animals_held_out_and_leaves_a_model(name, example, build, pretrained, tmp_path):
    said = example(name, build, "group", tmp_path / "model", pretrained)
    assert "2 animals held out: accuracy" in said
    model = NeurtForSequenceClassification.from_pretrained(tmp_path / "model")
    assert model.config.id2label == {0: "control", 1: "planted"}
    classify = pipeline(TASK, model=str(tmp_path / "model"), trust_remote_code=True)
    assert classify(next(read_build(build)))["scores"].keys() == {"control", "planted"}


def test_windows_are_streamed_from_the_hub_and_gaps_in_them_filled(example, build, monkeypatch):
    with serving_hub() as hub:
        connect(hub, monkeypatch)
        push_dataset(build, f"{OWNER}/build")
        hub.requests.clear()
        said = example("stream_from_hub.py", f"hf://datasets/{OWNER}/build", 1)
        assert any("/resolve/" in path for _, path in hub.requests)
    assert "1 batches" in said and 0.2 < float(said.split("frames ")[1].split()[0]) < 2
