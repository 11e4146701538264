"""The loss that chooses a checkpoint: of the same windows each time, as a function of the model."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel

from .batches import inputs_and_labels, num_scored
from .non_finite_losses import not_finite, windows_to_blame

BATCH_SIZE = 128


def mean_loss(windows: Dataset, collate: Callable) -> Callable[[PreTrainedModel], float]:
    """A function of a model: its mean loss over the scored values, or the windows of a classifier.

    Args:
        windows: To validate on.
        collate: Makes a batch of them.

    Raises:
        FloatingPointError: By the function, if a loss is not finite; names the recordings that it came from.
    """
    loader = DataLoader(windows, BATCH_SIZE, collate_fn=collate)

    def validate(model: PreTrainedModel) -> float:
        model.eval()
        with torch.inference_mode():
            losses, counts = zip(*(_loss_and_count(model, batch) for batch in loader), strict=True)
        model.train()
        return float(np.average(losses, weights=counts))

    return validate


def _loss_and_count(model: PreTrainedModel, batch: Mapping[str, Any]) -> tuple[float, int]:
    """The loss of a validation batch, and how many values or windows it is the mean of."""

    def loss_of(windows: Mapping[str, Any]) -> torch.Tensor:
        return model(**inputs_and_labels(windows, model.device)).loss

    loss, scored = float(loss_of(batch)), num_scored(batch)
    if not np.isfinite(loss):
        raise not_finite("validation", loss, model, windows_to_blame(batch, loss_of))
    return loss, len(batch["labels"]) if scored is None else int(scored)
