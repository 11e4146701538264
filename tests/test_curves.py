"""Deletion and insertion curves: areas by hand, what is hidden first, and what is no frame at all."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from neurt.explain.curves import (
    SHARES,
    area_between,
    deletion_curve,
    importance_ranks,
    insertion_curve,
    over_subjects,
    random_ranks,
    turned,
)
from neurt.explain.explained import log_odds_of
from planted_windows import planted_windows, trained_classifier

ONES = np.ones(1, dtype=int)


class Sum:
    """A "model" whose log-odds of class 1 are the sum of all values that it sees."""

    device = "cpu"

    def __call__(self, input_values, attention_mask, bool_masked_pos):
        seen = attention_mask.bool().unsqueeze(-1) & ~bool_masked_pos
        total = (input_values * seen).sum((1, 2))
        return SimpleNamespace(logits=torch.stack([torch.zeros_like(total), total], dim=1))


class OneWindow:
    """Real frames with the values 1, 2, 3, ..., then padding of 1000; half of each value in either of two channels."""

    def __init__(self, num_real=20, num_frames=20):
        values = np.where(np.arange(num_frames) < num_real, np.arange(1, num_frames + 1), 1000)
        self.real = (np.arange(num_frames) < num_real)[None]
        self.values = values[None].astype(float)
        self.inputs = {
            "input_values": torch.tensor(np.stack(2 * [self.values / 2], axis=-1), dtype=torch.float32),
            "attention_mask": torch.tensor(self.real.astype(np.int64)),
        }


def test_curves_and_areas_of_a_sum_are_those_found_by_hand():
    window = OneWindow()
    best = importance_ranks(window.values, window.real)
    worst = importance_ranks(-window.values, window.real)
    # Of 20 frames 1, 2, 4, 8, 12 and 16 are hidden, or shown: 20, 20 + 19, ...
    deletion = deletion_curve(Sum(), window, ONES, best, np.array([210.0]))
    assert deletion.tolist() == [[210, 190, 171, 136, 78, 36, 10]]
    assert insertion_curve(Sum(), window, ONES, best, np.array([0.0])).tolist() == [[0, 20, 39, 74, 132, 174, 200]]
    opposite = deletion_curve(Sum(), window, ONES, worst, np.array([210.0]))
    assert opposite.tolist() == [[210, 209, 207, 200, 174, 132, 74]]
    # Differences 0, 19, 36, 64, 96, 96 and 64: trapezoids of 0.475, 1.375, 5, 16, 19.2 and 16 over a range of 0.8.
    assert area_between(deletion, opposite).tolist() == pytest.approx([58.05 / 0.8])
    assert area_between(opposite, deletion).tolist() == pytest.approx([-58.05 / 0.8])


def test_padding_is_never_hidden_shown_or_counted():
    window = OneWindow(num_real=10, num_frames=20)
    ranks = importance_ranks(window.values, window.real)
    assert ranks[0, :10].tolist() == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    # Of 10 frames 0 (0.5 to even), 1, 2, 4, 6 and 8.
    assert deletion_curve(Sum(), window, ONES, ranks, np.array([55.0])).tolist() == [[55, 55, 45, 36, 21, 10, 3]]
    assert insertion_curve(Sum(), window, ONES, ranks, np.array([0.0])).tolist() == [[0, 0, 10, 19, 34, 45, 52]]
    changed = np.where(window.real, window.values, np.nan)
    np.testing.assert_array_equal(importance_ranks(changed, window.real)[0, :10], ranks[0, :10])


def test_frames_of_equal_importance_come_in_random_order_and_equal_maps_in_the_same():
    real = np.ones((300, 40), dtype=bool)
    ranks = importance_ranks(np.zeros(real.shape), real)
    assert np.abs(ranks.mean(0) - 19.5).max() < 3  # where each frame stands on average
    # The first two to be hidden are neighbours in 2 of 40 windows, not in all of them.
    first, second = np.argmin(ranks, 1), np.argmin(np.where(ranks == 0, 99, ranks), 1)
    assert np.mean(np.abs(first - second) == 1) < 0.12
    np.testing.assert_array_equal(ranks, importance_ranks(np.full(real.shape, 7.0), real))


def test_random_orders_differ_by_seed_and_leave_padding_last():
    real = np.arange(40) < np.array([[40], [30]])
    ranks = random_ranks(real, seed=0)
    assert sorted(ranks[0]) == list(range(40)) and sorted(ranks[1, :30]) == list(range(30))
    assert not np.array_equal(ranks, random_ranks(real, seed=1))
    np.testing.assert_array_equal(ranks, random_ranks(real, seed=0))


@pytest.mark.parametrize("broken", [np.full((1, 20), np.nan), np.zeros((1, 19))])
def test_a_map_without_a_finite_importance_of_each_frame_is_refused(broken):
    with pytest.raises(ValueError, match="expected a finite importance for each"):
        importance_ranks(broken, OneWindow().real)


def test_a_turned_map_is_the_same_on_a_ring_of_its_real_frames_and_never_unturned():
    real = np.arange(12) < np.repeat([[12], [7]], 50, axis=0)
    maps = np.where(real, np.arange(12.0), -1)
    found = turned(maps, real, seed=0)
    turns = set()
    for before, after, frames in zip(maps, found, real, strict=True):
        ways = [
            turn for turn in range(1, frames.sum()) if np.array_equal(np.roll(before[frames], turn), after[frames])
        ]
        assert len(ways) == 1 and (after[~frames] == -1).all()
        turns.add(ways[0])
    assert len(turns) > 6


def test_the_subject_is_the_unit_and_an_interval_needs_three():
    values, subjects = np.array([0.0, 0, 0, 6, 3]), np.array(["a", "a", "a", "b", "c"])
    found = over_subjects(values, subjects)
    # Means of 0, 6 and 3; Student's t with two degrees of freedom is 4.303, the standard error 3 / sqrt(3).
    assert (found.mean, found.low, found.high) == pytest.approx((3, 3 - 7.453, 3 + 7.453), abs=1e-3)
    few = over_subjects(values[:4], subjects[:4])
    assert (few.mean, few.low, few.high) == (3, None, None)
    assert str(found) == "3.00 (95 % interval -4.45 to 10.45)" and str(few) == "3.00"


def test_curves_do_not_depend_on_the_batch():
    model, windows = trained_classifier(), planted_windows(animals=1, neurons=3).windows
    maps = windows.inputs["input_values"][..., 0].numpy()
    ranks, targets = importance_ranks(maps, windows.real), windows.classes
    start = log_odds_of(model, windows.inputs, targets)
    together = deletion_curve(model, windows, targets, ranks, start)
    assert together.shape == (len(windows), len(SHARES))
    for row in range(len(windows)):
        one = np.array([row])
        alone = deletion_curve(model, windows[one], targets[one], ranks[one], start[one])
        np.testing.assert_allclose(alone[0], together[row], atol=1e-4)
