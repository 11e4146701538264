"""The windows that are explained, and what a classifier says of them.

Shapes: n windows, T frames, C channels, K classes, R recordings.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Subset

from ..dataset_scripts.windows import WindowDataset
from ..masking import collate_windows, model_inputs
from ..modeling_neurt import NeurtForSequenceClassification

BATCH_SIZE = 128
Inputs = Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class ExplainedWindows:
    """Windows in memory, and where each is from.

    Args:
        inputs: What the model takes, n windows in each tensor; `input_values` is (n, T, C).
        recording: int (n,), the place of each window's recording in `recording_ids`.
        recording_ids: (R,).
        subject_ids: (R,), the animal of each recording.
        class_ids: int (R,), the class of each recording, as the label tells it; None where no label was asked for.
        roi_ids: (n,), the neuron of each window.
        neuron_index: int (n,), its row among the recording's accepted neurons.
        start_frame: int (n,).
    """

    inputs: Inputs
    recording: np.ndarray
    recording_ids: tuple[str, ...]
    subject_ids: tuple[str, ...]
    class_ids: np.ndarray | None
    roi_ids: tuple[str, ...]
    neuron_index: np.ndarray
    start_frame: np.ndarray

    def __len__(self) -> int:
        return len(self.recording)

    @property
    def subjects(self) -> np.ndarray:
        """The animal of each window; str (n,)."""
        return np.array(self.subject_ids)[self.recording]

    @property
    def classes(self) -> np.ndarray:
        """The class of each window's animal; int (n,).

        Raises:
            ValueError: If no label was asked for.
        """
        if self.class_ids is None:
            raise ValueError("expected windows of labelled animals, got some without a label; pass --label")
        return self.class_ids[self.recording]

    @property
    def real(self) -> np.ndarray:
        """Which frames are no padding; bool (n, T)."""
        return self.inputs["attention_mask"].cpu().numpy().astype(bool)

    def __getitem__(self, rows: np.ndarray) -> "ExplainedWindows":
        """Some of the windows; the recordings stay, also those that have no window left."""
        rows = np.arange(len(self))[rows]
        return ExplainedWindows(
            inputs=take(self.inputs, rows),
            recording=self.recording[rows],
            recording_ids=self.recording_ids,
            subject_ids=self.subject_ids,
            class_ids=self.class_ids,
            roi_ids=tuple(self.roi_ids[row] for row in rows),
            neuron_index=self.neuron_index[rows],
            start_frame=self.start_frame[rows],
        )


def gather(dataset: WindowDataset, rows: Sequence[int] | np.ndarray) -> ExplainedWindows:
    """Take some windows of a data set into memory.

    Args:
        dataset: Windows, with `labels` or without.
        rows: Which of them; int (n,).
    """
    rows = np.asarray(rows)
    batch = collate_windows(list(Subset(dataset, rows.tolist())))
    recording_ids = dataset.recording_ids
    first = [int(np.flatnonzero(dataset.window_recordings == place)[0]) for place in range(len(recording_ids))]
    of_recordings = [dataset[row] for row in first]
    return ExplainedWindows(
        inputs=model_inputs(batch, "cpu"),
        recording=dataset.window_recordings[rows],
        recording_ids=tuple(recording_ids),
        subject_ids=tuple(window["subject_id"] for window in of_recordings),
        class_ids=None if dataset.label is None else np.array([int(window["labels"]) for window in of_recordings]),
        roi_ids=tuple(batch["roi_id"]),
        neuron_index=batch["neuron_index"].numpy(),
        start_frame=batch["start_frame"].numpy(),
    )


def take(inputs: Inputs, rows: np.ndarray | slice) -> dict[str, torch.Tensor]:
    """Some of the windows of a batch."""
    return {name: values[rows] for name, values in inputs.items()}


def batches(inputs: Inputs, size: int = BATCH_SIZE) -> Iterator[dict[str, torch.Tensor]]:
    """The windows in order, a batch at a time."""
    for first in range(0, len(inputs["input_values"]), size):
        yield take(inputs, slice(first, first + size))


def hide(inputs: Inputs, hidden: np.ndarray) -> dict[str, torch.Tensor]:
    """The same windows with more of them hidden from the model, which fills what it does not see as in training.

    Args:
        inputs: As of `ExplainedWindows`.
        hidden: bool (n, T) or (n, T, C), True where to hide; padding stays what it is.
    """
    values = inputs["input_values"]
    hidden = torch.tensor(hidden, device=values.device)
    hidden = (hidden if hidden.ndim == 3 else hidden.unsqueeze(-1)).expand_as(values)
    absent = inputs.get("bool_masked_pos")
    return {**inputs, "bool_masked_pos": hidden if absent is None else hidden | absent}


def logits_of(model: NeurtForSequenceClassification, inputs: Inputs) -> np.ndarray:
    """Logits of windows, float32 (n, K)."""
    with torch.inference_mode():
        found = [model(**model_inputs(batch, model.device)).logits.float().cpu() for batch in batches(inputs)]
    return torch.cat(found).numpy()


def log_odds(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The log-odds of a class against all others, which for two classes is the difference of their logits.

    Args:
        logits: (B, K), K of at least 2.
        targets: int (B,), the class of each window.

    Returns:
        (B,).
    """
    chosen = torch.nn.functional.one_hot(targets, logits.shape[1]).bool()
    return logits[chosen] - logits.masked_fill(chosen, -torch.inf).logsumexp(1)


def log_odds_of(model: NeurtForSequenceClassification, inputs: Inputs, targets: np.ndarray) -> np.ndarray:
    """`log_odds` of windows as a model sees them; targets int (n,), result float32 (n,)."""
    return log_odds(torch.as_tensor(logits_of(model, inputs)), torch.as_tensor(targets)).numpy()
