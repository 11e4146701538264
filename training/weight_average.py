"""An exponential moving average of the weights in training."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import PreTrainedModel

FILE = "average.safetensors"


class WeightAverage:
    """A copy of a model with averaged weights, as `torch.optim.swa_utils` keeps it.

    Args:
        model: A model that was not prepared for training.
        decay: What the average keeps of itself in each update; the first update copies the weights.
        device: Where the copy stays.
    """

    def __init__(self, model: PreTrainedModel, decay: float, device: torch.device):
        self._averaged = AveragedModel(model, device, multi_avg_fn=get_ema_multi_avg_fn(decay))

    @property
    def model(self) -> PreTrainedModel:
        """The copy."""
        return self._averaged.module

    def update(self, model: PreTrainedModel):
        """Let the weights after a step into the average."""
        self._averaged.update_parameters(model)

    def save(self, folder: Path):
        """Write the average into a checkpoint."""
        save_file(self._averaged.state_dict(), folder / FILE)

    def load(self, folder: Path):
        """Read the average of a checkpoint."""
        self._averaged.load_state_dict(load_file(folder / FILE))
