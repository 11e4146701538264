"""The benchmark of explanations: what is planted where, how neurons are scored, what the report says."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from neurt import NeurtConfig, NeurtForMaskedSignalModeling, NeurtProcessor
from neurt.crossval.data import StudyOptions
from neurt.dataset_scripts.simulation_config import SimulationConfig
from neurt.dataset_scripts.windows import cut_windows
from neurt.evaluation import json_ready
from neurt.explain.explained import gather
from neurt.training.options import TrainingOptions

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import planted_explanations
from planted_explanations import (
    ABLATION,
    GRADIENTS,
    KINDS,
    NEIGHBOURS,
    OWN,
    PREPARATION,
    Mouse,
    PlantedStudy,
    gap,
    neuron_scores,
    observers,
    planted_studies,
    report,
    simulated_mice,
    study_results,
    windows_of,
)

MICE = {"subjects_per_group": 6, "neurons": 8, "duration": 40.0, "rate": 1.0, "noise": 0.01}
SETTINGS = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An untrained model that has seen the first mouse of the study "seen"."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = NeurtConfig(**SETTINGS, max_position_embeddings=40, pretraining_subjects=["seen-sim001"])
    NeurtForMaskedSignalModeling(config).save_pretrained(folder)
    NeurtProcessor(window_length=40).save_pretrained(folder)
    return folder


@pytest.fixture
def study(model):
    def make(name="test", planted_in=OWN):
        options = StudyOptions("group", windows=20)
        return PlantedStudy(name, SimulationConfig(**MICE), options, model, planted_in=planted_in)

    return make


@pytest.fixture
def small(monkeypatch):
    """Fewer mice, hardly trained."""
    monkeypatch.setattr(planted_explanations, "TRAINING_MICE", 6)
    monkeypatch.setattr(planted_explanations, "TRAINING", TrainingOptions(epochs=1, batch_size=32))


@pytest.mark.parametrize(("planted_in", "planted_channels"), [(OWN, [0]), (NEIGHBOURS, [1, 2, 3, 4])])
def test_only_some_channels_are_those_of_the_planted_mouse(study, planted_in, planted_channels):
    mice, processor = list(simulated_mice(study()))[:2], NeurtProcessor(window_length=40)
    assert not mice[0].planted.any() and mice[1].planted.sum() == 4
    dataset = windows_of(study(planted_in=planted_in), mice, processor)
    windows = gather(dataset, np.arange(len(dataset)))[dataset.window_recordings == 1]
    planted, twin = (cut_windows(each, processor) for each in (mice[1].recording, mice[1].twin))
    for row in range(len(windows)):
        found = windows.inputs["input_values"][row]
        for channel in range(5):
            expected = planted if channel in planted_channels else twin
            np.testing.assert_array_equal(found[:, channel], expected[row]["input_values"][:, channel])
    assert np.nanmax(np.abs(planted.channels - twin.channels)[..., 0]) > 0.1
    # Nothing is planted in control mice: twins are the same.
    np.testing.assert_allclose(mice[0].recording.traces, mice[0].twin.traces, atol=1e-6)


def test_twins_differ_in_planted_neurons_alone():
    config = next(iter(planted_studies(1, Path()).values()))[0].config
    mouse = next(mouse for mouse in simulated_mice(PlantedStudy("test", config, None, Path())) if mouse.planted.any())
    changed = ~np.isclose(mouse.recording.traces, mouse.twin.traces, atol=1e-6).all(1)
    np.testing.assert_array_equal(changed, mouse.planted)
    assert mouse.recording.trace_kind == mouse.twin.trace_kind == "dff"


def test_variability_is_planted_without_another_level():
    config = replace(planted_studies(1, Path())["variability"][0].config, subjects_per_group=4)
    mice = [mouse for mouse in simulated_mice(PlantedStudy("test", config, None, Path())) if mouse.planted.any()]
    pairs = [(mouse.recording.traces[mouse.planted], mouse.twin.traces[mouse.planted]) for mouse in mice]
    level, deviation = (
        np.mean([measure(planted) / measure(twin) for planted, twin in pairs]) for measure in (np.mean, np.std)
    )
    assert level == pytest.approx(1, abs=0.03) and deviation > 1.4


def test_neurons_are_scored_within_mice_and_by_the_truth_of_the_next_one(study):
    mice, processor = list(simulated_mice(study()))[:6], NeurtProcessor(window_length=40)
    dataset = windows_of(study(), mice, processor)
    windows = gather(dataset, np.arange(len(dataset)))
    truth = {mouse.recording.recording_id: mouse.planted for mouse in mice}
    planted = np.array(
        [truth[windows.recording_ids[windows.recording[i]]][windows.neuron_index[i]] for i in range(len(windows))]
    )
    # Mice differ by more than neurons do.
    true, swapped = neuron_scores(planted + 10.0 * windows.recording, windows, mice)
    assert true == 1 and swapped < 1
    assert neuron_scores(-planted.astype(float), windows, mice)[0] == 0
    assert neuron_scores(np.zeros(len(windows)), windows, mice) == (0.5, 0.5)


def test_the_gap_is_between_means_of_mice(study):
    mice, processor = list(simulated_mice(study()))[:4], NeurtProcessor(window_length=40)
    dataset = windows_of(study(), mice, processor)
    windows = gather(dataset, np.flatnonzero((dataset.window_recordings > 0) | (np.arange(len(dataset)) < 3)))
    values = np.array([1.0, 2.0, 4.0, 8.0])[windows.recording]
    assert gap(windows, values) == pytest.approx((2 + 8) / 2 - (1 + 4) / 2)
    np.testing.assert_allclose(gap(windows, np.stack([values, -values], axis=1)), [2.5, -2.5])


def test_observers_know_a_trace_by_its_level_and_deviation():
    traces = np.random.default_rng(0).normal(size=(4, 50)) * np.array([1, 2, 3, 4])[:, None]
    traces += np.array([10, 11, 12, 13])[:, None] - traces.mean(1, keepdims=True)
    recording = type("Prepared", (), {"traces": traces})
    found = observers([Mouse(recording, recording, 2 * traces, np.array([False, False, True, True]))])
    assert found["dF/F"] == (1, 1) and found["zscore"][1] != 1
    ranges = (traces - traces.min(1, keepdims=True)) / np.ptp(traces, axis=1, keepdims=True)
    ordered = (ranges[2:].mean(1)[:, None] > ranges[:2].mean(1)).mean()
    assert found["minmax"][0] == pytest.approx(ordered)


def test_studies_have_names_of_their_own_and_plant_what_they_say(model):
    studies = planted_studies(2, model)
    names = [study.name for members in studies.values() for study in members]
    assert len(set(names)) == 6
    for kind, members in studies.items():
        assert [study.config.seed for study in members] == [0, 1]
        assert all(study.config.effect in kind and study.planted_in == KINDS[kind][1] for study in members)


def test_mice_that_pretraining_has_seen_are_refused(study):
    with pytest.raises(ValueError, match="pretrained on others than these mice, got seen-sim001"):
        study_results(study("seen"))


def test_a_small_study_gives_what_the_report_needs(study, small):
    found = json.loads(json.dumps(json_ready(study_results(study()))))
    assert set(found["neurons"]) == set(found["swapped"]) >= {GRADIENTS, ABLATION, "own level"}
    assert all(0 <= score <= 1 for score in found["neurons"].values())
    assert all(len(shares) == 5 for shares in found["channels"].values())
    assert set(found["observers"]) == {"dF/F", "minmax", "zscore"}
    text = report({kind: [found, found] for kind in KINDS}, "2 studies.")
    assert f"{found['neurons'][GRADIENTS]:.3f} ± 0.000" in text and found["separation"]["sentence"] in text


def of_a_study(channel, aspect, score, low=0.5):
    shares = [float(channel == name) for name in ("own", "near mean", "near SD", "far mean", "far SD")]
    return {
        "mice": 1.0,
        "neurons": {"own level": 0.95, GRADIENTS: score, ABLATION: 0.95},
        "swapped": {"own level": 0.5, GRADIENTS: 0.5, ABLATION: 0.45},
        "channels": {GRADIENTS: shares, ABLATION: shares},
        "separation": {"channel": channel, "aspect": aspect, "sentence": f"Told by {aspect}.", "gap": {"low": low}},
        "completeness": (0.01, 0.03),
        "observers": {"dF/F": (0.9, 0.8)},
    }


def test_the_report_counts_what_was_named():
    level = [of_a_study("own", "level", 0.95), of_a_study("own", "level", 0.9)]
    neighbours = [of_a_study("far SD", None, 0.5), of_a_study("all channels", None, 0.5, low=-0.1)]
    others = [of_a_study("own", "level", 0.8)] * 2, neighbours
    results = dict(zip(KINDS, (level, *others), strict=True))
    text = report(results, "6 studies.")
    assert "| hyperactivity | level of the own trace | 2 of 2 | 2 of 2 | 2 of 2 | 2 of 2 |" in text
    assert "| variability | variability of the own trace | 2 of 2 | 2 of 2 | 2 of 2 | 0 of 2 |" in text
    assert "| hyperactivity of the neighbours | level of the neighbours | 1 of 2 | 1 of 2 | 1 of 2 | 0 of 2 |" in text
    assert "- hyperactivity: found, of an AUROC of 0.9 that was the goal: integrated gradients 0.925" in text
    assert "- variability: **not found**" in text and "hyperactivity of the neighbours: found" not in text
    assert "median 1.0%, 95th percentile 3.0%" in text and "Simulated mice only." in text
    assert PREPARATION.dff_percentile == 2.0
