"""Windows of which it is known which frames tell two classes apart, and a small classifier that has learnt it.

All channels are smooth noise. In the windows of planted neurons one channel has a bump somewhere, up in class 1 and
down in class 0; nothing else differs between the classes.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from neurt import NeurtConfig, NeurtForSequenceClassification
from neurt.explain.explained import ExplainedWindows, hide, take
from neurt.masking import span_mask

FRAMES, CHANNELS, BUMP = 40, 5, 6
HEIGHT = 4.0  # of a bump, in standard deviations of the noise
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@dataclass(frozen=True, eq=False)
class Planted:
    """Windows and the truth about them.

    Args:
        windows: n windows, each third padded.
        frames: bool (n, T), where the bumps are.
        neurons: bool (n,), which windows are of planted neurons.
    """

    windows: ExplainedWindows
    frames: np.ndarray
    neurons: np.ndarray


def planted_windows(seed=1, animals=6, neurons=8, per_neuron=2, channel=0):
    """Windows of as many animals of either class; the first half of each one's neurons are planted."""
    rng = np.random.default_rng(seed)
    animal, neuron, number = (axis.ravel() for axis in np.mgrid[: 2 * animals, :neurons, :per_neuron])
    classes, is_planted = animal % 2, neuron < neurons // 2
    lengths = np.where(np.arange(len(animal)) % 3 == 2, FRAMES - 7, FRAMES)
    values = smooth_noise(rng, (len(animal), FRAMES, CHANNELS))
    bumps, frames = draw_bumps(rng, lengths, is_planted)
    values[..., channel] += np.where(classes == 1, 1, -1)[:, None] * bumps
    real = np.arange(FRAMES) < lengths[:, None]
    windows = ExplainedWindows(
        inputs={
            "input_values": torch.tensor(values * real[..., None], dtype=torch.float32),
            "attention_mask": torch.tensor(real.astype(np.int64)),
        },
        recording=animal,
        recording_ids=tuple(f"recording {i}" for i in range(2 * animals)),
        subject_ids=tuple(f"animal {i}" for i in range(2 * animals)),
        class_ids=np.arange(2 * animals) % 2,
        roi_ids=tuple(map(str, neuron)),
        neuron_index=neuron,
        start_frame=number * FRAMES,
    )
    return Planted(windows, frames, is_planted)


def smooth_noise(rng, shape):
    """Noise of unit variance whose neighbouring frames (axis 1) are alike."""
    white = rng.normal(size=(shape[0], shape[1] + 2, *shape[2:]))
    return (white[:, :-2] + white[:, 1:-1] + white[:, 2:]) / np.sqrt(3)


def draw_bumps(rng, lengths, is_planted):
    """A bump at a random place of each planted window, (n, T), and the frames where it is, bool (n, T)."""
    place = np.arange(FRAMES) - rng.integers(0, lengths - BUMP + 1)[:, None]
    frames = (place >= 0) & (place < BUMP) & is_planted[:, None]
    return HEIGHT * frames * np.sin(np.pi * (place + 0.5) / BUMP), frames


def new_classifier(seed=0, **settings):
    torch.manual_seed(seed)
    config = {**SIZES, "num_labels": 2, "max_position_embeddings": FRAMES, **settings}
    return NeurtForSequenceClassification(NeurtConfig(**config)).eval()


@functools.cache
def trained_classifier(channel=0, steps=40):
    """A classifier trained on other animals than those of `planted_windows(seed=1)`, spans hidden as in pretraining.

    It is shared: leave it as it is.
    """
    windows = planted_windows(seed=0, animals=16, channel=channel).windows
    model, rng = new_classifier(), np.random.default_rng(0)
    labels = torch.as_tensor(windows.classes)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        rows = rng.choice(len(windows), 96, replace=False)
        hidden = np.stack([span_mask(FRAMES, rng) for _ in rows])
        loss = model(**hide(take(windows.inputs, rows), hidden), labels=labels[rows]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model
