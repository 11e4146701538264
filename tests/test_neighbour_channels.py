"""The five channels against values worked out by hand and by pandas, and the neurons that cannot be used."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from example_fields import assert_equal_to_pandas, channels_of, cut, random_field, row_of_six
from neurt import processing_neurt as processing

REAL_DATA = Path(os.environ.get("NEURT_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
NEAR, FAR = slice(1, 3), slice(3, 5)
ROOT2 = 2**0.5


# Scaling.


def test_min_max_scaling_maps_each_trace_to_zero_and_one_exactly():
    traces = np.array([np.linspace(2, 10, 33), np.linspace(-1e4, 3e4, 33)], dtype=np.float32)
    scaled = processing.scale_traces(traces, "minmax")
    assert scaled.dtype == np.float32
    assert scaled[:, [0, 8, 16, 32]].tolist() == [[0, 0.25, 0.5, 1]] * 2


def test_z_scoring_gives_mean_zero_and_population_standard_deviation_one():
    traces = np.tile(np.array([[1.0, 3.0], [1e6, 1e6 + 8]]), 20)
    assert processing.scale_traces(traces, "zscore").tolist() == [[-1, 1] * 20] * 2


def test_without_normalization_the_own_channel_is_the_trace():
    traces, centroids = random_field()
    assert np.array_equal(channels_of(traces, centroids, normalization="none")[..., 0], traces)
    assert not np.shares_memory(processing.scale_traces(traces, "none"), traces)


def test_z_scoring_long_recordings_of_raw_fluorescence_keeps_the_mean_at_zero():
    traces = np.random.default_rng(0).normal(1e4, 0.1, size=(3, 30_000)).astype(np.float32)
    scaled = processing.scale_traces(traces, "zscore").astype(np.float64)
    np.testing.assert_allclose(scaled.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(1), 1, atol=1e-5)


@pytest.mark.parametrize("normalization", ["minmax", "zscore", "none"])
def test_neighbours_are_summarised_after_scaling(normalization):
    traces, centroids = random_field()
    channels = channels_of(traces, centroids, normalization=normalization)
    near = np.hypot(*(centroids - centroids[3]).T.astype(float)) < 60
    near[3] = False
    expected = processing.scale_traces(traces, normalization)[near]
    np.testing.assert_allclose(channels[3, :, 1], expected.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(channels[3, :, 2], expected.std(0, ddof=1), rtol=1e-4, atol=1e-5)


# Neighbour channels.


def test_channels_equal_hand_computed_values():
    channels = channels_of(*row_of_six(), neighbour_radius=3, normalization="none")
    # Near and far of each: {2, 4} {16, 32} · {1, 4, 8} {16, 32} · {1, 2, 8} {16, 32} · {2, 4} {16, 32}.
    expected = [
        [1, 3, ROOT2, 24, 8 * ROOT2],
        [2, 13 / 3, (37 / 3) ** 0.5, 24, 8 * ROOT2],
        [4, 11 / 3, (43 / 3) ** 0.5, 24, 8 * ROOT2],
        [8, 3, ROOT2, 24, 8 * ROOT2],
    ]
    np.testing.assert_allclose(channels[:4, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(channels[:4, 1], np.multiply(2, expected), rtol=1e-6)
    np.testing.assert_allclose(channels[:4, 2:], np.broadcast_to(np.array(expected)[:, None], (4, 30, 5)), rtol=1e-6)


def test_a_neuron_with_one_near_neighbour_is_dropped_and_named():
    traces, centroids = row_of_six()
    batch = cut(traces, centroids, settings={"neighbour_radius": 3})
    assert batch["dropped"] == {"fewer than 2 near or far neurons": [4, 5]}
    assert batch["neuron_index"].tolist() == [0, 1, 2, 3]
    assert np.isnan(channels_of(traces, centroids, neighbour_radius=3)[4:]).all()


def test_a_neuron_with_one_far_neighbour_is_dropped():
    # Within 10.5 of the neuron at 0 lie all others but that at 12; only the last has two neurons beyond.
    channels = channels_of(*row_of_six(), neighbour_radius=10.5)
    assert np.isnan(channels[:5]).all()
    assert np.isfinite(channels[5]).all()


def test_a_quantile_radius_is_that_of_the_distances_between_different_neurons():
    # Sorted: 1 1 1 2 2 2 3 7 8 9 9 10 10 11 12; a zero for each neuron itself would move the median to 2.
    traces, centroids = row_of_six()
    by_quantile = channels_of(traces, centroids, neighbour_radius=0.5, radius_unit="quantile")
    assert np.array_equal(by_quantile, channels_of(traces, centroids, neighbour_radius=7), equal_nan=True)


def test_a_co_located_roi_is_near_but_the_neuron_itself_is_not():
    traces, centroids = row_of_six()
    centroids[1] = centroids[0]
    channels = channels_of(traces, centroids, neighbour_radius=2.5, normalization="none")
    # Near the first: {2, 4}, one of them in the same place. Near the third: {1, 2, 8}.
    np.testing.assert_allclose(channels[0, 0], [1, 3, ROOT2, 56 / 3, np.std([8, 16, 32], ddof=1)], rtol=1e-6)
    np.testing.assert_allclose(channels[2, 0, NEAR], [11 / 3, (43 / 3) ** 0.5], rtol=1e-6)


def test_neighbours_that_are_nearly_alike_have_nearly_no_spread():
    # One of them differs in the last bit: rounding leaves a variance below zero, whose root would be NaN.
    traces, centroids = random_field(neurons=600, frames=32)
    traces[:] = traces[0]
    traces[5] = np.nextafter(traces[5], np.float32(np.inf))
    channels = channels_of(traces, centroids, normalization="none")
    assert np.isfinite(channels).all()
    assert (channels[..., [2, 4]] < 1e-6 * traces[0][:, None]).all()


@pytest.mark.parametrize("quantile", [0.1, 0.3, 0.8])
def test_channels_equal_pandas_on_random_fields(quantile):
    assert_equal_to_pandas(*random_field(neurons=40, frames=200), range(40), quantile)


@pytest.mark.parametrize("name", ["algamal_two_photon", "chang_rsc", "minian_ca1", "suite2p_plane0"])
def test_channels_equal_pandas_on_real_recordings(name):
    if not (REAL_DATA / name).is_dir():
        pytest.skip(f"no real recordings in {REAL_DATA}")
    spec = importlib.util.spec_from_file_location("real_recordings", REAL_DATA / "real_recordings.py")
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    compared = 0
    for item in module.ALL[name]():
        traces, centroids = item["x"], item["xy"]
        usable = np.isfinite(traces).all(1) & (np.ptp(traces, axis=1) > 0) & np.isfinite(centroids).all(1)
        if usable.sum() >= 5:
            # A dozen neurons of each, for pandas is slow.
            neurons = np.unique(np.linspace(0, usable.sum() - 1, 12).astype(int))
            assert_equal_to_pandas(traces[usable], centroids[usable], neurons)
            compared += 1
    assert compared


def test_raw_fluorescence_loses_no_precision():
    generator = np.random.default_rng(0)
    traces = generator.normal(1e4, 1, size=(30, 100)).astype(np.float32)
    centroids = generator.uniform(0, 150, size=(30, 2))
    channels = channels_of(traces, centroids, normalization="none")
    near = np.hypot(*(centroids - centroids[7]).T) < 60
    near[7] = False
    far = ~near
    far[7] = False
    for side, columns in ((near, NEAR), (far, FAR)):
        expected = pd.DataFrame(traces[side], dtype=np.float64).agg(["mean", "std"]).to_numpy().T
        np.testing.assert_allclose(channels[7, :, columns], expected, rtol=1e-6)


def test_blocks_of_any_size_give_the_same_channels(monkeypatch):
    traces, centroids = random_field(neurons=23, frames=90)
    centroids[3], centroids[20] = (0, 0), (60, 0)  # exactly at the radius
    whole = channels_of(traces, centroids)
    monkeypatch.setattr(processing, "NEURON_BLOCK", 5)
    monkeypatch.setattr(processing, "FRAME_BLOCK", 7)
    np.testing.assert_allclose(channels_of(traces, centroids), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("normalization", ["minmax", "zscore", "none"])
@pytest.mark.parametrize("missing_neighbours", ["error", "mask"])
def test_inputs_are_never_changed(normalization, missing_neighbours):
    traces, centroids = random_field()
    traces[1, 3], traces[2] = np.nan, 5
    copies = traces.copy(), centroids.copy()
    for array in (traces, centroids):
        array.flags.writeable = False
    channels = channels_of(traces, centroids, missing_neighbours, normalization=normalization)
    channels[:] = 0
    assert np.array_equal(traces, copies[0], equal_nan=True)
    assert np.array_equal(centroids, copies[1])


# Neurons that cannot be used.


@pytest.mark.parametrize(
    ("value", "frames", "reason"),
    [
        (np.nan, 7, "NaN or infinite frames"),
        (np.inf, 7, "NaN or infinite frames"),
        (-np.inf, slice(None), "NaN or infinite frames"),
        (3.0, slice(None), "constant trace"),
        (0.0, slice(None), "constant trace"),
    ],
)
def test_a_bad_trace_drops_that_neuron_and_changes_no_other(value, frames, reason):
    traces, centroids = random_field()
    traces[4, frames] = value
    channels = channels_of(traces, centroids)
    assert np.isnan(channels[4]).all()
    without = channels_of(np.delete(traces, 4, axis=0), np.delete(centroids, 4, axis=0))
    assert np.array_equal(np.delete(channels, 4, axis=0), without)
    assert np.isfinite(without).all()
    assert cut(traces, centroids)["dropped"] == {reason: [4]}


@pytest.mark.parametrize("position", [(np.nan, np.nan), (5, np.nan), (np.inf, 5)])
def test_a_neuron_without_position_is_dropped_and_changes_no_other(position):
    traces, centroids = random_field()
    centroids[2] = position
    channels = channels_of(traces, centroids)
    assert np.isnan(channels[2]).all()
    without = channels_of(np.delete(traces, 2, axis=0), np.delete(centroids, 2, axis=0))
    assert np.array_equal(np.delete(channels, 2, axis=0), without)
    assert cut(traces, centroids)["dropped"] == {"no position": [2]}


def test_each_reason_names_its_own_neurons():
    traces, centroids = random_field(neurons=24)
    traces[3], traces[5, 0], centroids[7, 0] = 1, np.nan, np.nan
    traces[8], centroids[8] = 2, np.nan  # counted once
    centroids[20] = 1e4
    assert cut(traces, centroids)["dropped"] == {
        "NaN or infinite frames": [5],
        "constant trace": [3, 8],
        "no position": [7],
        "fewer than 2 near or far neurons": [20],
    }


def test_double_precision_traces_are_judged_in_the_precision_of_the_model():
    traces, centroids = random_field()
    traces = traces.astype(np.float64)
    traces[0] = 1e8 + np.arange(80) / 1000  # one and the same number in float32
    traces[1, 5] = 1e300
    batch = cut(traces, centroids)
    assert batch["dropped"] == {"NaN or infinite frames": [1], "constant trace": [0]}
    assert batch["input_values"].isfinite().all()


def test_integer_traces_and_lists_are_taken_as_floats():
    traces, centroids = random_field()
    counts = np.round(traces).astype(np.int16)
    expected = channels_of(counts.astype(np.float32), centroids)
    assert np.array_equal(channels_of(counts, centroids), expected, equal_nan=True)
    assert np.array_equal(channels_of(counts.tolist(), centroids.tolist()), expected, equal_nan=True)


def test_fewer_than_five_usable_neurons_are_refused_with_their_number():
    traces, centroids = random_field(neurons=6)
    centroids[0], traces[1] = np.nan, 0
    with pytest.raises(ValueError, match="at least 5 neurons with positions and finite, varying traces, got 4"):
        channels_of(traces, centroids)


def test_five_neurons_are_enough():
    traces, centroids = random_field(neurons=5)
    centroids[:] = np.array([[0, 0], [1, 0], [2, 0], [50, 0], [60, 0]])
    assert np.isfinite(channels_of(traces, centroids, neighbour_radius=10)[:3]).all()


def test_a_field_without_any_usable_neuron_is_refused_with_the_reasons():
    traces, centroids = random_field()
    with pytest.raises(ValueError, match="got none: of 12 dropped 12 for fewer than 2 near or far neurons"):
        channels_of(traces, centroids, neighbour_radius=1e-3)


# Absent neighbours.


def test_without_positions_the_own_trace_is_kept_alone():
    traces, centroids = random_field()
    channels = channels_of(traces, None, "mask")
    assert np.array_equal(channels[..., 0], processing.scale_traces(traces, "minmax"))
    assert np.isnan(channels[..., 1:]).all()


def test_fewer_than_five_positions_leave_every_neighbour_channel_absent():
    traces, centroids = random_field(neurons=9)
    centroids[4:] = np.nan
    channels = channels_of(traces, centroids, "mask")
    assert np.isfinite(channels[..., 0]).all()
    assert np.isnan(channels[..., 1:]).all()


def test_a_neuron_without_position_keeps_its_own_trace_and_is_nobodys_neighbour():
    traces, centroids = random_field()
    centroids[2] = np.nan
    channels = channels_of(traces, centroids, "mask")
    assert np.array_equal(channels[2, :, 0], processing.scale_traces(traces[2:3], "minmax")[0])
    assert np.isnan(channels[2, :, 1:]).all()
    without = channels_of(np.delete(traces, 2, axis=0), np.delete(centroids, 2, axis=0))
    assert np.array_equal(np.delete(channels, 2, axis=0), without)


def test_only_the_side_without_neighbours_is_absent():
    channels = channels_of(*row_of_six(), "mask", neighbour_radius=3)
    assert np.isnan(channels[4:, :, NEAR]).all()
    assert np.isfinite(channels[4:, :, FAR]).all()
    assert np.isfinite(channels[4:, :, 0]).all()


def test_bad_traces_are_dropped_with_absent_neighbours_too():
    traces, _ = random_field()
    traces[3], traces[5, 0] = 1, np.nan
    batch = cut(traces, None, missing_neighbours="mask")
    assert batch["dropped"] == {"NaN or infinite frames": [5], "constant trace": [3]}
    assert set(batch["neuron_index"].tolist()) == set(range(12)) - {3, 5}
