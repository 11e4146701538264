"""Everything that is asked of a classifier on a build, computed once; `report` shows it.

    found = explain(Path("MODEL"), Path("BUILD"), ExplainOptions(label="genotype"))

Shapes: n windows, T frames, C channels, S subjects, N neurons and F frames of a recording.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from ..dataset_scripts.parquet_build import read_build
from ..dataset_scripts.recording import Recording, any_simulated
from ..dataset_scripts.windows import WindowDataset
from ..dataset_scripts.wording import some
from ..inference import is_classifier
from ..loading import load_processor, load_quietly
from ..metrics.subject_classification import subject_classification_scores
from ..modeling_neurt import NeurtForSequenceClassification
from ..processing_neurt import NeurtProcessor
from .aspects import Separation, separate
from .attention import attention_maps
from .attribution import Attribution, attribute, channel_ablation, neuron_importance
from .explained import ExplainedWindows, gather, log_odds, logits_of
from .faithfulness import Method, Trial, Verdict, judge, open_trial
from .group_maps import FEWEST, GroupComparison, compare_groups, profile_by_activity, subjects_of
from .methods import ATTENTION_ROLLOUT, INTEGRATED_GRADIENTS, POOLING_ATTENTION, methods_for
from .neuron_removal import halves, judge_neurons, measuring_half
from .recording_map import contributions, recording_map, relative_weights

Bar = Callable[[Iterable], Iterable]


@dataclass(frozen=True)
class ExplainOptions:
    """What is asked of an explanation.

    Args:
        label: What the classifier tells of the animals, a label of the build; None for animals without one.
        subjects: Animals to explain; all if empty.
        recording: Id of the recording whose map is drawn; by default the first.
        windows: Windows in the sample that methods are tried on, as many of each recording.
        neurons: Windows of each recording on which the importance of its neurons is measured.
        missing_neighbours: "mask" to use recordings without positions as well.
        seed: Of samples, controls and intervals.
    """

    label: str | None = None
    subjects: tuple[str, ...] = ()
    recording: str | None = None
    windows: int = 64
    neurons: int = 128
    missing_neighbours: str = "error"
    seed: int = 0


@dataclass(frozen=True, eq=False)
class RecordingMaps:
    """Maps of all windows of one recording.

    Args:
        recording: The recording.
        maps: Of each method, (N, F), NaN where no window is; attention as multiples of an average frame's.
        contributions: What each neuron adds to the log-odds of `towards`, (N,).
        towards: The class.
        windows: How many windows were put together.
    """

    recording: Recording
    maps: Mapping[str, np.ndarray]
    contributions: np.ndarray
    towards: str
    windows: int


@dataclass(frozen=True, eq=False)
class Explanation:
    """What was found.

    Args:
        options: What was asked.
        class_names: In the order of the logits.
        recordings: Those that gave windows.
        skipped: Recordings that gave none, and why.
        seen: Animals that the model was trained on.
        scores: Of the sample, by level; empty without labels.
        trial: The sample of windows, and what explanations of it were tried with.
        maps: Of each method, (n, T).
        verdicts: Of each method.
        attribution: Integrated gradients of the sample.
        ablation: What hiding each channel takes from the log-odds, (n, C).
        separation: What separates the groups; None without three animals of each of two classes.
        neurons: Whether neurons that are called important are needed; None where no recording has windows enough.
        whole: Maps of one recording.
        by_activity: Pooling weights of active and quiet frames in both groups; None without two classes.
    """

    options: ExplainOptions
    class_names: tuple[str, ...]
    recordings: Sequence[Recording]
    skipped: Mapping[str, str]
    seen: Sequence[str]
    scores: Mapping[str, Mapping]
    trial: Trial
    maps: Mapping[str, np.ndarray]
    verdicts: Mapping[str, Verdict]
    attribution: Attribution
    ablation: np.ndarray
    separation: Separation | None
    neurons: Verdict | None
    whole: RecordingMaps
    by_activity: GroupComparison | None

    @property
    def windows(self) -> ExplainedWindows:
        return self.trial.windows

    @property
    def simulated(self) -> bool:
        return any_simulated(self.recordings)


def explain(model: str | Path, build: Path, options: ExplainOptions) -> Explanation:
    """Explain a classifier on the animals of a build, and try every explanation.

    Args:
        model: Folder or Hub name of a classifier.
        build: Parquet build.
        options: What is asked.

    Raises:
        ValueError: If the model or the build cannot be used, an animal has no label or two, or there is no such
            recording.
    """
    if not is_classifier(model):
        raise ValueError(
            f"expected a classifier, got a masked model: {model}; neurt finetune makes a classifier of it"
        )
    processor = load_processor(model)
    network = load_quietly(NeurtForSequenceClassification, model).to(Accelerator().device).eval()
    class_names = tuple(network.config.id2label[place] for place in range(network.config.num_labels))
    if len(class_names) < 2:
        raise ValueError(f"expected a classifier of two classes or more, got one of {len(class_names)}: {model}")
    recordings, dataset = _open(build, processor, class_names, options)
    sample = dataset.sample(max(1, options.windows // len(recordings)), options.seed)
    trial = open_trial(network, gather(dataset, sample), seed=options.seed, progress=_bar("random models"))
    gradients = attribute(network, trial.windows, trial.targets, progress=_bar("integrated gradients"))
    methods, maps = methods_for(trial.windows), {INTEGRATED_GRADIENTS: gradients.values.sum(2)}
    others = [name for name in methods if name not in maps]
    maps |= {name: methods[name](network, trial.windows, trial.targets) for name in others}
    return Explanation(
        options=options,
        class_names=class_names,
        recordings=recordings,
        skipped=dataset.skipped,
        seen=sorted(set(dataset.subject_ids) & set(network.config.pretraining_subjects or ())),
        scores=_scores(network, trial.windows),
        trial=trial,
        maps=maps,
        verdicts={
            name: judge(trial, _remembering(method, maps[name], trial), _bar(name)) for name, method in methods.items()
        },
        attribution=gradients,
        ablation=channel_ablation(network, trial.windows, trial.targets),
        separation=_separation(trial, class_names),
        neurons=_judge_neurons(trial, processor, recordings, dataset, options),
        whole=_whole(trial, recordings, dataset, class_names, options),
        by_activity=_by_activity(trial, maps[POOLING_ATTENTION], class_names, any_simulated(recordings)),
    )


def _open(
    build: Path, processor: NeurtProcessor, class_names: Sequence[str], options: ExplainOptions
) -> tuple[list[Recording], WindowDataset]:
    """The recordings that give windows, and their windows."""
    recordings = list(read_build(build, subjects=options.subjects))
    named = {} if options.label is None else {name: place for place, name in enumerate(class_names)}
    dataset = WindowDataset(
        recordings,
        processor,
        label=options.label,
        label2id=named or None,
        missing_neighbours=options.missing_neighbours,
    )
    if options.recording is not None and options.recording not in dataset.recording_ids:
        known = some(dataset.recording_ids)
        raise ValueError(f"expected a recording that gives windows, among {known}, got {options.recording!r}")
    return [recording for recording in recordings if recording.recording_id in dataset.recording_ids], dataset


def _bar(name: str) -> Bar:
    return functools.partial(tqdm, desc=name, leave=False)


def _remembering(method: Method, maps: np.ndarray, trial: Trial) -> Method:
    """A method that does not compute again what it said of the sample."""

    def remembered(model: NeurtForSequenceClassification, windows: ExplainedWindows, targets: np.ndarray):
        known = model is trial.model and windows is trial.windows
        return maps if known else method(model, windows, targets)

    return remembered


def _scores(model: NeurtForSequenceClassification, windows: ExplainedWindows) -> dict[str, dict]:
    """Scores of the sample's windows, recordings and subjects; empty without labels."""
    if windows.class_ids is None:
        return {}
    names = np.array(windows.recording_ids)[windows.recording]
    return subject_classification_scores(logits_of(model, windows.inputs), windows.classes, names, windows.subjects)


def _judge_neurons(
    trial: Trial,
    processor: NeurtProcessor,
    recordings: Sequence[Recording],
    dataset: WindowDataset,
    options: ExplainOptions,
) -> Verdict | None:
    """Remove neurons from one recording of each animal, by what hiding their own traces takes from the log-odds.

    None where no recording has windows enough.
    """
    chosen = list({recording.subject_id: recording for recording in reversed(recordings)}.values())[::-1]
    places = [dataset.recording_ids.index(recording.recording_id) for recording in chosen]
    rows = dataset.sample(2 * options.neurons, options.seed)  # of which about half may be measured on
    rows = rows[np.isin(dataset.window_recordings[rows], places)]
    windows = measuring_half(gather(dataset, rows), chosen, processor)
    if not len(windows):
        return None
    logits, owners = logits_of(trial.model, windows.inputs), windows.subjects
    targets = {owner: int(logits[owners == owner].mean(0).argmax()) for owner in np.unique(owners)}
    lost = channel_ablation(trial.model, windows, np.array([targets[owner] for owner in owners]))[:, 0]
    importance = [neuron_importance(lost, windows, recording) for recording in chosen]
    usable = [
        place
        for place, recording in enumerate(chosen)
        if np.isfinite(importance[place]).sum() >= 2 and halves(recording, processor)[1]
    ]
    if not usable:
        return None
    return judge_neurons(
        trial.model,
        processor,
        [chosen[place] for place in usable],
        [importance[place] for place in usable],
        groups=trial.groups,
        missing_neighbours=options.missing_neighbours,
        seed=options.seed,
        progress=_bar("neurons removed"),
    )


def _whole(
    trial: Trial,
    recordings: Sequence[Recording],
    dataset: WindowDataset,
    class_names: Sequence[str],
    options: ExplainOptions,
) -> RecordingMaps:
    """Attention over all windows of one recording, and what each neuron says of the class that it is given."""
    recording = next(each for each in recordings if options.recording in (None, each.recording_id))
    place = dataset.recording_ids.index(recording.recording_id)
    windows = gather(dataset, np.flatnonzero(dataset.window_recordings == place))
    found = attention_maps(trial.model, windows)
    towards = int(found.logits.mean(0).argmax())
    of_windows = log_odds(torch.as_tensor(found.logits), torch.full((len(windows),), towards)).numpy()
    weights = {POOLING_ATTENTION: found.pooling, ATTENTION_ROLLOUT: found.rollout}
    return RecordingMaps(
        recording=recording,
        maps={
            name: recording_map(relative_weights(values, windows.real), windows, recording)
            for name, values in weights.items()
        },
        contributions=contributions(of_windows, windows, recording),
        towards=class_names[towards],
        windows=len(windows),
    )


def _separation(trial: Trial, class_names: Sequence[str]) -> Separation | None:
    if trial.groups is None or len(class_names) != 2:
        return None
    counts = np.bincount(subjects_of(trial.windows)[1], minlength=2)
    if counts.min() < FEWEST:
        return None
    return separate(trial.model, trial.windows, seed=trial.seed, progress=_bar("what separates the groups"))


def _by_activity(
    trial: Trial, weights: np.ndarray, class_names: Sequence[str], simulated: bool
) -> GroupComparison | None:
    """Whether the groups differ in how much weight their active frames get; None without two classes of animals."""
    if trial.groups is None or len(class_names) != 2:
        return None
    _, classes = subjects_of(trial.windows)
    profiles = profile_by_activity(relative_weights(weights, trial.windows.real), trial.windows)
    return compare_groups(profiles, classes, class_names=class_names, simulated=simulated, seed=trial.seed)
