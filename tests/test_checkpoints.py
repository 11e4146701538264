"""A run goes on from its last checkpoint as if it had not been interrupted, and few checkpoints lie there."""

import re

import pytest
import torch
from neurt.training import checkpoints
from tiny_training import Interrupted, assert_same_weights, interrupt_after, train


@pytest.mark.parametrize("steps", [1, 2, 5, 8], ids="interrupted after {} steps".format)
def test_a_resumed_run_ends_bit_for_bit_like_one_that_was_never_interrupted(tmp_path, tiny_model, monkeypatch, steps):
    # With dropout the state of the random generators matters too; steps 3 and 6 end an epoch.
    options = {"checkpoint_every": 1, "accumulation_steps": 2, "tasks": {"span": 1, "far": 1}}
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
    assert_same_weights(resumed, expected)


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
    assert_same_weights(resumed, expected)
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
    assert_same_weights(model, validated)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 4}, "training.epochs 4 instead of 3"),
        ({"learning_rate": 0.1}, "training.learning_rate 0.1 instead of 0.001"),
        ({"identity": {"split": {"test": ["b"]}}}, "split.test ['b'] instead of ['a']"),
    ],
)
def test_a_run_is_resumed_as_itself_only(tmp_path, tiny_model, monkeypatch, changed, message):
    identity = {"split": {"test": ("a",)}}
    with monkeypatch.context() as context, pytest.raises(Interrupted):
        interrupt_after(context, 4)
        train(tiny_model(), tmp_path, identity=identity)
    with pytest.raises(ValueError, match=re.escape(message)):
        train(tiny_model(), tmp_path, resume=True, **{"identity": identity, **changed})
    train(tiny_model(), tmp_path, resume=True, identity=identity)


def test_to_resume_where_nothing_was_saved_is_to_start(tmp_path, tiny_model):
    assert train(tiny_model(), tmp_path / "a", resume=True) == train(tiny_model(), tmp_path / "b")


def test_a_run_that_had_lost_patience_trains_no_more_when_it_is_resumed(tmp_path, tiny_model):
    losses, model, resumed = iter([0.3, 0.5]), tiny_model(), tiny_model(seed=1)
    log = train(model, tmp_path, epochs=9, patience=1, validate=lambda model: next(losses))
    assert len(log) == 2
    assert train(resumed, tmp_path, epochs=9, patience=1, validate=lambda model: next(losses), resume=True) == log
    assert_same_weights(resumed, model)


def test_what_trackers_write_stays_beside_the_checkpoints(tmp_path, tiny_model):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "events").touch()
    train(tiny_model(), tmp_path)
    assert (tmp_path / "logs" / "events").exists()
