"""A batch too large for memory is cut into more pieces, and the training stays the same."""

import pytest
import torch
from neurt import NeurtForMaskedSignalModeling
from neurt.fitting_memory import fitting_pieces
from tiny_training import largest_difference, train


@pytest.fixture
def memory_for(monkeypatch):
    """Let the model run out of memory, as CUDA says it, above some number of windows; returns the numbers tried."""

    def limit(most):
        tried, forward = [], NeurtForMaskedSignalModeling.forward

        def limited(self, input_values, *args, **kwargs):
            tried.append(len(input_values))
            if len(input_values) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return forward(self, input_values, *args, **kwargs)

        monkeypatch.setattr(NeurtForMaskedSignalModeling, "forward", limited)
        return tried

    return limit


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [(1, 12, 1), (1, 11, 2), (1, 6, 2), (1, 5, 4), (1, 2, 8), (1, 1, 16), (3, 4, 3), (3, 3, 6)],
)
def test_pieces_are_doubled_until_one_goes_through_memory(least, most, expected):
    def train_on(piece):
        if len(piece["labels"]) > most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    assert fitting_pieces({"labels": torch.zeros(12)}, least, train_on) == expected


def test_a_batch_is_cut_further_when_memory_is_short_and_trains_the_same(tmp_path, tiny_model, memory_for):
    whole, cut = tiny_model(), tiny_model()
    expected = train(whole, tmp_path / "whole", epochs=2)
    tried = memory_for(3)
    log = train(cut, tmp_path / "cut", epochs=2)
    assert tried[:3] == [8, 4, 2] and set(tried[3:]) == {2}
    assert [entry["loss"] for entry in log] == pytest.approx([entry["loss"] for entry in expected], abs=1e-6)
    assert largest_difference(whole, cut) < 1e-5


def test_too_little_memory_for_one_window_is_one_line(tmp_path, tiny_model, memory_for):
    memory_for(0)
    with pytest.raises(ValueError, match="expected memory for one window, got too little; use shorter windows"):
        train(tiny_model(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_error_is_not_taken_for_a_lack_of_memory():
    def train_on(piece):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        fitting_pieces({"labels": torch.zeros(4)}, 1, train_on)
