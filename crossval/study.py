"""A study of groups of animals: a frozen encoder and its baselines on the same folds, and what could be wrong with it.

results = crossval(Path("BUILD"), Path("STUDY"), model=Path("MODEL"), options=StudyOptions("genotype"))
"""

import dataclasses
import functools
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Subset
from tqdm import tqdm

from ..baselines import SIMPLE_STATISTICS, recording_statistics
from ..dataset_scripts.recording import any_simulated
from ..distribution import Comparison, compare_with_pretraining
from ..evaluation import json_ready
from ..loading import load_quietly
from ..metrics.subject_classification import subject_classification_scores
from ..modeling_neurt import NeurtModel
from ..writing_aside import folder_aside, require_new
from .baseline_features import channel_features, columns_of_all, minirocket_features, windows_of_recordings
from .cohort import REGRESSION
from .confounds import confound_table
from .data import PROBE, StudyData, StudyOptions, open_study_data
from .embeddings import WindowFeatures, embed_windows
from .finetuning import Finetuned, StudySource, parse_recipe
from .leaks import check_folds, identity_decoding, seen_in_pretraining, window_split_optimism
from .learners import Learner, logistic, pca_lda, ridge
from .permutations import MOST, power_note
from .protocol import Held, Predictor, WindowPredictor, cross_validate, difference, score_name
from .provenance import provenance
from .report import write_report

CHANNEL_STATISTICS, MINIROCKET = "statistics of all channels, PCA and LDA", "MiniRocket"
NO_RANKS = "no AUC: scores of leave-one-out are of different models"


@dataclass(frozen=True, eq=False)
class Study(StudyData):
    """What is known before anything is fitted.

    Args:
        windows: As the encoder sees them.
        seen: Animals that the encoder has seen in its training.
        comparison: How the recordings lie among those of its pretraining, those that are left out among them.
    """

    windows: WindowFeatures
    seen: list[str]
    comparison: Comparison

    @property
    def learner(self) -> Learner:
        return ridge if self.cohort.problem_type == REGRESSION else logistic

    @functools.cached_property
    def probe(self) -> WindowPredictor:
        """A linear model on what the frozen encoder makes of the windows."""
        windows = self.windows
        return WindowPredictor(PROBE, windows.of_recordings(), self.learner, windows.values, windows.recording)


def crossval(
    build: Path,
    output: Path,
    *,
    model: str | Path,
    options: StudyOptions,
    jobs: int = 1,
    command: str = "neurt crossval",
) -> dict[str, Any]:
    """Hold animals out in turn, tell them by what a frozen encoder makes of them, and put it beside its baselines.

    Where the model is fine-tuned as well, scores of folds are kept beside `output` in a folder of the same name that
    ends in `.folds`, from which an interrupted study goes on.

    Args:
        build: Parquet build.
        output: Folder to make, with `report.md`, `results.json` and figures.
        model: Folder or Hub name of the pretrained model.
        options: What is asked.
        jobs: Folds in which the model is fine-tuned at a time.
        command: What regenerates the study.

    Returns:
        The results, as written to `results.json`.

    Raises:
        ValueError: If the build, the labels or the model cannot be used, animals are too few, one stands on both sides
            of a fold, the model cannot tell which recordings to abstain on, or the output exists.
    """
    require_new(output, "an output folder")
    if jobs < 1:
        raise ValueError(f"expected one fold at a time or more, got {jobs} jobs")
    recipe = None if options.finetune is None else parse_recipe(options.finetune)
    study = open_study(build, model, options)
    options, folds = study.options, study.scheme.make(study.cohort)
    check_folds(study.recordings, study.cohort, folds)
    chosen = predictors(study)
    if recipe is not None:
        kept, source = output.with_name(f"{output.name}.folds"), StudySource(build, model, options)
        chosen.insert(0, Finetuned(study, source, recipe, kept, jobs))
    held = {predictor.name: _cross_validate(study, predictor) for predictor in chosen}
    first = held[chosen[0].name]
    results = {
        "command": command,
        "simulated": any_simulated(study.recordings),
        "options": dataclasses.asdict(options) | {"scheme": str(study.scheme)},
        **_about(study),
        "provenance": provenance(build, model, study.cohort, folds),
        "score_name": score_name(study.cohort, study.scheme),
        "predictors": {name: _summary(study, found, first) for name, found in held.items()},
        "levels": _levels(study, chosen[0]),
        "checks": _checks(study),
    }
    with folder_aside(output) as aside:
        (aside / "results.json").write_text(json.dumps(json_ready(results), indent=1) + "\n", encoding="utf-8")
        write_report(results, aside)
    return results


def open_study(build: Path, model: str | Path, options: StudyOptions) -> Study:
    """Read the recordings, cut and embed their windows, and read off the animals' labels."""
    data, encoder = open_study_data(build, model, options), load_quietly(NeurtModel, model).eval()
    how = {"seed": options.seed, "missing_neighbours": options.missing_neighbours}
    comparison = compare_with_pretraining(model, data.recordings, data.processor, **how)
    if options.abstain:
        data = _abstaining(build, model, options, comparison)
    windows = embed_windows(encoder, data.dataset, data.rows, functools.partial(tqdm, desc="windows", unit="batch"))
    known = {field.name: getattr(data, field.name) for field in dataclasses.fields(data)}
    return Study(
        **known, windows=windows, seen=seen_in_pretraining(encoder.config, data.cohort), comparison=comparison
    )


def _abstaining(build: Path, model: str | Path, options: StudyOptions, comparison: Comparison) -> StudyData:
    """The study without recordings unlike those of the pretraining."""
    if comparison.reference is None:
        raise ValueError(
            f"expected a model to compare recordings by, got {model}: {comparison.why_not}; leave --abstain out"
        )
    try:
        left_out = (*options.left_out, *comparison.outside)
        return open_study_data(build, model, dataclasses.replace(options, left_out=left_out))
    except ValueError as error:
        left = f"{len(comparison.outside)} of {len(comparison.recordings)} recordings"
        raise ValueError(f"{error}; without {left}, which are unlike those of the pretraining") from error


def predictors(study: Study) -> list[Predictor]:
    """The probe, and its baselines on the same recordings; MiniRocket where it is installed."""
    normalization = study.processor.normalization
    simple = np.stack([recording_statistics(recording, normalization) for recording in study.recordings])
    chosen = [study.probe, Predictor(SIMPLE_STATISTICS, simple, study.learner)]
    if study.cohort.problem_type != REGRESSION:
        rows = [channel_features(*each) for each in zip(study.recordings, study.dataset.by_recording, strict=True)]
        chosen.append(Predictor(CHANNEL_STATISTICS, columns_of_all(np.stack(rows)), pca_lda))
    if all(importlib.util.find_spec(package) for package in ("sktime", "numba")):
        windows = windows_of_recordings(Subset(study.dataset, study.rows.tolist()), study.cohort.recording_ids)
        chosen.append(Predictor(MINIROCKET, minirocket_features(windows, study.options.seed), study.learner))
    return chosen


def _cross_validate(study: Study, predictor: Predictor | Finetuned) -> Held:
    options = study.options
    permutations = options.finetune_permutations if isinstance(predictor, Finetuned) else options.permutations
    return cross_validate(
        predictor,
        study.cohort,
        study.scheme,
        permutations=permutations,
        seed=options.seed,
        progress=functools.partial(tqdm, desc=f"{predictor.name}: labellings", unit="labelling"),
    )


def _about(study: Study) -> dict[str, Any]:
    cohort = study.cohort
    return {
        "subjects": dict(zip(cohort.subjects, cohort.targets.tolist(), strict=True)),
        "class_names": list(cohort.class_names),
        "num_recordings": len(cohort.recording_ids),
        "num_windows": len(study.windows.recording),
        "skipped": study.dataset.skipped,
    }


def _summary(study: Study, held: Held, first: Held) -> dict[str, Any]:
    """Score, interval, p-value, how much worse than the first, and the score of every subject."""
    found = {"score": held.score, "interval": held.interval, "subjects": held.subjects.tolist()}
    if held.test is not None:
        test = held.test
        found |= {"p_value": test.p_value, "exact": test.exact, "labellings": test.num_labellings}
        found["smallest_p"] = test.smallest_p
    if held is not first:
        less, interval = difference(first, held, study.cohort, study.options.seed)
        found |= {"probe_is_better_by": less, "difference_interval": interval}
    return found


def _levels(study: Study, predictor: WindowPredictor | Finetuned) -> dict[str, Any]:
    """Scores of windows, recordings and subjects; empty for a continuous target."""
    cohort, scheme = study.cohort, study.scheme
    if cohort.problem_type == REGRESSION:
        return {}
    rows = study.windows.recording
    logits, cooled = predictor.window_logits(cohort, scheme), predictor.calibrated(cohort, scheme)
    owners = [cohort.subjects[subject] for subject in cohort.recording_subjects]
    names, subjects = [cohort.recording_ids[row] for row in rows], [owners[row] for row in rows]
    levels = subject_classification_scores(logits, cohort.recording_targets[rows], names, subjects)
    after = subject_classification_scores(cooled, cohort.recording_targets, cohort.recording_ids, owners)["subject"]
    levels["subject, after temperature scaling"] = after
    if not scheme.ranks:
        for row in levels.values():
            row |= {"roc_auc": float("nan"), "undefined": NO_RANKS}
    return levels


def _checks(study: Study) -> dict[str, Any]:
    """Leaks and confounds."""
    cohort, seed = study.cohort, study.options.seed
    identified = identity_decoding(study.windows, cohort, logistic, study.processor.window_length, seed=seed)
    return {
        "seen_in_pretraining": study.seen,
        # As importing names them where no subject is stated.
        "sessions_as_subjects": all(recording.subject_id == recording.session_id for recording in study.recordings),
        "distribution": study.comparison.to_dict(),
        # Without a test asked for: what one would have found.
        "power": power_note(cohort.targets, cohort.strata, study.options.permutations or MOST),
        "confounds": [dataclasses.asdict(row) for row in confound_table(study.recordings, cohort, seed=seed)],
        "window_split": dataclasses.asdict(window_split_optimism(study.windows, cohort, study.learner, seed=seed)),
        "identity": [dataclasses.asdict(row) for row in identified],
    }
