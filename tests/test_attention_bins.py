"""Attention is pooled into time bins: rows average, columns add up, padding stays out, labels tell the time."""

import json

import numpy as np
import pytest
import torch
from example_fields import random_field
from neurt import NeurtConfig, NeurtForMaskedSignalModeling, NeurtForSequenceClassification, NeurtModel, NeurtProcessor
from neurt.explain.attention_bins import bin_attention, bin_labels, frames_in_bin, hidden_frames, pool_frames
from torch.testing import assert_close

CONFIG = NeurtConfig(
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    max_position_embeddings=64,
    num_labels=2,
)


def eager(cls):
    torch.manual_seed(0)
    return cls._from_config(CONFIG, attn_implementation="eager").eval()


@pytest.fixture(scope="module")
def inputs():
    """Windows of 50 frames out of 100 at 5 Hz, as the processor gives them."""
    traces, centroids = random_field(8, 100, seed=0)
    processor = NeurtProcessor(window_length=50)
    return processor(traces, centroids, sampling_rate=5.0, coordinate_unit="um")


def test_rows_average_and_columns_add_up():
    attention = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.0, 0.6, 0.4]])
    # The first two rows average to 0.3, 0.225, 0.475; the last bin has one frame.
    expected = torch.tensor([[0.525, 0.475], [0.6, 0.4]], dtype=torch.float64)
    assert_close(pool_frames(attention, 2), expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("frames_per_bin", [1, 3, 7, 20])
def test_rows_of_bins_add_to_one_as_rows_of_frames_do(frames_per_bin):
    attention = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(0)).softmax(-1)
    pooled = pool_frames(attention, frames_per_bin)
    bins = -(-20 // frames_per_bin)
    assert pooled.shape == (2, 3, bins, bins)
    assert_close(pooled.sum(-1), torch.ones(2, 3, bins, dtype=torch.float64))


@pytest.mark.parametrize(
    ("frames", "bins", "expected"), [(512, 64, 8), (128, 64, 2), (100, 64, 2), (10, 4, 3), (40, 64, 1)]
)
def test_bins_are_as_short_as_their_number_allows(frames, bins, expected):
    assert frames_in_bin(frames, bins) == expected


def test_a_single_bin_is_refused():
    with pytest.raises(ValueError, match="expected at least 2 bins, got 1"):
        frames_in_bin(100, 1)


def test_the_weights_are_those_of_every_layer_and_head_of_the_window(inputs):
    model = eager(NeurtForMaskedSignalModeling)
    found = bin_attention(model, inputs, bins=8, row=3)
    window = {name: inputs[name][3:4] for name in ("input_values", "attention_mask", "sampling_rate")}
    with torch.inference_mode():
        attention = torch.cat(model(**window, output_attentions=True).attentions).double().numpy()
    edges = np.arange(0, 50, 7)
    sums = np.add.reduceat(np.add.reduceat(attention, edges, axis=-1), edges, axis=-2)
    expected = sums / np.array([7, 7, 7, 7, 7, 7, 7, 1])[:, None]
    assert found.frames_per_bin == 7 and found.weights.shape == (3, 2, 8, 8)
    np.testing.assert_allclose(found.weights.numpy(), expected, atol=5e-5)


def test_weights_have_four_decimals_when_they_become_json(inputs):
    weights = bin_attention(eager(NeurtModel), inputs, bins=16).weights
    numbers = json.dumps(weights.tolist()).replace("[", "").replace("]", "").split(", ")
    assert max(map(len, numbers)) == len("0.1234")
    assert_close(weights.sum(-1), torch.ones(3, 2, 13, dtype=torch.float64), atol=13 * 5e-5, rtol=0)


def test_padding_is_left_out(inputs):
    model = eager(NeurtForSequenceClassification)
    short = {name: inputs[name][:1, :36] for name in ("input_values", "attention_mask")}
    padded = {name: torch.nn.functional.pad(short[name].mT, (0, 14)).mT for name in ("input_values",)}
    padded["attention_mask"] = torch.nn.functional.pad(short["attention_mask"], (0, 14))
    rest = {"sampling_rate": inputs["sampling_rate"][:1], "start_frame": inputs["start_frame"][:1]}
    found, expected = (bin_attention(model, {**window, **rest}, bins=12) for window in (padded, short))
    assert found.frames_per_bin == 3 and found.weights.shape == (3, 2, 12, 12)
    assert_close(found.weights, expected.weights, atol=1e-4, rtol=0)
    assert found.labels == expected.labels and found.labels[-1] == "6.6 s"


@pytest.mark.parametrize("cls", [NeurtForMaskedSignalModeling, NeurtForSequenceClassification])
def test_every_model_shows_the_attention_of_its_encoder(inputs, cls):
    model = eager(cls)
    assert torch.equal(bin_attention(model, inputs, 9).weights, bin_attention(model.neurt, inputs, 9).weights)


def test_attention_that_the_model_does_not_keep_is_asked_for(inputs):
    model = NeurtModel._from_config(CONFIG, attn_implementation="sdpa")
    with pytest.raises(ValueError, match='got one with sdpa attention, .* load it with attn_implementation="eager"'):
        bin_attention(model, inputs, bins=8)


def test_labels_are_the_time_in_the_recording_and_mark_bins_half_hidden():
    hidden = torch.tensor([0, 0, 1, 0, 1, 1, 1], dtype=torch.bool)
    found = bin_labels(hidden, 2, start_frame=64, sampling_rate=5.0)
    assert found == ("12.8 s", "13.2 s hidden", "13.6 s hidden", "14.0 s hidden")
    assert bin_labels(hidden, 3, start_frame=0, sampling_rate=5.0) == ("0.0 s", "0.6 s hidden", "1.2 s hidden")


def test_labels_of_fast_recordings_have_more_decimals_and_those_without_a_rate_are_frames():
    visible = torch.zeros(6, dtype=torch.bool)
    assert bin_labels(visible, 2, start_frame=30, sampling_rate=30.0) == ("1.00 s", "1.07 s", "1.13 s")
    assert bin_labels(visible, 3, start_frame=30, sampling_rate=float("nan")) == ("frame 30", "frame 33")


def test_a_window_says_when_it_begins(inputs):
    model = eager(NeurtModel)
    assert inputs["start_frame"][1] == 50
    assert bin_attention(model, inputs, bins=10, row=1).labels[:2] == ("10.0 s", "11.0 s")
    without = {name: inputs[name] for name in ("input_values", "attention_mask")}
    assert bin_attention(model, without, bins=10, row=1).labels[:2] == ("frame 0", "frame 5")


def test_a_frame_is_hidden_if_all_of_its_channels_are():
    values, mask = torch.zeros(1, 4, 5), torch.tensor([[False, True, False, False]])
    neighbours_absent = torch.ones(1, 4, 5, dtype=torch.bool)
    neighbours_absent[..., 0] = mask
    assert hidden_frames({"input_values": values}).tolist() == [False] * 4
    for hidden in (mask, neighbours_absent):
        found = hidden_frames({"input_values": values, "bool_masked_pos": hidden})
        assert found.tolist() == [False, True, False, False]
