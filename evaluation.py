"""Scores of a model beside its baselines, on the same windows in the same run.

    scores = evaluate_reconstruction(model, dataloader, seed=0, simulated=False)
    print(scores.to_markdown())

Shapes: B windows, T frames, C channels, K classes.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from .markdown_text import markdown_table
from .masking import model_inputs
from .metrics.masked_signal import MaskedSums, masked_sums, merge_sums, scores
from .metrics.subject_classification import ScoredUnits, always_the_larger_class, levels, scored_windows, unit_scores
from .modeling_neurt import NeurtForMaskedSignalModeling
from .processing_neurt import CHANNELS
from .sampling import evenly_spaced
from .signal_neurt import expand_mask_to_channels, fill_linearly

# A function of a batch that gives (B, T, C).
Baseline = Callable[[Mapping[str, Any]], np.ndarray]

MODEL, LARGER_CLASS = "model", "always the larger class"
LEVELS = ("window", "recording", "subject")
# Animals of a class below which an AUC over them takes a handful of values, and 1 comes by chance.
FEWEST_SUBJECTS = 3


def linear_interpolation(shown: np.ndarray) -> np.ndarray:
    """Draw straight lines across what is hidden, channel by channel.

    Before the first and after the last visible frame of a channel the nearest visible value is repeated; a channel
    with nothing visible becomes 0.

    Args:
        shown: Float (B, T, C), NaN where hidden; see `shown_values`.

    Returns:
        (B, T, C), a new array with visible values unchanged.
    """
    visible = ~np.isnan(shown)
    return fill_linearly(torch.from_numpy(np.where(visible, shown, 0)), torch.from_numpy(visible)).numpy()


def visible_mean(shown: np.ndarray) -> np.ndarray:
    """Predict each channel's mean over the visible frames of its window everywhere; 0 with nothing visible.

    Arguments and shapes as `linear_interpolation`.
    """
    count = np.maximum((~np.isnan(shown)).sum(axis=1, keepdims=True), 1)
    mean = np.nansum(shown, axis=1, keepdims=True, dtype=np.float64) / count
    return np.broadcast_to(mean, shown.shape).astype(shown.dtype)


def shown_values(batch: Mapping[str, Any]) -> np.ndarray:
    """All that a baseline may see of a batch: its values (B, T, C), NaN where they are hidden or padding."""
    values, real = batch["input_values"], batch.get("attention_mask")
    hidden = expand_mask_to_channels(batch["bool_masked_pos"], values)
    if real is not None:
        hidden = hidden | ~real.bool().unsqueeze(-1)
    return _numpy(values.masked_fill(hidden, torch.nan))


def _of_batch(fill: Callable[[np.ndarray], np.ndarray]) -> Baseline:
    return lambda batch: fill(shown_values(batch))


BASELINES: Mapping[str, Baseline] = {
    "linear interpolation": _of_batch(linear_interpolation),
    "window mean": _of_batch(visible_mean),
}
# Lines have no second end in a forecast: interpolation repeats the last visible value, and is called what it does.
FORECAST_BASELINES = {"copy-last": BASELINES["linear interpolation"], "window mean": BASELINES["window mean"]}


@dataclasses.dataclass(frozen=True)
class MeasuredOn:
    """What a score was measured on; None where the batches did not say.

    Args:
        simulated: Whether the recordings were simulated.
        seed: Seed of the masks, or of the sample of windows.
        num_windows: Number of windows.
        num_neurons: Number of different neurons.
        num_recordings: Number of different recordings.
        subjects: The animals.
    """

    simulated: bool
    seed: int | None
    num_windows: int
    num_neurons: int | None
    num_recordings: int | None
    subjects: tuple[str, ...] | None

    def __str__(self) -> str:
        counts = {
            "windows": self.num_windows,
            "neurons": self.num_neurons,
            "recordings": self.num_recordings,
            "subjects": None if self.subjects is None else len(self.subjects),
        }
        said = ", ".join(f"{n} {name[:-1] if n == 1 else name}" for name, n in counts.items() if n is not None)
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"{'Simulated data' if self.simulated else 'Measured on'}: {said}{seed}"


@dataclasses.dataclass(frozen=True)
class ReconstructionScores:
    """Scores at hidden positions.

    Args:
        rows: One dict per predictor and channel: predictor ("model" or a baseline's name), channel, r2, r2_within,
            mae, cosine, squared_error (mean), n (scored values); see `neurt.metrics.masked_signal`. Undefined is NaN.
        measured_on: The windows.
    """

    rows: list[dict[str, Any]]
    measured_on: MeasuredOn

    @property
    def predictors(self) -> list[str]:
        """The model, then the baselines."""
        return list(dict.fromkeys(row["predictor"] for row in self.rows))

    def row(self, predictor: str, channel: str = CHANNELS[0]) -> dict[str, Any]:
        """The row of one predictor and channel."""
        return next(row for row in self.rows if (row["predictor"], row["channel"]) == (predictor, channel))

    def to_markdown(self) -> str:
        """A table, each scored channel's baselines under the model, and a line that says what it was measured on."""
        titles = {"channel": "channel", "predictor": "predictor", "r2": "R²", "r2_within": "R² within window"}
        titles |= {"mae": "MAE", "cosine": "cosine", "squared_error": "squared error", "n": "n"}
        channels = list(dict.fromkeys(row["channel"] for row in self.rows))
        scored = (row for row in self.rows if row["n"])
        ordered = sorted(scored, key=lambda row: channels.index(row["channel"]))
        return f"{_score_table(titles, ordered)}\n\n{self.measured_on}.\n"

    def to_dict(self) -> dict[str, Any]:
        """What `json` can write; NaN becomes None."""
        return json_ready(dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class ClassificationScores:
    """Scores of windows, recordings and subjects.

    Args:
        rows: One dict per predictor ("model" or a baseline's name) and level ("window", "recording", "subject"):
            level, predictor, and the scores, counts and reasons of
            `neurt.metrics.subject_classification.unit_scores`. Undefined is NaN.
        subjects: One dict per animal: subject_id, label and decision (class ids), log_odds of class 1 (None with more
            than two classes), margin (log-probability of its own class minus the best other one's), num_recordings.
        class_names: The classes' names.
        measured_on: The windows.
    """

    rows: list[dict[str, Any]]
    subjects: list[dict[str, Any]]
    class_names: tuple[str, ...]
    measured_on: MeasuredOn

    def row(self, level: str = "subject", predictor: str = MODEL) -> dict[str, Any]:
        """The row of one level and predictor."""
        return next(row for row in self.rows if (row["level"], row["predictor"]) == (level, predictor))

    @property
    def too_few(self) -> bool:
        """Whether fewer than three animals of a class were tested: then no AUC is shown, at any level."""
        return min(self.row("subject")["n_per_class"]) < FEWEST_SUBJECTS

    def to_markdown(self) -> str:
        """A table of the levels, baselines under the model, and a line that says what it was measured on."""
        titles = {name: name.replace("_", " ") for name in ("level", "predictor", "accuracy", "balanced_accuracy")}
        titles |= {} if self.too_few else {"roc_auc": "ROC-AUC"}
        titles |= {"n": "n", "n_per_class": "n per class"}
        reasons = dict.fromkeys(f"{row['level']}: {row['undefined']}" for row in self.rows if row["undefined"])
        notes = f"Not defined ({'; '.join(reasons)}). " if reasons else ""
        notes += f"No ROC-AUC with fewer than {FEWEST_SUBJECTS} subjects of a class. " if self.too_few else ""
        ordered = sorted(self.rows, key=lambda row: LEVELS.index(row["level"]))
        return f"{_score_table(titles, ordered)}\n\n{notes}{self.measured_on}.\n"

    def to_dict(self) -> dict[str, Any]:
        """What `json` can write; NaN becomes None."""
        return json_ready(dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class ReconstructionExample:
    """One window's own trace for a figure; arrays of shape (T,), without padding.

    Args:
        truth: The target.
        hidden: True where the value was hidden.
        reconstruction: The model's output.
        interpolation: Straight lines across what was hidden.
        sampling_rate: Hz, or None if unknown.
    """

    truth: np.ndarray
    hidden: np.ndarray
    reconstruction: np.ndarray
    interpolation: np.ndarray
    sampling_rate: float | None


def evaluate_reconstruction(
    model: nn.Module,
    dataloader: Iterable[Mapping[str, Any]],
    *,
    simulated: bool,
    seed: int | None = None,
    baselines: Mapping[str, Baseline] = BASELINES,
) -> ReconstructionScores:
    """Score a masked model and its baselines at hidden, real positions whose target is not NaN.

    Sums are accumulated batch by batch, so memory does not grow with the number of windows.

    Args:
        model: Takes batches and returns an output with `reconstruction` (B, T, C).
        dataloader: Batches of the masking collator: `input_values` (B, T, C), `bool_masked_pos` (B, T) or (B, T, C),
            and, if there are any, `attention_mask`, `labels`, `sampling_rate`, `recording_id`, `neuron_index`,
            `subject_id`.
        simulated: Whether the recordings were simulated; printed with the scores.
        seed: Seed of the masks; printed with the scores.
        baselines: What stands beside the model, by name.

    Raises:
        ValueError: If there are no windows, or none with a mask.
    """
    sums: dict[str, MaskedSums] = {}
    tally = _Tally()
    with _inference(model):
        for batch in dataloader:
            tally.add(batch)
            predictions, targets, scored = _predictions(model, batch, baselines)
            for name, prediction in predictions.items():
                added = masked_sums(prediction, targets, scored)
                sums[name] = merge_sums(sums[name], added) if name in sums else added
    measured_on = tally.measured_on(simulated, seed)
    return ReconstructionScores([row for name in sums for row in _score_rows(name, sums[name])], measured_on)


def reconstruction_examples(model: nn.Module, batch: Mapping[str, Any], count: int = 4) -> list[ReconstructionExample]:
    """Own traces of windows evenly spaced over a batch (not chosen by how well they look).

    Args:
        model: As in `evaluate_reconstruction`.
        batch: As in `evaluate_reconstruction`.
        count: Number of windows; fewer if the batch is smaller.

    Raises:
        ValueError: If the batch has no mask.
    """
    with _inference(model):
        predictions, targets, scored = _predictions(model, batch)
    rates = batch.get("sampling_rate", torch.full((len(targets),), torch.nan)).tolist()
    default_rate = getattr(getattr(model, "config", None), "default_sampling_rate", None)
    examples = []
    for i in evenly_spaced(len(targets), count):
        real = np.ones(targets.shape[1], dtype=bool)
        if batch.get("attention_mask") is not None:
            real = _numpy(batch["attention_mask"])[i].astype(bool)
        traces = [array[i, real, 0] for array in (predictions[MODEL], predictions["linear interpolation"])]
        rate = default_rate if math.isnan(rates[i]) else rates[i]
        examples.append(ReconstructionExample(targets[i, real, 0], scored[i, real, 0], *traces, rate))
    return examples


def evaluate_classification(
    model: nn.Module,
    dataloader: Iterable[Mapping[str, Any]],
    *,
    simulated: bool,
    seed: int | None = None,
) -> ClassificationScores:
    """Score a classifier window by window, by recording, and by subject, beside always saying the larger class.

    Args:
        model: Takes batches and returns an output with `logits` (B, K).
        dataloader: Batches with `input_values` (B, T, C), `labels` (B,) class ids, `recording_id` and `subject_id`
            (sequences of length B), and, if there are any, `attention_mask`, `bool_masked_pos`, `sampling_rate`,
            `neuron_index`.
        simulated: Whether the recordings were simulated; printed with the scores.
        seed: Seed of the sample of windows; printed with the scores.

    Raises:
        ValueError: If there are no windows, identities are missing, a logit is not finite, a label is not a class id,
            a subject has two labels, or a recording two subjects.
    """
    logits, columns = [], {"labels": [], "recording_id": [], "subject_id": []}
    tally = _Tally()
    with _inference(model):
        for batch in dataloader:
            _require(batch, "labels", "recording_id", "subject_id")
            tally.add(batch)
            logits.append(_numpy(model(**_model_inputs(model, batch)).logits))
            for name, values in columns.items():
                values.extend(_as_list(batch[name]))
    measured_on = tally.measured_on(simulated, seed)
    windows = scored_windows(np.concatenate(logits), columns["labels"], columns["recording_id"], columns["subject_id"])
    units = levels(windows)
    constant = {level: always_the_larger_class(scored) for level, scored in units.items()}
    rows = [
        {"level": level, "predictor": predictor, **unit_scores(scored)}
        for predictor, scores_of in {MODEL: units, LARGER_CLASS: constant}.items()
        for level, scored in scores_of.items()
    ]
    subjects = _subject_rows(units["subject"], units["recording"])
    return ClassificationScores(rows, subjects, _class_names(model, windows), measured_on)


class _Tally:
    """Counts windows and different neurons, recordings and subjects as batches pass."""

    def __init__(self):
        self.num_windows = 0
        self.seen: dict[str, set] = {"neuron": set(), "recording_id": set(), "subject_id": set()}

    def add(self, batch: Mapping[str, Any]):
        self.num_windows += len(batch["input_values"])
        for name in ("recording_id", "subject_id"):
            self.seen[name].update(_as_list(batch.get(name, ())))
        if "neuron_index" in batch and "recording_id" in batch:
            pairs = zip(_as_list(batch["recording_id"]), _as_list(batch["neuron_index"]), strict=True)
            self.seen["neuron"].update(pairs)

    def measured_on(self, simulated: bool, seed: int | None) -> MeasuredOn:
        if not self.num_windows:
            raise ValueError("expected at least one window to evaluate, got none; check the split")
        subjects = tuple(sorted(map(str, self.seen["subject_id"])))
        return MeasuredOn(
            simulated=simulated,
            seed=seed,
            num_windows=self.num_windows,
            num_neurons=len(self.seen["neuron"]) or None,
            num_recordings=len(self.seen["recording_id"]) or None,
            subjects=subjects or None,
        )


@contextlib.contextmanager
def _inference(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        # One by one: `model.train()` would also wake modules that the user had put in evaluation mode.
        for module, mode in modes:
            module.training = mode


def _predictions(model, batch, baselines=BASELINES) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Each predictor's (B, T, C), the targets, and where they are scored."""
    _require(batch, "bool_masked_pos")
    reconstruction = model(**_model_inputs(model, batch)).reconstruction
    predictions = {MODEL: _numpy(reconstruction), **{name: fill(batch) for name, fill in baselines.items()}}
    targets = batch["input_values"] if batch.get("labels") is None else batch["labels"]
    scored = NeurtForMaskedSignalModeling.scored_positions(
        targets, batch.get("attention_mask"), batch["bool_masked_pos"]
    )
    return predictions, _numpy(targets), _numpy(scored)


def _model_inputs(model, batch) -> dict[str, torch.Tensor]:
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return model_inputs(batch, device)


def _require(batch, *names):
    missing = [name for name in names if batch.get(name) is None]
    if missing:
        raise ValueError(f"expected batches with {', '.join(missing)}, got only {', '.join(batch)}")


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    # numpy has no bfloat16
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


def _as_list(values: torch.Tensor | Sequence) -> list:
    return values.tolist() if isinstance(values, torch.Tensor) else list(values)


def _score_rows(predictor, sums) -> list[dict[str, Any]]:
    columns = scores(sums)
    names = CHANNELS if len(sums.n) == len(CHANNELS) else [f"channel {c}" for c in range(len(sums.n))]
    return [
        {"predictor": predictor, "channel": name, **{key: column[c].item() for key, column in columns.items()}}
        for c, name in enumerate(names)
    ]


def _subject_rows(subjects: ScoredUnits, recordings: ScoredUnits) -> list[dict[str, Any]]:
    own = np.arange(subjects.log_probabilities.shape[1]) == subjects.labels[:, None]
    best_other = np.where(own, -np.inf, subjects.log_probabilities).max(axis=1)
    margins = subjects.log_probabilities[own] - best_other
    log_odds = subjects.log_odds.tolist() if own.shape[1] == 2 else [None] * len(own)
    return [
        {
            "subject_id": subject,
            "label": int(subjects.labels[i]),
            "decision": int(subjects.decisions[i]),
            "log_odds": log_odds[i],
            "margin": float(margins[i]),
            "num_recordings": recordings.subject_id.count(subject),
        }
        for i, subject in enumerate(subjects.subject_id)
    ]


def _class_names(model, units) -> tuple[str, ...]:
    names = getattr(getattr(model, "config", None), "id2label", None) or {}
    return tuple(str(names.get(k, f"class {k}")) for k in range(units.log_probabilities.shape[1]))


def _score_table(titles: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    return markdown_table(titles.values(), ([_cell(key, row[key]) for key in titles] for row in rows))


def _cell(key, value) -> str:
    if isinstance(value, float):
        # Errors are in the scale of the signal and may be tiny; the others lie around 0 to 1.
        return "–" if math.isnan(value) else f"{value:.3{'g' if key in ('mae', 'squared_error') else 'f'}}"
    return " / ".join(map(str, value)) if isinstance(value, list) else str(value)


def json_ready(value):
    if isinstance(value, Mapping):
        return {key: json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
