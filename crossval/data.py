"""What a study reads: recordings, their animals, and the windows that every predictor gets to see."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..dataset_scripts.parquet_build import read_build
from ..dataset_scripts.recording import Recording
from ..dataset_scripts.windows import WindowDataset
from ..loading import load_processor
from ..processing_neurt import NeurtProcessor
from .cohort import CLASSIFICATION, REGRESSION, Cohort, make_cohort
from .permutations import MOST
from .protocol import Scheme, default_scheme

# Of each class: one is held out, and of the others one is held out again, to fit the temperature. Of numbers: two are
# compared, and two others are learnt from.
FEWEST, FEWEST_NUMBERS = 3, 4
# Names of the two predictors that are NEuRT.
PROBE, FINETUNED = "NEuRT, frozen", "NEuRT, fine-tuned"


@dataclass(frozen=True)
class StudyOptions:
    """What is asked of a study.

    Args:
        label: What is to be told of the animals, a label of the build.
        stratum: Label within which animals could have been dealt out otherwise: cage, litter, date.
        problem_type: "single_label_classification" or "regression".
        scheme: How animals are held out; by default leave-pair-out for two classes, unless a model is fine-tuned, else
            stratified folds.
        permutations: Most labellings to try for a p-value; 0 for none.
        windows: Most windows of a recording that a model reads, drawn at random.
        missing_neighbours: "mask" to use recordings without positions as well.
        finetune: Recipe by which the model is fine-tuned in each fold as well; None keeps the encoder frozen.
        finetune_permutations: Labellings for which it is fine-tuned anew; 0 for none.
        abstain: Whether recordings unlike those of the model's pretraining are left out.
        left_out: Ids of recordings that are not used.
        seed: Of folds, permutations, bootstrap and samples.

    Raises:
        ValueError: If a value is out of its range, or labellings are asked for that nothing is fine-tuned for.
    """

    label: str
    stratum: str | None = None
    problem_type: str = CLASSIFICATION
    scheme: Scheme | None = None
    permutations: int = MOST
    windows: int = 512
    missing_neighbours: str = "error"
    finetune: str | None = None
    finetune_permutations: int = 0
    abstain: bool = False
    left_out: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self):
        for name, least in {"permutations": 0, "finetune_permutations": 0, "windows": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"expected {name} of {least} or more, got {getattr(self, name)}")
        if self.missing_neighbours not in ("error", "mask"):
            raise ValueError(f"expected missing_neighbours of error or mask, got {self.missing_neighbours!r}")
        if self.finetune_permutations and self.finetune is None:
            raise ValueError("expected a recipe to fine-tune by for each labelling, got none; pass --finetune default")


@dataclass(frozen=True, eq=False)
class StudyData:
    """Everything that is known before anything is embedded or fitted.

    Args:
        options: What was asked.
        recordings: Those that give windows.
        cohort: Their animals.
        processor: Cuts the windows.
        dataset: All windows.
        rows: Those of them that are used; int (n,).
    """

    options: StudyOptions
    recordings: Sequence[Recording]
    cohort: Cohort
    processor: NeurtProcessor
    dataset: WindowDataset
    rows: np.ndarray

    @functools.cached_property
    def scheme(self) -> Scheme:
        options = self.options
        return options.scheme or default_scheme(self.cohort, options.seed, few=options.finetune is not None)

    @property
    def window_recordings(self) -> np.ndarray:
        """The place of each used window's recording in `recordings`; int (n,)."""
        return self.dataset.window_recordings[self.rows]


def open_study_data(build: Path, model: str | Path, options: StudyOptions) -> StudyData:
    """Read the recordings, cut their windows as a model expects them, and read off the animals' labels.

    Args:
        build: Parquet build.
        model: Folder or Hub name of a model, with its processor.
        options: What is asked.

    Raises:
        ValueError: If the build, the labels or the model cannot be used.
    """
    processor = load_processor(model)
    recordings = [recording for recording in read_build(build) if recording.recording_id not in options.left_out]
    dataset = WindowDataset(recordings, processor, missing_neighbours=options.missing_neighbours)
    used = [recording for recording in recordings if recording.recording_id in set(dataset.recording_ids)]
    cohort = make_cohort(used, options.label, problem_type=options.problem_type, stratum=options.stratum)
    _check_enough(cohort, options.label)
    return StudyData(options, used, cohort, processor, dataset, dataset.sample(options.windows, options.seed))


def _check_enough(cohort: Cohort, label: str):
    if cohort.problem_type == REGRESSION:
        if len(cohort.subjects) < FEWEST_NUMBERS:
            raise ValueError(f"expected at least {FEWEST_NUMBERS} subjects for a number, got {len(cohort.subjects)}")
        return
    counts = {name: int(members.sum()) for name, members in cohort.groups.items()}
    if min(counts.values()) < FEWEST:
        said = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise ValueError(f"expected at least {FEWEST} subjects of each {label} for a study, got {said}")
