"""The loop trains the same whatever way a batch is cut, goes on where it was interrupted, and stops in plain words."""

import re

import numpy as np
import pytest
import torch
from neurt import MaskedSignalCollator, checkpoints, training_loop
from neurt.masking import MASK_TASKS
from neurt.non_finite_losses import not_finite, windows_to_blame
from neurt.training_batches import cut_batch, epoch_batches, process_share
from neurt.training_loop import fit
from neurt.training_options import TrainingOptions
from torch.utils.data import Dataset


class Windows(Dataset):
    """24 windows of 40 frames, every third one padded."""

    def __init__(self, scale=1.0):
        self.values = np.random.default_rng(0).normal(size=(24, 40, 5)).astype(np.float32) * np.float32(scale)
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        real = np.arange(40) < (33 if index % 3 == 0 else 40)
        values = self.values[index] * real[:, None]
        return {
            "input_values": values,
            "attention_mask": real.astype(np.int64),
            "sampling_rate": np.float32(5 + index % 2),
            "window_index": index,
            "epoch": self.epoch,
        }


def train(model, folder, *, validate=None, resume=False, settings=None, dataset=None, tasks=None, **options):
    options = TrainingOptions(**{"epochs": 3, "batch_size": 8, "seed": 3, **options})
    groups = [{"params": list(model.parameters())}]
    collate = MaskedSignalCollator(options.seed, tasks=tasks)
    return fit(model, groups, dataset or Windows(), collate, options, folder, validate, resume, settings)


def assert_same(first, second):
    first, second = first.state_dict(), second.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def largest_difference(first, second):
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


class Interrupted(Exception):
    pass


def interrupt_after(monkeypatch, steps):
    """Let the loop take some optimiser steps, then stop it as a crash would."""
    taken, step = [], training_loop._step

    def counted(*args):
        if len(taken) == steps:
            raise Interrupted
        taken.append(1)
        return step(*args)

    monkeypatch.setattr(training_loop, "_step", counted)


def test_an_epoch_meets_every_window_once_and_each_epoch_has_its_own_order():
    batches = epoch_batches(12, 4, seed=5, epoch=0)
    assert batches.shape == (3, 4) and sorted(batches.ravel()) == list(range(12))
    assert np.array_equal(batches, epoch_batches(12, 4, seed=5, epoch=0))
    assert not np.array_equal(batches, epoch_batches(12, 4, seed=5, epoch=1))
    assert not np.array_equal(batches, epoch_batches(12, 4, seed=6, epoch=0))


def test_windows_that_do_not_fill_a_batch_wait_for_another_epoch():
    used = [set(epoch_batches(10, 4, seed=0, epoch=epoch).ravel()) for epoch in range(8)]
    assert all(len(windows) == 8 for windows in used) and set.union(*used) == set(range(10))


def test_processes_share_out_each_batch():
    batches = np.arange(16).reshape(2, 8)
    assert process_share(batches, 0, 2).tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert process_share(batches, 1, 2).tolist() == [[4, 5, 6, 7], [12, 13, 14, 15]]


def test_a_batch_is_cut_into_pieces_of_equal_size_and_a_smaller_last_one():
    batch = {"labels": torch.arange(5), "recording_id": list("abcde")}
    pieces = [(piece["labels"].tolist(), piece["recording_id"]) for piece in cut_batch(batch, 2)]
    assert pieces == [([0, 1, 2], ["a", "b", "c"]), ([3, 4], ["d", "e"])]
    assert [len(piece["labels"]) for piece in cut_batch(batch, 1)] == [5]


@pytest.mark.parametrize("tasks", [{"span": 1}, dict.fromkeys(MASK_TASKS, 1)], ids=["spans", "all tasks"])
def test_accumulation_changes_neither_losses_nor_weights(tmp_path, tiny_model, tasks):
    whole, cut = tiny_model(), tiny_model()
    expected = train(whole, tmp_path / "whole", epochs=2, tasks=tasks)
    log = train(cut, tmp_path / "cut", epochs=2, tasks=tasks, accumulation_steps=4)
    assert [entry["loss"] for entry in log] == pytest.approx([entry["loss"] for entry in expected], abs=1e-6)
    assert largest_difference(whole, cut) < 1e-5
    assert largest_difference(whole, tiny_model()) > 1e-3


def test_the_first_loss_is_the_mean_squared_error_over_everything_hidden_in_the_batch(tmp_path, tiny_model):
    model, dataset = tiny_model(predict_correction=False), Windows()  # else it starts as interpolation
    batch = MaskedSignalCollator(3)([dataset[index] for index in epoch_batches(24, 24, seed=3, epoch=0)[0]])
    with torch.no_grad():
        inputs = {name: batch[name] for name in ("input_values", "attention_mask", "bool_masked_pos", "sampling_rate")}
        output = model(**inputs)
    errors = (output.reconstruction - batch["input_values"])[batch["bool_masked_pos"]]
    log = train(model, tmp_path / "run", epochs=1, batch_size=24, accumulation_steps=3)
    assert log[0]["loss"] == pytest.approx(errors.square().mean().item(), rel=1e-6)


def test_the_same_seed_gives_the_same_training_and_another_seed_another(tmp_path, tiny_model):
    first, second, third = tiny_model(), tiny_model(), tiny_model()
    log = train(first, tmp_path / "1", epochs=1)
    assert log == train(second, tmp_path / "2", epochs=1)
    assert_same(first, second)
    assert log != train(third, tmp_path / "3", epochs=1, seed=4)


def test_the_learning_rate_rises_and_falls_as_the_schedule_says(tmp_path, tiny_model):
    log = train(tiny_model(), tmp_path, epochs=4, batch_size=24, learning_rate=0.1, schedule="linear")
    assert [entry["learning_rate"] for entry in log] == pytest.approx([0.075, 0.05, 0.025, 0])


@pytest.mark.parametrize("steps", [1, 2, 5, 8], ids="interrupted after {} steps".format)
def test_a_resumed_run_ends_bit_for_bit_like_one_that_was_never_interrupted(tmp_path, tiny_model, monkeypatch, steps):
    # With dropout the state of the random generators matters too; steps 3 and 6 end an epoch.
    options = {"checkpoint_every": 1, "accumulation_steps": 2}
    losses = iter([0.5, 0.4, 0.6])
    expected = tiny_model(hidden_dropout_prob=0.1)
    log = train(expected, tmp_path / "whole", validate=lambda model: next(losses), **options)

    resumed = tiny_model(hidden_dropout_prob=0.1)
    losses = iter([0.5, 0.4, 0.6])
    with monkeypatch.context() as context, pytest.raises(Interrupted):
        interrupt_after(context, steps)
        train(resumed, tmp_path / "cut", validate=lambda model: next(losses), **options)
    assert [path.name for path in tmp_path.glob("cut/step-*")] == [f"step-{steps}"]
    resumed = tiny_model(seed=1, hidden_dropout_prob=0.1)
    resumed_log = train(resumed, tmp_path / "cut", validate=lambda model: next(losses), resume=True, **options)
    assert resumed_log == log
    assert_same(resumed, expected)


def test_a_run_interrupted_while_it_wrote_a_checkpoint_goes_on_from_the_one_before(tmp_path, tiny_model, monkeypatch):
    expected = tiny_model()
    log = train(expected, tmp_path / "whole", checkpoint_every=1)

    replace = checkpoints.os.replace

    def interrupted_replace(source, target):
        if target.name == "step-5":
            raise Interrupted
        replace(source, target)

    with monkeypatch.context() as context, pytest.raises(Interrupted):
        context.setattr(checkpoints.os, "replace", interrupted_replace)
        train(tiny_model(), tmp_path / "cut", checkpoint_every=1)
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {"step-4", "writing-step-5"}
    resumed = tiny_model(seed=1)
    assert train(resumed, tmp_path / "cut", checkpoint_every=1, resume=True) == log
    assert_same(resumed, expected)
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {"step-9"}


def test_one_checkpoint_and_the_best_weights_remain_and_two_of_each_lie_there_at_any_moment(
    tmp_path, tiny_model, monkeypatch
):
    seen, clear = [], checkpoints._clear

    def watched_clear(folder):
        seen.append({path.name for path in tmp_path.iterdir()} if tmp_path.exists() else set())
        clear(folder)

    monkeypatch.setattr(checkpoints, "_clear", watched_clear)
    losses = iter([0.5, 0.2, 0.9])
    train(tiny_model(), tmp_path, validate=lambda model: next(losses), checkpoint_every=1)
    assert {path.name for path in tmp_path.iterdir()} == {"step-9", "best-6"}
    assert max(sum("step-" in name for name in names) for names in seen) == 2
    assert max(sum("best-" in name for name in names) for names in seen) == 2


def test_the_model_ends_with_the_weights_of_the_lowest_validation_loss(tmp_path, tiny_model):
    losses, weights = iter([0.5, 0.2, 0.9]), []

    def validate(model):
        weights.append({name: value.clone() for name, value in model.state_dict().items()})
        return next(losses)

    model = tiny_model()
    log = train(model, tmp_path, validate=validate)
    assert [entry["validation_loss"] for entry in log] == pytest.approx([0.5, 0.2, 0.9])
    assert all(torch.equal(value, weights[1][name]) for name, value in model.state_dict().items())
    assert not torch.equal(model.decoder.weight, weights[2]["decoder.weight"])


def test_without_validation_the_last_weights_remain(tmp_path, tiny_model):
    validated, model = tiny_model(), tiny_model()
    losses = iter([3.0, 2.0, 1.0])
    train(validated, tmp_path / "validated", validate=lambda model: next(losses))
    train(model, tmp_path / "plain")
    assert_same(model, validated)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 4}, "training.epochs 4 instead of 3"),
        ({"learning_rate": 0.1}, "training.learning_rate 0.1 instead of 0.001"),
        ({"settings": {"split": {"test": ["b"]}}}, "split.test ['b'] instead of ['a']"),
    ],
)
def test_a_run_is_resumed_with_its_own_settings_only(tmp_path, tiny_model, monkeypatch, changed, message):
    settings = {"split": {"test": ("a",)}}
    with monkeypatch.context() as context, pytest.raises(Interrupted):
        interrupt_after(context, 4)
        train(tiny_model(), tmp_path, settings=settings)
    with pytest.raises(ValueError, match=re.escape(message)):
        train(tiny_model(), tmp_path, resume=True, **{"settings": settings, **changed})
    train(tiny_model(), tmp_path, resume=True, settings=settings)


def test_to_resume_where_nothing_was_saved_is_to_start(tmp_path, tiny_model):
    assert train(tiny_model(), tmp_path / "a", resume=True) == train(tiny_model(), tmp_path / "b")


def test_a_loss_that_is_not_finite_stops_the_run_before_anything_is_saved(tmp_path, tiny_model):
    with pytest.raises(FloatingPointError, match="finite training loss, got (inf|nan) from 8 windows of the batch"):
        train(tiny_model(standardize_windows=False), tmp_path / "run", dataset=Windows(scale=1e30))
    assert not (tmp_path / "run").exists()


def test_only_windows_without_a_finite_loss_of_their_own_are_blamed():
    batch = {"labels": torch.tensor([1.0, torch.inf, 2.0, torch.nan, torch.inf]), "recording_id": list("aabbb")}
    batch["roi_id"] = list("12345")
    blamed = windows_to_blame(batch, lambda windows: windows["labels"].sum())
    assert blamed == ["recording a ROI 2", "recording b ROI 4", "recording b ROI 5"]


def test_weights_that_are_not_finite_are_blamed_before_any_recording():
    model = torch.nn.Linear(2, 2)
    assert "from 2 windows of the batch (a); look at" in str(
        not_finite("training", torch.tensor(torch.nan), model, "aa")
    )
    assert "from no window alone" in str(not_finite("training", torch.tensor(torch.inf), model, []))
    torch.nn.init.constant_(model.bias, torch.nan)
    message = str(not_finite("training", torch.tensor(torch.nan), model, "aa"))
    assert message.endswith("got nan, for weights are no longer finite; pass a lower learning rate")


def test_a_validation_loss_that_is_not_finite_stops_the_run(tmp_path, tiny_model):
    with pytest.raises(FloatingPointError, match="finite validation loss, got nan"):
        train(tiny_model(), tmp_path, validate=lambda model: float("nan"))


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
