"""Masks: how much is hidden and in which spans, what they depend on, and what the collators make of windows."""

import numpy as np
import pytest
import torch
from neurt.masking import MASK_TASKS, MaskedSignalCollator, channel_mask, collate_windows, forecast_mask, span_mask
from scipy import stats
from torch.utils.data import DataLoader, Dataset


def run_lengths(hidden):
    """Lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], hidden, [False]]).astype(int)))
    return edges[1::2] - edges[::2]


def masks(num_frames, count=300, **options):
    return np.stack([span_mask(num_frames, np.random.default_rng([5, i]), **options) for i in range(count)])


def window(index=0, *, real=128, length=128, absent=None, **entries):
    """A window of ones whose first `real` frames are not padding."""
    entries = {"input_values": np.ones((length, 5), dtype=np.float32), "window_index": index, **entries}
    entries["attention_mask"] = (np.arange(length) < real).astype(np.int64)
    if absent is not None:
        entries["bool_masked_pos"] = np.zeros((length, 5), dtype=bool)
        entries["bool_masked_pos"][:real, absent] = True
    return entries


class Windows(Dataset):
    """Windows of 40 frames; `epoch` is told as the data set of recordings tells it."""

    def __len__(self):
        return 13

    def __getitem__(self, index):
        return window(index, real=33 + index % 8, length=40, epoch=2)


@pytest.mark.parametrize(
    ("num_frames", "ratio", "hidden"), [(32, 0.15, 5), (128, 0.15, 19), (512, 0.15, 77), (3, 0.1, 1)]
)
def test_the_share_of_hidden_frames_is_exact_and_at_least_one(num_frames, ratio, hidden):
    assert (masks(num_frames, mask_ratio=ratio).sum(1) == hidden).all()


@pytest.mark.parametrize("num_frames", [32, 33, 128])
def test_spans_have_one_to_ten_frames_and_every_length_occurs(num_frames):
    lengths = np.concatenate([run_lengths(hidden) for hidden in masks(num_frames, mask_ratio=0.4)])
    assert set(lengths) == set(range(1, 11))


@pytest.mark.parametrize("num_frames", [31, 32, 33, 35, 39, 128])
def test_a_visible_frame_stands_between_spans_even_where_there_is_least_room(num_frames):
    # Spans of one frame on half of the frames: any two that touched would make a run of two.
    hidden = masks(num_frames, mask_ratio=0.5, max_span=1)
    assert max(max(run_lengths(row)) for row in hidden) == 1
    assert (hidden.sum(1) == round(num_frames / 2)).all()


def test_span_lengths_follow_the_truncated_geometric_law():
    lengths = run_lengths(span_mask(200_000, np.random.default_rng(3)))
    law = stats.geom(0.2).pmf(np.arange(1, 11)) / stats.geom(0.2).cdf(10)
    observed = np.bincount(lengths, minlength=11)[1:]
    assert len(observed) == 10
    assert stats.chisquare(observed, law * observed.sum()).pvalue > 0.01


@pytest.mark.parametrize("num_frames", [32, 128])
def test_every_frame_is_hidden_as_often_as_any_other(num_frames):
    share = masks(num_frames, count=4000).mean(0)
    expected = round(0.15 * num_frames) / num_frames
    # Five standard deviations of a share of 4,000 masks.
    assert np.abs(share - expected).max() < 5 * np.sqrt(expected * (1 - expected) / 4000)


def test_the_same_generator_state_gives_the_same_mask():
    first, second = (span_mask(128, np.random.default_rng([1, 2, 3])) for _ in range(2))
    assert np.array_equal(first, second)


def test_padded_frames_are_never_hidden_and_the_share_is_of_real_frames():
    windows = [window(index, real=40 + index) for index in range(60)]
    hidden = MaskedSignalCollator()(windows)["bool_masked_pos"].numpy()
    for index, row in enumerate(hidden):
        assert not row[40 + index :].any()
        assert row.sum() == round(0.15 * (40 + index))


def test_a_mask_depends_on_neither_the_batch_nor_the_order():
    collate = MaskedSignalCollator(seed=4)
    together = collate([window(index) for index in range(6)])["bool_masked_pos"]
    backwards = collate([window(index) for index in reversed(range(6))])["bool_masked_pos"]
    alone = torch.cat([collate([window(index)])["bool_masked_pos"] for index in range(6)])
    assert torch.equal(together, backwards.flip(0))
    assert torch.equal(together, alone)


def test_masks_do_not_depend_on_the_number_of_workers():
    batches = [
        torch.cat([batch["bool_masked_pos"] for batch in DataLoader(Windows(), 4, collate_fn=collate, num_workers=n)])
        for n in (0, 2)
        for collate in [MaskedSignalCollator(seed=4)]
    ]
    assert torch.equal(*batches)


def test_masks_leave_the_global_generators_alone():
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    MaskedSignalCollator()([window()])
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


@pytest.mark.parametrize(
    ("seed", "index", "epoch"), [(1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=["seed", "window index", "epoch"]
)
def test_seed_window_index_and_epoch_each_change_the_mask(seed, index, epoch):
    reference = MaskedSignalCollator(seed=0)([window(0, epoch=0)])["bool_masked_pos"]
    other = MaskedSignalCollator(seed=seed)([window(index, epoch=epoch)])["bool_masked_pos"]
    assert not torch.equal(reference, other)


def test_a_window_without_epoch_is_masked_as_in_epoch_zero():
    collate = MaskedSignalCollator()
    assert torch.equal(collate([window()])["bool_masked_pos"], collate([window(epoch=0)])["bool_masked_pos"])


def test_targets_are_the_unmasked_values():
    batch = MaskedSignalCollator()([window(), window(1)])
    assert torch.equal(batch["labels"], torch.ones(2, 128, 5))
    assert torch.equal(batch["input_values"], torch.ones(2, 128, 5))
    assert batch["bool_masked_pos"].shape == (2, 128)
    assert not {"window_index", "epoch"} & batch.keys()


def test_absent_channels_stay_hidden_beside_the_spans_and_have_no_target():
    windows = [window(0, absent=[1, 2, 3, 4], real=100), window(1, absent=[])]
    batch = MaskedSignalCollator(seed=4)(windows)
    spans = MaskedSignalCollator(seed=4)([window(0, real=100), window(1)])["bool_masked_pos"]
    assert torch.equal(batch["bool_masked_pos"][..., 0], spans)
    assert batch["bool_masked_pos"][0, :100, 1:].all()
    assert not batch["bool_masked_pos"][0, 100:].any()
    assert torch.equal(batch["bool_masked_pos"][1], spans[1].unsqueeze(-1).expand(-1, 5))
    assert batch["labels"][0, :100, 1:].isnan().all()
    assert torch.equal(batch["labels"][0, :, 0], torch.ones(128))
    assert torch.equal(batch["labels"][1], torch.ones(128, 5))
    assert not batch["input_values"].isnan().any()


def test_windows_are_stacked_with_their_types_and_strings_are_listed():
    windows = [window(i, roi_id=f"roi{i}", labels=i, sampling_rate=np.float32(5)) for i in range(2)]
    batch = collate_windows(windows)
    assert batch["roi_id"] == ["roi0", "roi1"]
    assert batch["labels"].tolist() == [0, 1] and batch["labels"].dtype == torch.int64
    assert batch["sampling_rate"].dtype == batch["input_values"].dtype == torch.float32
    assert batch["input_values"].shape == (2, 128, 5)


@pytest.mark.parametrize("order", [1, -1])
def test_windows_with_and_without_absent_channels_are_refused_in_one_batch(order):
    windows = [window(0), window(1, absent=[1])][::order]
    with pytest.raises(ValueError, match="some with and some without bool_masked_pos"):
        MaskedSignalCollator()(windows)


def test_windows_without_an_index_are_refused_with_the_setting_to_change():
    with pytest.raises(ValueError, match="expected windows with window_index.*remove_unused_columns=False"):
        MaskedSignalCollator()([{"input_values": np.ones((32, 5))}])


@pytest.mark.parametrize("rate", [0, -5.0, np.nan, np.inf])
def test_a_rate_that_cannot_be_is_refused(rate):
    with pytest.raises(ValueError, match="expected a default_sampling_rate above 0 Hz, got"):
        MaskedSignalCollator(default_sampling_rate=rate)


@pytest.mark.parametrize(
    ("task", "channels"), [("neuron", [0]), ("near", [1, 2]), ("far", [3, 4]), ("population", [1, 2, 3, 4])]
)
def test_a_task_hides_its_channels_for_the_whole_window(task, channels):
    hidden = channel_mask(7, 5, task)
    assert hidden.shape == (7, 5)
    assert np.flatnonzero(hidden.all(0)).tolist() == np.flatnonzero(hidden.any(0)).tolist() == channels


@pytest.mark.parametrize(
    ("num_frames", "rate", "seconds", "hidden"), [(40, 5, 1, 5), (40, 5, 2.5, 12), (40, 30, 1, 20), (40, 1.5, 0.1, 1)]
)
def test_a_forecast_hides_the_last_seconds_one_frame_at_least_and_half_at_most(num_frames, rate, seconds, hidden):
    mask = forecast_mask(num_frames, rate, seconds)
    assert mask.sum() == hidden and mask[-hidden:].all()


def test_the_collator_draws_tasks_by_their_weights_and_names_them():
    collate = MaskedSignalCollator(tasks={"span": 3, "neuron": 1, "forecast": 4})
    batch = collate([window(index, sampling_rate=np.float32(4)) for index in range(800)])
    counts = {task: batch["mask_task"].count(task) for task in MASK_TASKS}
    assert stats.chisquare([counts["span"], counts["neuron"], counts["forecast"]], [300, 100, 400]).pvalue > 0.01
    assert batch["bool_masked_pos"].shape == (800, 128, 5) and sum(counts.values()) == 800
    for task, hidden in zip(batch["mask_task"], batch["bool_masked_pos"], strict=True):
        expected = {"span": [19] * 5, "neuron": [128, 0, 0, 0, 0], "forecast": [4] * 5}[task]
        assert hidden.sum(0).tolist() == expected


def test_padded_frames_are_hidden_by_no_task():
    windows = [window(index, real=40) for index in range(60)]
    batch = MaskedSignalCollator(tasks=dict.fromkeys(MASK_TASKS, 1))(windows)
    assert set(batch["mask_task"]) == set(MASK_TASKS)
    assert not batch["bool_masked_pos"][:, 40:].any() and batch["bool_masked_pos"][:, :40].any((1, 2)).all()
    forecast = batch["mask_task"].index("forecast")
    assert batch["bool_masked_pos"][forecast, :, 0].nonzero().flatten().tolist() == list(range(32, 40))


def test_a_window_without_neighbour_channels_gets_spans_instead_of_whole_channels():
    batch = MaskedSignalCollator(tasks={"neuron": 1, "near": 1})([window(i, absent=[1, 2, 3, 4]) for i in range(9)])
    assert batch["mask_task"] == ["span"] * 9
    assert (batch["bool_masked_pos"][..., 0].sum(1) == 19).all() and torch.isnan(batch["labels"][..., 1:]).all()


@pytest.mark.parametrize("tasks", [{}, {"spans": 1}, {"span": 0}, {"span": -1, "near": 2}, {"near": np.nan}])
def test_tasks_that_cannot_be_meant_are_refused(tasks):
    with pytest.raises(ValueError, match="expected (tasks among span, neuron|a weight above 0 for each task)"):
        MaskedSignalCollator(tasks=tasks)
