"""Cards of models: what was measured to the digit, what was not in so many words, and nobody's own words lost."""

import json
import re
import shutil
from pathlib import Path

import pytest
from hub_server import OWNER, connect, serving_hub
from huggingface_hub import ModelCard, metadata_eval_result, snapshot_download
from neurt import NeurtProcessor
from neurt.cards import is_filled, is_written, model_card, write_card
from neurt.publish import push_model
from safetensors.numpy import load_file, save_file

NAME = f"{OWNER}/name"


@pytest.fixture
def copied(classifier, tmp_path):
    """A copy of the classifier, to change."""
    return shutil.copytree(classifier, tmp_path / "model", ignore=shutil.ignore_patterns("training"))


@pytest.fixture
def unmeasured(tiny_model, tmp_path):
    """A folder as save_pretrained leaves it."""
    folder = tmp_path / "unmeasured"
    tiny_model().save_pretrained(folder)
    NeurtProcessor(window_length=40).save_pretrained(folder)
    return folder


def results(folder):
    return json.loads((folder / "results.json").read_text())


def change(folder, **entries):
    (folder / "results.json").write_text(json.dumps(results(folder) | entries))


def section(card, heading):
    return card.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def cells(table):
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows]


def test_metadata_are_what_the_hub_reads_and_come_back_as_they_were(pretrained, classifier):
    for folder, tag in ((pretrained, "feature-extraction"), (classifier, None)):
        data = ModelCard.load(folder / "README.md").data
        assert (data.library_name, data.pipeline_tag, data.license) == ("transformers", tag, None)
        for found in data.eval_results:
            made = metadata_eval_result(
                model_pretty_name="NEuRT",
                task_pretty_name=found.task_name,
                task_id=found.task_type,
                metrics_pretty_name=found.metric_name,
                metrics_id=found.metric_type,
                metrics_value=found.metric_value,
                dataset_pretty_name=found.dataset_name,
                dataset_id=found.dataset_type,
            )
            ((model,), (index,)) = made["model-index"], data.to_dict()["model-index"]
            assert model["name"] == index["name"]
            assert {"type": found.metric_type, "value": found.metric_value} in [
                {key: metric[key] for key in ("type", "value")} for metric in index["results"][0]["metrics"]
            ]
    row = next(row for row in results(pretrained)["reconstruction"]["rows"] if row["predictor"] == "model")
    found = {each.metric_type: each for each in ModelCard.load(pretrained / "README.md").data.eval_results}
    measured = {"r_squared": row["r2"], "mae": row["mae"], "mse": row["squared_error"]}
    assert {name: each.metric_value for name, each in found.items()} == measured
    provenance, split = results(pretrained)["provenance"], results(pretrained)["split"]
    arguments = {"manifest_sha256": provenance["build_sha256"], "split_sha256": split["sha256"]}
    assert found["mse"].dataset_args == arguments and "simulated" in found["mse"].dataset_name


def test_scores_and_animals_of_the_card_are_those_of_the_results(pretrained, classifier):
    table = cells(section(model_card(pretrained), "Results"))
    row = next(row for row in results(pretrained)["reconstruction"]["rows"] if row["predictor"] == "model")
    assert table[2][:4] == ["own", "model", f"{row['r2']:.3f}", f"{row['r2_within']:.3f}"]
    card = model_card(classifier)
    subjects = results(classifier)["classification"]["subjects"]
    shown = cells(section(card, "Results").partition("| held-out animal")[2])[1:]
    assert [row[0] for row in shown] == ["sim005", "sim006"]
    assert [row[1] for row in shown] == ["control", "planted"]
    assert [row[3] for row in shown] == [f"{each['margin']:.2f}" for each in subjects]
    assert "No ROC-AUC with fewer than 3 subjects" in card and "Simulated recordings are among" in card


def test_the_card_says_what_it_was_trained_on_and_what_nobody_measured(pretrained):
    training = section(model_card(pretrained), "Training")
    assert "- Recordings: 6 of 3 animals, 6 of them simulated.\n- Traces: fluorescence, at 5 Hz." in training
    assert (
        "- Licence of the recordings: not stated.\n- Subjects: 3 trained, 1 chose the checkpoint, 2 were" in training
    )
    assert "- Energy: not measured." in training and re.search(r"- Time: \d+\.\d minutes\.", training)
    made = section(model_card(pretrained), "How it was made")
    assert all(digest in made for name, digest in results(pretrained)["provenance"].items() if name != "versions")


def test_a_training_that_was_interrupted_has_no_time(copied):
    change(copied, training_hours=None)
    assert "- Time: not measured." in model_card(copied)


def test_of_a_model_without_results_nothing_is_made_up(unmeasured):
    card = model_card(unmeasured)
    assert section(card, "Results").strip() == "Not measured." and "model-index" not in card
    assert "Recordings: not measured" in card and "Versions and digests: not measured" in card
    assert section(card, "Faithfulness of explanations").strip().startswith("Not measured.")


def test_results_of_other_weights_are_not_shown(copied):
    weights = load_file(copied / "model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + 1}, copied / "model.safetensors", metadata={"format": "pt"})
    assert section(model_card(copied), "Results").strip() == "Not measured."


@pytest.mark.parametrize("kind", ["pretrained", "classifier"])
def test_the_example_of_the_card_runs(kind, request, capsys):
    folder = request.getfixturevalue(kind)
    (example,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    exec(compile(example.replace("PATH_OR_NAME", str(folder)), "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert said.startswith("torch.Size([") if kind == "pretrained" else said.strip() in ("control", "planted")


HOSTILE = "a|b](http://x)<script>\n## Heading `x` {{7 * 7}}"


def test_names_of_strangers_stay_text(copied):
    found = results(copied)
    found["classification"]["subjects"][0]["subject_id"] = HOSTILE
    found["classification"]["class_names"] = [HOSTILE, "planted"]
    found["data"] |= {"licences": [HOSTILE], "trace_kinds": [HOSTILE]}
    found["provenance"]["versions"] |= {HOSTILE: HOSTILE}
    found["provenance"]["build_sha256"] = HOSTILE
    found["split"]["by"] = HOSTILE
    change(copied, **(found | {"seen_in_training": [HOSTILE], "command": f"neurt\n```\n{HOSTILE}"}))
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"id2label": {"0": HOSTILE, "1": "planted"}}))
    card = model_card(copied)
    fenced = re.sub(r"(?ms)^(`{3,}).*?^\1$", "", card)
    assert re.search(r"\\<script", fenced) and not re.search(r"(?<!\\)<script|(?<!\\)\]\(http", fenced)
    assert r"\{\{7 \* 7\}\}" in fenced, "what was put into the template is no template"
    assert fenced.count("\n## Heading") == 0 and len(ModelCard(card).data.tags) == 4
    assert {
        len(row) for row in cells(fenced.partition("| held-out")[2].partition("\n## ")[0].replace(r"\|", ""))[1:]
    } == {4}


def test_what_a_report_found_stands_in_the_card_if_it_is_of_these_weights(copied):
    weights = results(copied)["provenance"]["weights_sha256"]
    methods = {"rollout": {"stamp": "not faithful: no better | than random"}, "gradients": {"stamp": "faithful"}}
    explanation = {"weights_sha256": weights, "methods": methods, "simulated": True}
    (copied / "explanation.json").write_text(json.dumps(explanation))
    found = section(model_card(copied), "Faithfulness of explanations")
    assert r"| rollout | not faithful\: no better \| than random |" in found and "| gradients | faithful |" in found
    assert "Simulated recordings" in found
    (copied / "explanation.json").write_text(json.dumps(explanation | {"weights_sha256": "0" * 64}))
    assert "Not measured: explanation.json is about other weights" in model_card(copied)


@pytest.mark.parametrize(
    "entries",
    [
        {"split": None},
        {"classification": {"rows": []}},
        {"data": {}, "classification": []},
        {"provenance": {"versions": 1}},
        {"training_hours": "long"},
        {"data": dict.fromkeys(["recordings", "subjects", "simulated_recordings"], "<b>many</b>")},
    ],
)
def test_results_that_no_training_wrote_are_refused_in_one_line(copied, entries):
    change(copied, **entries)
    with pytest.raises(ValueError, match="results.json: expected results as a training writes them"):
        model_card(copied)


def test_a_card_is_filled_again_until_a_person_changes_it(copied):
    path = copied / "README.md"
    assert is_filled(path.read_text()) and not is_written(path)
    change(copied, training_hours=5.0)
    write_card(copied)
    assert "- Time: 5.0 hours." in path.read_text()
    changed = path.read_text().replace("5.0 hours", "a long time")
    path.write_text(changed)
    assert is_written(path)
    write_card(copied)
    assert path.read_text() == changed


def test_training_leaves_a_card_alone_that_was_there(tiny_pretrain, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    tiny_pretrain(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_no_path_of_this_machine_is_written_down(build, tmp_path, config_file, neurt):
    folder = tmp_path / "secret" / "MODEL"
    words = ["--config", config_file, "--window-length", 40, "--epochs", 1, "--batch-size", 32, "--output", folder]
    code, _, err = neurt("pretrain", build, *words)
    assert code == 0, err
    for name in ("README.md", "results.json", "summary.md", "config.json", "processor_config.json"):
        text = (folder / name).read_text()
        assert str(tmp_path) not in text and "secret" not in text and str(build.parent) not in text, name
    assert results(folder)["command"].startswith(
        f"neurt pretrain {build.name} --config config.json --window-length 40"
    )


def test_a_push_fills_the_card_anew_names_the_repository_in_it_and_changes_nothing_here(copied, monkeypatch):
    before = (copied / "README.md").read_bytes()
    weights = results(copied)["provenance"]["weights_sha256"]
    explanation = {"weights_sha256": weights, "methods": {"rollout": {"stamp": "faithful"}}}
    (copied / "explanation.json").write_text(json.dumps(explanation))
    with serving_hub() as hub:
        connect(hub, monkeypatch)
        push_model(copied, NAME)
        files = hub.repositories["model", NAME].state()["main"][1]
        card = files["README.md"].decode()
        ModelCard(card).validate()  # by what this Hub checks
        assert f'model="{NAME}"' in card and "PATH_OR_NAME" not in card and "| rollout | faithful |" in card
        assert "explanation.json" in files and (copied / "README.md").read_bytes() == before
        again = Path(snapshot_download(NAME, local_dir=copied.with_name("again")))
        assert is_filled(card) and not push_model(again, NAME).is_new, "what comes back from the Hub is the same"
        (copied / "README.md").write_text("mine, for PATH_OR_NAME")
        push_model(copied, NAME)
        assert hub.repositories["model", NAME].state()["main"][1]["README.md"] == f"mine, for {NAME}".encode()


def test_a_model_without_a_card_is_published_with_one(unmeasured):
    sizes = push_model(unmeasured, NAME, dry_run=True).sizes
    assert sizes["README.md"] > 1000 and not (unmeasured / "README.md").exists()
