"""The training loop: one linear story on Accelerate, the same numbers on one process or many."""

import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import PreTrainedModel, get_scheduler

from .loading import load_quietly, save_quietly
from .masking import model_inputs
from .modeling_neurt import NeurtForMaskedSignalModeling
from .writing_aside import folder_aside

PRECISIONS = ("no", "bf16", "fp16")
SCHEDULES = ("cosine", "linear", "constant_with_warmup")


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
        schedule: What the learning rate does after that: "cosine", "linear" or "constant_with_warmup".
        max_gradient_norm: Gradients are clipped to this norm.
        accumulation_steps: Pieces a process cuts its share of a batch into, to save memory.
        mixed_precision: "no", "bf16" or "fp16".
        checkpoint_every: Steps between checkpoints, from which an interrupted run goes on.
        num_workers: Processes that prepare batches; 0 is fastest for recordings that fit in memory.
        seed: Seed of everything random.

    Raises:
        ValueError: If a value is out of its range.
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
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("learning_rate", "max_gradient_norm"):
            self._check(name, 0 < getattr(self, name) < math.inf, "above 0")
        for name in ("weight_decay", "num_workers", "seed"):
            self._check(name, 0 <= getattr(self, name) < math.inf, "at least 0")
        self._check("warmup_fraction", 0 <= self.warmup_fraction <= 1, "from 0 to 1")
        self._check("schedule", self.schedule in SCHEDULES, f"among {', '.join(SCHEDULES)}")
        self._check("mixed_precision", self.mixed_precision in PRECISIONS, f"among {', '.join(PRECISIONS)}")

    def _check(self, name: str, is_fine: bool, expected: str):
        if not is_fine:
            raise ValueError(f"expected {name} {expected}, got {getattr(self, name)!r}")


@dataclass
class Progress:
    """Where a run stands; saved with its checkpoints."""

    step: int = 0
    epoch_loss: float = 0.0
    best_loss: float = math.inf
    best_step: int = 0
    log: list[dict[str, float]] = field(default_factory=list)

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


def inputs_and_labels(batch: Mapping, device: torch.device) -> dict[str, torch.Tensor]:
    """What of a batch the model takes to give a loss, on its device."""
    return model_inputs(batch, device) | {"labels": batch["labels"].to(device)}


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
        FloatingPointError: If a loss is not finite.
    """
    accelerator = _accelerator(options, model)
    set_seed(options.seed)
    steps_per_epoch = _check_batches(len(dataset), options, accelerator)
    total_steps = options.epochs * steps_per_epoch
    optimizer = torch.optim.AdamW(parameter_groups, lr=options.learning_rate, weight_decay=options.weight_decay)
    scheduler = get_scheduler(options.schedule, optimizer, int(options.warmup_fraction * total_steps), total_steps)
    progress = Progress()
    run = {"training": asdict(options), "training windows": len(dataset), **(settings or {})}
    prepared, optimizer = accelerator.prepare(model, optimizer)
    # Not registered with Accelerate, which would read them back from pickles.
    states = {"scheduler": scheduler, "progress": progress}
    if resume:
        _resume(accelerator, folder, run, states)

    model.train()
    shown = accelerator.is_main_process
    interval = 0.5 if sys.stderr.isatty() else 30  # seconds: a log file wants few lines
    with tqdm(
        total=total_steps, initial=progress.step, desc="training", disable=not shown, mininterval=interval
    ) as bar:
        for epoch in range(progress.step // steps_per_epoch, options.epochs):
            skipped = progress.step - epoch * steps_per_epoch
            for pieces in _step_pieces(dataset, collate, options, accelerator, epoch, skipped):
                loss = _step(accelerator, prepared, optimizer, pieces, options)
                scheduler.step()
                progress.step += 1
                progress.epoch_loss += loss
                bar.update()
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                if progress.step % options.checkpoint_every == 0 and progress.step % steps_per_epoch:
                    _save_checkpoint(accelerator, folder, run, states)
            entry = {"epoch": epoch + 1, "step": progress.step, "loss": progress.epoch_loss / steps_per_epoch}
            entry["learning_rate"] = scheduler.get_last_lr()[-1]
            if validate is not None:
                entry["validation_loss"] = _validate(accelerator, model, validate, progress, folder)
            progress.epoch_loss = 0.0
            progress.log.append(entry)
            _save_checkpoint(accelerator, folder, run, states)
    accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
    if validate is not None:
        model.load_state_dict(load_quietly(type(model), _best(folder, progress)).state_dict())
    model.eval()
    return progress.log


def _accelerator(options: TrainingOptions, model: PreTrainedModel) -> Accelerator:
    # Else a second run in the same Python process could not have another precision than the first.
    AcceleratorState._reset_state()
    # A classifier that reads the last layer after its attention leaves that layer's feed-forward without a gradient.
    unused = DistributedDataParallelKwargs(find_unused_parameters=model.config.readout_position == "attention")
    accelerator = Accelerator(
        gradient_accumulation_steps=options.accumulation_steps,
        mixed_precision=options.mixed_precision,
        kwargs_handlers=[unused],
    )
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
        # Every loader draws one number when it starts; from the global generator, a run that was resumed in
        # mid-epoch, and so started one loader more, would drop out other units.
        generator=torch.Generator(),
    )
    pieces = []
    for batch in loader:
        pieces.append(inputs_and_labels(batch, accelerator.device))
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
    return _finite("training", accelerator.reduce(total, reduction="mean"))


def _loss_shares(accelerator: Accelerator, pieces: list[dict]) -> list[dict]:
    """For a masked loss, the number of scored values over all pieces and processes."""
    if pieces[0]["labels"].ndim != 3:
        return [{} for _ in pieces]
    scored = NeurtForMaskedSignalModeling.scored_positions
    counts = [scored(p["labels"], p["attention_mask"], p["bool_masked_pos"]).sum() for p in pieces]
    return [{"num_items_in_batch": accelerator.reduce(sum(counts), reduction="sum")}] * len(pieces)


def _finite(name: str, loss: torch.Tensor) -> float:
    if not loss.isfinite():
        raise FloatingPointError(f"expected a finite {name} loss, got {loss:g}; pass a lower learning rate")
    return float(loss)


def _validate(
    accelerator: Accelerator, model: PreTrainedModel, validate: Callable, progress: Progress, folder: Path
) -> float:
    """Validation loss; the weights are saved if it is the lowest yet."""
    # The mean over processes, for they must agree on whether it is the lowest.
    loss = torch.tensor(validate(model), device=accelerator.device, dtype=torch.float32)
    loss = _finite("validation", accelerator.reduce(loss, reduction="mean"))
    if loss < progress.best_loss:
        progress.best_loss, progress.best_step = loss, progress.step
        _save_best(accelerator, model, _best(folder, progress))
    return loss


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to go on from, if there is one."""
    checkpoints = sorted(folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
    return checkpoints[-1] if checkpoints else None


def _best(folder: Path, progress: Progress) -> Path:
    return folder / f"best-{progress.best_step}"


def _save_best(accelerator: Accelerator, model: PreTrainedModel, best: Path):
    if accelerator.is_main_process:
        with folder_aside(best, replace=True) as aside:
            save_quietly(model, aside)


def _save_checkpoint(accelerator: Accelerator, folder: Path, run: Mapping[str, Any], states: Mapping[str, Any]):
    """Write a checkpoint, then remove everything but it and the best weights that it refers to."""
    progress = states["progress"]
    checkpoint = folder / f"step-{progress.step}"
    if accelerator.is_main_process:
        _clear(_aside(checkpoint))
    accelerator.wait_for_everyone()
    accelerator.save_state(_aside(checkpoint))
    # What the main process renames must hold the random states of all.
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (_aside(checkpoint) / "settings.json").write_text(json.dumps(run, indent=1))
        saved = {name: state.state_dict() for name, state in states.items()}
        (_aside(checkpoint) / "states.json").write_text(json.dumps(saved))
        _clear(checkpoint)
        os.replace(_aside(checkpoint), checkpoint)
        for other in set(folder.iterdir()) - {checkpoint, _best(folder, progress)}:
            _clear(other)
    accelerator.wait_for_everyone()


def _aside(folder: Path) -> Path:
    return folder.with_name(f"writing-{folder.name}")


def _clear(folder: Path):
    shutil.rmtree(folder, ignore_errors=True)


def _resume(accelerator: Accelerator, folder: Path, run: Mapping[str, Any], states: Mapping[str, Any]):
    """Load the last checkpoint, if there is one, of the same run."""
    checkpoint = last_checkpoint(folder)
    if checkpoint is None:
        return
    saved = _leaves(json.loads((checkpoint / "settings.json").read_text()))
    asked = _leaves(json.loads(json.dumps(run)))
    changed = sorted(name for name in saved.keys() | asked.keys() if saved.get(name) != asked.get(name))
    if changed:
        raise ValueError(
            f"expected the settings of the run to resume, got {changed[0]} {asked.get(changed[0])} instead of "
            f"{saved.get(changed[0])}; pass what it was started with, or another output folder"
        )
    accelerator.load_state(checkpoint)
    for name, state in json.loads((checkpoint / "states.json").read_text()).items():
        states[name].load_state_dict(state)


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level: {"training.epochs": 3}."""
    leaves = {}
    for name, value in settings.items():
        nested = _leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
        leaves |= nested
    return leaves
