"""A pipeline from a recording to the class of its windows, its neurons, and itself.

    classify = pipeline("neuron-signal-classification", model="OWNER/NAME", trust_remote_code=True)
    classify("recording.npz")
    classify(traces, sampling_rate=5.0, centroids=centroids, coordinate_unit="um")

Shapes: N neurons, T frames, B windows, K classes.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

TASK = "neuron-signal-classification"
WINDOWS_PER_BATCH = 128
FACTS = ("centroids", "sampling_rate", "coordinate_unit", "segment_starts", "trace_kind")
OPTIONS = (*FACTS, "missing_neighbours")
ROWS = ("neuron_index", "start_frame")
TIME = "time_s"


class NeuronSignalClassificationPipeline(Pipeline):
    """Classifies one imaging field, or a list of them, by a fine-tuned NEuRT.

    A field is an array (N, T) of traces; a mapping with `traces`; an object with the attributes of a `Recording`; or
    the path of an `.npz` archive or a `.csv` table. Other formats are imported with the `neurt` package.

    Args:
        centroids: Positions (N, 2).
        coordinate_unit: "um" or "px".
        sampling_rate: Frames per second (Hz).
        segment_starts: Frames at which concatenated trials or bouts begin.
        trace_kind: Checked against the processor's own.
        missing_neighbours: "mask" to use fields without positions by their neurons' own traces.
        batch_size: Windows in a forward pass.

    Returns:
        A dict for each field: `label` and `score`, the most probable class and its probability; `scores`, the
        probability of each class; `neurons` and `windows`, the same of each neuron (`neuron` counts from 0) and each
        window (from `start_frame`); `dropped`, the neurons left out for each reason. The scores of a neuron and of the
        field are those of the mean logits of its windows: mean log-odds. They are not calibrated, and the animal of
        the field should not be one that the model was trained on.

    Raises:
        ValueError: If the field, or a setting, is not what it should be.
    """

    _load_processor = True

    def __call__(self, inputs: Any, *, batch_size: int | None = None, **options) -> dict[str, Any] | list[dict]:
        # Fields differ in size: what is batched is their windows.
        size = batch_size or self._batch_size or WINDOWS_PER_BATCH
        return super().__call__(inputs, batch_size=1, windows_per_batch=size, **options)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs):
        """Save the model, the code of this pipeline and the processor, so that the folder opens as it is."""
        super().save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)

    def _sanitize_parameters(self, windows_per_batch: int | None = None, **options):
        unknown = sorted(options.keys() - set(OPTIONS))
        if unknown:
            raise ValueError(f"expected options among {', '.join(OPTIONS)}, got {', '.join(unknown)}")
        return options, {} if windows_per_batch is None else {"size": windows_per_batch}, {}

    def preprocess(self, inputs: Any, **options) -> dict[str, Any]:
        """Cut a field into windows; what is stated in a call wins over what the field says of itself."""
        missing = {name: options.pop(name) for name in ("missing_neighbours",) if name in options}
        field = {**_field(inputs), **options}
        windows = self.processor(field.pop("traces"), **field, **missing)
        return dict(windows)

    def _forward(self, model_inputs: Mapping[str, Any], size: int = WINDOWS_PER_BATCH) -> dict[str, Any]:
        kept = {name: model_inputs[name] for name in (*ROWS, "dropped")}
        tensors = {name: values for name, values in model_inputs.items() if name not in kept}
        count = len(tensors["input_values"])
        pieces = [{name: values[i : i + size] for name, values in tensors.items()} for i in range(0, count, size)]
        return {"logits": torch.cat([self.model(**piece).logits for piece in pieces]), **kept}

    def postprocess(self, model_outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Scores of the windows, the neurons and the field."""
        logits = model_outputs["logits"].float()
        neurons, starts = (model_outputs[name].tolist() for name in ROWS)
        windows = [
            {"neuron": neuron, "start_frame": start, **self._scores(row)}
            for neuron, start, row in zip(neurons, starts, logits, strict=True)
        ]
        owners = model_outputs["neuron_index"]
        of_neurons = [{"neuron": n, **self._scores(logits[owners == n].mean(0))} for n in sorted(set(neurons))]
        field = self._scores(logits.mean(0))
        return {**field, "neurons": of_neurons, "windows": windows, "dropped": model_outputs["dropped"]}

    def _scores(self, logits: torch.Tensor) -> dict[str, Any]:
        names = self.model.config.id2label
        scores = {names[place]: score for place, score in enumerate(logits.softmax(-1).tolist())}
        best = max(scores, key=scores.get)
        return {"label": best, "score": scores[best], "scores": scores}


def _field(inputs: Any) -> dict[str, Any]:
    """The arguments of the processor that a field gives: `traces`, and what it says of them."""
    if isinstance(inputs, str | os.PathLike):
        return _read(Path(inputs))
    if isinstance(inputs, Mapping):
        unknown = sorted(inputs.keys() - {"traces", *FACTS})
        if unknown or "traces" not in inputs:
            raise ValueError(f"expected traces and maybe {', '.join(FACTS)}, got {', '.join(map(str, inputs))}")
        return dict(inputs)
    if hasattr(inputs, "traces"):
        return _of_recording(inputs)
    return {"traces": np.asarray(inputs)}


def _of_recording(recording: Any) -> dict[str, Any]:
    """What a `Recording` says, without the neurons that the curator rejected."""
    recording = recording.accepted_neurons()
    return {"traces": recording.traces, **{name: getattr(recording, name) for name in FACTS}}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"expected a file, got {path}, where there is none")
    if path.suffix.lower() == ".npz":
        return _read_npz(path)
    if path.suffix.lower() == ".csv":
        return _read_csv(path)
    raise ValueError(f"expected an .npz archive or a .csv table, got {path}; import other formats with neurt import")


def _read_npz(path: Path) -> dict[str, Any]:
    """Known arrays of an archive; Python objects are refused, for opening them can execute code."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = {name: archive[name] for name in ("traces", "accepted", *FACTS) if name in archive}
    # A damaged archive fails in zipfile, zlib or NumPy, with errors of many kinds.
    except Exception as error:
        raise ValueError(f"expected an .npz archive of plain arrays, got {path}: {error}") from error
    if "traces" not in found:
        raise ValueError(f'expected an array "traces" (neurons, frames) in {path}, got none')
    found |= {name: found[name].item() for name in ("sampling_rate", "coordinate_unit", "trace_kind") if name in found}
    accepted = found.pop("accepted", np.ones(found["traces"].shape[:1])).astype(bool)
    try:
        return found | {name: found[name][accepted] for name in ("traces", "centroids") if name in found}
    except IndexError as error:
        raise ValueError(f"expected accepted and centroids of every neuron, got others in {path}: {error}") from error


def _read_csv(path: Path) -> dict[str, Any]:
    """One column for each neuron, one line for each frame, names in the first; `time_s` gives the sampling rate."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            names = [name.strip() for name in file.readline().split(",")]
            values = np.loadtxt(file, delimiter=",", ndmin=2)
    except ValueError as error:
        raise ValueError(f"expected a table of numbers below one line of names, got {path}: {error}") from error
    if values.shape[1] != len(names):
        raise ValueError(f"expected as many numbers in a line as names, {len(names)}, got {values.shape[1]} in {path}")
    if _are_values(names):
        raise ValueError(f"expected names in the first line, got numbers in {path}; write a line of names above them")
    if TIME not in names:
        return {"traces": values.T}
    steps = np.diff(values[:, names.index(TIME)])
    if not len(steps) or not np.allclose(steps, np.median(steps), rtol=0.1) or steps[0] <= 0:
        raise ValueError(
            f"expected {TIME} to grow by the same step, got others in {path}; import it with neurt import"
        )
    return {"traces": np.delete(values, names.index(TIME), axis=1).T, "sampling_rate": float(1 / steps.mean())}


def _are_values(names: list[str]) -> bool:
    """Whether a first line would be lost as names; whole numbers are names that pandas gives."""
    try:
        numbers = np.array(names, dtype=float)
    except ValueError:
        return False
    return bool(((numbers < 0) | (numbers % 1 != 0)).any())


# There may be another copy of this file, of the package or of a model folder: the last one counts, without a warning.
PIPELINE_REGISTRY.supported_tasks.pop(TASK, None)
PIPELINE_REGISTRY.register_pipeline(
    TASK, pipeline_class=NeuronSignalClassificationPipeline, pt_model=AutoModelForSequenceClassification
)

__all__ = ["NeuronSignalClassificationPipeline"]
