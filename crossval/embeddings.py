"""Windows as a pretrained encoder sees them: what the probe learns from.

Symbols: n windows, F features, D hidden size, R recordings.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from ..dataset_scripts.windows import WindowDataset
from ..masking import collate_windows, model_inputs
from ..modeling_neurt import NeurtModel

BATCH_SIZE = 128


@dataclass(frozen=True, eq=False)
class WindowFeatures:
    """Features of windows, and where they come from.

    Args:
        values: float32 (n, F).
        recording: int (n,), the place of each window's recording in `recording_ids`.
        recording_ids: (R,), those that give windows.
        start_frame: int (n,).
    """

    values: np.ndarray
    recording: np.ndarray
    recording_ids: tuple[str, ...]
    start_frame: np.ndarray

    def of_recordings(self) -> np.ndarray:
        """The mean over each recording's windows, float64 (R, F).

        A linear model's log-odds of the mean are the mean of its log-odds over the windows.
        """
        sums = np.zeros((len(self.recording_ids), self.values.shape[1]))
        np.add.at(sums, self.recording, self.values)
        return sums / np.bincount(self.recording)[:, None]


def embed_windows(
    model: NeurtModel, dataset: WindowDataset, rows: np.ndarray, progress: Callable[[Iterable], Iterable] = iter
) -> WindowFeatures:
    """Mean and standard deviation over real frames of the encoder's `embeddings`: F = 2 D features of each window.

    Args:
        model: The encoder; nothing of it is trained.
        dataset: Windows.
        rows: Which of them, some of each recording; int (n,).
        progress: Wrapped around the batches, for a progress bar.
    """
    values, start = [], []
    for batch in progress(DataLoader(Subset(dataset, rows.tolist()), BATCH_SIZE, collate_fn=collate_windows)):
        with torch.inference_mode():
            embeddings = model(**model_inputs(batch, model.device)).embeddings.float()
        values.append(mean_and_spread(embeddings, batch["attention_mask"]).cpu().numpy())
        start.append(batch["start_frame"].numpy())
    recording = dataset.window_recordings[rows]
    return WindowFeatures(np.concatenate(values), recording, tuple(dataset.recording_ids), np.concatenate(start))


def mean_and_spread(embeddings: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation over real frames; (B, T, D) to (B, 2 D)."""
    mean = mean_over_frames(embeddings, attention_mask)
    variance = mean_over_frames((embeddings - mean.unsqueeze(1)).square(), attention_mask)
    return torch.cat([mean, variance.sqrt()], dim=1)


def mean_over_frames(embeddings: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Mean over real frames; (B, T, D) to (B, D)."""
    real = attention_mask.to(embeddings.device).unsqueeze(-1)
    return (embeddings * real).sum(1) / real.sum(1)
