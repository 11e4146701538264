"""Do explanations find what was planted? Simulated mice only.

    python benchmarks/planted_explanations.py --jobs 2 --output benchmarks/results/planted_explanations.md

Each study fine-tunes the pretrained model to some mice and explains what it says of others:

1. hyperactivity: half of the neurons of one group fire three times as much, which raises the level of their traces;
2. variability: they vary more around the same mean;
3. hyperactivity of the neighbours: as 1, but every own trace is that of a mouse without it.

A planted mouse has a twin, the same mouse with nothing planted: same neurons, same noise, same activity otherwise. In
studies 1 and 2 the neighbour channels are the twin's, in study 3 the own trace is. So it is known not only which
neurons are planted, but in which channel, and a classifier cannot tell the groups by any other. Both have dF/F over
the baseline of the twin: one of its own would be lower where activity varies more, and so plant another level as well.

Of each study: are planted neurons of held-out mice found by what their own trace adds (integrated gradients), and by
what is lost without it (ablation)? Beside that stand the mean and the deviation of each neuron's own trace, which need
no model. With the truth swapped, the planted neurons being those of another mouse, nothing should be found. And does
the report name the channel and the aspect that were planted?

Killed, a run with `--output` goes on where it was.
"""

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measurement import markdown_table
from neurt import NeurtForSequenceClassification, NeurtProcessor
from neurt.crossval.data import StudyOptions
from neurt.crossval.finetuning import BalancedWindows
from neurt.dataset_scripts.preparation import Preparation, prepare
from neurt.dataset_scripts.recording import Recording
from neurt.dataset_scripts.simulate import GROUPS, Place, simulate_recording, simulate_study
from neurt.dataset_scripts.simulation_config import SimulationConfig
from neurt.dataset_scripts.windows import RecordingWindows, WindowDataset, cut_windows
from neurt.explain.aspects import separate
from neurt.explain.attribution import STEPS_FOR_ORDER, attribute, channel_ablation, neuron_importance
from neurt.explain.explained import ExplainedWindows, gather, log_odds_of
from neurt.loading import load_config, load_processor, load_quietly
from neurt.masking import collate_windows
from neurt.processing_neurt import CHANNELS, scale_traces
from neurt.train import parameter_groups
from neurt.training.loop import fit
from neurt.training.options import FinetuneOptions, TrainingOptions
from simulated_studies import (
    LABEL,
    SimulatedStudy,
    check_unseen,
    mean_and_error,
    measure_kinds,
    simulated_recordings,
    with_error,
)
from sklearn.metrics import roc_auc_score

SEEDS = 3
# Neurons of a mouse that are much alike, seen clearly, so that planted ones can be told at all, and from which nothing
# leaks into others. The drive changes from frame to frame: a slower one would plant another timing as well.
MICE = {"subjects_per_group": 22, "neurons": 20, "duration": 205.0, "rate_spread": 0.2, "amplitude_spread": 0.2}
MICE |= {"amplitude": 0.4, "noise": 0.01, "noise_spread": 0.2, "drift": 0.02, "drive_time": 0.2, "coupling": 0.5}
MICE |= {"neuropil": 0.0}
OWN, NEIGHBOURS = "own trace", "neighbours"
HYPERACTIVITY = {"effect": "hyperactivity", "effect_size": 2.0, "rate": 0.5}
KINDS = {
    "hyperactivity": (HYPERACTIVITY, OWN, "level"),
    "variability": ({"effect": "variability", "effect_size": 3.0, "rate": 1.0}, OWN, "variability"),
    "hyperactivity of the neighbours": (HYPERACTIVITY, NEIGHBOURS, "level"),
}
# Scaled by nothing but its own baseline, a trace keeps its level; a low percentile, so that the baseline does not rise
# with activity.
PREPARATION, NORMALIZATION = Preparation(dff_window=60.0, dff_percentile=2.0), "none"
TRAINING_MICE, TRAINING_WINDOWS, EXPLAINED_WINDOWS = 34, 48, 128
TRAINING = TrainingOptions(epochs=4, batch_size=32, learning_rate=3e-4)
CLASSES = {name: place for place, name in enumerate(GROUPS)}
GRADIENTS, ABLATION = "integrated gradients", "ablation"
EXPLAINED = (GRADIENTS, ABLATION)
# An AUROC that counts as found.
FOUND_FROM = 0.9
# Beside explanations; the first two need no model.
LEVEL, DEVIATION, LOG_ODDS = "own level", "own deviation", "log-odds"

# What the studies of one kind gave, by seed.
Found = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class PlantedStudy(SimulatedStudy):
    """A study whose effect stands in some channels only: `OWN` or `NEIGHBOURS`."""

    planted_in: str = OWN


@dataclass(frozen=True, eq=False)
class Mouse:
    """A simulated mouse.

    Args:
        recording: As simulated, prepared.
        twin: The same with nothing planted.
        fluorescence: The traces before they were prepared, (N, T).
        planted: Which neurons are, bool (N,).
    """

    recording: Recording
    twin: Recording
    fluorescence: np.ndarray
    planted: np.ndarray


def planted_studies(seeds: int, model: Path) -> dict[str, list[PlantedStudy]]:
    """The studies of each kind."""
    return {
        kind: [
            PlantedStudy(
                name=f"{kind.replace(' ', '-')}{seed}",
                config=SimulationConfig(**MICE, **planted, seed=seed),
                options=StudyOptions(LABEL, windows=EXPLAINED_WINDOWS, seed=seed),
                model=model,
                planted_in=channels,
            )
            for seed in range(seeds)
        ]
        for kind, (planted, channels, _) in KINDS.items()
    }


def study_results(study: PlantedStudy) -> dict[str, Any]:
    """Fine-tune to the first mice of a study, and explain what the classifier says of the others."""
    processor = load_processor(study.model, normalization=NORMALIZATION)
    mice = list(simulated_mice(study))
    seen = set(load_config(study.model).pretraining_subjects or ())
    check_unseen(sorted(seen.intersection(mouse.recording.subject_id for mouse in mice)))
    trained, held_out = mice[:TRAINING_MICE], mice[TRAINING_MICE:]
    model = classifier(study, windows_of(study, trained, processor))
    dataset = windows_of(study, held_out, processor)
    windows = gather(dataset, dataset.sample(study.options.windows, study.options.seed))
    return {**explained(model, windows, held_out, study.options.seed), "observers": observers(held_out)}


def simulated_mice(study: PlantedStudy) -> Iterator[Mouse]:
    """The mice of a study, and the twin of each."""
    truth = simulate_study(study.config)[1]["recordings"]
    for number, (recording, entry) in enumerate(zip(simulated_recordings(study), truth, strict=True), start=1):
        twin = simulate_recording(study.config, Place(number), GROUPS[0])
        of_twin, _ = prepare(twin, PREPARATION)
        baseline = twin.traces / (1 + of_twin.traces)
        dff = dataclasses.replace(recording, traces=recording.traces / baseline - 1, trace_kind=of_twin.trace_kind)
        yield Mouse(dff, of_twin, recording.traces, np.isin(recording.roi_ids, entry["planted_roi_ids"]))


def windows_of(study: PlantedStudy, mice: Sequence[Mouse], processor: NeurtProcessor) -> WindowDataset:
    """Windows whose channels are a mouse's own where the study plants, and elsewhere those of its twin."""
    twins = {mouse.recording.recording_id: mouse.twin for mouse in mice}

    def cut(recording: Recording, processor: NeurtProcessor, **options: Any) -> RecordingWindows:
        windows = cut_windows(recording, processor, **options)
        other = cut_windows(twins[recording.recording_id], processor, **options)
        is_own = np.arange(len(CHANNELS)) == 0
        planted = is_own if study.planted_in == OWN else ~is_own
        return dataclasses.replace(windows, channels=np.where(planted, windows.channels, other.channels))

    recordings = [mouse.recording for mouse in mice]
    return WindowDataset(recordings, processor, label=LABEL, label2id=CLASSES, cut=cut)


def classifier(study: PlantedStudy, dataset: WindowDataset) -> NeurtForSequenceClassification:
    """The pretrained model, fine-tuned to some windows of each mouse."""
    rows, owner = dataset.sample(TRAINING_WINDOWS, study.options.seed), dataset.window_recordings
    groups = [rows[owner[rows] == place] for place in range(len(dataset.recording_ids))]
    targets = np.array([dataset[int(group[0])]["labels"] for group in groups])
    balanced = BalancedWindows(dataset, groups, targets, regression=False, seed=study.options.seed)
    torch.manual_seed(study.options.seed)
    id2label = {place: name for name, place in CLASSES.items()}
    model = load_quietly(
        NeurtForSequenceClassification, study.model, new_head=True, id2label=id2label, label2id=CLASSES
    )
    options = dataclasses.replace(TRAINING, seed=study.options.seed)
    learning_rates = parameter_groups(model, FinetuneOptions(LABEL), options.learning_rate)
    with tempfile.TemporaryDirectory() as folder:
        fit(model, learning_rates, balanced, collate_windows, options, Path(folder))
    return model.cpu().eval()


def explained(
    model: NeurtForSequenceClassification, windows: ExplainedWindows, mice: Sequence[Mouse], seed: int
) -> dict[str, Any]:
    """What explanations say of windows of held-out mice, and whether it is true."""
    ones = np.ones(len(windows), dtype=int)
    said, gradients = log_odds_of(model, windows.inputs, ones), attribute(model, windows, ones, steps=STEPS_FOR_ORDER)
    of_channels = {GRADIENTS: gradients.of_channels, ABLATION: channel_ablation(model, windows, ones)}
    own = windows.inputs["input_values"][..., 0].numpy()
    measures = {LEVEL: own.mean(1), DEVIATION: own.std(1), LOG_ODDS: said}
    measures |= {name: values[:, 0] for name, values in of_channels.items()}
    found = {name: neuron_scores(values, windows, mice) for name, values in measures.items()}
    classes, of_mice = means_of_mice(windows, said)
    return {
        "mice": roc_auc_score(classes, of_mice),
        "neurons": {name: true for name, (true, _) in found.items()},
        "swapped": {name: swapped for name, (_, swapped) in found.items()},
        "channels": {name: (gap(windows, each) / gap(windows, said)).tolist() for name, each in of_channels.items()},
        "separation": separate(model, windows, seed=seed).to_dict(),
        "completeness": gradients.relative_error,
    }


def neuron_scores(of_windows: np.ndarray, windows: ExplainedWindows, mice: Sequence[Mouse]) -> tuple[float, float]:
    """AUROC of planted neurons against the others of a mouse, mean over mice that have some.

    Args:
        of_windows: What finds them, averaged over each neuron's windows; (n,).
        windows: Where they are from.
        mice: Those that were held out.

    Returns:
        Of the truth, and of the truth swapped: the planted neurons of the next mouse in place of its own.
    """
    mice = [mouse for mouse in mice if mouse.planted.any()]
    scores = []
    for mouse, other in zip(mice, [*mice[1:], mice[0]], strict=True):
        importance = neuron_importance(of_windows, windows, mouse.recording)
        known = ~np.isnan(importance)
        scores.append([roc_auc_score(each.planted[known], importance[known]) for each in (mouse, other)])
    true, swapped = np.mean(scores, axis=0)
    return float(true), float(swapped)


def means_of_mice(windows: ExplainedWindows, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The class of each mouse, and the means over its windows of values (n,) or (n, C)."""
    means = np.stack([values[windows.recording == place].mean(0) for place in range(len(windows.recording_ids))])
    return windows.class_ids, means


def gap(windows: ExplainedWindows, values: np.ndarray) -> np.ndarray:
    """The mean over planted mice less that over control mice, of values (n,) or (n, C)."""
    classes, means = means_of_mice(windows, values)
    return means[classes == 1].mean(0) - means[classes == 0].mean(0)


def observers(mice: Sequence[Mouse]) -> dict[str, tuple[float, float]]:
    """How well level and deviation of whole traces tell planted neurons, scaled in one way or another: AUROCs."""
    found: dict[str, list] = {}
    for mouse in mice:
        traces = {"dF/F": mouse.recording.traces}
        traces |= {name: scale_traces(mouse.fluorescence, name) for name in ("minmax", "zscore")}
        for name, scaled in traces.items() if mouse.planted.any() else ():
            measures = scaled.mean(1), scaled.std(1)
            found.setdefault(name, []).append([roc_auc_score(mouse.planted, each) for each in measures])
    return {name: tuple(np.mean(scores, axis=0).tolist()) for name, scores in found.items()}


def summary(results: Mapping[str, Found]) -> dict[str, Any]:
    """Of each kind: how well mice are told, and planted neurons are found, by the truth and by the truth swapped."""
    return {
        kind: {
            "mice": mean_and_error([each["mice"] for each in found]),
            **{
                whose: {name: mean_and_error([each[whose][name] for each in found]) for name in found[0][whose]}
                for whose in ("neurons", "swapped")
            },
            "channel_named": sum(is_named(each["separation"], KINDS[kind][1]) for each in found),
            "aspect_named": sum(each["separation"]["aspect"] == KINDS[kind][2] for each in found),
            "studies": len(found),
        }
        for kind, found in results.items()
    }


def neuron_table(results: Mapping[str, Found]) -> str:
    """How well planted neurons are found, by the truth and by the truth swapped."""
    names = list(next(iter(results.values()))[0]["neurons"])
    header = ["study", "held-out mice", *names, *(f"{name}, truth swapped" for name in EXPLAINED)]
    rows = []
    for kind, found in results.items():
        columns = [[each["mice"] for each in found]]
        columns += [[each["neurons"][name] for each in found] for name in names]
        columns += [[each["swapped"][name] for each in found] for name in EXPLAINED]
        rows.append([kind, *map(with_error, columns)])
    return markdown_table(header, rows)


def named_table(results: Mapping[str, Found]) -> str:
    """In how many studies the planted channel has the largest share of the gap, and the planted aspect is named."""
    header = ["study", "planted", *(f"channel, {name}" for name in EXPLAINED), "channel, report", "aspect, report"]
    rows = []
    for kind, found in results.items():
        _, where, aspect = KINDS[kind]
        right = [
            *([is_planted(largest(each["channels"][name]), where) for each in found] for name in EXPLAINED),
            [is_named(each["separation"], where) for each in found],
            [each["separation"]["aspect"] == aspect for each in found],
        ]
        rows.append([kind, f"{aspect} of the {where}", *(f"{sum(each)} of {len(found)}" for each in right)])
    return markdown_table(header, rows)


def largest(shares: Sequence[float]) -> str:
    """The channel that has the largest share of the gap."""
    return CHANNELS[int(np.argmax(shares))]


def is_named(separation: Mapping[str, Any], where: str) -> bool:
    """Whether a report names a channel where something was planted; none where it finds no gap between the groups."""
    return separation["gap"]["low"] > 0 and is_planted(separation["channel"], where)


def is_planted(channel: str, where: str) -> bool:
    """Whether something was planted in what a report names; neighbours differ in four channels at once."""
    return (channel == CHANNELS[0]) == (where == OWN)


def observer_table(results: Mapping[str, Found]) -> str:
    """How well level and deviation of whole own traces tell planted neurons, by what traces were scaled with."""
    rows = [
        [kind, scaling, *(with_error([each["observers"][scaling][place] for each in found]) for place in (0, 1))]
        for kind, found in results.items()
        if KINDS[kind][1] == OWN
        for scaling in found[0]["observers"]
    ]
    return markdown_table(["study", "scaling", LEVEL, DEVIATION], rows)


def goal(kind: str, found: Found) -> str:
    """Whether planted neurons were found as well as they should be, by explanations."""
    scores = {name: np.mean([each["neurons"][name] for each in found]) for name in EXPLAINED}
    said = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
    verdict = "found" if min(scores.values()) >= FOUND_FROM else "**not found**"
    return f"- {kind}: {verdict}, of an AUROC of {FOUND_FROM:g} that was the goal: {said}."


def report(results: Mapping[str, Found], costs: str) -> str:
    """The whole report, from what the studies of each kind gave."""
    held_out = 2 * MICE["subjects_per_group"] - TRAINING_MICE
    errors = np.array([each["completeness"] for found in results.values() for each in found])
    about = (
        f"Simulated mice only. In each study the pretrained model is fine-tuned to {TRAINING_MICE} mice and explained "
        f"on {held_out} others, {MICE['neurons']} neurons each. AUROCs of neurons are within mice, means over the "
        "held-out mice that are planted; of mice, over their mean log-odds. Errors are standard errors over studies. "
        f"Completeness error of the integrated gradients ({STEPS_FOR_ORDER} steps), over the typical difference: "
        f"median {errors[:, 0].mean():.1%}, 95th percentile {errors[:, 1].mean():.1%} (means over studies). {costs}"
    )
    sentences = [
        f"- {kind}, study {place}: {each['separation']['sentence']}"
        for kind, found in results.items()
        for place, each in enumerate(found)
    ]
    parts = [
        "# Planted explanations (simulated)",
        about,
        "## Are the planted neurons found?",
        "\n".join(goal(kind, found) for kind, found in results.items() if KINDS[kind][1] == OWN),
        neuron_table(results),
        "Own level and deviation are what an observer of the same windows knows without a model. Where only the "
        "neighbours are planted, no own trace is, and nothing can be found.",
        "## Are channel and aspect named?",
        named_table(results),
        "Neighbours differ in four channels at once; any of them, or all channels together, counts as named.",
        "\n".join(sentences),
        "## Which scaling shows what was planted?",
        observer_table(results),
        "Below 0.5, planted neurons have less of it than others. Scaled by its own range or spread, a trace that is "
        "more active, or more variable, lies lower, whatever was planted; so traces are dF/F here and not scaled.",
    ]
    return "\n\n".join(parts)


def main():
    measure_kinds(__doc__, SEEDS, planted_studies, study_results, report, summary)


if __name__ == "__main__":
    main()
