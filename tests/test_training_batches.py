"""Every window is met, by one process; a batch comes apart into pieces."""

import numpy as np
import torch
from neurt.training.batches import cut_batch, epoch_batches, process_share


def test_an_epoch_meets_every_window_once_and_each_epoch_has_its_own_order():
    batches = epoch_batches(12, 4, seed=5, epoch=0)
    assert batches.shape == (3, 4) and sorted(batches.ravel()) == list(range(12))
    assert np.array_equal(batches, epoch_batches(12, 4, seed=5, epoch=0))
    assert not np.array_equal(batches, epoch_batches(12, 4, seed=5, epoch=1))
    assert not np.array_equal(batches, epoch_batches(12, 4, seed=6, epoch=0))


def test_windows_that_do_not_fill_a_batch_wait_for_another_epoch():
    used = [set(epoch_batches(10, 4, seed=0, epoch=epoch).ravel()) for epoch in range(8)]
    assert all(len(windows) == 8 for windows in used) and set.union(*used) == set(range(10))


def test_processes_share_out_each_batch():
    batches = np.arange(16).reshape(2, 8)
    assert process_share(batches, 0, 2).tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert process_share(batches, 1, 2).tolist() == [[4, 5, 6, 7], [12, 13, 14, 15]]


def test_a_batch_is_cut_into_pieces_of_equal_size_and_a_smaller_last_one():
    batch = {"labels": torch.arange(5), "recording_id": list("abcde")}
    pieces = [(piece["labels"].tolist(), piece["recording_id"]) for piece in cut_batch(batch, 2)]
    assert pieces == [([0, 1, 2], ["a", "b", "c"]), ([3, 4], ["d", "e"])]
    assert [len(piece["labels"]) for piece in cut_batch(batch, 1)] == [5]
