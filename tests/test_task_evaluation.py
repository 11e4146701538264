"""`evaluate_model` scores one mask task beside the baselines that make sense for it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from neurt.inference import evaluate_model


@pytest.mark.parametrize(
    ("task", "baselines", "hidden"),
    [
        ("span", ["linear interpolation", "window mean"], ["own", "near mean", "near SD", "far mean", "far SD"]),
        ("neuron", ["ridge, other animals", "mean, other animals"], ["own"]),
        ("far", ["ridge, other animals", "mean, other animals"], ["far mean", "far SD"]),
        ("forecast", ["copy-last", "window mean"], ["own", "near mean", "near SD", "far mean", "far SD"]),
    ],
)
def test_a_task_is_scored_beside_its_own_baselines(pretrained, build, tmp_path, task, baselines, hidden):
    scores = evaluate_model(pretrained, build, task=task, output=tmp_path / "scores.json").scores
    assert scores.predictors == ["model", *baselines]
    scored = [row["channel"] for row in scores.rows if row["predictor"] == "model" and row["n"]]
    assert scored == hidden
    assert all(np.isfinite(row["squared_error"]) for row in scores.rows if row["n"])
    assert json.loads((tmp_path / "scores.json").read_text())["task"] == task


def test_what_a_channel_hidden_throughout_is_compared_with_is_not_zero(pretrained, build):
    scores = evaluate_model(pretrained, build, task="population").scores
    mean, ridge = (scores.row(f"{name}, other animals", "far mean") for name in ("mean", "ridge"))
    # Other animals' mean leaves about the variance over neurons and animals; R² is relative to that.
    assert mean["r2"] == pytest.approx(0, abs=0.2)
    assert ridge["r2"] > -0.5


def test_forecasts_hide_a_second_behind_the_past_and_never_reach_into_it(pretrained, build, rebuild, tmp_path):
    loud = rebuild(
        tmp_path / "loud",
        lambda recording: replace(
            recording, traces=np.concatenate([recording.traces[:, :93], 5 * recording.traces[:, 93:]], axis=1)
        ),
    )
    quiet, changed = (evaluate_model(pretrained, b, task="forecast").scores for b in (build, loud))
    # Behind frame 93 of 116 there is room for four times five hidden frames, a second at 5 Hz.
    neurons = quiet.measured_on.num_neurons
    assert quiet.row("model")["n"] == changed.row("model")["n"] == 4 * 5 * neurons
    assert changed.row("copy-last")["squared_error"] > 10 * quiet.row("copy-last")["squared_error"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "neurons"}, "expected a task among span, neuron, near, far, population, forecast, got 'neurons'"),
        ({"task": "near", "missing_neighbours": "mask"}, "expected recordings with positions for the task 'near'"),
    ],
)
def test_tasks_that_cannot_be_scored_are_refused(pretrained, build, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate_model(pretrained, build, **options)


def test_a_classifier_has_no_task(classifier, build):
    with pytest.raises(ValueError, match="expected a masked model for the task 'neuron', got a classifier"):
        evaluate_model(classifier, build, label="group", task="neuron")
