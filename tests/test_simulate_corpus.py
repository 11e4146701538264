"""A corpus reaches over its ranges, repeats itself exactly, and treats traces as it says."""

import dataclasses
import sys

import numpy as np
import pytest
from neurt.cli import main
from neurt.dataset_scripts import simulate_corpus as corpus
from neurt.dataset_scripts.parquet_build import read_build
from neurt.dataset_scripts.simulate_corpus import RANGES, TREATMENTS, CorpusConfig, corpus_recording, draw_properties

CONFIG = CorpusConfig(recordings=40, frames=200)
QUIET = {"noise": 0.01, "noise_spread": 0.1, "drift": 0.01, "drift_time": 10.0, "wave": 0.01, "wave_time": 1.0}


@pytest.fixture(scope="module")
def recordings():
    return list(corpus.simulate_corpus(CONFIG))


def draws(count=400):
    return [draw_properties(np.random.default_rng(i)) for i in range(count)]


def drawn(treatment, **properties):
    """Properties in the middle of their ranges, but for those that are given."""
    middle = {name: float(np.sqrt(low * high)) for name, (low, high) in RANGES.items()}
    counts = {name: round(middle[name]) for name in corpus.COUNTS}
    return {**middle, **counts, "shared_drive": 0.5, "treatment": treatment, **properties}


def treated(treatment, spikes, **properties):
    settings = drawn(treatment, **properties)
    padded = np.pad(spikes, ((0, 0), (corpus._warm_up(settings), 0)))
    positions = 50.0 * np.arange(len(spikes))[:, None] * np.ones(2)
    rng = np.random.default_rng(0)
    return corpus._TREAT[treatment](settings, positions, padded, spikes.shape[1], rng)


def test_the_same_seed_gives_the_same_corpus_and_a_longer_one_begins_with_the_shorter(recordings):
    longer = corpus.simulate_corpus(dataclasses.replace(CONFIG, recordings=50))
    for first, second in zip(recordings[:5], longer, strict=False):
        assert np.array_equal(first.traces, second.traces)
        assert first.source == second.source
    other = corpus_recording(dataclasses.replace(CONFIG, seed=1), 1)
    assert other.sampling_rate != recordings[0].sampling_rate


def test_properties_fill_their_ranges_evenly_in_the_logarithm():
    for name, limits in RANGES.items():
        values = np.array([draw[name] for draw in draws()])
        low, high = np.log(limits)
        places = (np.log(values) - low) / (high - low)
        assert places.min() > -0.05 and places.max() < 1.05, name
        assert np.allclose(np.quantile(places, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.1), name


def test_each_treatment_comes_as_often_as_it_says():
    found = [draw["treatment"] for draw in draws()]
    for name, share in TREATMENTS.items():
        assert found.count(name) / len(found) == pytest.approx(share, abs=0.05)


def test_recordings_are_finite_and_say_that_they_are_simulated_and_how(recordings):
    for recording in recordings:
        assert np.isfinite(recording.traces).all()
        assert recording.simulated
        assert recording.num_frames == 200
        assert recording.source["sampling_rate"] == recording.sampling_rate


def test_bursts_keep_the_mean_rate_and_make_spikes_come_together():
    settings = drawn("dff", rate=2.0, rate_spread=0.001, coupling=0.001, sampling_rate=10.0, decay=0.1)
    counts = {}
    for burst in (1.0, 5.0):
        rng = np.random.default_rng(1)
        counts[burst] = corpus._spikes({**settings, "burst": burst}, rng.random((200, 2)), 500, rng)
        assert counts[burst].mean() == pytest.approx(0.2, rel=0.05)
    # Single spikes are Poisson: the variance is the mean. Geometric bursts of mean m make it 2 m - 1 times larger.
    assert counts[1.0].var() / counts[1.0].mean() == pytest.approx(1, rel=0.05)
    assert counts[5.0].var() / counts[5.0].mean() == pytest.approx(9, rel=0.1)


def test_raw_traces_hold_noise_of_the_stated_size():
    silent = np.zeros((300, 400), dtype=int)
    traces = treated("dff", silent, **{**QUIET, "noise": 1.5})
    assert np.median(traces.std(1)) == pytest.approx(1.5, rel=0.05)


def test_denoised_and_deconvolved_traces_of_silent_neurons_are_silent_and_never_below_zero():
    spikes = np.zeros((2, 100), dtype=int)
    spikes[0, 40] = 20
    for treatment in ("denoised", "deconvolved", "events", "rectified"):
        assert treated(treatment, spikes, **QUIET).min() >= 0
    deconvolved = treated("deconvolved", spikes, **QUIET)
    assert deconvolved[0].argmax() == 40
    assert deconvolved[1].max() < 0.01 * deconvolved[0].max()
    denoised = treated("denoised", spikes, **QUIET, sampling_rate=10.0, decay=1.0)
    # A second after its peak, ten frames, an indicator with a decay of one second has fallen to about 1/e.
    peak = denoised[0].argmax()
    assert denoised[0, peak + 10] / denoised[0, peak] == pytest.approx(np.exp(-1), rel=0.15)


def test_events_stand_alone():
    spikes = np.random.default_rng(0).poisson(3.0, (5, 300))
    events = treated("events", spikes, **QUIET)
    assert (events > 0).any()
    assert not ((events[:, 1:] > 0) & (events[:, :-1] > 0)).any()


def test_smoothed_traces_are_smoother_than_raw_ones_of_the_same_draw():
    silent = np.zeros((20, 400), dtype=int)
    raw, smoothed = (treated(name, silent, noise=1.0, drift=0.01) for name in ("dff", "smoothed"))
    assert np.diff(smoothed).std() < 0.7 * np.diff(raw).std()


def test_the_command_writes_a_build(tmp_path, monkeypatch, capsys):
    words = ["neurt", "simulate-corpus", "--output", str(tmp_path / "build"), "--recordings", "3", "--frames", "40"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    written = list(read_build(tmp_path / "build"))
    assert [recording.recording_id for recording in written] == ["corpus0-00001", "corpus0-00002", "corpus0-00003"]
    assert "simulated 3 recordings" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [{"recordings": 0}, {"frames": 31}, {"seed": -1}])
def test_a_size_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="expected .* of at least"):
        CorpusConfig(**wrong)
