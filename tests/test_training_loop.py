"""The loop trains the same whatever way a batch is cut, with what options, and stops in plain words."""

import functools
import re

import pytest
import torch
from accelerate.commands.launch import launch_command_parser
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from accelerate.utils.launch import prepare_multi_gpu_env
from neurt import MaskedSignalCollator
from neurt.masking import MASK_TASKS
from neurt.training.batches import epoch_batches
from safetensors.torch import load_file
from tiny_training import Windows, assert_same_weights, largest_difference, train


@pytest.mark.parametrize("tasks", [{"span": 1}, dict.fromkeys(MASK_TASKS, 1)], ids=["spans", "all tasks"])
def test_accumulation_changes_neither_losses_nor_weights(tmp_path, tiny_model, tasks):
    whole, cut = tiny_model(), tiny_model()
    expected = train(whole, tmp_path / "whole", epochs=2, tasks=tasks)
    log = train(cut, tmp_path / "cut", epochs=2, tasks=tasks, accumulation_steps=4)
    assert [entry["loss"] for entry in log] == pytest.approx([entry["loss"] for entry in expected], abs=1e-6)
    assert largest_difference(whole, cut) < 1e-5
    assert largest_difference(whole, tiny_model()) > 1e-3


def test_the_first_loss_is_the_mean_squared_error_over_everything_hidden_in_the_batch(tmp_path, tiny_model):
    # Else it starts as interpolation, with a loss of 1.
    model, dataset = tiny_model(predict_correction=False, relative_loss=False), Windows()
    batch = MaskedSignalCollator(3)([dataset[index] for index in epoch_batches(24, 24, seed=3, epoch=0)[0]])
    with torch.no_grad():
        inputs = {name: batch[name] for name in ("input_values", "attention_mask", "bool_masked_pos", "sampling_rate")}
        output = model(**inputs)
    errors = (output.reconstruction - batch["input_values"])[batch["bool_masked_pos"]]
    log = train(model, tmp_path / "run", epochs=1, batch_size=24, accumulation_steps=3)
    assert log[0]["loss"] == pytest.approx(errors.square().mean().item(), rel=1e-6)


def test_an_error_between_two_pieces_of_a_batch_is_no_part_of_the_next_run(tmp_path, tiny_model, monkeypatch):
    expected = train(tiny_model(), tmp_path / "alone", accumulation_steps=2)
    model = tiny_model()
    forward, calls = model.forward, []

    def interrupted(**inputs):
        calls.append(1)
        if len(calls) == 4:  # the pieces are tried once, before the first step
            raise KeyboardInterrupt
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(model, tmp_path / "interrupted", accumulation_steps=2)
    assert train(tiny_model(), tmp_path / "after", accumulation_steps=2) == expected


def test_the_same_seed_gives_the_same_training_and_another_seed_another(tmp_path, tiny_model):
    first, second, third = tiny_model(), tiny_model(), tiny_model()
    log = train(first, tmp_path / "1", epochs=1)
    assert log == train(second, tmp_path / "2", epochs=1)
    assert_same_weights(first, second)
    assert log != train(third, tmp_path / "3", epochs=1, seed=4)


def test_the_learning_rate_rises_and_falls_as_the_schedule_says(tmp_path, tiny_model):
    log = train(tiny_model(), tmp_path, epochs=4, batch_size=24, learning_rate=0.1, schedule="linear")
    assert [entry["learning_rate"] for entry in log] == pytest.approx([0.075, 0.05, 0.025, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 25}, "at least one batch of 25 training windows, got 24 windows"),
        ({"batch_size": 8, "accumulation_steps": 3}, "accumulation_steps = 3 divide, got 8"),
        ({"epochs": 0}, "expected epochs at least 1, got 0"),
        ({"checkpoint_every": 0}, "expected checkpoint_every at least 1, got 0"),
        ({"learning_rate": 0}, "expected learning_rate above 0, got 0"),
        ({"learning_rate": float("nan")}, "expected learning_rate above 0, got nan"),
        ({"weight_decay": -1}, "expected weight_decay at least 0, got -1"),
        ({"warmup_fraction": 2}, "expected warmup_fraction from 0 to 1, got 2"),
        ({"schedule": "up"}, "expected schedule among cosine, linear, constant_with_warmup, got 'up'"),
        ({"mixed_precision": "fp8"}, "expected mixed_precision among no, bf16, fp16, got 'fp8'"),
        ({"patience": 0}, "expected patience at least 1, got 0"),
        ({"seed": -1}, "expected seed at least 0, got -1"),
    ],
)
def test_options_that_cannot_be_used_are_refused(tmp_path, tiny_model, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        train(tiny_model(), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_processes_that_do_not_know_of_each_other_are_refused(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="expected the 2 processes that were launched to train as one, got 1"):
        train(tiny_model(), tmp_path)


def test_a_launch_that_would_split_the_model_is_refused(tmp_path, tiny_model, monkeypatch):
    words = ["--use_fsdp", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    words += ["--dynamo_backend", "no", "--main_process_port", "0", "train.py"]
    launched = prepare_multi_gpu_env(launch_command_parser().parse_args(words))
    assert launched["ACCELERATE_USE_FSDP"] == "true"
    with (
        monkeypatch.context() as context,
        pytest.raises(ValueError, match="got fsdp; leave out --use_fsdp"),
    ):
        for name, value in launched.items():
            context.setenv(name, value)
        train(tiny_model(), tmp_path / "run")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ValueError, match="got deepspeed; leave out --use_deepspeed"):
        train(tiny_model(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bf16_trains_near_fp32_and_leaves_an_fp32_model(tmp_path, tiny_model):
    exact, model = tiny_model(), tiny_model()
    expected = train(exact, tmp_path / "fp32")
    log = train(model, tmp_path / "bf16", mixed_precision="bf16")
    losses = [entry["loss"] for entry in log]
    assert losses == pytest.approx([entry["loss"] for entry in expected], rel=0.02)
    assert losses != [entry["loss"] for entry in expected]
    values = torch.randn(2, 40, 5)
    assert torch.equal(model(values).reconstruction, type(model).forward(model, values).reconstruction)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert train(tiny_model(), tmp_path / "again") == expected


def test_workers_change_nothing(tmp_path, tiny_model):
    assert train(tiny_model(), tmp_path / "0", epochs=1) == train(
        tiny_model(), tmp_path / "1", epochs=1, num_workers=1
    )


def test_training_stops_when_the_validation_loss_has_not_fallen_for_so_many_epochs(tmp_path, tiny_model):
    losses = iter([0.5, 0.3, 0.3, 0.4, 0.1])
    log = train(tiny_model(), tmp_path, epochs=5, patience=2, validate=lambda model: next(losses))
    assert [entry["validation_loss"] for entry in log] == pytest.approx([0.5, 0.3, 0.3, 0.4])
    losses = iter([0.5, 0.3, 0.3, 0.4, 0.1])
    log = train(tiny_model(), tmp_path / "patient", epochs=5, patience=3, validate=lambda model: next(losses))
    assert len(log) == 5


def test_patience_without_validation_is_refused(tmp_path, tiny_model):
    with pytest.raises(ValueError, match="expected validation windows for patience, got none"):
        train(tiny_model(), tmp_path, patience=1)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_compiled_model_trains_like_one_that_is_not_and_its_weights_keep_their_names(
    tmp_path, tiny_model, monkeypatch, precision
):
    # Without the last stage, which writes C++ and takes half a minute.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    plain, model = tiny_model(), tiny_model()
    expected = train(plain, tmp_path / "plain", epochs=2, mixed_precision=precision, validate=lambda model: 1.0)
    options = {"mixed_precision": precision, "compile": True, "validate": lambda model: 1.0}
    log = train(model, tmp_path / "compiled", epochs=2, **options)
    tolerance = 1e-5 if precision == "no" else 1e-2
    assert [entry["loss"] for entry in log] == pytest.approx([entry["loss"] for entry in expected], rel=tolerance)
    assert largest_difference(plain, model) < 10 * tolerance
    for saved in ("step-6", "best-3"):
        weights = load_file(tmp_path / "compiled" / saved / "model.safetensors")
        assert weights.keys() == model.state_dict().keys() == plain.state_dict().keys()


def test_to_compile_without_a_compiler_is_refused(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match="expected a C\\+\\+ compiler to compile for a CPU, got no no-such-compiler"):
        train(tiny_model(), tmp_path, compile=True)


class ListTracker(GeneralTracker):
    """Keeps what it is told; needs no package and no network."""

    name, requires_logging_directory, tracker = "list", True, None
    told: list = []

    def __init__(self, run_name, logging_dir):
        super().__init__()
        self.told.append((run_name, logging_dir))

    def store_init_configuration(self, values):
        self.told.append(values)

    def log(self, values, step=None, **kwargs):
        self.told.append((step, values))

    def finish(self):
        self.told.append("finished")


@pytest.fixture
def list_tracker(monkeypatch):
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "list", ListTracker)
    monkeypatch.setattr(ListTracker, "told", [])
    return ListTracker


def test_trackers_are_told_the_options_each_loss_and_the_end(tmp_path, tiny_model, list_tracker):
    log = train(tiny_model(), tmp_path, epochs=1, log_with=("list",), validate=lambda model: 0.25)
    start, options, *steps, end = list_tracker.told
    assert start == ("neurt", str(tmp_path / "logs")) and end == "finished"
    assert options["batch_size"] == 8 and options["schedule"] == "cosine"
    assert [step for step, _ in steps] == [1, 2, 3, 3] and steps[-1][1] == {"validation_loss": 0.25}
    losses = [values["loss"] for _, values in steps[:-1]]
    assert log[0]["loss"] == pytest.approx(sum(losses) / 3) and steps[2][1]["learning_rate"] == 0


def test_a_tracker_whose_package_is_not_there_is_refused_by_name(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setattr("neurt.training.loop.get_available_trackers", lambda: [])
    with pytest.raises(ValueError, match="the package of the tracker wandb, got none; pip install wandb"):
        train(tiny_model(), tmp_path / "run", log_with=("wandb",))
    with pytest.raises(ValueError, match="Unsupported logging capability: diary"):
        train(tiny_model(), tmp_path / "run", log_with=("diary",))
    assert not (tmp_path / "run").exists()
