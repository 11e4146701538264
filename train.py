"""Pretrain and fine-tune NEuRT.

    neurt pretrain BUILD --output MODEL                                        one process, on a GPU if there is one
    accelerate launch -m neurt.train pretrain BUILD --output MODEL             as `accelerate config` says
    ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 -m neurt.train pretrain ...    on CPUs
    neurt finetune BUILD --model MODEL --label genotype --output CLASSIFIER

(accelerate's own --cpu starts one process, whatever --num_processes says.)

A batch size counts the windows of one optimiser step over all processes, so the same command trains the same way
everywhere. Interrupted, the same command with --resume goes on.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed
from torch.utils.data import DataLoader, Subset
from transformers import PreTrainedModel

from .baselines import beside_simple_statistics
from .configuration_neurt import NeurtConfig
from .dataset_scripts.parquet_build import read_build, read_manifest
from .dataset_scripts.recording import Recording, any_simulated
from .dataset_scripts.windows import WindowDataset
from .evaluation import evaluate_classification, evaluate_reconstruction, reconstruction_examples
from .loading import load_processor, load_quietly, read_config
from .masking import MaskedSignalCollator, collate_windows
from .modeling_neurt import NeurtForMaskedSignalModeling, NeurtForSequenceClassification
from .processing_neurt import NeurtProcessor
from .release import Release
from .splits import Split, check_disjoint, label_of, split_recordings
from .training_loop import TrainingOptions, fit, inputs_and_labels, last_checkpoint

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
        test: Ids to hold out; if empty, those of the build's test split, or else `test_fraction` of them, drawn.
        test_fraction: Share of ids to hold out.
        validation_fraction: Share of the other ids that chooses the checkpoint; 0 keeps the last one.
        allow_shared_subjects: Train although a test animal is also in training.

    Raises:
        ValueError: If a share is out of its range.
    """

    split_by: str = "subject"
    test: Sequence[str] = ()
    test_fraction: float = 0.2
    validation_fraction: float = 0.0
    allow_shared_subjects: bool = False

    def __post_init__(self):
        if not 0 < self.test_fraction < 1:
            raise ValueError(f"expected test_fraction above 0 and below 1, got {self.test_fraction}")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"expected validation_fraction from 0 to below 1, got {self.validation_fraction}")


@dataclass(frozen=True)
class FinetuneOptions:
    """What fine-tuning adds to training.

    Args:
        label: Label to learn, a column of the build.
        freeze: "none", "embeddings" or "encoder": what keeps its pretrained weights.
        layer_decay: Factor on the learning rate from each layer to the one below it (the original's 0.9); 1 for none.
        head_learning_rate: Learning rate of the pooling query and the classifier.

    Raises:
        ValueError: If a value is out of its range.
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
        if not 0 < self.head_learning_rate < math.inf:
            raise ValueError(f"expected head_learning_rate above 0, got {self.head_learning_rate}")


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
        model: What to train; by default a new one, see `pretraining_model`. Its configuration is told the animals.
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
    split = _stated_split(build, split or SplitOptions(validation_fraction=0.1))
    options = options or TrainingOptions()
    processor = processor or NeurtProcessor()
    model = model or pretraining_model(window_length=processor.window_length, seed=options.seed)
    _check_output(output, resume)
    _check_window(model, processor)
    recordings = list(read_build(build))
    chosen = _split(recordings, split, options.seed)
    datasets = _datasets(recordings, chosen, processor, missing_neighbours=missing_neighbours)
    seen = _remember_subjects(model, datasets)
    trained_on = describe_training(processor, chosen.recordings(recordings, "train"))
    settings = {"split": asdict(split), "training": asdict(options), "missing_neighbours": missing_neighbours}
    collate = MaskedSignalCollator(options.seed)
    log = fit(
        model,
        [{"params": list(model.parameters())}],
        datasets["train"],
        collate,
        options,
        output / "training",
        _validation(datasets, collate),
        resume,
        _identity(build, settings, chosen, processor, model),
    )

    simulated = any_simulated(recordings)
    loader = DataLoader(datasets["test"], EVALUATION_BATCH, collate_fn=collate)
    scores = evaluate_reconstruction(model, loader, simulated=simulated, seed=options.seed)
    examples = reconstruction_examples(model, _spread(datasets, collate))
    release = Release(output, model, trained_on, chosen, seen, simulated, command, settings, datasets)
    return release.write("Pretraining", log, reconstruction=scores, examples=examples)


def pretraining_model(
    model: Path | None = None, config: Path | None = None, *, window_length: int = 128, seed: int = 0
) -> NeurtForMaskedSignalModeling:
    """The model to train.

    Args:
        model: Folder or Hub name of weights to start from; a new decoder is made where there is none.
        config: `config.json` of a new model.
        window_length: Positions of a new model when there is no `config`, in frames.
        seed: Seed of new weights.

    Raises:
        ValueError: If both are given, or one cannot be read.
    """
    set_seed(seed)
    if model is not None and config is not None:
        raise ValueError("expected a model or a config, got both; a model brings its own")
    if model is not None:
        return load_quietly(NeurtForMaskedSignalModeling, model, new_head=True)
    if config is not None:
        return NeurtForMaskedSignalModeling(read_config(config))
    return NeurtForMaskedSignalModeling(NeurtConfig(max_position_embeddings=window_length))


def window_processor(
    model: Path | None = None, *, window_stride: int | None = None, **settings: Any
) -> NeurtProcessor:
    """The processor beside a model, or a new one, with other settings.

    Args:
        model: Folder or Hub name.
        window_stride: In frames; by default the window length.
        **settings: Other arguments of `NeurtProcessor`; None leaves one as it was.
    """
    stated = {name: value for name, value in settings.items() if value is not None} | {"window_stride": window_stride}
    return NeurtProcessor(**stated) if model is None else load_processor(model, **stated)


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
        ValueError: If the model, the build, the labels, the split or the output folder cannot be used.
    """
    split = _stated_split(build, split or SplitOptions())
    options = options or TrainingOptions(epochs=5, learning_rate=1e-4)
    _check_output(output, resume)
    processor = processor or load_processor(model)
    recordings = list(read_build(build))
    chosen = _split(recordings, split, options.seed, finetuning.label)
    classes = _class_names(chosen.recordings(recordings, "train"), finetuning.label)
    label2id = {name: index for index, name in enumerate(classes)}
    datasets = _datasets(
        recordings,
        chosen,
        processor,
        label=finetuning.label,
        label2id=label2id,
        missing_neighbours=missing_neighbours,
    )
    classifier = _classifier(model, label2id, options.seed)
    _check_window(classifier, processor)
    seen = _remember_subjects(classifier, datasets)
    settings = {"split": asdict(split), "training": asdict(options), "missing_neighbours": missing_neighbours}
    settings["finetuning"] = asdict(finetuning)
    log = fit(
        classifier,
        parameter_groups(classifier, finetuning, options.learning_rate),
        datasets["train"],
        collate_windows,
        options,
        output / "training",
        _validation(datasets, collate_windows),
        resume,
        _identity(build, settings, chosen, processor, classifier),
    )

    simulated = any_simulated(recordings)
    loader = DataLoader(datasets["test"], EVALUATION_BATCH, collate_fn=collate_windows)
    scores = evaluate_classification(classifier, loader, simulated=simulated, seed=options.seed)
    sides = datasets["train"], datasets["test"]
    scores = beside_simple_statistics(scores, recordings, *sides, processor.normalization)
    release = Release(output, classifier, processor, chosen, seen, simulated, command, settings, datasets)
    return release.write("Fine-tuning", log, classification=scores)


def _classifier(model: Path, label2id: dict[str, int], seed: int) -> NeurtForSequenceClassification:
    """The pretrained encoder under a new head."""
    set_seed(seed)
    id2label = {index: name for name, index in label2id.items()}
    return load_quietly(NeurtForSequenceClassification, model, new_head=True, id2label=id2label, label2id=label2id)


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
    # Never above the layers', however fast those decay.
    embeddings_factor = min(EMBEDDINGS_FACTOR, factors[0] * options.layer_decay) if options.layer_decay < 1 else 1.0
    modules = [(encoder.embeddings, embeddings_factor), *zip(encoder.layers, factors, strict=True)]
    groups = [{"params": list(module.parameters()), "lr": learning_rate * factor} for module, factor in modules]
    head = [model.pooling_query, *model.classifier.parameters()]
    groups.append({"params": head, "lr": options.head_learning_rate})
    return [group for group in groups if group["params"][0].requires_grad]


def _check_output(output: Path, resume: bool):
    if (output / "config.json").exists() and not resume:
        raise ValueError(f"expected an output folder without a model, got {output}; choose another, or move it away")
    if last_checkpoint(output / "training") and not resume:
        raise ValueError(f"expected a new output folder, got an unfinished run in {output}; pass --resume to go on")


def _check_window(model: PreTrainedModel, processor: NeurtProcessor):
    longest = model.config.max_position_embeddings
    if processor.window_length > longest:
        raise ValueError(f"expected windows of at most {longest} frames for this model, got {processor.window_length}")


def _identity(
    build: Path, settings: dict, split: Split, processor: NeurtProcessor, model: PreTrainedModel
) -> dict[str, Any]:
    """What must be the same for a run to be resumed; a model that has met the test animals must not go on."""
    architecture = {k: v for k, v in model.config.to_diff_dict().items() if k != "transformers_version"}
    data = {entry["path"]: entry["sha256"] for entry in read_manifest(build)["files"]}
    identity = {"data": data, "split": split.to_dict(), "processor": processor.to_dict(), "model": architecture}
    return settings | identity


def describe_training(processor: NeurtProcessor, recordings: Sequence[Recording]) -> NeurtProcessor:
    """The processor to release: it expects the frame rate and trace kind of training, so that others give a warning.

    It expects nothing where the recordings differ: rates by over 10 % from their median, or in trace kind.
    """
    described = copy.copy(processor)
    rates, kinds = [recording.sampling_rate for recording in recordings], {each.trace_kind for each in recordings}
    median = float(np.median(rates))
    described.sampling_rate = median if np.allclose(rates, median, rtol=0.1) else None
    described.trace_kind = kinds.pop() if len(kinds) == 1 else None
    return described


def _remember_subjects(model: PreTrainedModel, datasets: dict[str, WindowDataset]) -> list[str]:
    """Store the animals of this training in the model's configuration; returns those of the test that it has seen."""
    trained = [datasets[part].subject_ids for part in ("train", "validation") if part in datasets]
    seen = set(model.config.pretraining_subjects or ()).union(*trained)
    model.config.pretraining_subjects = sorted(seen)
    return sorted(seen.intersection(datasets["test"].subject_ids))


def _stated_split(build: Path, options: SplitOptions) -> SplitOptions:
    """Hold out what the build calls its test split, unless the options name what to hold out."""
    group = f"{options.split_by}_id"
    test = {entry.get(group) for entry in read_manifest(build)["files"] if entry["split"] == "test"}
    return options if options.test or not test else replace(options, test=tuple(sorted(test)))


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
        train, validation, test = (split.recordings(recordings, part) for part in ("train", "validation", "test"))
        check_disjoint(train + validation, test)
    return split


def _datasets(
    recordings: Sequence[Recording], split: Split, processor: NeurtProcessor, **options
) -> dict[str, WindowDataset]:
    """Windows of each part of the split that has recordings."""
    parts = {part: split.recordings(recordings, part) for part in ("train", "validation", "test")}
    datasets = {}
    for part, members in parts.items():
        try:
            datasets |= {part: WindowDataset(members, processor, **options)} if members else {}
        except ValueError as error:
            raise ValueError(f"{part} recordings: {error}") from error
    return datasets


def _class_names(recordings: Sequence[Recording], label: str) -> list[str]:
    """The classes there are to learn; a test animal of another one is refused when its windows are cut."""
    classes = sorted({label_of(recording, label) for recording in recordings})
    if len(classes) < 2:
        raise ValueError(f"expected at least two classes of {label!r} to train on, got {', '.join(classes)}")
    return classes


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
            losses = [(model(**inputs_and_labels(batch, model.device)).loss, len(batch["labels"])) for batch in loader]
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
