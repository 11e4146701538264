"""The measures of a recording are those that a pencil gives on small ones; guesses are right on what was made so."""

import numpy as np
import pytest
from example_fields import random_field, row_of_six
from neurt import NeurtProcessor
from neurt.dataset_scripts.quality import (
    drifts,
    guess_trace_kinds,
    known_median,
    measure,
    noise_levels,
    shared_steps,
    split_pairs,
)
from neurt.dataset_scripts.recording import Recording

RNG = np.random.default_rng(0)


def recording(traces, **changes):
    traces = np.asarray(traces, dtype=np.float32)
    names = {"recording_id": "r", "subject_id": "m", "session_id": "s", "trace_kind": "dff", "sampling_rate": 4.0}
    return Recording(traces=traces, roi_ids=tuple(f"n{i}" for i in range(len(traces))), **(names | changes))


def decays(starts, frames, keep=0.95):
    """Unit jumps at `starts` that decay by `keep` a frame, as a model of the activity would fit them."""
    trace = np.zeros(frames)
    for start in starts:
        trace[start:] += keep ** np.arange(frames - start)
    return trace


def test_the_noise_level_is_the_median_step_over_the_root_of_the_rate_in_per_cent():
    # Steps 1, 1, 1, 5: the median is 1, and 100 * 1 / sqrt(4) = 50.
    np.testing.assert_allclose(noise_levels(np.array([[0, 1, 0, 1, 6]]), 4.0), [50])


def test_the_noise_level_of_white_noise_is_the_one_that_its_standard_deviation_gives():
    # A step of white noise has the SD sqrt(2) σ and the median magnitude 0.6745 sqrt(2) σ.
    traces = 0.1 * RNG.standard_normal((1, 100_000))
    np.testing.assert_allclose(noise_levels(traces, 25.0), 100 * 0.6745 * np.sqrt(2) * 0.1 / 5, rtol=0.02)


def test_steps_across_borders_and_nan_are_no_noise():
    np.testing.assert_allclose(noise_levels(np.array([[0.0, 2, 90, 92]]), 1.0, (0, 2)), [200])
    np.testing.assert_allclose(noise_levels(np.array([[0, np.nan, 50, 53, np.inf, 7]]), 1.0), [300])


def test_relative_noise_is_in_standard_deviations_of_the_trace():
    # Alternating 0 and 2: steps of 2, an SD of 1; the scale cancels.
    alternating = np.tile([0.0, 2.0], 10)[None]
    np.testing.assert_allclose(noise_levels(alternating, 1.0, relative=True), [200])
    np.testing.assert_allclose(noise_levels(7 * alternating, 1.0, relative=True), [200])


def test_a_trace_that_mostly_stands_still_has_no_noise_level():
    still = np.stack([np.full(9, 3.0), [0, 0, 0, 0, 0, 0, 1, 0, 0], np.full(9, np.nan)])
    assert np.isnan(noise_levels(still, 1.0)).all()


def test_the_drift_is_the_range_of_the_baselines_of_thirds_in_standard_deviations():
    # Baselines 0, 1 and 3; the mean of squares is 10 / 3, that of the values 4 / 3, so the variance 14 / 9.
    stairs = np.repeat([0.0, 1.0, 3.0], 20)
    np.testing.assert_allclose(drifts(np.stack([stairs, -5 * stairs])), 3 / np.sqrt(14 / 9))
    assert np.isnan(drifts(np.stack([np.ones(60), np.where(stairs == 1, np.nan, stairs)]))).all()


def alternating(neurons=9):
    """Steps of 1 and -1 in turn, whose noise is 1 / 0.6745 = 1.4826: five times that is a step of 7.413."""
    return np.tile([0.0, 1.0], (neurons, 10))


def test_a_frame_at_which_most_neurons_jump_together_is_found_by_hand_computed_steps():
    for jump, expected in ((8.42, (6,)), (8.4, ()), (-6.42, (6,)), (-6.4, ())):
        traces = alternating()
        traces[:5, 6:] += jump  # the step to frame 6 was -1
        assert shared_steps(traces) == expected, jump
        assert shared_steps(1000 * traces + 7) == expected
        assert shared_steps(traces, (0, 6)) == ()
    traces = alternating()
    traces[:4, 6:] += 100
    traces[4, 3] = np.nan
    assert shared_steps(traces) == ()


def test_too_few_neurons_or_none_with_noise_share_no_step():
    traces = alternating()
    traces[:, 6:] += 100
    traces[4:] = 0
    assert shared_steps(traces) == shared_steps(traces[:, :1]) == ()
    traces[4] = traces[0]
    assert shared_steps(traces) == (6,)


def test_a_transient_is_no_drift():
    assert drifts(decays([50, 140], 300, keep=0.8)[None] + np.tile([0, 0.01], 150))[0] < 0.1


KINDS = {
    ("deconvolved", "events"): (RNG.random((5, 900)) < 0.05) * RNG.gamma(2, size=(5, 900)),
    ("denoised",): np.stack([decays(RNG.integers(0, 900, 30), 900) for _ in range(5)]),
    ("fluorescence",): 200 + 20 * RNG.standard_normal((5, 900)),
    ("dff",): np.abs(0.1 * RNG.standard_normal((5, 900))),
}


@pytest.mark.parametrize("kinds", KINDS)
def test_a_trace_kind_is_recognised_by_its_shape(kinds):
    assert guess_trace_kinds(KINDS[kinds]) == kinds


def test_denoised_traces_with_silent_stretches_are_no_events():
    silent = np.where(decays([50, 500], 900) > 0.01, decays([50, 500], 900), 0)
    assert (silent == 0).mean() > 0.3
    assert guess_trace_kinds(silent[None]) == ("denoised",)


def test_what_could_be_anything_is_not_guessed():
    per_cent = 100 * RNG.standard_normal((5, 900))
    assert guess_trace_kinds(per_cent) == guess_trace_kinds(np.ones((3, 900))) == ()
    assert guess_trace_kinds(np.full((1, 900), np.nan)) == ()


def test_half_a_cell_is_found_by_its_distance_and_its_trace():
    a, b = RNG.standard_normal((2, 500))
    traces = np.stack([a, 3 * a + 0.1 * b, a, b])
    traces[0, :5] = np.nan
    near = np.array([[0, 0], [6, 8], [0, 10.5], [1, 1]])
    # Rows 0 and 1 are 10 apart, 1 and 2 are 6.5; rows 0 and 2 are alike but 10.5 apart, 0 and 3 close but unlike.
    assert split_pairs(traces, near) == ((0, 1), (1, 2))
    near[1] = np.nan
    assert split_pairs(traces, near) == ()


def test_a_crowd_in_one_place_is_reported_and_not_compared():
    traces, centroids = np.tile(RNG.standard_normal(40), (120, 1)), RNG.random((120, 2))
    assert split_pairs(traces, centroids) == ()
    assert measure(recording(traces, centroids=centroids, coordinate_unit="um")).distances.crowded
    assert not measure(recording(traces, centroids=40 * centroids, coordinate_unit="um")).distances.crowded


def test_distances_and_neurons_without_neighbours_are_counted_as_the_processor_does():
    traces, centroids = row_of_six()
    got = measure(recording(traces, centroids=centroids, coordinate_unit="um"), 3, "um").distances
    # 0 1 2 3 10 12: fifteen distances from 1 to 12, the eighth 7; the last two neurons have each other only.
    assert (got.quantiles[2], got.quantiles[-1], got.extent, got.radius) == (7, 12, (12, 0), 3) and got.alone == (4, 5)
    processor = NeurtProcessor(neighbour_radius=3, radius_unit="um")
    dropped = processor.channels_and_dropped(traces, centroids, "um", "error")[1]
    assert dropped == {"fewer than 2 near or far neurons": [4, 5]}


def test_a_neuron_at_the_radius_is_neither_near_nor_far():
    # Of 0 1 2 3 10, every neuron has the last one alone beyond 3; two lie exactly 3 apart.
    centroids = np.array([[x, 0] for x in (0, 1, 2, 3, 10)], dtype=float)
    got = measure(recording(RNG.random((5, 40)), centroids=centroids, coordinate_unit="um"), 3, "um").distances
    assert got.alone == (0, 1, 2, 3, 4)


def test_a_radius_that_is_a_quantile_is_the_one_of_the_processor():
    traces, centroids = random_field()
    got = measure(recording(traces, centroids=centroids, coordinate_unit="px"), 0.2).distances
    dropped = NeurtProcessor(neighbour_radius=0.2).channels_and_dropped(traces, centroids, "px", "error")[1]
    assert got.alone == tuple(sorted(sum(dropped.values(), []))) and 0 < got.radius < got.quantiles[1]


def test_a_radius_in_another_unit_than_the_positions_counts_nothing():
    traces, centroids = row_of_six()
    got = measure(recording(traces, centroids=centroids, coordinate_unit="px"), 3, "um").distances
    assert got.radius is None and got.alone is None


def test_a_large_field_is_judged_by_some_of_its_neurons(monkeypatch):
    monkeypatch.setattr("neurt.dataset_scripts.quality._MOST_COMPARED", 3)
    centroids = np.array([[x, 0] for x in (0, 1, 20, 21, 100)], dtype=float)
    got = measure(recording(RNG.random((5, 40)), centroids=centroids, coordinate_unit="um")).distances
    # The first, the middle and the last of five: distances 20, 80, 100.
    assert got.quantiles[2:] == pytest.approx((80, 96, 100))
    assert got.radius == got.quantiles[1] and got.alone is None


def test_neurons_without_positions_keep_their_rows():
    centroids = np.array([[np.nan, np.nan], *([x, 0] for x in (0, 1, 2, 3, 10, 10, 12))])
    traces = RNG.standard_normal((8, 40))
    got = measure(recording(traces, centroids=centroids, coordinate_unit="um"), 2.5, "um").distances
    assert (got.same_position, got.alone) == ((6,), ())
    got = measure(recording(traces, centroids=centroids, coordinate_unit="um"), 1.5, "um").distances
    # Within 1.5 lie one neighbour of 0 and of 3, one of each at 10, none of 12.
    assert got.alone == (1, 4, 5, 6, 7)


def test_nan_constant_clipped_and_repeated_traces_are_found():
    wave = np.sin(np.arange(900) / 10) + 0.001 * RNG.standard_normal(900)
    events = (RNG.random(900) < 0.1).astype(float)
    traces = np.stack([wave, np.minimum(wave, 0.5), wave, np.ones(900), events, wave + 1])
    traces[5, [3, 4]] = np.nan, np.inf
    got = measure(recording(traces))
    assert (got.constant, got.saturated, got.identical, got.neurons) == ((3,), (1,), (2,), 6)
    assert (got.nan_neurons, got.nan_frames, got.nan_share) == ((5,), 2, 2 / 5400)
    assert got.distances is None and got.positioned == 0


def test_rejected_neurons_are_counted_and_not_measured():
    traces = RNG.standard_normal((3, 60))
    traces[1] = np.nan
    got = measure(recording(traces, accepted=np.array([True, False, True])))
    assert (got.neurons, got.rejected, got.nan_neurons, got.roi_ids) == (2, 1, (), ("n0", "n2"))


def test_noise_is_absolute_for_dff_alone():
    alternating = np.tile([0.0, 10.0], (1, 30))
    absolute, relative = (measure(recording(alternating, trace_kind=kind)) for kind in ("dff", "fluorescence"))
    assert absolute.noise_is_absolute and not relative.noise_is_absolute
    # Steps of 10 at 4 Hz, and an SD of 5.
    np.testing.assert_allclose([*absolute.noise, *relative.noise], [500, 100])


def test_the_longest_stretch_and_the_length_are_told():
    got = measure(recording(RNG.standard_normal((1, 100)), segment_starts=(0, 30, 90)))
    assert (got.segments, got.longest_segment, got.frames, got.duration) == (3, 60, 100, 25)


def test_the_median_of_what_is_known():
    assert known_median(np.array([np.nan, 1, 3])) == 2 and np.isnan(known_median(np.array([np.nan])))
