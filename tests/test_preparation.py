"""Traces are prepared as stated, segment by segment, and what was done is recorded; nothing is done unasked."""

import numpy as np
import pytest
from neurt.dataset_scripts.preparation import Preparation, prepare, running_percentile
from neurt.dataset_scripts.readers.source import NothingUsable
from neurt.dataset_scripts.recording import Recording

NAN = np.nan


def recording(traces, rate=5.0, kind="fluorescence", starts=(0,)):
    traces = np.atleast_2d(np.asarray(traces, dtype=np.float32))
    return Recording(
        traces=traces,
        sampling_rate=rate,
        recording_id="rec",
        subject_id="mouse",
        session_id="day",
        roi_ids=tuple("abcdefgh"[: len(traces)]),
        trace_kind=kind,
        segment_starts=starts,
        source={"file": "rec.npz", "sha256": "of the file"},
    )


def prepared(given, **choices):
    got, left_out = prepare(given, Preparation(**choices))
    assert left_out == []
    return got


def ramp(frames=40):
    return np.arange(frames, dtype=np.float32)


def with_gaps(*gaps, neurons=2):
    """Neuron n is (n + 1) times a ramp of 40 frames, with values missing at (neuron, start, end)."""
    traces = np.outer(np.arange(1, neurons + 1), ramp())
    for neuron, start, end in gaps:
        traces[neuron, start:end] = NAN
    return traces


# Choices


def test_nothing_is_done_unasked():
    given = recording(with_gaps())
    got, left_out = prepare(given, Preparation())
    assert got is given and left_out == [] and Preparation().parameters() == {}


def test_the_manifest_gets_what_was_chosen_and_the_percentile_that_follows():
    assert Preparation(dff_window=60.0).parameters() == {"dff_window": 60.0, "dff_percentile": 10.0}
    assert Preparation(nan="interpolate", max_gap=0.5).parameters() == {"nan": "interpolate", "max_gap": 0.5}
    assert Preparation(dff_window=60.0, dff_percentile=0).parameters()["dff_percentile"] == 0


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"nan": "zero"}, "--nan: expected refuse, interpolate or drop, got 'zero'"),
        ({"nan": "interpolate"}, "--max-gap: expected together with --nan interpolate"),
        ({"max_gap": 1.0}, "--max-gap: expected together with --nan interpolate"),
        ({"nan": "interpolate", "max_gap": 0.0}, "--max-gap: expected a number above 0, got 0"),
        ({"dff_window": -1.0}, "--dff-window: expected a number above 0, got -1"),
        ({"dff_percentile": 5.0}, "--dff-percentile: expected together with --dff-window"),
        ({"dff_window": 9.0, "dff_percentile": 101.0}, "--dff-percentile: expected a number from 0 to 100, got 101"),
        ({"dff_window": 9.0, "dff_percentile": NAN}, "--dff-percentile: expected a number from 0 to 100, got nan"),
        ({"resample_to": 0.0}, "--resample-to: expected a number above 0, got 0"),
        ({"resample_to": np.inf}, "--resample-to: expected a number above 0, got inf"),
        ({"resample_to": NAN}, "--resample-to: expected a number above 0, got nan"),
    ],
)
def test_choices_out_of_range_are_one_plain_line(choices, message):
    with pytest.raises(ValueError, match=message):
        Preparation(**choices)


# Bad values


def test_bad_values_are_refused_by_default_with_the_flags_that_help():
    with pytest.raises(ValueError) as error:
        prepare(recording(with_gaps((0, 5, 8), (1, 6, 8), (1, 20, 21))), Preparation())
    assert str(error.value) == (
        "recording 'rec' (rec.npz): expected finite traces, got NaN or infinite values in 2 of 2 neurons and 4 of 40 "
        "frames (in every neuron: frames 6 to 7, counted from 0), the longest gap 0.6 s; pass --nan interpolate with "
        "--max-gap in seconds, or --nan drop to leave these neurons out"
    )


def test_gaps_are_crossed_by_straight_lines():
    traces = with_gaps((0, 5, 8), (1, 6, 8), (1, 20, 21))
    traces[0, 30] = np.inf
    given = recording(traces)
    before = given.traces.copy()
    got = prepared(given, nan="interpolate", max_gap=0.6)
    # On a ramp the straight line is the ramp.
    np.testing.assert_allclose(got.traces, [ramp(), 2 * ramp()], rtol=1e-6)
    np.testing.assert_array_equal(given.traces, before)
    assert got.source["preparation"] == {"gaps_filled": 4, "neurons_with_gaps": 2, "longest_gap_s": 0.6}
    assert got.source["sha256"] == "of the file" and "preparation" not in given.source


def test_a_gap_of_exactly_the_stated_length_is_filled():
    # Three frames of 34 ms are 0.102 s, but 3 / (1 / 0.034) is a little more.
    got = prepared(recording(with_gaps((0, 5, 8)), 1 / 0.034), nan="interpolate", max_gap=0.102)
    assert got.source["preparation"]["longest_gap_s"] == 0.102


def test_longer_gaps_and_gaps_at_edges_are_refused_and_counted():
    given = recording(with_gaps((0, 0, 2), (0, 10, 12), (1, 20, 24), (2, 39, 40), neurons=4))
    with pytest.raises(ValueError) as error:
        prepare(given, Preparation(nan="interpolate", max_gap=0.5))
    assert str(error.value) == (
        "recording 'rec' (rec.npz): expected gaps of at most 0.5 s with values on both sides, got 1 longer gap and 2 "
        "at the start or end of a segment, in 3 of 4 neurons, the longest 0.8 s; raise --max-gap, cut the ends off, "
        "or pass --nan drop"
    )


def test_no_line_runs_on_from_one_segment_to_the_next():
    inside = prepared(recording(with_gaps((0, 9, 11))), nan="interpolate", max_gap=1.0)
    np.testing.assert_allclose(inside.traces[0], ramp(), rtol=1e-6)
    with pytest.raises(ValueError, match="0 longer gaps and 2 at the start or end of a segment, in 1 of 2 neurons"):
        prepare(recording(with_gaps((0, 9, 11)), starts=(0, 10)), Preparation(nan="interpolate", max_gap=1.0))


def test_neurons_with_bad_values_are_left_out_by_name():
    got, left_out = prepare(recording(with_gaps((1, 3, 4), (2, 0, 40), neurons=4)), Preparation(nan="drop"))
    assert got.roi_ids == ("a", "d") and got.source["preparation"] == {"neurons_with_nan_dropped": 2}
    np.testing.assert_array_equal(got.traces, [ramp(), 4 * ramp()])
    why = "2 of 4 neurons hold NaN or infinite values: roi b, c"
    assert left_out == [{"recording_id": "rec", "roi_ids": ["b", "c"], "why": why}]


def test_where_no_neuron_is_left_the_frames_that_did_it_are_named():
    given = recording(with_gaps((0, 3, 6), (1, 3, 6), (0, 9, 10), (1, 9, 10)))
    with pytest.raises(
        NothingUsable, match=r"^2 of 2 neurons .* \(in every neuron: frames 3 to 5, 9, counted from 0\)$"
    ):
        prepare(given, Preparation(nan="drop"))


# dF/F


def test_dff_is_relative_to_a_running_percentile_of_a_window_that_is_reflected_at_the_edges():
    # 2 s at 5 Hz are 5 frames on each side; on the ramp 100 + t these are F - 5 ... F + 5.
    given = recording(100 + ramp())
    dff = prepared(given, dff_window=2.0)
    np.testing.assert_allclose(dff.traces[0, 20], 4 / 116, rtol=1e-5)  # rank 1 of 11 values
    np.testing.assert_allclose(dff.traces[0, 0], 0, atol=1e-6)  # 100 100 101 101 ... 104 105
    np.testing.assert_allclose(dff.traces[0, -1], (139 - 135) / 135, rtol=1e-5)  # 134 135 135 ... 139 139
    assert dff.trace_kind == "dff" and dff.traces.dtype == np.float32
    assert dff.source["preparation"] == {"dff": "(F - F0) / F0, F0 the running percentile 10 over 2 s"}
    median = prepared(given, dff_window=2.0, dff_percentile=50.0)
    np.testing.assert_allclose(median.traces[0, 5:-5], 0, atol=1e-6)
    least = prepared(given, dff_window=2.0, dff_percentile=0.0)
    np.testing.assert_allclose(least.traces[0, 20], 5 / 115, rtol=1e-5)


def test_no_baseline_runs_on_from_one_segment_to_the_next():
    traces = np.repeat([100, 1000], 20)
    np.testing.assert_array_equal(prepared(recording(traces, starts=(0, 20)), dff_window=4.0).traces, 0)
    # The window of frame 19 reaches 10 frames into the bright half.
    assert prepared(recording(traces), dff_window=4.0, dff_percentile=90.0).traces[0, 19] == pytest.approx(-0.9)


@pytest.mark.parametrize("percentile", [0.0, 10.0, 25.0, 50.0, 99.9, 100.0])
@pytest.mark.parametrize(("frames", "half"), [(237, 50), (237, 5), (60, 50), (30, 50), (7, 5), (2, 5), (1, 5)])
def test_the_running_percentile_is_exact_at_every_frame(frames, half, percentile):
    trace = np.random.default_rng(0).gamma(2.0, size=frames).astype(np.float32)
    got = running_percentile(trace, half, percentile)
    half = min(half, frames)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(trace, half, mode="symmetric"), 2 * half + 1)
    rank = min(int((2 * half + 1) * percentile / 100), 2 * half)
    np.testing.assert_array_equal(got, np.sort(windows, axis=1)[:, rank])
    assert got.dtype == np.float32


def test_dff_does_not_depend_on_the_gain_nor_on_the_other_neurons():
    traces = 50 + np.random.default_rng(0).gamma(2.0, size=(4, 200))
    first, second = (prepared(recording(gain * traces), dff_window=8.0).traces for gain in (1, 3))
    np.testing.assert_allclose(first, second, atol=2e-6)
    np.testing.assert_array_equal(prepared(recording(traces[2]), dff_window=8.0).traces[0], first[2])


def test_resampling_in_blocks_is_resampling(monkeypatch):
    given = recording(50 + np.random.default_rng(0).gamma(2.0, size=(5, 200)))
    whole = prepared(given, resample_to=2.0).traces
    monkeypatch.setattr("neurt.dataset_scripts.preparation._BLOCK_VALUES", 100)
    np.testing.assert_array_equal(prepared(given, resample_to=2.0).traces, whole)


@pytest.mark.parametrize("baseline", [0.0, -3.0, 9.9])
def test_neurons_whose_baseline_is_not_clearly_positive_are_left_out_by_name(baseline):
    traces = np.full((3, 60), 100.0)
    traces[1, 20:40] = baseline
    got, left_out = prepare(recording(traces), Preparation(dff_window=2.0))
    why = "1 of 3 neurons have an F0 at or below 0 or a tenth of their median: roi b"
    assert left_out == [{"recording_id": "rec", "roi_ids": ["b"], "why": why}]
    assert got.roi_ids == ("a", "c") and got.source["preparation"]["neurons_without_baseline_dropped"] == 1
    np.testing.assert_array_equal(got.traces, np.zeros((2, 60)))


def test_where_no_neuron_has_a_baseline_the_recording_is_left_out():
    with pytest.raises(NothingUsable, match="^2 of 2 neurons have an F0 at or below 0 or a tenth of their median$"):
        prepare(recording(np.zeros((2, 60))), Preparation(dff_window=2.0))


def test_neurons_with_nan_and_those_without_a_baseline_are_both_named():
    traces = np.full((3, 60), 100.0)
    traces[0, 3], traces[2, 20:40] = NAN, 0
    got, left_out = prepare(recording(traces), Preparation(nan="drop", dff_window=2.0))
    assert got.roi_ids == ("b",) and [each["roi_ids"] for each in left_out] == [["a"], ["c"]]


@pytest.mark.parametrize(
    ("given", "choices", "message"),
    [
        (recording(ramp() + 9, kind="dff"), {"dff_window": 9.0}, "expected fluorescence to make dF/F of, got dff"),
        (recording(ramp() + 9), {"dff_window": 1.9}, "at least 10 frames, 2 s at 5 Hz, got 1.9 s"),
        (recording(ramp()), {"resample_to": 10.1}, "at most 2 times its 5 Hz, .*got 10.1"),
        (recording(ramp()), {"resample_to": 3.9}, "at least 32 frames of its 40 at 5 Hz, got 3.9"),
        (recording(ramp()), {"resample_to": 1e-300}, "at least 32 frames of its 40 at 5 Hz, got 1e-300"),
    ],
)
def test_what_cannot_be_done_to_a_recording_is_one_plain_line_with_its_name(given, choices, message):
    with pytest.raises(ValueError, match=r"^recording 'rec' \(rec.npz\): .*" + message) as error:
        prepare(given, Preparation(**choices))
    assert "\n" not in str(error.value)


# Frame rate


def sine(hertz, rate, frames):
    return np.sin(2 * np.pi * hertz * np.arange(frames) / rate)


def test_slow_activity_survives_a_lower_rate_and_fast_activity_does_not_come_back_as_slow():
    given = recording([sine(2, 30, 1200), sine(9, 30, 1200)], rate=30.0)
    got = prepared(given, resample_to=10.0)
    assert got.sampling_rate == 10.0 and got.traces.shape == (2, 400) and got.traces.dtype == np.float32
    middle = slice(20, -20)
    np.testing.assert_allclose(got.traces[0, middle], sine(2, 10, 400)[middle], atol=2e-3)
    # Every third frame alone would show 9 Hz as 1 Hz at full height; 40 dB are a hundredth of it.
    assert np.abs(got.traces[1, middle]).max() < 0.01
    assert got.source["preparation"] == {
        "resampled_from": 30.0,
        "resampling": "low-pass filtered, 1/3",
        "relative_rate_error": 0.0,
    }


@pytest.mark.parametrize("rate", [10.0, 7.937, 30.0, 45.0])
def test_a_constant_stays_constant_and_a_bright_baseline_gets_no_ripple(rate):
    np.testing.assert_array_equal(prepared(recording(np.full((2, 400), 7e4), 30.0), resample_to=rate).traces, 7e4)
    slow = sine(0.1, 30, 1200)
    plain, bright = (prepared(recording(b + slow, 30.0), resample_to=rate).traces for b in (0, 1000))
    np.testing.assert_allclose(bright - 1000, plain, atol=2e-4)


def test_a_drift_keeps_its_slope_up_to_both_ends():
    got = prepared(recording(ramp(120), 30.0), resample_to=10.0)
    np.testing.assert_allclose(got.traces[0], ramp(120)[::3], atol=1e-3)


def test_each_segment_is_resampled_by_itself():
    traces = np.concatenate([np.full(40, 1.0), np.full(1, 5.0), np.full(50, 3.0)])
    got = prepared(recording(traces, 30.0, starts=(0, 40, 41)), resample_to=15.0)
    # 40, 1 and 50 frames are 20, 1 and 25 at half the rate; a filter across the borders would smear them.
    assert got.segment_starts == (0, 20, 21) and got.num_frames == 46
    np.testing.assert_array_equal(got.traces[0], [1] * 20 + [5] + [3] * 25)


def test_a_recording_at_that_rate_already_stays_as_it_is():
    given = recording(with_gaps(), rate=10.0)
    assert prepared(given, resample_to=10.0) is given


def test_a_rate_that_is_no_simple_ratio_is_met_to_a_twenty_thousandth_and_the_error_recorded():
    for rate, target in ((6.301234, 5.0), (10.0005, 10.0), (29.97003, 7.8125), (499.7, 5.0), (5.0, 7.9)):
        got = prepared(recording(np.zeros((1, 4000)), rate), resample_to=target)
        assert got.sampling_rate == target
        error = got.source["preparation"]["relative_rate_error"]
        factor = got.source["preparation"]["resampling"].removeprefix("low-pass filtered, ")
        up, down = map(int, factor.split("/"))
        np.testing.assert_allclose(error, rate * up / down / target - 1, atol=1e-11)
        assert abs(error) <= 5e-5 and max(up, down) <= 10_000
        assert got.num_frames == int(np.ceil(4000 * up / down))


def test_a_rate_that_differs_by_less_than_clocks_do_changes_in_name_alone():
    given = recording(np.random.default_rng(0).random((2, 100)), rate=10.0003)
    got = prepared(given, resample_to=10.0)
    np.testing.assert_allclose(got.traces, given.traces, rtol=1e-6)
    assert got.sampling_rate == 10.0
    np.testing.assert_allclose(got.source["preparation"]["relative_rate_error"], 3e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", ["events", "deconvolved"])
def test_events_are_summed_over_the_new_frames(kind):
    given = recording(np.arange(1, 101), rate=10.0, kind=kind)
    got = prepared(given, resample_to=4.0)
    # Two and a half frames each: 1 + 2 + 1.5, then 1.5 + 4 + 5, then 6 + 7 + 4.
    np.testing.assert_allclose(got.traces[0, :3], [4.5, 10.5, 17], rtol=1e-6)
    assert got.num_frames == 40 and got.traces.sum() == pytest.approx(5050)
    assert got.source["preparation"]["resampling"] == "sums over new frames, 2/5"


def test_no_event_is_lost_invented_or_negative_at_any_rate():
    events = np.random.default_rng(0).gamma(1.0, size=(2, 331)) * (np.random.default_rng(1).random((2, 331)) < 0.1)
    given = recording(events, rate=19.03, kind="events", starts=(0, 100, 101))
    for target in (2.0, 6.3, 10.0, 19.0, 38.0):
        got = prepared(given, resample_to=target)
        np.testing.assert_allclose(got.traces.sum(1), given.traces.sum(1), rtol=1e-6)
        assert got.traces.min() == 0
        first = got.segment_starts[1]
        np.testing.assert_allclose(got.traces[:, :first].sum(1), given.traces[:, :100].sum(1), rtol=1e-6)


# Together


def test_gaps_come_first_then_dff_then_the_rate():
    traces = np.full((2, 90), 100.0)
    traces[0, 40] = NAN
    traces[1, 50:60] = 150
    got = prepared(recording(traces, 30.0), nan="interpolate", max_gap=0.1, dff_window=1.0, resample_to=15.0)
    assert list(got.source["preparation"]) == [
        *("gaps_filled", "neurons_with_gaps", "longest_gap_s"),
        "dff",
        *("resampled_from", "resampling", "relative_rate_error"),
    ]
    np.testing.assert_array_equal(got.traces[0], np.zeros(45))
    np.testing.assert_allclose(got.traces[1, 27], 0.5, atol=0.05)
    assert (got.trace_kind, got.sampling_rate) == ("dff", 15.0)
