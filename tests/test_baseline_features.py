"""Features without a pretrained model: by hand, in the unit of the model's input, and blind to labels and order."""

import sys

import numpy as np
import pandas as pd
import pytest
from neurt.crossval import baseline_features
from neurt.crossval.baseline_features import (
    CHANNEL_FEATURES,
    channel_features,
    columns_of_all,
    minirocket_features,
    windows_of_recordings,
)
from neurt.crossval.learners import logistic
from neurt.dataset_scripts.recording import Recording
from neurt.dataset_scripts.windows import WindowDataset, cut_windows
from neurt.processing_neurt import NeurtProcessor
from scipy.signal import lfilter

COUNT = len(CHANNEL_FEATURES)
PROCESSOR = NeurtProcessor(window_length=64)


def recording(seed=0, neurons=8, frames=200, decay=0.0, name="r", placed=True, shared=0.0, **options):
    """Noise that decays, of which neighbours in the left half of the field share some."""
    rng = np.random.default_rng(seed)
    centroids = rng.uniform(0, 100, (neurons, 2))
    noise = rng.standard_normal((neurons, frames)) + shared * rng.standard_normal(frames) * (centroids[:, :1] < 50)
    options = {"centroids": centroids.astype(np.float32), "coordinate_unit": "um", **options} if placed else options
    traces = lfilter([1], [1, -decay], noise).astype(np.float32)
    return Recording(traces, 10.0, name, f"mouse {name}", "day", tuple(map(str, range(neurons))), **options)


def features_of(member, **options):
    return channel_features(member, cut_windows(member, PROCESSOR, **options))


def features(member, **options):
    """The means over neurons, by name."""
    return dict(zip(CHANNEL_FEATURES, features_of(member, **options)[:COUNT].tolist(), strict=True))


def test_a_recording_is_the_mean_and_the_spread_over_neurons_of_what_numpy_says_of_each():
    member = recording(neurons=70, decay=0.5)
    channels = PROCESSOR.neighbour_channels(member.traces, member.centroids, coordinate_unit="um").astype(np.float64)
    rows = []
    for own, near, near_spread, far, far_spread in channels.transpose(0, 2, 1):
        deviation = own - own.mean()
        lags = [max(1, round(10 * seconds)) for seconds in (0.25, 0.5, 1, 2, 4)]
        rows.append(
            [
                *np.percentile(own, [5, 25, 50, 75, 95]),
                *(np.mean(deviation[:-lag] * deviation[lag:]) / own.var() for lag in lags),
                near_spread.mean(),
                far_spread.mean(),
                near.std(),
                far.std(),
                np.corrcoef(own, near)[0, 1],
                np.corrcoef(own, far)[0, 1],
            ]
        )
    found = features_of(member)
    np.testing.assert_allclose(found, [*np.mean(rows, axis=0), *np.std(rows, axis=0)], rtol=1e-6, atol=1e-9)
    assert found.shape == (2 * COUNT,) == (32,)


def test_neighbours_that_fire_together_are_seen_and_so_is_how_fast_traces_change():
    alone, together = features(recording(neurons=30)), features(recording(neurons=30, shared=1.0))
    assert together["correlation with near mean"] > alone["correlation with near mean"] + 0.2
    fast, slow = features(recording(decay=0.1)), features(recording(decay=0.9))
    assert slow["autocorrelation at 0.5 s"] > fast["autocorrelation at 0.5 s"] + 0.3


def test_the_unit_of_the_traces_is_not_seen():
    member = recording()
    scaled = Recording(**{**vars(member), "traces": 1024 * member.traces})
    np.testing.assert_allclose(features_of(scaled), features_of(member))


def test_no_pair_of_frames_is_taken_across_a_segment_border():
    # Two levels, and noise too fine to matter: within a segment frames are alike, across the border they are not.
    traces = np.repeat([[0.0, 1.0]], 5, axis=0).repeat(40, axis=1) + np.random.default_rng(0).normal(0, 1e-3, (5, 80))
    member = recording(neurons=5, frames=80)
    options = {**vars(member), "traces": traces.astype(np.float32)}
    whole = features(Recording(**options), missing_neighbours="mask")
    split = features(Recording(**{**options, "segment_starts": (0, 40)}), missing_neighbours="mask")
    assert split["autocorrelation at 2 s"] == pytest.approx(1, abs=0.01)
    assert whole["autocorrelation at 2 s"] < 0.7


def test_what_a_recording_lacks_is_nan_and_left_out_for_all():
    without = features(recording(placed=False), missing_neighbours="mask")
    assert [name for name, value in without.items() if np.isnan(value)] == list(CHANNEL_FEATURES[10:])
    short = features(recording(segment_starts=(0, 160), frames=200))
    assert not np.isnan(list(short.values())).any()
    short = features(recording(frames=40))
    assert [name for name, value in short.items() if np.isnan(value)] == ["autocorrelation at 4 s"]
    rows = [features_of(recording(placed=p), missing_neighbours="mask") for p in (True, False)]
    left = columns_of_all(np.stack(rows))
    np.testing.assert_array_equal(left, np.stack(rows)[:, [*range(10), *range(16, 26)]])


def test_a_neuron_without_neighbours_counts_for_its_own_trace_alone():
    members = [recording(neurons=9), recording(neurons=9)]
    members[1].centroids[3] = np.nan
    every, but_one = (features(member, missing_neighbours="mask") for member in members)
    assert but_one["0.5 quantile"] == every["0.5 quantile"]
    assert np.isfinite(but_one["correlation with near mean"])
    assert but_one["correlation with near mean"] != every["correlation with near mean"]


def test_windows_are_sorted_by_recording_and_nan_where_there_is_nothing():
    members = [recording(0, name="a", frames=100), recording(1, name="b", placed=False)]
    dataset = WindowDataset(members, PROCESSOR, missing_neighbours="mask")
    second, first = windows_of_recordings(dataset, ["b", "a"])
    assert first.shape == (16, 64, 5) and second.shape == (24, 64, 5)
    np.testing.assert_array_equal(first[0], dataset[0]["input_values"])
    assert np.isnan(first[1, 36:]).all() and not np.isnan(first[1, :36]).any()
    assert np.isnan(second[:, :, 1:]).all() and not np.isnan(second[0, :, 0]).any()
    with pytest.raises(ValueError, match="expected windows of each recording, got none of 'c'; leave it out"):
        windows_of_recordings(dataset, ["a", "b", "c"])


class ChannelMeans:
    """Stands in for MiniRocket: features are the means of the channels over frames."""

    def fit(self, windows):
        self.fitted = windows

    def transform(self, windows):
        return pd.DataFrame(windows.mean(axis=2))


@pytest.fixture
def channel_means(monkeypatch):
    stand_in = ChannelMeans()
    monkeypatch.setattr(baseline_features, "_minirocket", lambda seed: stand_in)
    return stand_in


def windows(*lengths, channels=(0, 1, 2, 3, 4), value=0.0):
    """Windows of 64 frames, as many of them real; each window, frame and channel has another value."""
    values = np.arange(len(lengths) * 64 * 5, dtype=np.float32).reshape(-1, 64, 5) + value
    for window, length in zip(values, lengths, strict=True):
        window[length:] = np.nan
    values[:, :, [channel for channel in range(5) if channel not in channels]] = np.nan
    return values


def test_a_recording_is_the_mean_over_its_windows(channel_means):
    members = [windows(64, 64), windows(64, value=7)]
    found = minirocket_features(members)
    np.testing.assert_allclose(found, [member.mean(axis=(0, 1)) for member in members])
    np.testing.assert_array_equal(channel_means.fitted, np.concatenate(members).transpose(0, 2, 1))


@pytest.mark.parametrize(
    ("lengths", "length", "used"),
    [
        # 4 x 64 frames are more than 5 x 40; 2 x 64 are fewer than 5 x 40; 6 x 64 are more than 7 x 50, but none of
        # the second recording.
        ([(64, 64, 64), (64, 40)], 64, [3, 1]),
        ([(64, 40, 40), (64, 40)], 40, [3, 2]),
        ([(64, 64, 64, 64, 64, 64), (50,)], 50, [6, 1]),
    ],
)
def test_windows_are_cut_to_the_length_that_uses_most_frames(channel_means, lengths, length, used):
    members = [windows(*each) for each in lengths]
    found = minirocket_features(members)
    assert channel_means.fitted.shape == (sum(used), 5, length)
    for row, member, count in zip(found, members, used, strict=True):
        kept = member[~np.isnan(member[:, length - 1, 0]), :length]
        assert len(kept) == count
        np.testing.assert_allclose(row, kept.mean(axis=(0, 1)))


def test_channels_that_some_recording_lacks_and_windows_that_lack_others_are_left_out(channel_means):
    assert minirocket_features([windows(64), windows(64, channels=[0])]).shape == (2, 1)
    mixed = np.concatenate([windows(64, channels=[0]), windows(64, 64)])
    found = minirocket_features([mixed, windows(64)])
    np.testing.assert_allclose(found[0], mixed[1:].mean(axis=(0, 1)))
    apart = np.concatenate([windows(64, channels=[0, 1]), windows(64, channels=[0, 2])])
    with pytest.raises(ValueError, match="expected windows with the channels that all recordings have"):
        minirocket_features([apart, windows(64)])


def test_biases_are_drawn_from_as_many_windows_of_each_recording_where_there_are_enough(channel_means):
    minirocket_features([windows(*[64] * 250), windows(*[64] * 30), windows(*[64] * 100)])
    assert len(channel_means.fitted) == 100 + 30 + 100


def test_minirocket_finds_how_fast_traces_change_in_other_recordings():
    pytest.importorskip("sktime", reason="pip install neurt[minirocket]")
    processor = NeurtProcessor(window_length=64)
    members = [recording(seed, decay=0.3 + 0.5 * (seed % 2), name=str(seed)) for seed in range(8)]
    dataset = WindowDataset(members, processor)
    cut = windows_of_recordings(dataset, [member.recording_id for member in members])
    state = np.random.get_state()[1].tolist()
    found = minirocket_features(cut)
    assert found.shape == (8, 336) and found.min() >= 0 and found.max() <= 1
    np.testing.assert_array_equal(minirocket_features(cut), found)
    assert np.random.get_state()[1].tolist() == state
    classes = np.arange(8) % 2
    scores = logistic(found[:4], classes[:4], np.ones(4))(found[4:])
    assert ((scores[:, 1] > 0) == classes[4:]).all()


def test_without_its_library_minirocket_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sktime.transformations.rocket", None)
    with pytest.raises(ValueError, match=r"pip install neurt\[minirocket\]"):
        minirocket_features([np.zeros((3, 64, 1), np.float32)])
