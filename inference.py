"""A trained model on the recordings of a build: scores, embeddings, reconstructed signals.

Shapes: B windows, T frames, C channels, D hidden size.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import AutoConfig, PreTrainedModel

from .dataset_scripts.parquet_build import read_build, read_manifest
from .dataset_scripts.recording import Recording
from .dataset_scripts.windows import WindowDataset
from .evaluation import ClassificationScores, ReconstructionScores, evaluate_classification, evaluate_reconstruction
from .masking import MaskedSignalCollator, collate_windows
from .modeling_neurt import NeurtForMaskedSignalModeling, NeurtForSequenceClassification, NeurtModel
from .processing_neurt import NeurtProcessor
from .training_loop import load_quietly, model_inputs

BATCH_SIZE = 128
FOLDS = 7  # as many passes hide every frame once, a seventh (14 %) at a time, near the share hidden in training


def is_classifier(model: str | Path) -> bool:
    """Whether a model folder or Hub name holds a classifier."""
    return "NeurtForSequenceClassification" in (AutoConfig.from_pretrained(model).architectures or ())


def evaluate_model(
    model: str | Path,
    build: Path,
    *,
    subjects: Sequence[str] = (),
    label: str | None = None,
    missing_neighbours: str = "error",
    seed: int = 0,
) -> tuple[ReconstructionScores | ClassificationScores, list[str]]:
    """Score a masked model, or a classifier, on a build.

    Args:
        model: Folder or Hub name.
        build: Parquet build.
        subjects: Animals to use; all if empty.
        label: The label, for a classifier.
        missing_neighbours: "mask" to use recordings without positions as well.
        seed: Seed of the masks.

    Returns:
        The scores, and those of the animals that the model was pretrained on.

    Raises:
        ValueError: If no such animal or label is there.
    """
    recordings = _recordings_of(build, subjects)
    processor = NeurtProcessor.from_pretrained(model)
    simulated = any(recording.modality == "simulated" for recording in recordings)
    if is_classifier(model):
        if label is None:
            raise ValueError("expected the label to score a classifier on, got none; pass --label")
        network = load_quietly(NeurtForSequenceClassification, model)
        dataset = WindowDataset(
            recordings,
            processor,
            label=label,
            label2id=network.config.label2id,
            missing_neighbours=missing_neighbours,
        )
        loader = DataLoader(dataset, BATCH_SIZE, collate_fn=collate_windows)
        scores = evaluate_classification(network, _progress(loader), simulated=simulated, seed=seed)
    else:
        network = load_quietly(NeurtForMaskedSignalModeling, model)
        dataset = WindowDataset(recordings, processor, missing_neighbours=missing_neighbours)
        loader = DataLoader(dataset, BATCH_SIZE, collate_fn=MaskedSignalCollator(seed))
        scores = evaluate_reconstruction(network, _progress(loader), simulated=simulated, seed=seed)
    return scores, sorted(set(dataset.subject_ids) & set(network.config.pretraining_subjects or ()))


def embed(model: str | Path, build: Path, output: Path, *, missing_neighbours: str = "error") -> dict[str, Any]:
    """Write one row per window: its embedding, the mean of `embeddings` over real frames.

    Args:
        model: Folder or Hub name.
        build: Parquet build.
        output: Parquet file with recording_id, subject_id, roi_id, start_frame, start_s, sampling_rate (Hz) and
            embedding (D float32).
        missing_neighbours: "mask" to use recordings without positions as well.

    Returns:
        Counts of rows, recordings and skipped recordings.
    """
    network = load_quietly(NeurtModel, model).eval()

    def embed_batch(batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        embeddings = network(**_inputs(batch, network)).embeddings
        real = batch["attention_mask"].to(embeddings.device).unsqueeze(-1)
        return {"embedding": ((embeddings * real).sum(1) / real.sum(1)).cpu().numpy()}

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
        Counts of rows, recordings and skipped recordings.
    """
    if is_classifier(model):
        raise ValueError(f"expected a masked model to reconstruct with, got a classifier: {model}")
    if not 1 <= span <= 10:
        raise ValueError(f"expected a span of 1 to 10 frames, got {span}")
    network = load_quietly(NeurtForMaskedSignalModeling, model).eval()

    def reconstruct_batch(batch: Mapping[str, Any]) -> dict[str, list[np.ndarray]]:
        inputs = _inputs(batch, network)
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


def _recordings_of(build: Path, subjects: Sequence[str]) -> list[Recording]:
    known = sorted({entry["subject_id"] for entry in read_manifest(build)["files"]})
    unknown = sorted(set(subjects) - set(known))
    if unknown:
        raise ValueError(f"expected subjects among {', '.join(known)}, got {', '.join(unknown)}")
    return [recording for recording in read_build(build) if not subjects or recording.subject_id in subjects]


def _inputs(batch: Mapping[str, Any], network: PreTrainedModel) -> dict[str, torch.Tensor]:
    inputs = model_inputs(batch, network.device)
    inputs.pop("labels", None)
    return inputs


def _progress(batches: Iterable) -> Iterable:
    return tqdm(batches, desc="windows", unit="batch")


def _write_windows(
    model: str | Path, build: Path, output: Path, apply: Callable, missing_neighbours: str
) -> dict[str, Any]:
    """Apply a function to every batch of windows of a build, a recording at a time; write aside, then rename."""
    processor = NeurtProcessor.from_pretrained(model)
    output.parent.mkdir(parents=True, exist_ok=True)
    aside = output.with_name(f".{output.name}.partial")
    counts = {"rows": 0, "recordings": 0, "skipped": {}}
    with contextlib.ExitStack() as stack:
        stack.callback(aside.unlink, missing_ok=True)
        writer = None
        for recording in tqdm(read_build(build), desc="recordings", unit="recording"):
            try:
                dataset = WindowDataset([recording], processor, missing_neighbours=missing_neighbours)
            except ValueError as error:
                counts["skipped"][recording.recording_id] = str(error)
                continue
            for table in _tables(dataset, apply):
                writer = writer or stack.enter_context(pq.ParquetWriter(aside, table.schema))
                writer.write_table(table)
                counts["rows"] += table.num_rows
            counts["recordings"] += 1
        if writer is None:
            raise ValueError(
                f"expected recordings that give windows, got none: {next(iter(counts['skipped'].values()))}"
            )
        writer.close()
        os.replace(aside, output)
    return counts


def _tables(dataset: WindowDataset, apply: Callable) -> Iterator[pa.Table]:
    """A table for each batch: where each window is, and what the function says of it."""
    for batch in DataLoader(dataset, BATCH_SIZE, collate_fn=collate_windows):
        with torch.inference_mode():
            values = apply(batch)
        rate = batch["sampling_rate"].numpy().astype(np.float64)
        start = batch["start_frame"].numpy()
        columns = {name: batch[name] for name in ("recording_id", "subject_id", "roi_id")}
        columns |= {"start_frame": start, "start_s": start / rate, "sampling_rate": rate}
        columns |= {name: pa.array(list(rows), type=pa.list_(pa.float32())) for name, rows in values.items()}
        yield pa.table(columns)
