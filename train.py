"""Pretrain and fine-tune NEuRT.

    neurt pretrain BUILD --output MODEL                                        one process, on a GPU if there is one
    accelerate launch -m neurt.train pretrain BUILD --output MODEL             as `accelerate config` says
    accelerate launch --num_processes 2 --cpu -m neurt.train pretrain ...      two processes on CPUs
    neurt finetune BUILD --model MODEL --label genotype --output CLASSIFIER

A batch size counts the windows of one optimiser step over all processes, so the same command trains the same way
everywhere. Interrupted, the same command with --resume goes on.
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import set_seed
from torch.utils.data import DataLoader, Subset
from transformers import PreTrainedModel

from .configuration_neurt import NeurtConfig
from .dataset_scripts.parquet_build import read_build
from .dataset_scripts.recording import Recording
from .dataset_scripts.windows import WindowDataset
from .evaluation import evaluate_classification, evaluate_reconstruction, reconstruction_examples
from .masking import MaskedSignalCollator, collate_windows
from .modeling_neurt import NeurtForMaskedSignalModeling, NeurtForSequenceClassification
from .processing_neurt import NeurtProcessor
from .splits import Split, check_disjoint, label_of, split_recordings
from .summary import write_summary
from .training_loop import TrainingOptions, fit, load_quietly, model_inputs

FREEZE = ("none", "embeddings", "encoder")
# Factor on the embeddings' learning rate where layers decay; the original's (0.8³, while its layers follow 0.9ᵏ).
EMBEDDINGS_FACTOR = 0.512
VALIDATION_WINDOWS = 2048
EVALUATION_BATCH = 128


@dataclass(frozen=True)
class SplitOptions:
    """Who trains and who is tested; see `split_recordings`.

    Args:
        split_by: "subject" or "session".
        test: Ids to hold out; if empty, `test_fraction` of them is drawn.
        test_fraction: Share of ids to hold out.
        validation_fraction: Share of the other ids that chooses the checkpoint; 0 keeps the last one.
        allow_shared_subjects: Train although a test animal is also in training.
    """

    split_by: str = "subject"
    test: Sequence[str] = ()
    test_fraction: float = 0.2
    validation_fraction: float = 0.0
    allow_shared_subjects: bool = False


@dataclass(frozen=True)
class FinetuneOptions:
    """What fine-tuning adds to training.

    Args:
        label: Label to learn, a column of the build.
        freeze: "none", "embeddings" or "encoder": what keeps its pretrained weights.
        layer_decay: Factor on the learning rate from each layer to the one below it (the original's 0.9); 1 for none.
        head_learning_rate: Learning rate of the pooling query and the classifier.
    """

    label: str
    freeze: str = "none"
    layer_decay: float = 0.9
    head_learning_rate: float = 1e-3

    def __post_init__(self):
        if self.freeze not in FREEZE:
            raise ValueError(f"expected freeze among {', '.join(FREEZE)}, got {self.freeze!r}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"expected layer_decay above 0 and at most 1, got {self.layer_decay}")


def pretrain(
    build: Path,
    output: Path,
    *,
    model: NeurtForMaskedSignalModeling | None = None,
    processor: NeurtProcessor | None = None,
    split: SplitOptions | None = None,
    options: TrainingOptions | None = None,
    missing_neighbours: str = "error",
    resume: bool = False,
    command: str = "neurt pretrain",
) -> dict[str, Any]:
    """Pretrain by reconstructing hidden spans; test on held-out animals beside interpolation.

    Args:
        build: Parquet build.
        output: Folder of the model; must not hold one unless `resume`.
        model: What to train; by default a new `NeurtConfig` model with positions for one window.
        processor: Cuts the windows.
        split: Who trains and who is tested; by default a tenth of the training animals chooses the checkpoint.
        options: How to train.
        missing_neighbours: "mask" to train on recordings without positions as well.
        resume: Go on from the last checkpoint.
        command: What regenerates the run, for the summary.

    Returns:
        The results, as written to `results.json`.

    Raises:
        ValueError: If the build, the split or the output folder cannot be used.
    """
    split, options = split or SplitOptions(validation_fraction=0.1), options or TrainingOptions()
    processor = processor or NeurtProcessor()
    _check_output(output, resume)
    set_seed(options.seed)
    recordings = list(read_build(build))
    chosen = _split(recordings, split, options.seed)
    datasets = _datasets(recordings, chosen, processor, missing_neighbours=missing_neighbours)
    model = model or NeurtForMaskedSignalModeling(NeurtConfig(max_position_embeddings=processor.window_length))
    seen = {*(model.config.pretraining_subjects or ()), *chosen.train, *chosen.validation}
    model.config.pretraining_subjects = sorted(seen)
    collate = MaskedSignalCollator(options.seed)
    validate = _validation(datasets, collate)
    log = fit(model, _trainable(model), datasets["train"], collate, options, output / "training", validate, resume)

    simulated = is_simulated(recordings)
    loader = DataLoader(datasets["test"], EVALUATION_BATCH, collate_fn=collate)
    scores = evaluate_reconstruction(model, loader, simulated=simulated, seed=options.seed)
    settings = {"split": asdict(split), "training": asdict(options), "missing_neighbours": missing_neighbours}
    release = Release(output, model, processor, chosen, simulated, command, settings, datasets)
    return release.write(
        "Pretraining", log, reconstruction=scores, examples=reconstruction_examples(model, _spread(datasets, collate))
    )


def pretraining_model(
    model: Path | None, config: Path | None, window_length: int
) -> NeurtForMaskedSignalModeling | None:
    """The model to train: the weights in a folder, or a new one by a `config.json`; None for the default one."""
    if model is not None and config is not None:
        raise ValueError("expected a model or a config, got both; a model brings its own")
    if model is not None:
        return load_quietly(NeurtForMaskedSignalModeling, model)
    if config is not None:
        return NeurtForMaskedSignalModeling(NeurtConfig.from_json_file(config))
    return None


def finetune(
    build: Path,
    output: Path,
    *,
    model: Path,
    finetuning: FinetuneOptions,
    processor: NeurtProcessor | None = None,
    split: SplitOptions | None = None,
    options: TrainingOptions | None = None,
    missing_neighbours: str = "error",
    resume: bool = False,
    command: str = "neurt finetune",
) -> dict[str, Any]:
    """Fine-tune a pretrained model to tell groups of animals apart; test on held-out animals.

    Args:
        build: Parquet build whose recordings carry the label.
        output: Folder of the classifier; must not hold a model unless `resume`.
        model: Folder or Hub name of the pretrained model.
        finetuning: Label, freezing, learning rates.
        processor: Cuts the windows; by default as the pretrained model's.
        split: Who trains and who is tested.
        options: How to train.
        missing_neighbours: "mask" to train on recordings without positions as well.
        resume: Go on from the last checkpoint.
        command: What regenerates the run, for the summary.

    Returns:
        The results, as written to `results.json`.

    Raises:
        ValueError: If the build, the labels, the split or the output folder cannot be used.
    """
    split, options = split or SplitOptions(), options or TrainingOptions(epochs=5, learning_rate=1e-4)
    processor = processor or NeurtProcessor.from_pretrained(model)
    _check_output(output, resume)
    set_seed(options.seed)
    recordings = list(read_build(build))
    classes = _class_names(recordings, finetuning.label)
    chosen = _split(recordings, split, options.seed, finetuning.label)
    label2id = {name: index for index, name in enumerate(classes)}
    datasets = _datasets(
        recordings,
        chosen,
        processor,
        label=finetuning.label,
        label2id=label2id,
        missing_neighbours=missing_neighbours,
    )
    classifier = load_quietly(NeurtForSequenceClassification, model, id2label=dict(enumerate(classes)))
    groups = parameter_groups(classifier, finetuning, options.learning_rate)
    validate = _validation(datasets, collate_windows)
    log = fit(classifier, groups, datasets["train"], collate_windows, options, output / "training", validate, resume)

    simulated = is_simulated(recordings)
    loader = DataLoader(datasets["test"], EVALUATION_BATCH, collate_fn=collate_windows)
    scores = evaluate_classification(classifier, loader, simulated=simulated, seed=options.seed)
    settings = {"split": asdict(split), "training": asdict(options), "finetuning": asdict(finetuning)}
    release = Release(output, classifier, processor, chosen, simulated, command, settings, datasets)
    return release.write("Fine-tuning", log, classification=scores)


def parameter_groups(
    model: NeurtForSequenceClassification, options: FinetuneOptions, learning_rate: float
) -> list[dict]:
    """Freeze what stays, and give each depth its learning rate: `layer_decay` times that of the layer above."""
    encoder = model.neurt
    if options.freeze == "encoder":
        encoder.requires_grad_(False)
    elif options.freeze == "embeddings":
        encoder.embeddings.requires_grad_(False)
    factors = [options.layer_decay**depth for depth in reversed(range(len(encoder.layers)))]
    embeddings_factor = EMBEDDINGS_FACTOR if options.layer_decay < 1 else 1.0
    modules = [(encoder.embeddings, embeddings_factor), *zip(encoder.layers, factors, strict=True)]
    groups = [{"params": list(module.parameters()), "lr": learning_rate * factor} for module, factor in modules]
    head = [model.pooling_query, *model.classifier.parameters()]
    groups.append({"params": head, "lr": options.head_learning_rate})
    return [group for group in groups if group["params"][0].requires_grad]


def is_simulated(recordings: Sequence[Recording]) -> bool:
    """Whether any recording was simulated; then every number says so."""
    return any(recording.modality == "simulated" for recording in recordings)


@dataclass(frozen=True)
class Release:
    """A trained model with what its folder says about it."""

    output: Path
    model: PreTrainedModel
    processor: NeurtProcessor
    split: Split
    simulated: bool
    command: str
    settings: dict[str, Any]
    datasets: dict[str, WindowDataset] = field(repr=False)

    def write(self, title: str, log: list[dict], reconstruction=None, classification=None, examples=None) -> dict:
        """Write weights, code, processor, results and summary; `results.json` last. Returns the results."""
        scores = {"reconstruction": reconstruction, "classification": classification}
        results = {name: value.to_dict() for name, value in scores.items() if value is not None}
        results |= {"simulated": self.simulated, "command": self.command, "settings": self.settings}
        results |= {"split": self.split.to_dict(), "skipped": self._skipped(), "log": log}
        if not PartialState().is_main_process:
            return results
        aside = self.output / "training" / "release"
        shutil.rmtree(aside, ignore_errors=True)
        self.model.save_pretrained(aside)
        self.processor.save_pretrained(aside)
        sides = {part: getattr(self.split, part) for part in ("train", "validation", "test")}
        write_summary(
            aside,
            title=title,
            **scores,
            examples=examples,
            split={part: ids for part, ids in sides.items() if ids},
            simulated=self.simulated,
            command=self.command,
        )
        (aside / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        for path in sorted(aside.iterdir(), key=lambda path: path.name == "results.json"):
            os.replace(path, self.output / path.name)
        aside.rmdir()
        return results

    def _skipped(self) -> dict[str, str]:
        return {name: why for dataset in self.datasets.values() for name, why in dataset.skipped.items()}


def _check_output(output: Path, resume: bool):
    if (output / "config.json").exists() and not resume:
        raise ValueError(f"expected an output folder without a model, got {output}; choose another, or move it away")
    if (output / "training").exists() and not resume:
        raise ValueError(f"expected a new output folder, got an unfinished run in {output}; pass --resume to go on")


def _split(recordings: Sequence[Recording], options: SplitOptions, seed: int, label: str | None = None) -> Split:
    """The split, checked for animals on both sides."""
    split = split_recordings(
        recordings,
        by=options.split_by,
        test=options.test,
        test_fraction=options.test_fraction,
        validation_fraction=options.validation_fraction,
        label=label,
        seed=seed,
    )
    if not options.allow_shared_subjects:
        sides = (split.recordings(recordings, part) for part in ("train", "test"))
        check_disjoint(*sides)
    return split


def _datasets(
    recordings: Sequence[Recording], split: Split, processor: NeurtProcessor, **options
) -> dict[str, WindowDataset]:
    """Windows of each part of the split that has recordings."""
    parts = {part: split.recordings(recordings, part) for part in ("train", "validation", "test")}
    return {part: WindowDataset(members, processor, **options) for part, members in parts.items() if members}


def _class_names(recordings: Sequence[Recording], label: str) -> list[str]:
    classes = sorted({label_of(recording, label) for recording in recordings})
    if len(classes) < 2:
        raise ValueError(f"expected at least two classes of {label!r}, got {', '.join(classes)}")
    return classes


def _trainable(model: PreTrainedModel) -> list[dict]:
    return [{"params": [parameter for parameter in model.parameters() if parameter.requires_grad]}]


def _sample(dataset: WindowDataset, count: int) -> Subset:
    """Windows evenly spaced over a data set: the same ones each time."""
    return Subset(dataset, np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(int)).tolist())


def _validation(datasets: dict[str, WindowDataset], collate: Callable) -> Callable[[PreTrainedModel], float] | None:
    """The mean loss over a fixed sample of the validation windows, as a function of the model."""
    if "validation" not in datasets:
        return None
    loader = DataLoader(_sample(datasets["validation"], VALIDATION_WINDOWS), EVALUATION_BATCH, collate_fn=collate)

    def validate(model: PreTrainedModel) -> float:
        model.eval()
        with torch.inference_mode():
            losses = [(model(**model_inputs(batch, model.device)).loss, len(batch["labels"])) for batch in loader]
        model.train()
        values, sizes = zip(*losses, strict=True)
        return float(np.average([float(value) for value in values], weights=sizes))

    return validate


def _spread(datasets: dict[str, WindowDataset], collate: Callable) -> dict[str, Any]:
    """A batch of test windows from all over, for the figure."""
    sample = _sample(datasets["test"], 4)
    return collate([sample[i] for i in range(len(sample))])


if __name__ == "__main__":
    from neurt.cli import main

    main()
