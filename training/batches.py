"""The batches of a run: the same windows in the same step on one process or many, in pieces of any size."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

from ..masking import model_inputs
from ..modeling_neurt import NeurtForMaskedSignalModeling
from .options import TrainingOptions


def epoch_batches(num_windows: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Window indices of an epoch's batches, (batches, batch_size); what does not fill a batch waits for another epoch.

    Drawn from (seed, epoch) alone, so that processes agree and a resumed run goes on where it was.
    """
    order = np.random.default_rng([seed, epoch]).permutation(num_windows)
    return order[: num_windows // batch_size * batch_size].reshape(-1, batch_size)


def process_share(batches: np.ndarray, process_index: int, num_processes: int) -> np.ndarray:
    """The windows of each batch that fall to a process, (batches, batch_size / num_processes)."""
    return np.split(batches, num_processes, axis=1)[process_index]


def check_batches(num_windows: int, options: TrainingOptions, num_processes: int) -> int:
    """Steps in an epoch.

    Raises:
        ValueError: If there are fewer windows than a batch, or processes and accumulation steps do not divide it.
    """
    pieces = num_processes * options.accumulation_steps
    if options.batch_size % pieces:
        raise ValueError(
            f"expected a batch_size that processes x accumulation_steps = {pieces} divide, got {options.batch_size}"
        )
    if num_windows < options.batch_size:
        raise ValueError(
            f"expected at least one batch of {options.batch_size} training windows, got {num_windows} windows; pass a "
            "smaller batch size, or a shorter window stride"
        )
    return num_windows // options.batch_size


def load_batches(
    dataset: Dataset,
    collate: Callable,
    options: TrainingOptions,
    accelerator: Accelerator,
    epoch: int = 0,
    skipped: int = 0,
) -> DataLoader:
    """This process's share of each batch of an epoch; the first `skipped` batches are left out."""
    dataset.set_epoch(epoch)
    batches = epoch_batches(len(dataset), options.batch_size, options.seed, epoch)[skipped:]
    return DataLoader(
        dataset,
        batch_sampler=process_share(batches, accelerator.process_index, accelerator.num_processes),
        collate_fn=collate,
        num_workers=options.num_workers,
        # Every loader draws one number when it starts; from the global generator, a run that was resumed in
        # mid-epoch, and so started one loader more, would drop out other units.
        generator=torch.Generator(),
    )


def cut_batch(batch: Mapping[str, Any], num_pieces: int) -> list[dict[str, Any]]:
    """Cut a batch into pieces of equal size, but for the last where they do not come out even."""
    num_windows = len(batch["labels"])
    size = math.ceil(num_windows / num_pieces)
    starts = range(0, num_windows, size)
    return [{name: values[start : start + size] for name, values in batch.items()} for start in starts]


def inputs_and_labels(batch: Mapping[str, Any], device: torch.device) -> dict[str, torch.Tensor]:
    """What of a batch the model takes to give a loss, on its device."""
    return model_inputs(batch, device) | {"labels": batch["labels"].to(device)}


def num_scored(batch: Mapping[str, Any]) -> torch.Tensor | None:
    """Number of values that enter a masked loss; None for the loss of a classifier."""
    if batch["labels"].ndim != 3:
        return None
    entries = (batch[name] for name in ("labels", "attention_mask", "bool_masked_pos"))
    return NeurtForMaskedSignalModeling.scored_positions(*entries).sum()
