"""The training loop: one linear story on Accelerate, the same numbers on one process or many."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, gather_object, set_seed
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import PreTrainedModel, get_scheduler

from .checkpoints import Checkpoints, Progress
from .non_finite_losses import not_finite, windows_to_blame
from .training_batches import check_batches, cut_batch, inputs_and_labels, load_batches, num_scored
from .training_options import TrainingOptions


@dataclass
class Run:
    """What the steps of a run work with.

    Args:
        accelerator: Knows of devices and other processes.
        options: How to train.
        model: The model as it was prepared.
        optimizer: As it was prepared.
        scheduler: Of the learning rate.
        num_pieces: Pieces a process cuts its share of a batch into.
    """

    accelerator: Accelerator
    options: TrainingOptions
    model: torch.nn.Module
    optimizer: AcceleratedOptimizer
    scheduler: LRScheduler
    num_pieces: int


def fit(
    model: PreTrainedModel,
    parameter_groups: list[dict],
    dataset: Dataset,
    collate: Callable,
    options: TrainingOptions,
    folder: Path,
    validate: Callable[[PreTrainedModel], float] | None = None,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> list[dict]:
    """Train in place; leaves the last checkpoint and the best weights in `folder`.

    Args:
        model: Ends with the best weights by `validate`, or the last ones without it.
        parameter_groups: As `torch.optim.AdamW` takes them, with their learning rates.
        dataset: Windows; its `set_epoch` is called.
        collate: Makes a batch of windows.
        options: See `TrainingOptions`.
        folder: Made with the first checkpoint.
        validate: Loss on validation windows, called after each epoch; the lowest chooses the weights.
        resume: Go on from the last checkpoint in `folder`, if there is one.
        settings: What else makes the run what it is, ready for JSON; a run is resumed only with the same.

    Returns:
        The log: one entry for each epoch, with step, training loss, validation loss and learning rate.

    Raises:
        ValueError: If there are fewer windows than a batch, processes and accumulation steps do not divide it, or the
            run to resume was another one.
        FloatingPointError: If a loss is not finite; names the recordings that it came from.
    """
    accelerator = _accelerator(options, model)
    set_seed(options.seed)
    steps = check_batches(len(dataset), options, accelerator.num_processes)
    run = _prepare(model, parameter_groups, options, accelerator, options.epochs * steps)
    identity = {"training": asdict(options), "training windows": len(dataset), **(settings or {})}
    progress = Progress()
    checkpoints = Checkpoints(accelerator, folder, identity, progress, run.scheduler)
    if resume:
        checkpoints.resume()

    model.train()
    with _progress_bar(accelerator, options.epochs * steps, progress.step) as bar:
        for epoch in range(progress.step // steps, options.epochs):
            for batch in load_batches(dataset, collate, options, accelerator, epoch, progress.step - epoch * steps):
                loss = _step(run, batch)
                progress.step += 1
                progress.epoch_loss += loss
                bar.update()
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                if progress.step % options.checkpoint_every == 0 and progress.step % steps:
                    checkpoints.save()
            entry = {"epoch": epoch + 1, "step": progress.step, "loss": progress.epoch_loss / steps}
            entry["learning_rate"] = run.scheduler.get_last_lr()[-1]
            if validate is not None:
                entry["validation_loss"] = _validate(accelerator, model, validate)
                checkpoints.keep_if_best(model, entry["validation_loss"])
            progress.epoch_loss = 0.0
            progress.log.append(entry)
            checkpoints.save()
    accelerator.unwrap_model(run.model, keep_fp32_wrapper=False)
    if validate is not None:
        checkpoints.load_best(model)
    model.eval()
    return progress.log


def _accelerator(options: TrainingOptions, model: PreTrainedModel) -> Accelerator:
    # Else a second run in the same Python process could not have another precision than the first.
    AcceleratorState._reset_state()
    # A classifier that reads the last layer after its attention leaves that layer's feed-forward without a gradient.
    unused = DistributedDataParallelKwargs(find_unused_parameters=model.config.readout_position == "attention")
    accelerator = Accelerator(mixed_precision=options.mixed_precision, kwargs_handlers=[unused])
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if launched != accelerator.num_processes:
        # Each would train alone, and write over the others' files.
        raise ValueError(
            f"expected the {launched} processes that were launched to train as one, got {accelerator.num_processes}; "
            "on CPUs set ACCELERATE_USE_CPU=true"
        )
    if options.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("expected a GPU for mixed_precision fp16, which Accelerate ignores on a CPU; pass bf16 or no")
    return accelerator


def _prepare(
    model: PreTrainedModel,
    parameter_groups: list[dict],
    options: TrainingOptions,
    accelerator: Accelerator,
    total_steps: int,
) -> Run:
    optimizer = torch.optim.AdamW(parameter_groups, lr=options.learning_rate, weight_decay=options.weight_decay)
    scheduler = get_scheduler(options.schedule, optimizer, int(options.warmup_fraction * total_steps), total_steps)
    model, optimizer = accelerator.prepare(model, optimizer)
    return Run(accelerator, options, model, optimizer, scheduler, options.accumulation_steps)


def _progress_bar(accelerator: Accelerator, total: int, initial: int) -> tqdm:
    interval = 0.5 if sys.stderr.isatty() else 30  # seconds: a log file wants few lines
    hidden = not accelerator.is_main_process
    return tqdm(total=total, initial=initial, desc="training", disable=hidden, mininterval=interval)


def _step(run: Run, batch: Mapping[str, Any]) -> float:
    """One optimiser step; returns the loss of the whole batch."""
    loss = _backward(run, batch)
    if not loss.isfinite():
        # The weights are still those that gave it.
        blamed = windows_to_blame(batch, lambda window: run.model(**inputs_and_labels(window, loss.device)).loss)
        raise not_finite("training", loss, run.model, gather_object(blamed))
    run.accelerator.clip_grad_norm_(run.model.parameters(), run.options.max_gradient_norm)
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.scheduler.step()
    return float(loss)


def _backward(run: Run, batch: Mapping[str, Any]) -> torch.Tensor:
    """Add up the gradients of a batch; returns its loss, the same on all processes."""
    accelerator, pieces = run.accelerator, cut_batch(batch, run.num_pieces)
    accelerator.gradient_accumulation_steps, accelerator.step = len(pieces), 0
    scored = num_scored(batch)
    extra = {} if scored is None else {"num_items_in_batch": accelerator.reduce(scored.to(accelerator.device))}
    total = 0.0
    for piece in pieces:
        # Accelerate divides by the pieces and DDP by the processes. A masked loss was already divided by the count
        # over all of them; that of a classifier is a mean over a piece, the last of which may be smaller.
        share = accelerator.num_processes if extra else len(piece["labels"]) / len(batch["labels"])
        with accelerator.accumulate(run.model):
            loss = run.model(**inputs_and_labels(piece, accelerator.device), **extra).loss * share
            accelerator.backward(loss * len(pieces))
            total += loss.detach().float()
    return accelerator.reduce(total, reduction="mean")


def _validate(accelerator: Accelerator, model: PreTrainedModel, validate: Callable) -> float:
    # The mean over processes, for they must agree on whether it is the lowest.
    loss = torch.tensor(validate(model), device=accelerator.device, dtype=torch.float32)
    loss = accelerator.reduce(loss, reduction="mean")
    if not loss.isfinite():
        raise not_finite("validation", loss, model, ())
    return float(loss)
