"""A trained model on the recordings of a build: scores, embeddings, reconstructed signals.

Shapes: B windows, T frames, C channels, D hidden size.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PreTrainedModel

from .channel_baselines import whole_channel_baselines
from .crossval.embeddings import mean_over_frames
from .dataset_scripts.parquet_build import read_build, read_manifest
from .dataset_scripts.recording import Recording, any_simulated
from .dataset_scripts.windows import WindowDataset
from .evaluation import (
    BASELINES,
    FORECAST_BASELINES,
    Baseline,
    ClassificationScores,
    ReconstructionScores,
    evaluate_classification,
    evaluate_reconstruction,
)
from .forecasting import cut_forecast_windows
from .loading import load_config, load_processor, load_quietly
from .masking import HIDDEN_CHANNELS, MASK_TASKS, MaskedSignalCollator, collate_windows, model_inputs
from .modeling_neurt import NeurtForMaskedSignalModeling, NeurtForSequenceClassification, NeurtModel
from .processing_neurt import NeurtProcessor
from .writing_aside import file_aside, require_new

BATCH_SIZE = 128
FOLDS = 7  # as many passes hide every frame once, a seventh (14 %) at a time, near the share hidden in training


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate_model` found.

    Args:
        scores: Of the model and its baselines.
        seen: The animals among those tested that training has seen.
        skipped: Why, for each recording that gave no windows.
        dropped: For each other recording that lost neurons, how many for each reason.
    """

    scores: ReconstructionScores | ClassificationScores
    seen: list[str]
    skipped: dict[str, str]
    dropped: dict[str, dict[str, int]]


def is_classifier(model: str | Path) -> bool:
    """Whether a model folder or Hub name holds a classifier."""
    return "NeurtForSequenceClassification" in (load_config(model).architectures or ())


def evaluate_model(
    model: str | Path,
    build: Path,
    *,
    subjects: Sequence[str] = (),
    label: str | None = None,
    task: str = "span",
    missing_neighbours: str = "error",
    seed: int = 0,
    output: Path | None = None,
) -> Evaluation:
    """Score a masked model, or a classifier, on a build.

    Baselines are those that a task leaves any sense: interpolation and the window's mean for spans, copy-last and the
    window's mean for forecasts, ridge regression and means of other animals for whole channels. Forecasts are scaled
    by the past, see `forecasting`.

    Args:
        model: Folder or Hub name.
        build: Parquet build.
        subjects: Animals to use; all if empty.
        label: The label, for a classifier.
        task: What is hidden from a masked model, one of `MASK_TASKS`.
        missing_neighbours: "mask" to use recordings without positions as well; not where whole channels are hidden.
        seed: Seed of the masks.
        output: JSON file to make with all of it.

    Raises:
        ValueError: If no such model, animal, label or task is there, the task does not go with the model or with
            missing neighbours, or the output file exists.
    """
    is_masked = not is_classifier(model)
    if is_masked != (label is None):
        hint = "pass --label" if label is None else "a masked model has none, leave out --label"
        raise ValueError(f"expected a label with a classifier only; {hint}")
    _check_task(task, is_masked, missing_neighbours)
    if output is not None:
        require_new(output, "an output file")
    recordings = _recordings_of(build, subjects)
    network = _load(NeurtForMaskedSignalModeling if is_masked else NeurtForSequenceClassification, model)
    options = {"simulated": any_simulated(recordings), "seed": seed}
    if is_masked:
        dataset, options["baselines"] = _windows_and_baselines(
            recordings, load_processor(model), task, missing_neighbours
        )
        rate = network.config.default_sampling_rate
        collate = MaskedSignalCollator(seed, tasks={task: 1}, default_sampling_rate=rate)
        score = evaluate_reconstruction
    else:
        label2id = {name: index for index, name in network.config.id2label.items()}
        names = {"label": label, "label2id": label2id, "missing_neighbours": missing_neighbours}
        dataset = WindowDataset(recordings, load_processor(model), **names)
        collate, score = collate_windows, evaluate_classification
    with tqdm(DataLoader(dataset, BATCH_SIZE, collate_fn=collate), desc="windows", unit="batch") as batches:
        scores = score(network, batches, **options)
    seen = sorted(set(dataset.subject_ids) & set(network.config.pretraining_subjects or ()))
    evaluation = Evaluation(scores, seen, dataset.skipped, dataset.dropped)
    if output is not None:
        left_out = {"skipped": dataset.skipped, "dropped": dataset.dropped}
        found = {**scores.to_dict(), "seen_in_training": seen, **left_out}
        text = json.dumps(found | ({"task": task} if is_masked else {}), indent=1)
        with file_aside(output) as aside:
            aside.write_text(text + "\n", encoding="utf-8")
    return evaluation


def embed(model: str | Path, build: Path, output: Path, *, missing_neighbours: str = "error") -> dict[str, Any]:
    """Write one row per window: its embedding, the mean of `embeddings` over real frames.

    Args:
        model: Folder or Hub name.
        build: Parquet build.
        output: Parquet file with recording_id, subject_id, roi_id, start_frame, start_s, sampling_rate (Hz) and
            embedding (D float32).
        missing_neighbours: "mask" to use recordings without positions as well.

    Returns:
        Counts of `rows` and `recordings`; why recordings were `skipped`; for each other recording that lost neurons,
        how many were `dropped` for each reason.

    Raises:
        ValueError: If the model or the build cannot be used, or the output file exists.
    """
    require_new(output, "an output file")
    network = _load(NeurtModel, model)

    def embed_batch(batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        embeddings = network(**model_inputs(batch, network.device)).embeddings
        return {"embedding": mean_over_frames(embeddings, batch["attention_mask"]).cpu().numpy()}

    return _write_windows(model, build, output, embed_batch, missing_neighbours)


def reconstruct(
    model: str | Path, build: Path, output: Path, *, span: int = 5, missing_neighbours: str = "error"
) -> dict[str, Any]:
    """Write one row per window: its own trace, and that trace with each frame predicted while it was hidden.

    Spans of frames are hidden in turn, `FOLDS` passes hiding every frame once.

    Args:
        model: Folder or Hub name of a masked model.
        build: Parquet build.
        output: Parquet file with the columns of `embed`, but `observed` and `reconstruction` (lists of float32, in the
            processor's scale) instead of the embedding.
        span: Frames hidden together.
        missing_neighbours: "mask" to use recordings without positions as well.

    Returns:
        As `embed`.

    Raises:
        ValueError: If the model or the build cannot be used, the span is out of its range, or the output file exists.
    """
    require_new(output, "an output file")
    if is_classifier(model):
        raise ValueError(f"expected a masked model to reconstruct with, got a classifier: {model}")
    if not 1 <= span <= 10:
        raise ValueError(f"expected a span of 1 to 10 frames, got {span}")
    network = _load(NeurtForMaskedSignalModeling, model)

    def reconstruct_batch(batch: Mapping[str, Any]) -> dict[str, list[np.ndarray]]:
        inputs = model_inputs(batch, network.device)
        predicted = reconstruct_each_frame(network, inputs, span)[..., 0].cpu().numpy()
        real = batch["attention_mask"].numpy().astype(bool)
        pairs = {"observed": batch["input_values"][..., 0].numpy(), "reconstruction": predicted}
        return {name: [row[mask] for row, mask in zip(rows, real, strict=True)] for name, rows in pairs.items()}

    return _write_windows(model, build, output, reconstruct_batch, missing_neighbours)


def reconstruct_each_frame(
    model: NeurtForMaskedSignalModeling, inputs: Mapping[str, torch.Tensor], span: int
) -> torch.Tensor:
    """Predict every frame of windows while it and its span are hidden.

    Args:
        model: The masked model.
        inputs: Its inputs; `input_values` is (B, T, C).
        span: Frames hidden together.

    Returns:
        float (B, T, C).
    """
    values = inputs["input_values"]
    fold = torch.arange(values.shape[1], device=values.device) // span % FOLDS
    absent = inputs.get("bool_masked_pos", torch.zeros_like(values, dtype=torch.bool))
    result = torch.empty_like(values)
    for k in range(FOLDS):
        hidden = absent | (fold == k).view(1, -1, 1)
        predicted = model(**{**inputs, "bool_masked_pos": hidden}).reconstruction
        result[:, fold == k] = predicted[:, fold == k]
    return result


def _check_task(task: str, is_masked: bool, missing_neighbours: str):
    if task not in MASK_TASKS:
        raise ValueError(f"expected a task among {', '.join(MASK_TASKS)}, got {task!r}")
    if task != "span" and not is_masked:
        raise ValueError(f"expected a masked model for the task {task!r}, got a classifier; leave out --task")
    if task in HIDDEN_CHANNELS and missing_neighbours == "mask":
        raise ValueError(
            f"expected recordings with positions for the task {task!r}, which hides whole channels; leave out "
            "--missing-neighbours mask"
        )


def _windows_and_baselines(
    recordings: Sequence[Recording], processor: NeurtProcessor, task: str, missing_neighbours: str
) -> tuple[WindowDataset, Mapping[str, Baseline]]:
    """The windows that a task is scored on, and its baselines."""
    options = {"missing_neighbours": missing_neighbours}
    if task == "forecast":
        return WindowDataset(recordings, processor, cut=cut_forecast_windows, **options), FORECAST_BASELINES
    dataset = WindowDataset(recordings, processor, **options)
    return dataset, whole_channel_baselines(dataset, task) if task in HIDDEN_CHANNELS else BASELINES


def _recordings_of(build: Path, subjects: Sequence[str]) -> list[Recording]:
    known = sorted({entry["subject_id"] for entry in read_manifest(build)["files"]})
    unknown = sorted(set(subjects) - set(known))
    if unknown:
        raise ValueError(f"expected subjects among {', '.join(known)}, got {', '.join(unknown)}")
    return list(read_build(build, subjects=subjects))


def _load(cls: type[PreTrainedModel], model: str | Path) -> PreTrainedModel:
    """A model ready for inference, on a GPU if there is one."""
    return load_quietly(cls, model).to(Accelerator().device).eval()


def _write_windows(
    model: str | Path, build: Path, output: Path, apply: Callable, missing_neighbours: str
) -> dict[str, Any]:
    """Apply a function to every batch of windows of a build, a recording at a time."""
    processor = load_processor(model)
    counts = {"rows": 0, "recordings": 0, "skipped": {}, "dropped": {}}
    total = len(read_manifest(build)["files"])
    with file_aside(output) as aside, contextlib.ExitStack() as stack:
        writer = None
        bar = stack.enter_context(tqdm(read_build(build), desc="recordings", unit="recording", total=total))
        for recording in bar:
            try:
                dataset = WindowDataset([recording], processor, missing_neighbours=missing_neighbours)
            except ValueError as error:
                counts["skipped"][recording.recording_id] = str(error)
                continue
            for table in _tables(dataset, recording.sampling_rate, apply):
                writer = writer or stack.enter_context(pq.ParquetWriter(aside, table.schema))
                writer.write_table(table)
                counts["rows"] += table.num_rows
            counts["recordings"] += 1
            counts["dropped"] |= dataset.dropped
        if writer is None:
            raise ValueError(next(iter(counts["skipped"].values())))
    return counts


def _tables(dataset: WindowDataset, sampling_rate: float, apply: Callable) -> Iterator[pa.Table]:
    """A table for each batch: where each window is, and what the function says of it."""
    for batch in DataLoader(dataset, BATCH_SIZE, collate_fn=collate_windows):
        with torch.inference_mode():
            values = apply(batch)
        start = batch["start_frame"].numpy()
        columns = {name: batch[name] for name in ("recording_id", "subject_id", "roi_id")}
        columns |= {"start_frame": start, "start_s": start / sampling_rate}
        columns["sampling_rate"] = np.full(len(start), sampling_rate)
        columns |= {name: pa.array(list(rows), type=pa.list_(pa.float32())) for name, rows in values.items()}
        yield pa.table(columns)
