"""What share of a training step goes to loading: the training loop's loader beside a step on what it loads."""

import numpy as np
import torch
from accelerate import Accelerator
from measurement import interleaved_times
from neurt import MaskedSignalCollator, NeurtProcessor
from neurt.dataset_scripts.recording import Recording
from neurt.dataset_scripts.windows import WindowDataset
from neurt.training.batches import inputs_and_labels, load_batches
from neurt.training.options import TrainingOptions
from throughput_work import SAMPLING_RATE, Work, make_model, make_step
from torch.utils.data import DataLoader

NUM_NEURONS = 100
FIELD_SIZE = 1_000.0  # µm


def random_windows(frames: int) -> WindowDataset:
    """One window of each neuron of a field, but of those with too few others near or far."""
    generator = np.random.default_rng(0)
    recording = Recording(
        traces=generator.gamma(1.0, size=(NUM_NEURONS, frames)).astype(np.float32),
        sampling_rate=SAMPLING_RATE,
        recording_id="random",
        subject_id="random",
        session_id="random",
        roi_ids=tuple(map(str, range(NUM_NEURONS))),
        centroids=generator.random((NUM_NEURONS, 2)) * FIELD_SIZE,
        coordinate_unit="um",
    )
    return WindowDataset([recording], NeurtProcessor(window_length=frames))


def make_loader(frames: int, batch_size: int) -> DataLoader:
    """An epoch of masked batches, loaded as `training.loop.fit` does on one process."""
    dataset, options = random_windows(frames), TrainingOptions(batch_size=batch_size)
    return load_batches(dataset, MaskedSignalCollator(), options, Accelerator(cpu=True), epoch=0, skipped=0)


def load(loader: DataLoader) -> list[dict[str, torch.Tensor]]:
    return [inputs_and_labels(batch, "cpu") for batch in loader]


def loading_times(frames: int, batch_size: int, precision: str, rounds: int) -> dict[str, list[float]]:
    """Seconds a batch: of loading alone ("load"), and of training the default network on it ("train")."""
    loader = make_loader(frames, batch_size)
    batches = load(loader)
    work = Work("default", precision=precision)
    step = make_step(make_model(work, frames), work)
    calls = {"load": lambda: load(loader), "train": lambda: [step(batch) for batch in batches]}
    times = interleaved_times(calls, rounds)
    return {name: [seconds / len(batches) for seconds in each] for name, each in times.items()}
