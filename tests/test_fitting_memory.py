"""A batch too large for memory is cut into more pieces, and the training stays the same."""

import pytest
import torch
from neurt import NeurtForMaskedSignalModeling, NeurtForSequenceClassification
from neurt.masking import collate_windows
from neurt.training.fitting_memory import fitting_pieces
from neurt.training.loop import fit
from neurt.training.options import TrainingOptions
from tiny_training import Windows, largest_difference, train


@pytest.fixture
def memory_for(monkeypatch):
    """Let the model run out of memory, as CUDA says it, above some number of windows; returns the numbers tried."""

    def limit(most, model=NeurtForMaskedSignalModeling):
        tried, forward = [], model.forward

        def limited(self, input_values, *args, **kwargs):
            tried.append(len(input_values))
            if len(input_values) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return forward(self, input_values, *args, **kwargs)

        monkeypatch.setattr(model, "forward", limited)
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


class LabelledWindows(Windows):
    def __getitem__(self, index):
        return {**super().__getitem__(index), "labels": index % 2}


def test_a_last_piece_that_is_smaller_counts_for_as_much_as_it_has_windows(tmp_path, tiny_model, memory_for):
    def classify(folder):
        torch.manual_seed(0)
        model = NeurtForSequenceClassification(tiny_model().config)
        options = TrainingOptions(epochs=2, batch_size=9, accumulation_steps=3)
        groups = [{"params": list(model.parameters())}]
        return fit(model, groups, LabelledWindows(), collate_windows, options, tmp_path / folder), model

    expected, whole = classify("whole")
    tried = memory_for(2, NeurtForSequenceClassification)
    log, cut = classify("cut")
    assert tried[:7] == [3, 2, 2, 2, 2, 2, 1]
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
