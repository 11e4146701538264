"""The training loop: one linear story on Accelerate, the same numbers on one process or many."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, send_to_device, set_seed
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import PreTrainedModel, get_scheduler
from transformers.utils import logging

from .modeling_neurt import NeurtForMaskedSignalModeling

MODEL_INPUTS = ("input_values", "attention_mask", "bool_masked_pos", "labels")


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Args:
        epochs: Passes over the training windows.
        batch_size: Windows in one optimiser step, over all processes and accumulation steps together, so that the
            same number means the same training everywhere.
        learning_rate: Peak learning rate of AdamW.
        weight_decay: Of AdamW.
        warmup_fraction: Share of the steps over which the learning rate rises from 0.
        schedule: A schedule of `transformers.get_scheduler`: "cosine", "linear", "constant_with_warmup" ...
        max_gradient_norm: Gradients are clipped to this norm.
        accumulation_steps: Pieces a process cuts its share of a batch into, to save memory.
        mixed_precision: "no", "bf16" or "fp16".
        checkpoint_every: Steps between checkpoints, from which an interrupted run goes on.
        num_workers: Processes that prepare batches; 0 is fastest for recordings that fit in memory.
        seed: Seed of everything random.
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_fraction: float = 0.05
    schedule: str = "cosine"
    max_gradient_norm: float = 1.0
    accumulation_steps: int = 1
    mixed_precision: str = "no"
    checkpoint_every: int = 500
    num_workers: int = 0
    seed: int = 0

    def __post_init__(self):
        for name in ("epochs", "batch_size", "accumulation_steps", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} of at least 1, got {getattr(self, name)}")
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise ValueError(f"expected mixed_precision no, bf16 or fp16, got {self.mixed_precision!r}")


@dataclass
class Progress:
    """Where a run stands; saved with its checkpoints."""

    step: int = 0
    epoch_loss: float = 0.0
    best_loss: float = float("inf")

    def state_dict(self) -> dict:
        return asdict(self)

    def load_state_dict(self, state: Mapping):
        for name, value in state.items():
            setattr(self, name, value)


def epoch_batches(num_windows: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Window indices of an epoch's batches, (batches, batch_size); what does not fill a batch waits for another epoch.

    Drawn from (seed, epoch) alone, so that processes agree and a resumed run goes on where it was.
    """
    order = np.random.default_rng([seed, epoch]).permutation(num_windows)
    return order[: num_windows // batch_size * batch_size].reshape(-1, batch_size)


def process_pieces(batches: np.ndarray, accelerator: Accelerator) -> list[list[int]]:
    """The pieces of each batch that fall to this process, one after another."""
    pieces = accelerator.num_processes * accelerator.gradient_accumulation_steps
    own = [np.split(batch, pieces)[accelerator.process_index :: accelerator.num_processes] for batch in batches]
    return [piece.tolist() for batch in own for piece in batch]


def model_inputs(batch: Mapping, device: torch.device) -> dict[str, torch.Tensor]:
    """What of a batch the model takes, on its device."""
    return send_to_device({name: batch[name] for name in MODEL_INPUTS if name in batch}, device)


def load_quietly(cls: type[PreTrainedModel], model: str | Path, **overrides) -> PreTrainedModel:
    """`from_pretrained` without the report on a head that is new by intention."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        return cls.from_pretrained(model, **overrides)
    finally:
        logging.set_verbosity(verbosity)


def fit(
    model: PreTrainedModel,
    parameter_groups: list[dict],
    dataset: Dataset,
    collate: Callable,
    options: TrainingOptions,
    folder: Path,
    validate: Callable[[PreTrainedModel], float] | None = None,
    resume: bool = False,
) -> list[dict]:
    """Train in place; leaves checkpoints, the best weights and a log in `folder`.

    Args:
        model: Ends with the best weights by `validate`, or the last ones without it.
        parameter_groups: As `torch.optim.AdamW` takes them, with their learning rates.
        dataset: Windows; its `set_epoch` is called.
        collate: Makes a batch of windows.
        options: See `TrainingOptions`.
        folder: Made if absent.
        validate: Loss on validation windows, called after each epoch; the lowest chooses the weights.
        resume: Go on from the last checkpoint in `folder`, if there is one.

    Returns:
        The log: one entry for each epoch, with step, training loss, validation loss and learning rate.

    Raises:
        ValueError: If there are fewer windows than a batch, or processes and accumulation steps do not divide it.
        FloatingPointError: If the loss is not finite.
    """
    accelerator = _accelerator(options, model)
    set_seed(options.seed)
    steps_per_epoch = _check_batches(len(dataset), options, accelerator)
    total_steps = options.epochs * steps_per_epoch
    optimizer = torch.optim.AdamW(parameter_groups, lr=options.learning_rate, weight_decay=options.weight_decay)
    scheduler = get_scheduler(options.schedule, optimizer, int(options.warmup_fraction * total_steps), total_steps)
    progress = Progress()
    prepared, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(scheduler, progress)
    folder.mkdir(parents=True, exist_ok=True)
    log = _resume(accelerator, folder, progress) if resume else []

    bar = tqdm(total=total_steps, initial=progress.step, desc="training", disable=not accelerator.is_main_process)
    model.train()
    for epoch in range(progress.step // steps_per_epoch, options.epochs):
        skipped = progress.step - epoch * steps_per_epoch
        for pieces in _step_pieces(dataset, collate, options, accelerator, epoch, skipped):
            loss = _step(accelerator, prepared, optimizer, pieces, options)
            scheduler.step()
            progress.step += 1
            progress.epoch_loss += loss
            bar.update()
            bar.set_postfix(loss=f"{loss:.4f}")
            if progress.step % options.checkpoint_every == 0 and progress.step % steps_per_epoch:
                _save_checkpoint(accelerator, folder, progress, log)
        entry = {"epoch": epoch + 1, "step": progress.step, "loss": progress.epoch_loss / steps_per_epoch}
        entry["learning_rate"] = scheduler.get_last_lr()[0]
        progress.epoch_loss = 0.0
        if validate is not None:
            entry["validation_loss"] = validate(model)
            if entry["validation_loss"] < progress.best_loss:
                progress.best_loss = entry["validation_loss"]
                _save_best(accelerator, model, folder)
        log.append(entry)
        _save_checkpoint(accelerator, folder, progress, log)
    bar.close()
    accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
    if validate is not None:
        model.load_state_dict(type(model).from_pretrained(folder / "best").state_dict())
    model.eval()
    return log


def _accelerator(options: TrainingOptions, model: PreTrainedModel) -> Accelerator:
    # A classifier that reads the last layer after its attention leaves that layer's feed-forward without a gradient.
    unused = DistributedDataParallelKwargs(find_unused_parameters=model.config.readout_position == "attention")
    return Accelerator(
        gradient_accumulation_steps=options.accumulation_steps,
        mixed_precision=options.mixed_precision,
        kwargs_handlers=[unused],
    )


def _check_batches(num_windows: int, options: TrainingOptions, accelerator: Accelerator) -> int:
    """Steps in an epoch."""
    pieces = accelerator.num_processes * options.accumulation_steps
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


def _step_pieces(
    dataset: Dataset,
    collate: Callable,
    options: TrainingOptions,
    accelerator: Accelerator,
    epoch: int,
    skipped: int,
) -> Iterator[list[dict[str, torch.Tensor]]]:
    """This process's pieces of each batch of an epoch, on the device; the first `skipped` batches are left out."""
    dataset.set_epoch(epoch)
    batches = epoch_batches(len(dataset), options.batch_size, options.seed, epoch)[skipped:]
    loader = DataLoader(
        dataset,
        batch_sampler=process_pieces(batches, accelerator),
        collate_fn=collate,
        num_workers=options.num_workers,
    )
    pieces = []
    for batch in loader:
        pieces.append(model_inputs(batch, accelerator.device))
        if len(pieces) == options.accumulation_steps:
            yield pieces
            pieces = []


def _step(accelerator: Accelerator, model, optimizer, pieces: list[dict], options: TrainingOptions) -> float:
    """One optimiser step; returns the loss of the whole batch."""
    shares = _loss_shares(accelerator, pieces)
    total = 0.0
    for piece, extra in zip(pieces, shares, strict=True):
        with accelerator.accumulate(model):
            loss = model(**piece, **extra).loss
            # Accelerate divides by the accumulation steps and DDP by the processes; a masked loss was already divided
            # by the count over all of them.
            scale = options.accumulation_steps * accelerator.num_processes if extra else 1
            accelerator.backward(loss * scale)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), options.max_gradient_norm)
            optimizer.step()
            optimizer.zero_grad()
            total += loss.detach().float() * (scale / options.accumulation_steps)
    loss = float(accelerator.reduce(total, reduction="mean"))
    if not np.isfinite(loss):
        raise FloatingPointError(f"loss is {loss}: look for extreme values with `neurt evaluate`, or lower the rate")
    return loss


def _loss_shares(accelerator: Accelerator, pieces: list[dict]) -> list[dict]:
    """For a masked loss, the number of scored values over all pieces and processes."""
    if pieces[0]["labels"].ndim != 3:
        return [{} for _ in pieces]
    scored = NeurtForMaskedSignalModeling.scored_positions
    counts = [scored(p["labels"], p["attention_mask"], p["bool_masked_pos"]).sum() for p in pieces]
    return [{"num_items_in_batch": accelerator.reduce(sum(counts), reduction="sum")}] * len(pieces)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))


def _save_checkpoint(accelerator: Accelerator, folder: Path, progress: Progress, log: list[dict]):
    """Write a checkpoint aside, rename it, remove older ones."""
    aside, final = folder / "writing", folder / f"step-{progress.step}"
    if accelerator.is_main_process:
        shutil.rmtree(aside, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(aside)
    if accelerator.is_main_process:
        (aside / "log.json").write_text(json.dumps(log, indent=1))
        shutil.rmtree(final, ignore_errors=True)
        os.replace(aside, final)
        for old in _checkpoints(folder)[:-1]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def _resume(accelerator: Accelerator, folder: Path, progress: Progress) -> list[dict]:
    """Load the last checkpoint, if any; returns its log."""
    checkpoints = _checkpoints(folder)
    if not checkpoints:
        return []
    accelerator.load_state(checkpoints[-1])
    return json.loads((checkpoints[-1] / "log.json").read_text())


def _save_best(accelerator: Accelerator, model: PreTrainedModel, folder: Path):
    if accelerator.is_main_process:
        shutil.rmtree(folder / "writing", ignore_errors=True)
        model.save_pretrained(folder / "writing")
        shutil.rmtree(folder / "best", ignore_errors=True)
        os.replace(folder / "writing", folder / "best")
    accelerator.wait_for_everyone()
