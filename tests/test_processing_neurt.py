"""Windows and where they are cut, bad input, absent channels, and settings that last."""

import numpy as np
import pytest
import torch
from example_fields import channels_of, cut, random_field
from neurt import NeurtConfig, NeurtForMaskedSignalModeling, NeurtForSequenceClassification, NeurtModel, NeurtProcessor
from neurt.processing_neurt import make_window, window_bounds

# Wrong arrays and units.


@pytest.mark.parametrize(
    ("traces", "centroids", "message"),
    [
        (np.ones(80), np.ones((80, 2)), r"shape \(neurons, frames\), got \(80,\)"),
        (np.ones((2, 12, 80)), np.ones((12, 2)), r"shape \(neurons, frames\), got \(2, 12, 80\)"),
        (np.ones((0, 80)), np.ones((0, 2)), r"shape \(neurons, frames\), got \(0, 80\)"),
        (np.ones((12, 31)), np.ones((12, 2)), r"at least 32 frames, got traces of shape \(12, 31\)"),
        (np.ones((80, 12)), np.ones((12, 2)), r"at least 32 frames, got traces of shape \(80, 12\)"),
        (np.ones((80, 40)), np.ones((40, 2)), r"shape \(80, 2\), got \(40, 2\); the traces seem transposed"),
        (np.ones((12, 80)), np.ones((12, 3)), r"shape \(12, 2\), got \(12, 3\)$"),
        (np.ones((12, 80)), np.ones((2, 12)), r"shape \(12, 2\), got \(2, 12\)$"),
        (np.ones((12, 80)), np.ones(12), r"shape \(12, 2\), got \(12,\)$"),
        (np.ones((12, 80)), None, 'expected centroids, got none; pass missing_neighbours="mask"'),
    ],
)
def test_arrays_of_wrong_shape_are_refused(traces, centroids, message):
    with pytest.raises(ValueError, match=message):
        channels_of(traces, centroids)


def test_an_unknown_way_with_missing_neighbours_is_refused():
    with pytest.raises(ValueError, match="expected missing_neighbours .* got 'drop'"):
        channels_of(*random_field(), "drop")


@pytest.mark.parametrize(("expected", "got"), [("um", "px"), ("px", "um"), ("um", None)])
@pytest.mark.parametrize("missing_neighbours", ["error", "mask"])
def test_positions_in_another_unit_than_the_radius_are_refused(expected, got, missing_neighbours):
    processor = NeurtProcessor(neighbour_radius=40, radius_unit=expected)
    with pytest.raises(ValueError, match=f"expected positions in {expected}, .* got {got}"):
        processor.neighbour_channels(*random_field(), coordinate_unit=got, missing_neighbours=missing_neighbours)


def test_a_quantile_needs_no_unit_and_does_not_depend_on_it():
    traces, centroids = random_field()
    processor = NeurtProcessor()
    channels = processor.neighbour_channels(traces, centroids)
    assert np.array_equal(channels, processor.neighbour_channels(traces, 2 * centroids, coordinate_unit="px"))


def test_windows_mark_absent_channels_at_real_frames_only():
    traces, _ = random_field(frames=75)
    batch = cut(traces, None, missing_neighbours="mask")
    absent, real = batch["bool_masked_pos"], batch["attention_mask"].bool()
    assert not absent[..., 0].any()
    assert torch.equal(absent[..., 1:], real.unsqueeze(-1).expand(-1, -1, 4))
    assert (batch["input_values"][..., 1:] == 0).all()
    assert batch["input_values"][..., 0].any()


def test_windows_with_all_channels_carry_no_mask():
    assert "bool_masked_pos" not in cut(*random_field())
    assert "bool_masked_pos" not in cut(*random_field(), missing_neighbours="mask")


# Windows.


@pytest.mark.parametrize(
    ("num_frames", "starts", "length", "stride", "expected"),
    [
        (256, (0,), 128, 128, [(0, 128), (128, 256)]),
        (300, (0,), 128, 128, [(0, 128), (128, 256), (256, 300)]),  # 44 frames left: short
        (287, (0,), 128, 128, [(0, 128), (128, 256)]),  # 31 frames left: left out
        (288, (0,), 128, 128, [(0, 128), (128, 256), (256, 288)]),
        (128, (0,), 64, 32, [(0, 64), (32, 96), (64, 128)]),
        (100, (0,), 64, 32, [(0, 64), (32, 96), (64, 100)]),
        (100, (0,), 40, 60, [(0, 40), (60, 100)]),
        (40, (0,), 128, 128, [(0, 40)]),
        (31, (0,), 128, 128, []),
        (200, (0, 70, 90), 64, 64, [(0, 64), (90, 154), (154, 200)]),
        (98, (0, 49), 128, 128, [(0, 49), (49, 98)]),
    ],
)
def test_windows_begin_and_end_where_they_should(num_frames, starts, length, stride, expected):
    assert window_bounds(num_frames, starts, length, stride) == expected


def test_no_window_crosses_a_segment_border_and_whole_segments_are_covered():
    generator = np.random.default_rng(0)
    for _ in range(200):
        starts = np.unique([0, *generator.integers(1, 500, size=generator.integers(0, 8))])
        length, stride = generator.integers(32, 150), generator.integers(1, 32)
        edges = [*starts, 500]
        covered = np.zeros(500, dtype=bool)
        for first, end in window_bounds(500, starts, int(length), int(stride)):
            assert 32 <= end - first <= length
            assert not any(first < edge < end for edge in edges)
            covered[first:end] = True
        for start, stop in zip(edges, edges[1:], strict=False):
            left_out = np.flatnonzero(~covered[start:stop])
            assert len(left_out) < 32
            assert np.array_equal(left_out, np.arange(stop - start - len(left_out), stop - start))


@pytest.mark.parametrize("starts", [(), (49, 98), (0, 98, 49), (0, 49, 49), (0, 100), (0, 120), (-5, 20)])
def test_segments_that_do_not_follow_one_another_are_refused(starts):
    with pytest.raises(ValueError, match="increasing segment_starts from 0 to below 100 frames, got"):
        window_bounds(100, starts, 64, 64)


def test_segments_may_be_an_array_and_the_message_shows_plain_numbers():
    assert window_bounds(98, np.array([0, 49]), 64, 64) == [(0, 49), (49, 98)]
    with pytest.raises(ValueError, match=r"got \[49, 98\]"):
        window_bounds(100, np.array([49, 98]), 64, 64)


def test_a_call_returns_each_neurons_windows_in_order_with_the_channels_as_they_are():
    traces, centroids = random_field(frames=90)
    batch = cut(traces, centroids, segment_starts=(0, 45), sampling_rate=7.5)
    channels = channels_of(traces, centroids)
    assert batch["neuron_index"].tolist() == np.repeat(np.arange(12), 2).tolist()
    assert batch["start_frame"].tolist() == [0, 45] * 12
    assert batch["sampling_rate"].tolist() == [7.5] * 24
    assert batch["input_values"].dtype == batch["sampling_rate"].dtype == torch.float32
    assert batch["attention_mask"].all()
    for window, neuron, first in zip(
        batch["input_values"], *(batch[n] for n in ("neuron_index", "start_frame")), strict=True
    ):
        assert np.array_equal(window.numpy(), channels[neuron, first : first + 40])
    assert batch["dropped"] == {}


def test_short_windows_are_padded_with_zeros_that_the_mask_excludes():
    traces, centroids = random_field(frames=75)
    batch = cut(traces, centroids)
    assert batch["input_values"].shape == (24, 40, 5)
    assert batch["attention_mask"][::2].all()
    assert batch["attention_mask"][1::2].tolist() == [[1] * 35 + [0] * 5] * 12
    assert (batch["input_values"][1::2, 35:] == 0).all()
    assert np.array_equal(batch["input_values"][1].numpy()[:35], channels_of(traces, centroids)[0, 40:])


def test_a_recording_shorter_than_a_window_becomes_one_padded_window():
    batch = cut(*random_field(frames=32), settings={"window_length": 128})
    assert batch["input_values"].shape == (12, 128, 5)
    assert batch["attention_mask"].sum(1).tolist() == [32] * 12


def test_segments_that_are_all_too_short_are_refused():
    with pytest.raises(ValueError, match="a segment of at least 32 frames, got 80 in all"):
        cut(*random_field(), segment_starts=(0, 31, 62))


def test_a_missing_sampling_rate_is_nan():
    assert cut(*random_field())["sampling_rate"].isnan().all()


@pytest.mark.parametrize("rate", [0, -5, np.nan, np.inf])
def test_a_sampling_rate_that_is_none_is_refused(rate):
    with pytest.raises(ValueError, match="expected a sampling_rate above 0 Hz, got"):
        cut(*random_field(), sampling_rate=rate)


def test_make_window_copies():
    channels = np.ones((40, 5), dtype=np.float32)
    make_window(channels, 0, 40, 40)["input_values"][:] = 7
    assert (channels == 1).all()


# Into a model.


@pytest.mark.parametrize("cls", [NeurtModel, NeurtForMaskedSignalModeling, NeurtForSequenceClassification])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("missing_neighbours", ["error", "mask"])
def test_a_batch_goes_straight_into_a_model(cls, attention, missing_neighbours):
    torch.manual_seed(0)
    config = NeurtConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    config._attn_implementation = attention
    traces, centroids = random_field(frames=75)
    batch = cut(traces, centroids if missing_neighbours == "error" else None, missing_neighbours=missing_neighbours)
    with torch.no_grad():
        outputs = cls(config).eval()(**batch.to("cpu"))
    assert all(value.isfinite().all() for value in outputs.values())


# Settings.


def test_settings_last_through_saving_and_loading(tmp_path):
    settings = {
        "window_length": 96,
        "window_stride": 31,
        "neighbour_radius": 12.5,
        "radius_unit": "px",
        "normalization": "zscore",
        "trace_kind": "dff",
        "sampling_rate": 7.5,
    }
    NeurtProcessor(**settings).save_pretrained(tmp_path)
    loaded = NeurtProcessor.from_pretrained(tmp_path)
    assert {name: getattr(loaded, name) for name in settings} == settings
    assert NeurtProcessor.from_pretrained(tmp_path, window_stride=9).window_stride == 9


def test_default_settings_last_through_saving_and_loading(tmp_path):
    NeurtProcessor().save_pretrained(tmp_path)
    loaded = NeurtProcessor.from_pretrained(tmp_path)
    defaults = (128, 128, 0.3, "quantile", "minmax", None, None)
    names = "window_length window_stride neighbour_radius radius_unit normalization trace_kind sampling_rate".split()
    assert tuple(getattr(loaded, name) for name in names) == defaults


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window_length": 31}, "window_length of at least 32 frames, got 31"),
        ({"window_stride": 0}, "window_stride of at least 1 frame, got 0"),
        ({"neighbour_radius": 0}, r"neighbour_radius between 0 and 1 \(quantile\), got 0"),
        ({"neighbour_radius": 100}, r"neighbour_radius between 0 and 1 \(quantile\), got 100"),
        ({"neighbour_radius": -1, "radius_unit": "um"}, r"neighbour_radius above 0 \(um\), got -1"),
        ({"neighbour_radius": np.nan, "radius_unit": "px"}, r"neighbour_radius above 0 \(px\), got nan"),
        ({"neighbour_radius": np.inf, "radius_unit": "px"}, r"neighbour_radius above 0 \(px\), got inf"),
        ({"radius_unit": "mm"}, "radius_unit among um, px, quantile, got 'mm'"),
        ({"normalization": "max"}, "normalization among minmax, zscore, none, got 'max'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"expected {message}"):
        NeurtProcessor(**settings)


def test_a_setting_that_does_not_exist_is_refused():
    with pytest.raises(TypeError, match="radius"):
        NeurtProcessor(radius=5)


@pytest.mark.parametrize(
    ("expected", "got", "warned"),
    [
        ({}, {}, ""),
        ({}, {"sampling_rate": 5.0, "trace_kind": "dff"}, ""),
        ({"sampling_rate": 5.0, "trace_kind": "dff"}, {}, ""),
        ({"sampling_rate": 5.0, "trace_kind": "dff"}, {"sampling_rate": 5.4, "trace_kind": "dff"}, ""),
        ({"sampling_rate": 5.0}, {"sampling_rate": 5.6}, "expected 5 Hz, got 5.6 Hz"),
        ({"sampling_rate": 5.0}, {"sampling_rate": 4.4}, "expected 5 Hz, got 4.4 Hz"),
        ({"trace_kind": "dff"}, {"trace_kind": "events"}, "expected traces of kind dff, got events"),
    ],
)
def test_another_rate_or_trace_kind_than_expected_gives_a_warning(caplog, expected, got, warned):
    cut(*random_field(), settings=expected, **got)
    assert len(caplog.records) == bool(warned)
    assert warned in caplog.text


# Scaling on the past.


@pytest.mark.parametrize("normalization", ["minmax", "zscore", "none"])
def test_a_scale_set_by_the_past_does_not_know_the_future(normalization):
    traces, centroids = random_field(frames=90)
    changed = traces.copy()
    changed[:, 60:] = 1e4 * np.random.default_rng(1).normal(size=(len(traces), 30))
    processor = NeurtProcessor(normalization=normalization)
    channels, after = (processor.neighbour_channels(x, centroids, scale_frames=60) for x in (traces, changed))
    np.testing.assert_array_equal(after[:, :60], channels[:, :60])
    assert (after[:, 60:] != channels[:, 60:]).all()
    if normalization != "none":
        channels, after = (processor.neighbour_channels(x, centroids) for x in (traces, changed))
        assert (after[:, :60] != channels[:, :60]).any()


def test_scaling_by_the_first_frames_equals_hand_computed_values():
    channels = NeurtProcessor().neighbour_channels(
        np.array([[2, 4, 3] + 29 * [6]] * 2, dtype=float), missing_neighbours="mask", scale_frames=3
    )
    assert channels[0, :4, 0].tolist() == [0, 1, 0.5, 2]


def test_a_neuron_that_is_constant_over_the_frames_that_set_the_scale_is_dropped():
    traces, centroids = random_field()
    traces[3, :40] = 7
    _, dropped = NeurtProcessor().channels_and_dropped(traces, centroids, None, "error", scale_frames=40)
    assert dropped == {"constant trace": [3]}


@pytest.mark.parametrize("scale_frames", [0, 1, -5, 81])
def test_a_scale_set_by_frames_that_are_not_there_is_refused(scale_frames):
    with pytest.raises(ValueError, match=f"expected scale_frames from 2 to 80, all frames, got {scale_frames}"):
        NeurtProcessor().neighbour_channels(*random_field(), scale_frames=scale_frames)
