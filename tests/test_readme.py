"""The commands and examples of README, docs and model card run as they stand there, with a tiny model."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from neurt import NeurtConfig, NeurtForMaskedSignalModeling, NeurtProcessor
from neurt.cards import NAME
from neurt.cli import app

REPOSITORY = Path(__file__).parents[1]
# What needs a browser, the network or files of others is tested where it is made.
ELSEWHERE = ("app", "convert", "build-microns")
DOCS = ["docs/recordings.md", "docs/training.md", "docs/groups.md", "docs/explanations.md", "docs/hub.md"]
TINY = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}


def blocks(language, document="README.md"):
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(document):
    lines = [line for block in blocks("bash", document) for line in block.splitlines() if line.startswith("neurt")]
    return [line for line in lines if line.split()[1] not in ELSEWHERE]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Eight mice in two groups as `.npz` archives, with the columns of the README's table in `recordings.csv`."""
    folder = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(0)
    rows = ["file,subject,session,genotype,split"]
    (folder / "RECORDINGS").mkdir()
    for mouse in range(1, 9):
        genotype, split = "5xFAD" if mouse % 2 else "wild type", "train" if mouse < 3 else "test"
        # One of the two chooses the checkpoint: the other must fill a batch alone.
        frames = 1700 if split == "train" else 260
        np.savez(
            folder / "RECORDINGS" / f"m{mouse}.npz",
            traces=rng.gamma(2.0, size=(9, frames)).cumsum(1) % 7,
            centroids=rng.random((9, 2)) * 100,
            sampling_rate=5.0,
            trace_kind="dff",
        )
        rows.append(f"m{mouse}.npz,MOUSE{mouse},s1,{genotype},{split}")
    (folder / "recordings.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory):
    """In the place of the shipped weights where training goes on from them, which would take long."""
    folder = tmp_path_factory.mktemp("weights")
    NeurtForMaskedSignalModeling(NeurtConfig(**TINY, max_position_embeddings=128)).save_pretrained(folder)
    NeurtProcessor().save_pretrained(folder)
    return folder


def test_the_commands_and_the_example_run_as_written(workplace, tiny_weights, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    pipeline = commands("README.md")
    assert [line.split()[1] for line in pipeline] == [
        "inspect",
        "import",
        "crossval",
        "embed",
        "reconstruct",
        "pretrain",
        "finetune",
        "evaluate",
        "explain",
        "explain",
        "push-dataset",
        "push-model",
        "reproduce",
    ]
    for line in pipeline:
        if "--model shipped" in line:
            monkeypatch.setattr("neurt.loading._SHIPPED", tiny_weights)
        app(shlex.split(line)[1:], standalone_mode=False)
    for output in (
        "inspection.png",
        "embeddings.parquet",
        "reconstructions.parquet",
        "CLASSIFIER/summary.md",
        "MODEL/results.json",
        "STUDY/report.md",
        "EXPLAINED/report.html",
        "attention.html",
    ):
        assert (workplace / output).exists()
    tested = json.loads((workplace / "CLASSIFIER" / "results.json").read_text())["split"]["test"]
    assert tested == sorted(f"MOUSE{mouse}" for mouse in range(3, 9))
    for document in ("README.md", *DOCS):
        for example in blocks("python", document):
            exec(compile(example, document, "exec"), {})
    out = capsys.readouterr().out
    assert "torch.Size([" in out and out.endswith("(8, 128)\n")
    assert out.count("{'5xFAD': ") == 8


def test_the_docs_have_no_other_commands_and_lead_somewhere():
    assert all(set(commands(document)) <= set(commands("README.md")) for document in DOCS)
    for document in ("README.md", "docs/space.md", *DOCS):
        text = (REPOSITORY / document).read_text(encoding="utf-8")
        links = {link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link}
        for path, _, heading in (link.partition("#") for link in links):
            target = (REPOSITORY / document).parent / path
            assert target.exists(), (document, path)
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.M) if heading else [""]
            assert heading in [re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings]


def test_the_examples_of_the_model_card_run_with_the_weights_that_it_describes(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    examples = blocks("python", "model_card.md")
    assert examples
    for example in examples:
        assert NAME in example
        np.random.seed(0)
        exec(compile(example.replace(NAME, str(REPOSITORY)), "model_card.md", "exec"), {})
    # Seven windows and the rest, which is padded or overlaps the seventh, of each of 40 neurons.
    assert capsys.readouterr().out == "torch.Size([320, 128, 5])\n"
