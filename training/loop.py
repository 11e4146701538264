"""The training loop: one linear story on Accelerate, the same numbers on one process or many."""

import contextlib
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import (
    DistributedDataParallelKwargs,
    LoggerType,
    ProjectConfiguration,
    gather_object,
    parse_flag_from_env,
    set_seed,
)
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import PreTrainedModel, get_scheduler

from .batches import check_batches, cut_batch, inputs_and_labels, load_batches, num_scored
from .checkpoints import LOGS, Checkpoints, Progress
from .fitting_memory import fitting_pieces
from .non_finite_losses import not_finite, windows_to_blame
from .options import TrainingOptions


@dataclass
class Run:
    """What the steps of a run work with.

    Args:
        accelerator: Knows of devices and other processes.
        options: How to train.
        model: What is trained.
        prepared: The model as Accelerate prepared it.
        forward: Calls it; compiled, if asked to.
        optimizer: As Accelerate prepared it.
        scheduler: Of the learning rate.
        num_pieces: Pieces a process cuts its share of a batch into.
    """

    accelerator: Accelerator
    options: TrainingOptions
    model: PreTrainedModel
    prepared: torch.nn.Module
    forward: Callable
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
    identity: Mapping[str, Any] | None = None,
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
        identity: What else makes the run what it is, ready for JSON; a run is resumed only with the same.

    Returns:
        The log: one entry for each epoch, with step, training loss, validation loss and learning rate.

    Raises:
        ValueError: If the options cannot be used here, there are fewer windows than a batch, processes and
            accumulation steps do not divide it, or the run to resume was another one.
        FloatingPointError: If a loss is not finite; names the recordings that it came from.
    """
    if options.patience is not None and validate is None:
        raise ValueError("expected validation windows for patience, got none; pass a validation fraction above 0")
    accelerator = _accelerator(options, model, folder)
    steps = check_batches(len(dataset), options, accelerator.num_processes)
    run = _prepare(model.train(), parameter_groups, options, accelerator, options.epochs * steps)
    run.num_pieces = _pieces_for_memory(run, next(iter(load_batches(dataset, collate, options, accelerator))))
    identity = {"training": asdict(options), "training windows": len(dataset), **(identity or {})}
    progress = Progress()
    checkpoints = Checkpoints(accelerator, folder, identity, progress, run.scheduler)
    set_seed(options.seed)
    if resume:
        checkpoints.resume()

    with _progress_bar(accelerator, options.epochs * steps, progress.step) as bar:
        for epoch in range(progress.step // steps, options.epochs):
            if progress.out_of_patience(options.patience):
                break
            skipped = progress.step - epoch * steps
            batches = load_batches(dataset, collate, options, accelerator, epoch, skipped)
            _train_epoch(run, checkpoints, batches, steps, bar)
            _end_epoch(run, checkpoints, {"epoch": epoch + 1, "loss": progress.epoch_loss / steps}, validate)
    _finish(run, checkpoints, validate is not None)
    return progress.log


def _accelerator(options: TrainingOptions, model: PreTrainedModel, folder: Path) -> Accelerator:
    _check_launch()
    for name in options.log_with:
        # Accelerate would go on without it.
        if name in LoggerType.list() and name not in get_available_trackers():
            raise ValueError(f"expected the package of the tracker {name}, got none; pip install {name}")
    # Else a second run in the same Python process could not have another precision than the first.
    AcceleratorState._reset_state()
    # A classifier that reads the last layer after its attention leaves that layer's feed-forward without a gradient.
    unused = DistributedDataParallelKwargs(find_unused_parameters=model.config.readout_position == "attention")
    accelerator = Accelerator(
        mixed_precision=options.mixed_precision,
        log_with=list(options.log_with) or None,
        project_config=ProjectConfiguration(logging_dir=str(folder / LOGS)),
        kwargs_handlers=[unused],
    )
    _check_machine(options, accelerator)
    told = {name: value if isinstance(value, int | float) else str(value) for name, value in vars(options).items()}
    accelerator.init_trackers("neurt", told)
    return accelerator


def _check_launch():
    """Refuse to split a model over processes: on a CPU Accelerate ignores it, on GPUs nothing here was tried so."""
    for name in ("fsdp", "deepspeed", "megatron_lm", "parallelism_config"):
        if parse_flag_from_env(f"ACCELERATE_USE_{name.upper()}"):
            raise ValueError(
                f"expected a launch in which each process holds the whole model, got {name}; leave out --use_{name}, "
                "or choose none in accelerate config"
            )


def _check_machine(options: TrainingOptions, accelerator: Accelerator):
    """Refuse what would be ignored in silence, or fail in many lines."""
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if launched != accelerator.num_processes:
        # Each would train alone, and write over the others' files.
        raise ValueError(
            f"expected the {launched} processes that were launched to train as one, got {accelerator.num_processes}; "
            "on CPUs set ACCELERATE_USE_CPU=true"
        )
    on_cpu = accelerator.device.type == "cpu"
    if options.mixed_precision == "fp16" and on_cpu:
        raise ValueError("expected a GPU for mixed_precision fp16, which Accelerate ignores on a CPU; pass bf16 or no")
    compiler = os.environ.get("CXX", "g++")
    if options.compile and on_cpu and shutil.which(compiler) is None:
        raise ValueError(
            f"expected a C++ compiler to compile for a CPU, got no {compiler}; install it, or do not compile"
        )


def _prepare(
    model: PreTrainedModel,
    parameter_groups: list[dict],
    options: TrainingOptions,
    accelerator: Accelerator,
    total_steps: int,
) -> Run:
    groups = [part for group in parameter_groups for part in _decayed_apart(group)]
    optimizer = torch.optim.AdamW(groups, lr=options.learning_rate, weight_decay=options.weight_decay)
    scheduler = get_scheduler(options.schedule, optimizer, int(options.warmup_fraction * total_steps), total_steps)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    # Beside the model, not in it, so that the names of its weights stay as they are.
    forward = torch.compile(prepared) if options.compile else prepared
    pieces = options.accumulation_steps
    return Run(accelerator, options, model, prepared, forward, optimizer, scheduler, pieces)


def _decayed_apart(group: dict) -> list[dict]:
    """Matrices, and apart from them biases, norms and single vectors, which do not decay."""
    matrices = [parameter for parameter in group["params"] if parameter.ndim > 1]
    vectors = [parameter for parameter in group["params"] if parameter.ndim <= 1]
    return [{**group, "params": matrices}, {**group, "params": vectors, "weight_decay": 0.0}]


def _pieces_for_memory(run: Run, batch: Mapping[str, Any]) -> int:
    """Pieces that memory suffices for on all processes; they are found before any step is taken."""
    accelerator = run.accelerator

    def train_on(piece: Mapping[str, Any]):
        with accelerator.no_sync(run.prepared):
            accelerator.backward(run.forward(**inputs_and_labels(piece, accelerator.device)).loss)

    pieces = torch.tensor([fitting_pieces(batch, run.num_pieces, train_on)], device=accelerator.device)
    run.optimizer.zero_grad()
    return int(accelerator.gather(pieces).max())


def _progress_bar(accelerator: Accelerator, total: int, initial: int) -> tqdm:
    interval = 0.5 if sys.stderr.isatty() else 30  # seconds: a log file wants few lines
    hidden = not accelerator.is_main_process
    return tqdm(total=total, initial=initial, desc="training", disable=hidden, mininterval=interval)


def _train_epoch(run: Run, checkpoints: Checkpoints, batches: Iterable[Mapping[str, Any]], steps: int, bar: tqdm):
    """Take the steps of an epoch of so many steps, or those that are left of it."""
    progress = checkpoints.progress
    for batch in batches:
        loss = _step(run, batch)
        progress.step += 1
        progress.epoch_loss += loss
        bar.update()
        bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        run.accelerator.log({"loss": loss, "learning_rate": run.scheduler.get_last_lr()[-1]}, progress.step)
        if progress.step % run.options.checkpoint_every == 0 and progress.step % steps:
            checkpoints.save()


def _step(run: Run, batch: Mapping[str, Any]) -> float:
    """One optimiser step; returns the loss of the whole batch."""
    loss = float(_backward(run, batch))
    if not math.isfinite(loss):
        # The weights are still those that gave it.
        device = run.accelerator.device
        blamed = windows_to_blame(batch, lambda windows: run.prepared(**inputs_and_labels(windows, device)).loss)
        raise not_finite("training", loss, run.model, gather_object(blamed))
    run.accelerator.clip_grad_norm_(run.prepared.parameters(), run.options.max_gradient_norm)
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.scheduler.step()
    return loss


def _backward(run: Run, batch: Mapping[str, Any]) -> torch.Tensor:
    """Add up the gradients of a batch; returns its loss, the same on all processes."""
    accelerator, pieces = run.accelerator, cut_batch(batch, run.num_pieces)
    scored = num_scored(batch)
    extra = {} if scored is None else {"num_items_in_batch": accelerator.reduce(scored.to(accelerator.device))}
    total = 0.0
    for piece in pieces:
        # DDP divides by the processes. A masked loss was already divided by the count over all of them; that of a
        # classifier is a mean over a piece, the last of which may be smaller.
        share = accelerator.num_processes if extra else len(piece["labels"]) / len(batch["labels"])
        with contextlib.nullcontext() if piece is pieces[-1] else accelerator.no_sync(run.prepared):
            loss = run.forward(**inputs_and_labels(piece, accelerator.device), **extra).loss * share
            accelerator.backward(loss)
            total += loss.detach().float()
    return accelerator.reduce(total, reduction="mean")


def _end_epoch(run: Run, checkpoints: Checkpoints, entry: dict[str, float], validate: Callable | None):
    """Validate, write the log, and save."""
    progress = checkpoints.progress
    entry |= {"step": progress.step, "learning_rate": run.scheduler.get_last_lr()[-1]}
    if validate is not None:
        entry["validation_loss"] = _validate(run, validate)
        run.accelerator.log({"validation_loss": entry["validation_loss"]}, progress.step)
        checkpoints.keep_if_best(run.model, entry["validation_loss"])
    progress.epoch_loss = 0.0
    progress.log.append(entry)
    checkpoints.save()


def _validate(run: Run, validate: Callable) -> float:
    # The mean over processes, for they must agree on whether it is the lowest.
    loss = torch.tensor(validate(run.model), device=run.accelerator.device, dtype=torch.float32)
    loss = float(run.accelerator.reduce(loss, reduction="mean"))
    if not math.isfinite(loss):
        raise not_finite("validation", loss, run.model, ())
    return loss


def _finish(run: Run, checkpoints: Checkpoints, validated: bool):
    """Leave the model as it was given, but trained."""
    run.accelerator.unwrap_model(run.prepared, keep_fp32_wrapper=False)
    if validated:
        checkpoints.load_best(run.model)
    run.model.eval()
    for tracker in run.accelerator.trackers:
        # Not `end_training`, which ends the processes' acquaintance as well: they have tests to wait for.
        tracker.finish()
