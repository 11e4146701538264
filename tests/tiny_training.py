"""A run of the training loop on 24 small windows, for several test files."""

import json
from pathlib import Path

import numpy as np
import torch
from neurt import MaskedSignalCollator
from neurt.training import loop as training_loop
from neurt.training.loop import fit
from neurt.training.options import TrainingOptions
from safetensors.torch import load_file
from torch.utils.data import Dataset

HELD_OUT = ("sim005", "sim006")  # of the simulated mice of `build`


class Windows(Dataset):
    """24 windows of 40 frames, every third one padded."""

    def __init__(self, scale=1.0):
        self.values = np.random.default_rng(0).normal(size=(24, 40, 5)).astype(np.float32) * np.float32(scale)
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        real = np.arange(40) < (33 if index % 3 == 0 else 40)
        values = self.values[index] * real[:, None]
        return {
            "input_values": values,
            "attention_mask": real.astype(np.int64),
            "sampling_rate": np.float32(5 + index % 2),
            "window_index": index,
            "epoch": self.epoch,
        }


def train(model, folder, *, validate=None, resume=False, identity=None, dataset=None, tasks=None, **options):
    options = TrainingOptions(**{"epochs": 3, "batch_size": 8, "seed": 3, **options})
    groups = [{"params": list(model.parameters())}]
    collate = MaskedSignalCollator(options.seed, tasks=tasks)
    return fit(model, groups, dataset or Windows(), collate, options, folder, validate, resume, identity)


def results(folder):
    return json.loads((folder / "results.json").read_text())


def weights(model):
    """Of a model, or of the folder of one."""
    return load_file(model / "model.safetensors") if isinstance(model, Path) else model.state_dict()


def assert_same_weights(first, second):
    first, second = weights(first), weights(second)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def largest_difference(first, second):
    first, second = weights(first), weights(second)
    # The same number added to every key moves no softmax: these gradients are rounding errors, which Adam scales up.
    names = [name for name in first if not name.endswith("k_proj.bias")]
    return max((first[name] - second[name]).abs().max().item() for name in names)


class Interrupted(Exception):
    pass


def interrupt_after(monkeypatch, steps):
    """Let the loop take some optimiser steps, then stop it as a crash would."""
    taken, step = [], training_loop._step

    def counted(*args):
        if len(taken) == steps:
            raise Interrupted
        taken.append(1)
        return step(*args)

    monkeypatch.setattr(training_loop, "_step", counted)
