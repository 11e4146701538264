"""Bad input ends in one plain line and exit code 2; good input in a file and a line that says so."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from neurt import cli
from neurt.inference import embed

COMMANDS = (
    "convert simulate simulate-corpus import build-microns inspect pretrain finetune evaluate embed reconstruct "
    "crossval push-model push-dataset app reproduce demo"
).split()


@pytest.fixture
def refused(neurt):
    """Run a command that must fail; returns its one line."""

    def run(*words):
        code, _, err = neurt(*words)
        lines = [line for line in err.split("\n") if line and not line.startswith("\r")]  # without progress bars
        assert code == 2 and len(lines) == 1, (code, err)
        assert lines[0].startswith("neurt: ") and "Traceback" not in err
        assert len(lines[0]) < 400, lines[0]
        return lines[0].removeprefix("neurt: ")

    return run


@pytest.fixture
def not_a_model(tmp_path):
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


@pytest.fixture
def corrupted(pretrained, tmp_path):
    """A model folder whose weights were cut short."""
    folder = shutil.copytree(pretrained, tmp_path / "corrupted")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:3000])
    return folder


def using(command, model, build, output):
    """The words of a command that needs a model."""
    return {
        "pretrain": ["pretrain", build, "--model", model, "--output", output],
        "finetune": ["finetune", build, "--model", model, "--label", "group", "--output", output],
        "evaluate": ["evaluate", model, build, "--output", output],
        "embed": ["embed", build, "--model", model, "--output", output],
        "reconstruct": ["reconstruct", build, "--model", model, "--output", output],
    }[command]


with_a_model = pytest.mark.parametrize("command", ["pretrain", "finetune", "evaluate", "embed", "reconstruct"])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(neurt, command):
    code, out, err = neurt(command, "--help")
    assert code == 0 and err == ""
    assert "Usage:" in out and f" {command} [OPTIONS]" in out


def test_the_help_of_the_whole_lists_every_command(neurt):
    code, out, _ = neurt("--help")
    assert code == 0 and all(command in out for command in COMMANDS)
    names = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    assert {name.replace("_", "-") for name in names} == set(COMMANDS)


def test_help_shows_units_and_defaults(neurt):
    _, out, _ = neurt("pretrain", "--help")
    texts = ("Frames in a window.", "128, or as --model", "default: 0.001", "default: 20", "Passes over", "span=16")
    for text in texts:
        assert text in out
    _, out, _ = neurt("finetune", "--help")
    for text in ("default: 0.9", "none, embeddings or encoder", "the window length"):
        assert text in out
    _, out, _ = neurt("reconstruct", "--help")
    assert "Frames hidden together, 1 to 10." in out and "default: 5" in out


@with_a_model
def test_a_build_that_is_not_there_is_refused(refused, pretrained, tmp_path, command):
    line = refused(*using(command, pretrained, tmp_path / "nowhere", tmp_path / "output"))
    assert "nowhere" in line
    assert not list(tmp_path.iterdir())


@with_a_model
def test_a_folder_that_holds_no_model_is_refused(refused, not_a_model, build, tmp_path, command):
    line = refused(*using(command, not_a_model, build, tmp_path / "output"))
    assert line == f"expected the folder of a model, got {not_a_model}, which has no config.json"
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@with_a_model
def test_a_model_that_is_neither_here_nor_on_the_hub_is_refused(refused, build, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    line = refused(*using(command, Path("runs/nowhere"), build, tmp_path / "output"))
    assert line.startswith("expected a NEuRT model that can be opened, got runs/nowhere: ")
    assert not list(tmp_path.iterdir())


@with_a_model
def test_corrupted_weights_are_refused(refused, corrupted, build, tmp_path, command):
    line = refused(*using(command, corrupted, build, tmp_path / "output"))
    assert line.startswith(f"expected a NEuRT model that can be opened, got {corrupted}: ")
    assert [path.name for path in tmp_path.iterdir()] == ["corrupted"]


@with_a_model
def test_a_model_of_another_kind_is_refused(refused, not_a_model, build, tmp_path, command):
    (not_a_model / "config.json").write_text('{"model_type": "bert"}')
    line = refused(*using(command, not_a_model, build, tmp_path / "output"))
    assert line.endswith("its model_type is 'bert', not 'neurt'")


@with_a_model
def test_a_config_that_is_no_json_or_has_bad_values_is_refused(refused, not_a_model, build, tmp_path, command):
    for text in ("{", '{"model_type": "neurt", "hidden_size": "wide"}', '{"model_type": "neurt", "hidden_size": -1}'):
        (not_a_model / "config.json").write_text(text)
        line = refused(*using(command, not_a_model, build, tmp_path / "output"))
        assert str(not_a_model) in line


@with_a_model
def test_an_output_that_exists_is_refused(refused, pretrained, build, tmp_path, command):
    output = tmp_path / "output"
    if command in ("pretrain", "finetune"):
        output.mkdir()
        (output / "config.json").write_text("{}")
        assert "expected an output folder without a model" in refused(*using(command, pretrained, build, output))
    else:
        output.write_text("mine")
        line = refused(*using(command, pretrained, build, output))
        assert "expected an output file that does not exist yet" in line and output.read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "0"], "expected epochs at least 1, got 0"),
        (["--batch-size", "100000"], "expected at least one batch of 100000 training windows"),
        (["--batch-size", "9", "--accumulation-steps", "2"], "accumulation_steps = 2 divide, got 9"),
        (["--learning-rate", "-1"], "expected learning_rate above 0, got -1.0"),
        (["--mixed-precision", "fp64"], "expected mixed_precision among no, bf16, fp16, got 'fp64'"),
        (["--mixed-precision", "fp16"], "expected a GPU for mixed_precision fp16"),
        (["--split-by", "cage"], "expected a split by subject or session, got 'cage'"),
        (["--test", "mouse7"], "got mouse7"),
        (["--test-fraction", "1.5"], "expected test_fraction above 0 and below 1, got 1.5"),
        (
            ["--split-by", "session", "--test", "sim001_ses-1"],
            "in so many words with --allow-shared-subjects",
        ),
        (["--missing-neighbours", "guess"], "guess"),
        (["--schedule", "up"], "expected schedule among cosine, linear, constant_with_warmup, got 'up'"),
        (["--warmup-fraction", "2"], "expected warmup_fraction from 0 to 1, got 2.0"),
        (["--max-gradient-norm", "0"], "expected max_gradient_norm above 0, got 0.0"),
        (["--num-workers", "-1"], "expected num_workers at least 0, got -1"),
        (["--log-with", "diary"], "Unsupported logging capability: diary"),
        (["--validation-fraction", "0", "--patience", "1"], "expected validation windows for patience, got none"),
        (["--window-stride", "0"], "expected window_stride of at least 1 frame, got 0"),
        (["--seed", "-1"], "expected seed at least 0, got -1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_bad_options_of_training_are_refused(refused, pretrained, build, tmp_path, command, words, message):
    assert message in refused(*using(command, pretrained, build, tmp_path / "output"), *words)
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--freeze", "head"], "expected freeze among none, embeddings, encoder, got 'head'"),
        (["--layer-decay", "2"], "expected layer_decay above 0 and at most 1, got 2.0"),
        (["--label", "genotype"], "expected a label 'genotype', got labels: group"),
    ],
)
def test_bad_options_of_fine_tuning_are_refused(refused, pretrained, build, tmp_path, words, message):
    assert message in refused(*using("finetune", pretrained, build, tmp_path / "output"), *words)
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "spans"], "expected tasks among span, neuron, near, far, population, forecast, got spans"),
        (["--task", "span=much"], "expected a task and its weight, like span=3, got span=much"),
        (["--task", "span=0"], "expected a weight above 0 for each task, got {'span': 0.0}"),
        (["--task", "span=1", "--task", "span=2"], "expected each task once, got span=1 span=2"),
    ],
)
def test_bad_tasks_are_refused(refused, pretrained, build, tmp_path, words, message):
    assert refused(*using("pretrain", pretrained, build, tmp_path / "output"), *words) == message
    assert not (tmp_path / "output").exists()


def test_a_model_and_a_config_at_once_are_refused(refused, pretrained, build, tmp_path):
    words = using("pretrain", pretrained, build, tmp_path / "output")
    assert "expected a model or a config, got both" in refused(*words, "--config", pretrained / "config.json")


def test_a_config_that_is_not_there_is_refused(refused, build, tmp_path):
    line = refused("pretrain", build, "--output", tmp_path / "output", "--config", tmp_path / "none.json")
    assert "none.json" in line


def test_a_config_with_a_setting_that_does_not_exist_is_refused(refused, build, tmp_path):
    (tmp_path / "config.json").write_text('{"hidden_sizes": 32}')
    line = refused("pretrain", build, "--output", tmp_path / "output", "--config", tmp_path / "config.json")
    assert line.endswith("there is no setting 'hidden_sizes'")


def test_words_the_command_line_does_not_know_are_refused_with_exit_code_2(neurt):
    for words in (["pretrian"], ["pretrain"], ["pretrain", "build", "--output", "model", "--epochs", "many"]):
        code, _, err = neurt(*words)
        assert code == 2 and "Traceback" not in err


def test_a_loss_that_is_not_finite_is_one_line(refused, pretrained, build, tmp_path, monkeypatch):
    monkeypatch.setattr("neurt.modeling_neurt.masked_squared_error", lambda *args: args[0].sum() * float("nan"))
    line = refused(*using("pretrain", pretrained, build, tmp_path / "output"), "--batch-size", 8)
    assert line.startswith("expected a finite training loss, got nan from 8 windows of the batch (recording sim0")


def test_a_bug_is_not_dressed_up_as_bad_input(neurt, pretrained, build, tmp_path, monkeypatch):
    monkeypatch.setattr("neurt.inference.embed", lambda *args, **kwargs: [][0])
    with pytest.raises(IndexError):
        neurt(*using("embed", pretrained, build, tmp_path / "rows.parquet"))


def test_embed_writes_what_the_function_writes_and_says_how_much(neurt, pretrained, build, tmp_path):
    code, out, _ = neurt(*using("embed", pretrained, build, tmp_path / "rows.parquet"))
    counts = embed(pretrained, build, tmp_path / "expected.parquet")
    assert code == 0
    left_out, last = out.splitlines()
    alone = {name: why["fewer than 2 near or far neurons"] for name, why in counts["dropped"].items()}
    assert left_out.startswith(f"left out {sum(alone.values())} neurons (fewer than 2 near or far neurons): ")
    assert f": sim001_ses-1_field-1 ({alone['sim001_ses-1_field-1']}), sim00" in left_out and " and 4 more" in left_out
    assert last == f"{counts['rows']} windows of 12 recordings; saved to {tmp_path / 'rows.parquet'}"
    assert pq.read_table(tmp_path / "rows.parquet").equals(pq.read_table(tmp_path / "expected.parquet"))


def test_reconstruct_names_what_it_skipped(neurt, pretrained, rebuild, tmp_path):
    def strip(recording):
        return replace(recording, centroids=None) if recording.subject_id == "sim001" else recording

    partly = rebuild(tmp_path / "build", strip)
    code, out, _ = neurt(*using("reconstruct", pretrained, partly, tmp_path / "rows.parquet"))
    assert code == 0 and "skipped sim001_ses-1_field-1: expected" in out and "of 10 recordings" in out


def test_evaluate_prints_baselines_says_simulated_and_names_animals_seen_in_pretraining(neurt, pretrained, build):
    code, out, _ = neurt("evaluate", pretrained, build, "--subject", "sim004", "--subject", "sim005")
    assert code == 0
    assert "seen in pretraining" in out and "sim004" in out.splitlines()[0] and "sim005" not in out.splitlines()[0]
    assert "linear interpolation" in out and "Simulated data" in out
    code, out, _ = neurt("evaluate", pretrained, build, "--subject", "sim005")
    assert code == 0 and "seen in pretraining" not in out


@pytest.mark.parametrize("command", ["embed", "reconstruct"])
def test_without_a_model_shipped_weights_serve(neurt, refused, pretrained, build, tmp_path, monkeypatch, command):
    words = [command, build, "--output", tmp_path / "rows.parquet"]
    monkeypatch.setattr("neurt.loading._SHIPPED", tmp_path)
    assert refused(*words).startswith(f"expected weights in {tmp_path}, got none; pass --model")
    monkeypatch.setattr("neurt.loading._SHIPPED", pretrained)
    assert neurt(*words)[0] == 0
    assert pq.read_metadata(tmp_path / "rows.parquet").num_rows > 0


def test_training_goes_on_from_the_shipped_weights_and_shows_what_they_did_before(
    neurt, refused, pretrained, build, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("neurt.loading._SHIPPED", pretrained)
    words = [build, "--test", "sim005", "--test", "sim006", "--epochs", 1, "--batch-size", 32]
    code, out, _ = neurt("pretrain", *words, "--model", "shipped", "--output", tmp_path / "model")
    assert code == 0 and "times that of model before training" in out
    rows = json.loads((tmp_path / "model" / "results.json").read_text())["reconstruction"]["rows"]
    after, before = ([row for row in rows if row["predictor"] == name] for name in ("model", "model before training"))
    # Before, they are where their own training had ended, which tested the same animals by the same masks.
    ended = json.loads((pretrained / "results.json").read_text())["reconstruction"]["rows"][:5]
    for row, other, trained in zip(before, ended, after, strict=True):
        assert row["channel"] == other["channel"] == trained["channel"]
        assert row["squared_error"] == pytest.approx(other["squared_error"], rel=1e-5)
        assert row["squared_error"] != pytest.approx(trained["squared_error"], rel=1e-5)
    assert neurt("evaluate", "shipped", build, "--subject", "sim005")[1].count("| model |") == 5
    # A folder of that name is what was meant.
    (tmp_path / "shipped").mkdir()
    assert "got shipped, which has no config.json" in refused("evaluate", "shipped", build)


def test_evaluate_sets_the_task_and_its_baselines(neurt, pretrained, build, tmp_path, refused):
    words = ["--task", "neuron", "--subject", "sim004", "--subject", "sim005", "--output", tmp_path / "scores.json"]
    code, out, _ = neurt("evaluate", pretrained, build, *words)
    assert code == 0 and "ridge" in out and "linear interpolation" not in out
    assert json.loads((tmp_path / "scores.json").read_text())["task"] == "neuron"
    assert "expected a task among span, neuron" in refused("evaluate", pretrained, build, "--task", "spans")


def test_evaluate_scores_a_classifier_by_subject(neurt, classifier, build, tmp_path):
    words = ["--label", "group", "--subject", "sim005", "--subject", "sim006", "--output", tmp_path / "scores.json"]
    code, out, _ = neurt("evaluate", classifier, build, *words)
    assert code == 0 and "| subject |" in out
    rows = json.loads((tmp_path / "scores.json").read_text())["rows"]
    assert {row["level"]: row["n"] for row in rows}["subject"] == 2


def test_pretrain_and_finetune_print_the_summary_and_where_the_model_is(neurt, pretrained, build, tmp_path):
    words = ["--epochs", 1, "--batch-size", 32, "--test", "sim001", "--test", "sim002", "--seed", 3]
    code, out, _ = neurt(*using("finetune", pretrained, build, tmp_path / "model"), *words)
    assert code == 0
    assert out.splitlines()[0] == ("seen in pretraining, so no test of generalisation to new animals: sim001, sim002")
    assert (tmp_path / "model" / "summary.md").read_text() in out
    assert out.splitlines()[-1] == f"saved to {tmp_path / 'model'}"
    settings = json.loads((tmp_path / "model" / "results.json").read_text())["settings"]
    assert settings["training"]["seed"] == 3 and settings["split"]["test"] == ["sim001", "sim002"]
    assert settings["finetuning"] == {
        "label": "group",
        "freeze": "none",
        "layer_decay": 0.9,
        "head_learning_rate": 1e-3,
    }
