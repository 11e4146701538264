"""A data set of windows: which there are, what is in them, what was left out, and what a model makes of them."""

import numpy as np
import pytest
import torch
from neurt import MaskedSignalCollator, NeurtConfig, NeurtForMaskedSignalModeling, NeurtProcessor
from neurt.dataset_scripts.recording import Recording
from neurt.dataset_scripts.windows import WindowDataset
from neurt.masking import collate_windows
from torch.utils.data import DataLoader

RADIUS = {"neighbour_radius": 70, "radius_unit": "um"}
PROCESSOR = NeurtProcessor(window_length=40, **RADIUS)


def recording(name="first", *, neurons=10, frames=116, seed=0, subject="mouse", **options):
    """Neurons about a circle: within 70 µm of each lie two or more on either side, and two or more beyond."""
    generator = np.random.default_rng(seed)
    angles = 2 * np.pi * np.arange(neurons) / neurons
    defaults = {
        "traces": generator.gamma(1.0, size=(neurons, frames)).astype(np.float32),
        "centroids": 50 * np.stack([np.cos(angles), np.sin(angles)], 1) + generator.uniform(-2, 2, (neurons, 2)),
        "coordinate_unit": "um",
        "sampling_rate": 7.5,
        "recording_id": name,
        "subject_id": subject,
        "session_id": "day",
        "roi_ids": tuple(f"{name}-{i}" for i in range(neurons)),
    }
    return Recording(**{**defaults, **options})


def without_positions(name="unplaced", **options):
    return recording(name, centroids=None, coordinate_unit=None, **options)


def with_trace(name, neuron, value):
    """A recording with one bad trace."""
    item = recording(name)
    item.traces[neuron] = value
    return item


def origins(dataset):
    windows = [dataset[i] for i in range(len(dataset))]
    return [(window["recording_id"], window["neuron_index"], window["start_frame"]) for window in windows]


def test_windows_are_counted_and_ordered_by_recording_neuron_and_time():
    # 116 frames: two windows of 40 and one of 36; in segments of 40 and 76 frames likewise; 60 frames: one.
    recordings = [
        recording("first"),
        recording("second", neurons=6, segment_starts=(0, 40)),
        recording("third", neurons=7, frames=60),
    ]
    dataset = WindowDataset(recordings, PROCESSOR)
    starts = {"first": (10, (0, 40, 80)), "second": (6, (0, 40, 80)), "third": (7, (0,))}
    expected = [(name, n, start) for name, (count, frames) in starts.items() for n in range(count) for start in frames]
    assert len(dataset) == len(expected) == 10 * 3 + 6 * 3 + 7
    assert origins(dataset) == expected
    assert dataset.recording_ids == ["first", "second", "third"]
    assert [dataset[i]["window_index"] for i in range(55)] == list(range(55))


@pytest.mark.parametrize("processor", [PROCESSOR, NeurtProcessor(window_length=50, window_stride=20, **RADIUS)])
@pytest.mark.parametrize(("missing_neighbours", "placed"), [("error", True), ("mask", True), ("mask", False)])
def test_windows_equal_those_of_a_call_of_the_processor(processor, missing_neighbours, placed):
    item = recording("one", segment_starts=(0, 70)) if placed else without_positions("one", segment_starts=(0, 70))
    item.traces[3] = 1
    batch = processor(
        item.traces,
        item.centroids,
        sampling_rate=item.sampling_rate,
        coordinate_unit="um",
        segment_starts=item.segment_starts,
        missing_neighbours=missing_neighbours,
    )
    dataset = WindowDataset([item], processor, missing_neighbours=missing_neighbours)
    windows = collate_windows([dataset[i] for i in range(len(dataset))])
    for name in batch.keys() - {"dropped"}:
        assert torch.equal(torch.as_tensor(windows[name]), batch[name]), name
    assert windows["roi_id"] == [f"one-{i}" for i in batch["neuron_index"]]
    assert dataset.dropped == {"one": {reason: len(which) for reason, which in batch["dropped"].items()}}


def test_a_window_says_where_it_comes_from():
    window = WindowDataset([recording()], PROCESSOR)[5]
    where = {
        "sampling_rate": 7.5,
        "recording_id": "first",
        "subject_id": "mouse",
        "roi_id": "first-1",
        "neuron_index": 1,
        "start_frame": 80,
        "window_index": 5,
        "epoch": 0,
    }
    assert where.items() <= window.items()
    assert window.keys() - where.keys() == {"input_values", "attention_mask"}
    assert window["attention_mask"].tolist() == [1] * 36 + [0] * 4


def test_subjects_are_named_once_and_sorted():
    subjects = ["m10", "m2", "m10"]
    recordings = [recording(f"r{i}", subject=subject) for i, subject in enumerate(subjects)]
    assert WindowDataset(recordings, PROCESSOR).subject_ids == ["m10", "m2"]


def test_recordings_and_neurons_that_are_left_out_are_reported():
    recordings = [
        with_trace("one dead", 4, 0),
        recording("few", neurons=4),
        with_trace("fine", 0, np.arange(116)),
        recording("brief", frames=31),
        recording("snippets", segment_starts=(0, 30, 60, 90)),
        without_positions(),
    ]
    dataset = WindowDataset(recordings, PROCESSOR)
    assert dataset.recording_ids == ["one dead", "fine"]
    assert len(dataset) == 9 * 3 + 10 * 3
    assert dataset.dropped == {"one dead": {"constant trace": 1}}
    assert dataset.skipped.keys() == {"few", "brief", "snippets", "unplaced"}
    assert "at least 5 neurons" in dataset.skipped["few"]
    assert "at least 32 frames" in dataset.skipped["brief"]
    assert dataset.skipped["snippets"] == "no segment is long enough for a window"
    assert "expected centroids" in dataset.skipped["unplaced"]


def test_a_skipped_recording_between_others_does_not_shift_them():
    recordings = [recording("first"), recording("few", neurons=4), recording("second", seed=1)]
    dataset = WindowDataset(recordings, PROCESSOR)
    assert dataset[30]["recording_id"] == "second"
    assert torch.equal(
        collate_windows([dataset[i] for i in range(30, 60)])["input_values"],
        collate_windows(list(WindowDataset(recordings[2:], PROCESSOR)))["input_values"],
    )


def test_without_any_window_the_reasons_are_given():
    with pytest.raises(ValueError, match="got none .few: expected at least 5 neurons.*; brief: expected at least 32"):
        WindowDataset([recording("few", neurons=4), recording("brief", frames=31)], PROCESSOR)
    with pytest.raises(ValueError, match="got none .no recordings at all"):
        WindowDataset([], PROCESSOR)


def test_recordings_are_not_changed():
    item = recording()
    before = item.traces.copy()
    dataset = WindowDataset([item], NeurtProcessor(window_length=40, **RADIUS, normalization="none"))
    dataset[0]["input_values"][:] = 7
    assert np.array_equal(item.traces, before)
    assert np.array_equal(dataset[0]["input_values"][:, 0], before[0, :40])


# Labels and epochs.


@pytest.mark.parametrize("wt", ["wild type", 3, False])
def test_labels_become_class_ids(wt):
    recordings = [recording("a", labels={"group": "5xFAD"}), recording("b", labels={"group": wt})]
    dataset = WindowDataset(recordings, PROCESSOR, label="group", label2id={str(wt): 0, "5xFAD": 1})
    assert [dataset[i]["labels"] for i in (0, 29, 30, 59)] == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, "recording 'a': expected a label 'group', got labels: none"),
        ({"sex": "f", "group": None}, "recording 'a': expected a label 'group', got labels: sex, group"),
        ({"group": "other"}, "recording 'a': expected label 'group' among wild type, 5xFAD, got 'other'"),
    ],
)
def test_a_recording_of_no_known_class_is_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        WindowDataset([recording("a", labels=labels)], PROCESSOR, label="group", label2id={"wild type": 0, "5xFAD": 1})


def test_without_a_label_windows_have_none():
    dataset = WindowDataset([recording("a", labels={"group": "5xFAD"})], PROCESSOR)
    assert "labels" not in dataset[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_each_epoch_has_its_own_masks_whatever_the_workers(workers):
    dataset = WindowDataset([recording()], PROCESSOR)
    loader = DataLoader(dataset, 8, collate_fn=MaskedSignalCollator(seed=3), num_workers=workers)
    masks = []
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        assert dataset[0]["epoch"] == epoch
        masks.append(torch.cat([batch["bool_masked_pos"] for batch in loader]))
    assert torch.equal(masks[0], masks[2])
    assert not torch.equal(masks[0], masks[1])
    assert len({tuple(row.tolist()) for row in masks[0]}) > 25  # of 30 windows


# Expectations.


def test_recordings_unlike_those_of_the_training_give_a_warning(caplog):
    processor = NeurtProcessor(window_length=40, **RADIUS, sampling_rate=30, trace_kind="dff")
    WindowDataset([recording("a", sampling_rate=29.0, trace_kind="dff")], processor)
    assert not caplog.records
    WindowDataset([recording("b", sampling_rate=5.0, trace_kind="events")], processor)
    assert "expected 30 Hz, got 5 Hz" in caplog.text
    assert "expected traces of kind dff, got events" in caplog.text


def test_a_skipped_recording_gives_no_warning(caplog):
    processor = NeurtProcessor(window_length=40, **RADIUS, sampling_rate=30)
    WindowDataset([recording("a", sampling_rate=30.0), recording("few", neurons=4)], processor)
    assert not caplog.records


# Absent channels in a model.


def masked_batch(recordings):
    dataset = WindowDataset(recordings, PROCESSOR, missing_neighbours="mask")
    return dataset, MaskedSignalCollator(seed=3)([dataset[i] for i in range(len(dataset))])


def test_recordings_with_and_without_positions_go_into_one_batch():
    dataset, batch = masked_batch([recording("placed"), without_positions()])
    absent = torch.tensor([name == "unplaced" for name in batch["recording_id"]])
    real = batch["attention_mask"].bool()
    assert dataset.recording_ids == ["placed", "unplaced"]
    assert batch["bool_masked_pos"][absent][..., 1:].all(-1).equal(real[absent])
    assert batch["labels"][absent][real[absent]][:, 1:].isnan().all()
    assert not batch["labels"][~absent].isnan().any()
    # The spans of the own trace, and those of all channels where they exist.
    hidden = batch["bool_masked_pos"]
    assert (hidden[..., 0].sum(1) == (0.15 * real.sum(1)).round()).all()
    assert torch.equal(hidden[~absent], hidden[~absent][..., :1].expand(-1, -1, 5))


def test_absent_channels_are_never_scored():
    torch.manual_seed(0)
    config = NeurtConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    config.relative_loss = False
    model = NeurtForMaskedSignalModeling(config).eval()
    torch.nn.init.normal_(model.decoder.weight)
    _, batch = masked_batch([recording("placed"), without_positions()])
    inputs = {k: batch[k] for k in ("input_values", "attention_mask", "bool_masked_pos", "labels")}
    output = model(**inputs)
    output.loss.backward()
    placed = torch.tensor([name == "placed" for name in batch["recording_id"]])
    scored = batch["bool_masked_pos"] & batch["attention_mask"].bool().unsqueeze(-1)
    scored[~placed, :, 1:] = False
    errors = (output.reconstruction - batch["input_values"])[scored]
    assert output.loss.item() == pytest.approx(errors.square().mean().item(), rel=1e-5)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_rejected_neurons_give_no_windows_and_are_nobodys_neighbours():
    rng = np.random.default_rng(3)
    traces, centroids = rng.random((9, 70)).astype(np.float32), rng.random((9, 2)) * 100
    accepted = np.arange(9) != 4
    identity = {"recording_id": "r", "subject_id": "m", "session_id": "s"}
    rois = tuple("abcdefghi")
    whole = Recording(
        traces, 5.0, **identity, roi_ids=rois, centroids=centroids, coordinate_unit="um", accepted=accepted
    )
    kept = Recording(
        traces[accepted],
        5.0,
        **identity,
        roi_ids=tuple("abcdfghi"),
        centroids=centroids[accepted],
        coordinate_unit="um",
    )
    processor = NeurtProcessor(window_length=32)
    dataset, expected = (WindowDataset([recording], processor) for recording in (whole, kept))
    assert dataset.dropped["r"]["rejected by the curator"] == 1
    assert dataset.unused_frames == {"r": 70 - 64}
    assert dataset.num_padded_windows == 0
    assert len(dataset) == len(expected)
    for window, other in zip(dataset, expected, strict=True):
        np.testing.assert_array_equal(window["input_values"], other["input_values"])
        assert window["roi_id"] == other["roi_id"] != "e"


def test_a_sample_has_as_many_windows_of_each_recording_and_depends_on_the_seed():
    dataset = WindowDataset([recording(1), recording(2, frames=200), recording(3, neurons=6)], PROCESSOR)
    rows = dataset.sample(5, seed=1)
    owners = [dataset[int(row)]["recording_id"] for row in rows]
    assert [owners.count(name) for name in dataset.recording_ids] == [5, 5, 5]
    assert rows.tolist() == sorted(set(rows.tolist())) != dataset.sample(5, seed=2).tolist()
    assert dataset.sample(10_000).tolist() == list(range(len(dataset)))
