"""The whole model, fine-tuned to the training animals of each fold, where the probe keeps the encoder frozen.

    tuned = Finetuned(data, StudySource(BUILD, MODEL, options), Recipe(), Path("FOLDS"))
    found = cross_validate(tuned, cohort, scheme, permutations=0)

Some of the training animals stand aside in each fold: their loss chooses the epoch, and their scores the temperature.
What a fold gives is kept in a file named after all that it depends on, so that an interrupted study goes on where it
was, and a study with one more fold makes that one only.

Symbols: n windows, K classes, S subjects.
"""

import dataclasses
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm
from transformers import PreTrainedModel

from ..dataset_scripts.field_runners import run_in_processes
from ..loading import load_quietly
from ..masking import collate_windows, model_inputs
from ..modeling_neurt import NeurtForSequenceClassification
from ..train import parameter_groups
from ..training.loop import fit
from ..training.options import FinetuneOptions, TrainingOptions
from ..training.validation import mean_loss
from ..writing_aside import file_aside
from .cohort import REGRESSION, Cohort
from .data import FINETUNED, StudyData, StudyOptions, open_study_data
from .folds import Fold
from .learners import FoldScores
from .protocol import Scheme, mean_over_folds
from .provenance import manifest_digest, model_digests
from .temperature import fit_temperature

# Of the training animals of a fold, the share that chooses the epoch; none where a class has fewer than three.
INNER_SHARE = 0.2
FEWEST_TO_CHOOSE = 3
BATCH_SIZE = 128


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the model is fine-tuned in each fold.

    Args:
        freeze: "none", "embeddings" or "encoder": what keeps its pretrained weights.
        layer_decay: Factor on the learning rate from each layer to the one below it.
        head_learning_rate: Learning rate of the pooling query and the classifier.
        training: Epochs (the most there may be), batch size, learning rate, patience.
    """

    freeze: str = FinetuneOptions.freeze
    layer_decay: float = FinetuneOptions.layer_decay
    head_learning_rate: float = FinetuneOptions.head_learning_rate
    training: TrainingOptions = TrainingOptions(epochs=8, learning_rate=1e-4, patience=2)


# The original's learning rates, decay and batch. How many epochs it took is not published.
RECIPES = {
    "default": Recipe(),
    "original": Recipe(
        head_learning_rate=1e-6,
        training=TrainingOptions(
            epochs=20, batch_size=256, learning_rate=1e-6, warmup_fraction=0.0, schedule="constant_with_warmup"
        ),
    ),
}


def parse_recipe(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        ValueError: If there is none.
    """
    if name not in RECIPES:
        raise ValueError(f"expected a recipe among {', '.join(RECIPES)}, got {name!r}")
    return RECIPES[name]


@dataclasses.dataclass(frozen=True)
class StudySource:
    """The pretrained model, and from what another process opens the windows; arguments as of `open_study_data`."""

    build: Path
    model: str | Path
    options: StudyOptions

    @functools.cached_property
    def digests(self) -> dict[str, Any]:
        """Of the files that windows and models are made from; read once, for there may be many folds."""
        return {"build": manifest_digest(self.build), "model": model_digests(self.model)}


@dataclasses.dataclass(frozen=True, eq=False)
class WindowScores:
    """What a fine-tuned model says of the windows of held-out animals.

    Args:
        rows: int (n,), which of the study's windows.
        logits: (n, K), or predicted numbers (n,).
        temperature: By which to divide the logits; 1 where no animal could stand aside.
    """

    rows: np.ndarray
    logits: np.ndarray
    temperature: float


@dataclasses.dataclass(frozen=True, eq=False)
class Finetuned:
    """A predictor, as `protocol.Predictor`, that fine-tunes a model in each fold.

    Args:
        data: The windows.
        source: The pretrained model, and where the windows are from.
        recipe: How it is fine-tuned.
        folder: Where the scores of folds are kept.
        jobs: Folds that are fine-tuned at a time, each in a process of its own.
        name: For people.
    """

    data: StudyData
    source: StudySource
    recipe: Recipe
    folder: Path
    jobs: int = 1
    name: str = FINETUNED

    def score_folds(self, cohort: Cohort, folds: Sequence[Fold]) -> list[FoldScores]:
        """Scores of the recordings of each fold's test animals: means over their windows."""
        return [_of_recordings(self.data, cohort, fold, found) for fold, found in self._folds(cohort, folds)]

    def window_logits(self, cohort: Cohort, scheme: Scheme) -> np.ndarray:
        """Logits (n, K) or numbers (n,) of all windows of the study: means over the folds that held each out."""
        found = self._folds(cohort, scheme.make(cohort))
        return mean_over_folds([FoldScores(fold, each.rows, each.logits) for fold, each in found], len(self.data.rows))

    def calibrated(self, cohort: Cohort, scheme: Scheme) -> np.ndarray:
        """Logits of recordings (R, K), divided by the temperature of the animals that stood aside in each fold."""
        cooled = []
        for fold, found in self._folds(cohort, scheme.make(cohort)):
            scaled = dataclasses.replace(found, logits=found.logits / found.temperature)
            cooled.append(_of_recordings(self.data, cohort, fold, scaled))
        return mean_over_folds(cooled, len(cohort.recording_ids))

    def _folds(self, cohort: Cohort, folds: Sequence[Fold]) -> Iterator[tuple[Fold, WindowScores]]:
        places = [self.folder / _name(self.source, self.recipe, cohort, fold) for fold in folds]
        missing = [(fold, place) for fold, place in zip(folds, places, strict=True) if not place.is_file()]
        if self.jobs == 1 or len(missing) < 2:
            for fold, place in missing:
                _keep(self.data, self.source.model, self.recipe, cohort, fold, place)
        else:
            _in_processes(self.source, [(self.recipe, cohort, *each) for each in missing], self.jobs)
        return zip(folds, map(_load, places), strict=True)


class BalancedWindows(Dataset):
    """Windows of some animals, drawn so that each class counts the same, and within it each animal.

    As many an epoch as there are; those of rarer classes and of animals with fewer windows come more than once.

    Args:
        windows: All windows.
        groups: For each animal, the places of its windows, int.
        targets: For each animal, a class id or a number, which its windows carry as `labels`.
        regression: Whether targets are numbers; then each animal counts the same.
        seed: Of the draw, anew in each epoch.
    """

    def __init__(
        self, windows: Dataset, groups: Sequence[np.ndarray], targets: np.ndarray, regression: bool, seed: int
    ):
        self.windows, self.groups, self.seed = windows, groups, seed
        self.targets = targets.astype(np.float32) if regression else targets
        classes = np.zeros(len(targets), dtype=int) if regression else np.unique(targets, return_inverse=True)[1]
        share = 1 / (np.bincount(classes)[classes] * (classes.max() + 1))
        self.counts = np.maximum(1, np.round(share * sum(map(len, groups)))).astype(int)
        self.set_epoch(0)

    def set_epoch(self, epoch: int):
        """Draw the windows of another epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        drawn = [np.resize(rng.permutation(rows), count) for rows, count in zip(self.groups, self.counts, strict=True)]
        self.rows = np.concatenate(drawn)
        self.labels = np.repeat(self.targets, self.counts)

    def __len__(self) -> int:
        return int(self.counts.sum())

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.windows[int(self.rows[index])], "labels": self.labels[index]}


def stand_aside(cohort: Cohort, subjects: np.ndarray, seed: int) -> np.ndarray:
    """The animals of a training fold that choose the epoch: a fifth of each class, at least one.

    Args:
        cohort: The animals and their targets.
        subjects: Places of the training animals in it.
        seed: Of the draw.

    Returns:
        Their places, sorted; none where a class, or a study of numbers, has fewer than three to train on.
    """
    regression = cohort.problem_type == REGRESSION
    classes = np.zeros(len(subjects)) if regression else cohort.targets[subjects]
    members = [subjects[classes == value] for value in np.unique(classes)]
    if min(map(len, members)) < FEWEST_TO_CHOOSE:
        return np.array([], dtype=int)
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(each)[: max(1, round(INNER_SHARE * len(each)))] for each in members]
    return np.sort(np.concatenate(drawn))


def finetune_fold(
    data: StudyData, model: str | Path, recipe: Recipe, cohort: Cohort, fold: Fold, folder: Path
) -> WindowScores:
    """Fine-tune to the training animals of a fold, and score the windows of the others.

    Args:
        data: The windows.
        model: Folder or Hub name of the pretrained model.
        recipe: How to fine-tune.
        cohort: The animals, with the labels to learn.
        fold: Who is trained on and who is held out.
        folder: For checkpoints, from which an interrupted fold goes on.

    Raises:
        ValueError: If windows are too few for a batch.
    """
    seed, aside = data.options.seed, stand_aside(cohort, fold.train, data.options.seed)
    center, spread = _target_scale(cohort, fold)
    scaled = cohort.with_targets((cohort.targets - center) / spread) if cohort.problem_type == REGRESSION else cohort
    train = _balanced(data, scaled, np.setdiff1d(fold.train, aside), seed)
    classifier = _classifier(model, cohort, seed)
    options = dataclasses.replace(
        recipe.training, seed=seed, patience=recipe.training.patience if len(aside) else None
    )
    validate = mean_loss(_balanced(data, scaled, aside, seed), collate_windows) if len(aside) else None
    groups = parameter_groups(classifier, recipe, options.learning_rate)
    fit(classifier, groups, train, collate_windows, options, folder, validate, resume=True)
    rows = _rows_of(data, cohort, fold.test)
    logits = center + spread * _logits(classifier, data, rows)
    return WindowScores(rows, logits, _temperature(classifier, data, cohort, aside))


def _temperature(model: PreTrainedModel, data: StudyData, cohort: Cohort, aside: np.ndarray) -> float:
    """That fits the animals that stood aside."""
    if not len(aside) or cohort.problem_type == REGRESSION:
        return 1.0
    rows = [_rows_of(data, cohort, np.array([subject])) for subject in aside]
    return fit_temperature(np.stack([_logits(model, data, own).mean(axis=0) for own in rows]), cohort.targets[aside])


def _rows_of(data: StudyData, cohort: Cohort, subjects: np.ndarray) -> np.ndarray:
    """The windows of some animals among the study's; int, in order."""
    return np.flatnonzero(np.isin(cohort.recording_subjects[data.window_recordings], subjects))


def _of_recordings(data: StudyData, cohort: Cohort, fold: Fold, found: WindowScores) -> FoldScores:
    recordings = cohort.rows_of(fold.test)
    owners = data.window_recordings[found.rows]
    return FoldScores(fold, recordings, np.stack([found.logits[owners == row].mean(axis=0) for row in recordings]))


def _balanced(data: StudyData, cohort: Cohort, subjects: np.ndarray, seed: int) -> BalancedWindows:
    groups = [data.rows[_rows_of(data, cohort, np.array([subject]))] for subject in subjects]
    return BalancedWindows(data.dataset, groups, cohort.targets[subjects], cohort.problem_type == REGRESSION, seed)


def _target_scale(cohort: Cohort, fold: Fold) -> tuple[float, float]:
    """Mean and SD of the numbers of the training animals, in whose scale numbers are learnt; 0 and 1 of classes."""
    if cohort.problem_type != REGRESSION:
        return 0.0, 1.0
    known = cohort.targets[fold.train]
    return float(known.mean()), float(known.std()) or 1.0


def _classifier(model: str | Path, cohort: Cohort, seed: int) -> NeurtForSequenceClassification:
    torch.manual_seed(seed)
    num_labels = len(cohort.class_names) or 1
    return load_quietly(
        NeurtForSequenceClassification, model, new_head=True, num_labels=num_labels, problem_type=cohort.problem_type
    )


def _logits(model: PreTrainedModel, data: StudyData, rows: np.ndarray) -> np.ndarray:
    """(n, K) relative to class 0, or (n,)."""
    loader = DataLoader(Subset(data.dataset, data.rows[rows].tolist()), BATCH_SIZE, collate_fn=collate_windows)
    with torch.inference_mode():
        found = [model(**model_inputs(batch, model.device)).logits.double().cpu() for batch in loader]
    logits = torch.cat(found).numpy()
    return logits[:, 0] if model.num_labels == 1 else logits - logits[:, :1]


def _name(source: StudySource, recipe: Recipe, cohort: Cohort, fold: Fold) -> str:
    """A file name that stands for all that the scores of a fold depend on."""
    options = dataclasses.asdict(source.options)
    said = {
        **source.digests,
        "options": {
            name: options[name] for name in ("windows", "missing_neighbours", "seed", "problem_type", "left_out")
        },
        "recipe": dataclasses.asdict(recipe),
        "recordings": [cohort.recording_ids[row] for row in cohort.rows_of(fold.train)],
        "targets": cohort.targets[fold.train].tolist(),
        "train": [cohort.subjects[subject] for subject in fold.train],
        "test": [cohort.subjects[subject] for subject in fold.test],
    }
    return f"{hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]}.npz"


def _keep(data: StudyData, model: str | Path, recipe: Recipe, cohort: Cohort, fold: Fold, place: Path) -> None:
    """Fine-tune in a fold and keep its scores; checkpoints lie beside until they are written."""
    found = finetune_fold(data, model, recipe, cohort, fold, place.with_suffix(""))
    with file_aside(place) as aside:
        np.savez(aside, rows=found.rows, logits=found.logits, temperature=found.temperature)
    shutil.rmtree(place.with_suffix(""))


def _in_processes(source: StudySource, jobs: Sequence[tuple], at_a_time: int) -> None:
    keep = functools.partial(_keep_elsewhere, source, max(1, (os.cpu_count() or 1) // at_a_time))
    for _ in tqdm(run_in_processes(keep, jobs, at_a_time), "folds", len(jobs), unit="fold"):
        pass


def _keep_elsewhere(source: StudySource, threads: int, job: tuple) -> None:
    torch.set_num_threads(threads)
    _keep(_open_once(source), source.model, *job)


@functools.lru_cache(maxsize=1)
def _open_once(source: StudySource) -> StudyData:
    """A process opens the windows for its first fold."""
    return open_study_data(source.build, source.model, source.options)


def _load(place: Path) -> WindowScores:
    with np.load(place, allow_pickle=False) as arrays:
        return WindowScores(arrays["rows"], arrays["logits"], float(arrays["temperature"]))
