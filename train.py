"""Pretrain and fine-tune NEuRT.

    neurt pretrain BUILD --output MODEL                                        one process, on a GPU if there is one
    neurt finetune BUILD --model MODEL --label genotype --output CLASSIFIER

Several processes share the work when they are started with `accelerate launch`, the same for both commands:

    accelerate launch --multi_gpu --num_processes 8 \\
        -m neurt.train pretrain BUILD --output MODEL --mixed-precision bf16            eight GPUs of one machine
    accelerate launch --multi_gpu --num_machines 4 --num_processes 32 --machine_rank RANK \\
        --main_process_ip ADDRESS --main_process_port 29500 \\
        -m neurt.train pretrain BUILD --output MODEL                                   on each of four machines
    accelerate launch -m neurt.train pretrain BUILD --output MODEL                     as `accelerate config` says
    ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 -m neurt.train pretrain ...   on CPUs

RANK counts the machines from 0, ADDRESS is that of machine 0, and BUILD and MODEL are on a disk that all of them see.
(accelerate's own --cpu starts one process, whatever --num_processes says. Each process holds the whole model: FSDP and
DeepSpeed are refused.)

A batch size counts the windows of one optimiser step over all processes, so the same command trains the same way
everywhere. Interrupted, the same command with --resume goes on, on as many processes as before. A build larger than
memory: --cache FOLDER, on a local disk of each machine.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from .baselines import beside_simple_statistics
from .configuration_neurt import NeurtConfig
from .dataset_scripts.parquet_build import read_build
from .distribution import load_reference, measure_reference
from .evaluation import (
    BASELINES,
    Baseline,
    ClassificationScores,
    ReconstructionExample,
    ReconstructionScores,
    evaluate_classification,
    evaluate_reconstruction,
    reconstruction_examples,
)
from .loading import load_processor, load_quietly, read_config
from .masking import PRETRAINING_TASKS, MaskedSignalCollator, collate_windows
from .modeling_neurt import NeurtForMaskedSignalModeling, NeurtForSequenceClassification
from .processing_neurt import NeurtProcessor
from .release import Release
from .training.checkpoints import last_checkpoint
from .training.data import TrainingData, describe_training, open_data
from .training.loop import fit
from .training.options import FinetuneOptions, SplitOptions, TrainingOptions
from .training.validation import mean_loss

# Factor on the embeddings' learning rate where layers decay; the original's (0.8³, while its layers follow 0.9ᵏ).
EMBEDDINGS_FACTOR = 0.512
VALIDATION_WINDOWS = 2048
EVALUATION_BATCH = 128
BEFORE = "model before training"


def pretrain(
    build: Path,
    output: Path,
    *,
    model: NeurtForMaskedSignalModeling | None = None,
    processor: NeurtProcessor | None = None,
    tasks: Mapping[str, float] = PRETRAINING_TASKS,
    split: SplitOptions | None = None,
    options: TrainingOptions | None = None,
    missing_neighbours: str = "error",
    cache: Path | None = None,
    resume: bool = False,
    command: str = "neurt pretrain",
) -> dict[str, Any]:
    """Pretrain by reconstructing what is hidden; test on held-out animals beside interpolation.

    A model that was opened from a folder or the Hub is tested before the training too, on the same windows.

    Args:
        build: Parquet build.
        output: Folder of the model; must not hold one unless `resume`.
        model: What to train; by default a new one, see `pretraining_model`. Its configuration is told the animals.
        processor: Cuts the windows.
        tasks: Weight of each task by which windows are hidden in training and validation; see `MaskedSignalCollator`.
        split: Who trains and who is tested; by default a tenth of the training animals chooses the checkpoint.
        options: How to train.
        missing_neighbours: "mask" to train on recordings without positions as well.
        cache: Folder for the windows of a build that is larger than memory: 20 bytes for each neuron and frame.
        resume: Go on from the last checkpoint.
        command: What regenerates the run, for the summary.

    Returns:
        The results, as written to `results.json`.

    Raises:
        ValueError: If the tasks, the build, the split or the output folder cannot be used.
    """
    options, processor = options or TrainingOptions(), processor or NeurtProcessor()
    model = model or pretraining_model(window_length=processor.window_length, seed=options.seed)
    rate = model.config.default_sampling_rate
    collate = MaskedSignalCollator(options.seed, tasks=tasks, default_sampling_rate=rate)
    _check_output(output, resume)
    _check_window(model, processor)
    split = split or SplitOptions(validation_fraction=0.1)
    data = open_data(build, processor, split, seed=options.seed, missing_neighbours=missing_neighbours, cache=cache)
    seen = _remember_subjects(model, data)
    settings = {"split": asdict(data.options), "training": asdict(options), "missing_neighbours": missing_neighbours}
    settings["pretraining"] = {"tasks": dict(tasks)}
    groups = [{"params": list(model.parameters())}]
    validate, identity = _validation(data, collate), _identity(data, settings, processor, model)
    train, folder = data.datasets["train"], output / "training"
    before = _scores_before(model, data, options.seed)
    start = time.monotonic()
    log = fit(model, groups, train, collate, options, folder, validate, resume, identity)
    hours = None if resume else (time.monotonic() - start) / 3600

    trained_on = describe_training(processor, data.split.recordings(data.recordings, "train"))
    release = Release(output, model, trained_on, data, seen, command, settings, hours)
    reference = measure_reference(model, processor, data, seed=options.seed, missing_neighbours=missing_neighbours)
    scores = reconstruction_scores(model, data, options.seed, BASELINES)
    return release.write(
        "Pretraining",
        log,
        reconstruction=replace(scores, rows=scores.rows + before),
        examples=_examples(model, data, options.seed),
        reference=reference,
    )


def _scores_before(model: NeurtForMaskedSignalModeling, data: TrainingData, seed: int) -> list[dict[str, Any]]:
    """The rows of weights that training goes on from; none of a new model, which can do nothing yet."""
    if not model.name_or_path:
        return []
    scores = reconstruction_scores(model.to(PartialState().device), data, seed, {})
    return [{**row, "predictor": BEFORE} for row in scores.rows]


def reconstruction_scores(
    model: NeurtForMaskedSignalModeling, data: TrainingData, seed: int, baselines: Mapping[str, Baseline]
) -> ReconstructionScores:
    """Scores on hidden spans of the test windows, whatever the model was trained on."""
    loader = DataLoader(data.datasets["test"], EVALUATION_BATCH, collate_fn=MaskedSignalCollator(seed))
    return evaluate_reconstruction(model, loader, simulated=data.simulated, seed=seed, baselines=baselines)


def score_again(folder: Path, build: Path, results: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Test a trained model as its training did.

    Args:
        folder: What `pretrain` or `finetune` made.
        build: The Parquet build that it was trained on.
        results: Its `results.json`, from which all settings are.

    Returns:
        The scores, by the name that they have in the results; SHA-256 of the split.

    Raises:
        ValueError: If the results are not as they were written, or the build cannot be split as it was.
    """
    try:
        settings, kind = results["settings"], "classification" if "classification" in results else "reconstruction"
        split, seed = SplitOptions(**settings["split"]), int(settings["training"]["seed"])
        label = settings["finetuning"]["label"] if kind == "classification" else None
        missing_neighbours = settings["missing_neighbours"]
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{folder}: expected results as a training writes them, got others") from None
    processor = load_processor(folder)
    data = open_data(build, processor, split, seed=seed, label=label, missing_neighbours=missing_neighbours)
    if kind == "reconstruction":
        model = load_quietly(NeurtForMaskedSignalModeling, folder)
        scores = reconstruction_scores(model, data, seed, BASELINES)
    else:
        model = load_quietly(NeurtForSequenceClassification, folder)
        scores = classification_scores(model, data, processor.normalization, seed)
    return {kind: scores.to_dict()}, data.split.to_dict()["sha256"]


def _examples(model: NeurtForMaskedSignalModeling, data: TrainingData, seed: int) -> list[ReconstructionExample]:
    """Four test windows for the figure."""
    sample = data.sample("test", 4)
    return reconstruction_examples(model, MaskedSignalCollator(seed)([sample[i] for i in range(len(sample))]))


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
    options = options or TrainingOptions(epochs=5, learning_rate=1e-4)
    _check_output(output, resume)
    processor, reference = processor or load_processor(model), load_reference(model)
    data = open_data(
        build,
        processor,
        split or SplitOptions(),
        seed=options.seed,
        label=finetuning.label,
        missing_neighbours=missing_neighbours,
    )
    classifier = _classifier(model, data.label2id, options.seed)
    _check_window(classifier, processor)
    seen = _remember_subjects(classifier, data)
    settings = {"split": asdict(data.options), "training": asdict(options), "missing_neighbours": missing_neighbours}
    settings["finetuning"] = asdict(finetuning)
    groups = parameter_groups(classifier, finetuning, options.learning_rate)
    validate, identity = _validation(data, collate_windows), _identity(data, settings, processor, classifier)
    train, folder = data.datasets["train"], output / "training"
    start = time.monotonic()
    log = fit(classifier, groups, train, collate_windows, options, folder, validate, resume, identity)
    hours = None if resume else (time.monotonic() - start) / 3600

    scores = classification_scores(classifier, data, processor.normalization, options.seed)
    release = Release(output, classifier, processor, data, seen, command, settings, hours)
    return release.write("Fine-tuning", log, classification=scores, reference=reference)


def classification_scores(
    model: NeurtForSequenceClassification, data: TrainingData, normalization: str, seed: int
) -> ClassificationScores:
    """Scores on the test windows, beside those of simple statistics of the same recordings."""
    loader = DataLoader(data.datasets["test"], EVALUATION_BATCH, collate_fn=collate_windows)
    scores = evaluate_classification(model, loader, simulated=data.simulated, seed=seed)
    sides = data.datasets["train"], data.datasets["test"]
    return beside_simple_statistics(scores, list(read_build(data.build)), *sides, normalization)


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
    groups[-1]["params"] += encoder.norm.parameters()  # which reads the last layer
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


def _identity(data: TrainingData, settings: dict, processor: NeurtProcessor, model: PreTrainedModel) -> dict[str, Any]:
    """What must be the same for a run to be resumed; a model that has met the test animals must not go on."""
    architecture = {k: v for k, v in model.config.to_diff_dict().items() if k != "transformers_version"}
    return settings | data.identity() | {"processor": processor.to_dict(), "model": architecture}


def _remember_subjects(model: PreTrainedModel, data: TrainingData) -> list[str]:
    """Store the animals of this training in the model's configuration; returns those of the test that it has seen."""
    seen = data.trained_subjects.union(model.config.pretraining_subjects or ())
    model.config.pretraining_subjects = sorted(seen)
    return sorted(seen.intersection(data.datasets["test"].subject_ids))


def _validation(data: TrainingData, collate: Callable) -> Callable[[PreTrainedModel], float] | None:
    """The mean loss over a fixed sample of the validation windows, as a function of the model."""
    # Their epoch stays 0, so that they are hidden in the same way each time.
    return mean_loss(data.sample("validation", VALIDATION_WINDOWS), collate) if "validation" in data.datasets else None


if __name__ == "__main__":
    from neurt.cli import main

    main()
