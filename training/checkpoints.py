"""Checkpoints of a training run: written aside, then renamed; only the last one and the best weights are kept."""

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel

from ..loading import load_quietly, save_quietly
from ..writing_aside import folder_aside

LOGS = "logs"  # what trackers write beside the checkpoints


@dataclass
class Progress:
    """Where a run stands; saved with its checkpoints.

    Args:
        step: Optimiser steps that were taken.
        epoch_loss: Sum of the losses of this epoch's steps.
        best_loss: Lowest validation loss.
        best_step: The step after which it was measured.
        log: One entry for each epoch.
    """

    step: int = 0
    epoch_loss: float = 0.0
    best_loss: float = math.inf
    best_step: int = 0
    log: list[dict[str, float]] = field(default_factory=list)

    def out_of_patience(self, patience: int | None) -> bool:
        """Whether the validation loss was lowest so many epochs ago."""
        if patience is None or not self.log:
            return False
        losses = [entry["validation_loss"] for entry in self.log]
        return len(losses) - 1 - losses.index(min(losses)) >= patience


@dataclass
class Checkpoints:
    """The checkpoints of one run.

    Args:
        accelerator: Saves and loads what it has prepared, and the state of the random generators.
        folder: Made with the first checkpoint.
        identity: What makes the run what it is, ready for JSON; it goes on only with the same.
        progress: Saved and loaded.
        scheduler: Saved and loaded; not by Accelerate, which would read it back from a pickle.
    """

    accelerator: Accelerator
    folder: Path
    identity: Mapping[str, Any]
    progress: Progress
    scheduler: LRScheduler

    def save(self):
        """Write a checkpoint, then remove everything but it and the best weights that it refers to."""
        checkpoint = self.folder / f"step-{self.progress.step}"
        aside = checkpoint.with_name(f"writing-{checkpoint.name}")
        if self.accelerator.is_main_process:
            _clear(aside)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(aside)
        # What the main process renames must hold the random states of all.
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self._write_states(aside)
            _clear(checkpoint)
            os.replace(aside, checkpoint)
            for other in set(self.folder.iterdir()) - {checkpoint, self._best, self.folder / LOGS}:
                _clear(other)
        self.accelerator.wait_for_everyone()

    def _write_states(self, aside: Path):
        states = {"progress": asdict(self.progress), "scheduler": self.scheduler.state_dict()}
        (aside / "settings.json").write_text(json.dumps(self.identity, indent=1))
        (aside / "states.json").write_text(json.dumps(states))

    def resume(self):
        """Load the last checkpoint, if there is one.

        Raises:
            ValueError: If it is that of another run.
        """
        checkpoint = last_checkpoint(self.folder)
        if checkpoint is None:
            return
        self._check_identity(json.loads((checkpoint / "settings.json").read_text()))
        self.accelerator.load_state(checkpoint)
        states = json.loads((checkpoint / "states.json").read_text())
        self.scheduler.load_state_dict(states["scheduler"])
        vars(self.progress).update(states["progress"])

    def _check_identity(self, saved: Mapping[str, Any]):
        saved, asked = _leaves(saved), _leaves(json.loads(json.dumps(self.identity)))
        changed = sorted(name for name in saved.keys() | asked.keys() if saved.get(name) != asked.get(name))
        if changed:
            raise ValueError(
                f"expected the settings of the run to resume, got {changed[0]} {asked.get(changed[0])} instead of "
                f"{saved.get(changed[0])}; pass what it was started with, or another output folder"
            )

    def keep_if_best(self, model: PreTrainedModel, loss: float):
        """Save the weights if their validation loss is the lowest yet."""
        if loss < self.progress.best_loss:
            self.progress.best_loss, self.progress.best_step = loss, self.progress.step
            if self.accelerator.is_main_process:
                with folder_aside(self._best, replace=True) as aside:
                    save_quietly(model, aside)

    def load_best(self, model: PreTrainedModel):
        """Give a model the weights of the lowest validation loss."""
        model.load_state_dict(load_quietly(type(model), self._best).state_dict())

    @property
    def _best(self) -> Path:
        return self.folder / f"best-{self.progress.best_step}"


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to go on from, if there is one."""
    checkpoints = sorted(folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
    return checkpoints[-1] if checkpoints else None


def _clear(folder: Path):
    shutil.rmtree(folder, ignore_errors=True)


def _leaves(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """An identity as one level: {"training.epochs": 3}."""
    leaves = {}
    for name, value in nested.items():
        leaves |= _leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return leaves
