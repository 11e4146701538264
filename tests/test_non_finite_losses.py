"""A loss that is not finite stops the run, and says where it came from."""

import pytest
import torch
from neurt.training.non_finite_losses import not_finite, windows_to_blame
from tiny_training import Windows, train


def test_a_loss_that_is_not_finite_stops_the_run_before_anything_is_saved(tmp_path, tiny_model):
    model = tiny_model(predict_correction=False, standardize_windows=False)
    with pytest.raises(FloatingPointError, match="finite training loss, got (inf|nan) from 8 windows of the batch"):
        train(model, tmp_path / "run", dataset=Windows(scale=1e30))
    assert not (tmp_path / "run").exists()


def test_only_windows_without_a_finite_loss_of_their_own_are_blamed():
    batch = {"labels": torch.tensor([1.0, torch.inf, 2.0, torch.nan, torch.inf]), "recording_id": list("aabbb")}
    batch["roi_id"] = list("12345")
    blamed = windows_to_blame(batch, lambda windows: windows["labels"].sum())
    assert blamed == ["recording a ROI 2", "recording b ROI 4", "recording b ROI 5"]


def test_weights_that_are_not_finite_are_blamed_before_any_recording():
    model = torch.nn.Linear(2, 2)
    assert "from 2 windows of the batch (a); look at" in str(not_finite("training", torch.nan, model, "aa"))
    assert "from no window alone" in str(not_finite("training", torch.inf, model, []))
    torch.nn.init.constant_(model.bias, torch.nan)
    message = str(not_finite("training", torch.nan, model, "aa"))
    assert message.endswith("got nan, for weights are no longer finite; pass a lower learning rate")


def test_a_validation_loss_that_is_not_finite_stops_the_run(tmp_path, tiny_model):
    with pytest.raises(FloatingPointError, match="finite validation loss, got nan"):
        train(tiny_model(), tmp_path, validate=lambda model: float("nan"))
