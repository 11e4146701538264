"""The report of an explanation: a page that opens from a file, the same as JSON, and its pictures.

write_report(explain(model, build, options), Path("REPORT"), model=model, build=build, command="neurt ...")
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..crossval.provenance import manifest_digest, versions, weights_digest
from ..dataset_scripts.recording import Recording
from ..evaluation import FEWEST_SUBJECTS, json_ready
from ..loading import name_of
from ..processing_neurt import CHANNELS
from .aspects import ALL_CHANNELS, COLUMNS
from .curves import Estimate, over_subjects
from .explanation import Explanation
from .faithfulness import NO_GROUPS, OTHER_SEEDS, RANDOM, RANDOM_WEIGHTS, SHUFFLED_LABELS, TURNED
from .figures import group_figure, recording_figure, removal_figure, shares_figure, stamp, window_figure
from .group_maps import ACTIVITY_BINS
from .methods import ATTENTION_ROLLOUT, CORRELATION, FRAME_ABLATION, INTEGRATED_GRADIENTS, POOLING_ATTENTION
from .page import Picture, Section, Table, render
from .recording_map import relative_weights, row_order

PAGE, RESULTS = "report.html", "explanation.json"
# What maps are measured in; attention is drawn as multiples of an average frame's.
ATTENTION = (POOLING_ATTENTION, ATTENTION_ROLLOUT)
UNITS = dict.fromkeys(ATTENTION, "weight") | dict.fromkeys((INTEGRATED_GRADIENTS, FRAME_ABLATION), "log-odds")
# The first two know nothing; heads of other seeds should say the same.
ALIKE = (RANDOM_WEIGHTS, SHUFFLED_LABELS, OTHER_SEEDS)
CONTROLS = (RANDOM, TURNED, RANDOM_WEIGHTS, SHUFFLED_LABELS)


def write_report(found: Explanation, folder: Path, *, model: str | Path, build: Path, command: str) -> None:
    """Write `report.html`, `explanation.json` and the pictures as PNG.

    Args:
        found: What to show.
        folder: An empty folder.
        model: Folder or Hub name of the model.
        build: The build.
        command: What regenerates the report.
    """
    about = {"command": command, "model": name_of(model), "build": name_of(build), **_provenance(model, build)}
    pictures = draw(found)
    for name, picture in pictures.items():
        (folder / f"{name}.png").write_bytes(picture.png)
    title = f"{'Simulated: ' if found.simulated else ''}{about['model']} explained on {about['build']}"
    page = render(title, lead(found), sections(found, pictures, about))
    (folder / PAGE).write_text(page, encoding="utf-8")
    text = json.dumps(json_ready(about | results(found)), indent=1)
    (folder / RESULTS).write_text(text + "\n", encoding="utf-8")


def lead(found: Explanation) -> list[str]:
    """What to know first: whether there is anything to explain, and what may be believed."""
    said, groups = [], found.trial.groups
    if found.simulated:
        said.append("Simulated recordings are among these.")
    if found.seen:
        said.append(f"The model was trained on {', '.join(found.seen)}: this says nothing of new animals.")
    if groups is not None:
        said.append(groups.sentence)
    if found.separation is not None and groups.tells:
        said.append(found.separation.sentence)
    passed = [name for name, verdict in found.verdicts.items() if verdict.faithful]
    if passed:
        said.append(f"May be believed here, by the tests below: {', '.join(passed)}.")
    elif any(verdict.tested for verdict in found.verdicts.values()):
        said.append("None of the explanations below passed its test: do not read biology into them.")
    else:
        reason = next(iter(found.verdicts.values())).reasons[0]
        said.append(f"The explanations below could not be tested: {reason}.")
    if CORRELATION in passed:
        said.append("A correlation that takes no look inside the model passed as well: it explains as much.")
    return said


def sections(found: Explanation, pictures: Mapping[str, Picture], about: Mapping[str, Any]) -> list[Section]:
    """The parts of the page, in their order."""
    parts = [_data(found), _scores(found)]
    parts += [_separation(found, pictures)] if found.separation is not None else []
    parts += [_believe(found, pictures), _example(pictures), _channels(found)]
    parts += [_neurons(found, pictures), _recording(found, pictures)]
    parts += [_groups(found, pictures)] if found.by_activity is not None else []
    return [*parts, _how(about)]


def draw(found: Explanation) -> dict[str, Picture]:
    """All pictures, by the name of their file."""
    drawn = {"example_window": _draw_example(found)}
    for name, verdict in found.verdicts.items():
        curves = {"removed": verdict.deletion, "shown": verdict.insertion}
        figure = removal_figure(
            verdict.shares, curves, unit="frames", title=name.capitalize(), simulated=found.simulated
        )
        drawn[f"frames_{_file(name)}"] = _picture(
            figure,
            f"Frames by {name}",
            "Left: the most important frames are hidden first; the test asks that the curve falls faster than those "
            "of all controls. Right: only the most important frames are shown; this does not decide.",
            verdict.stamp,
        )
    drawn |= _draw_neurons(found) | _draw_recording(found)
    if found.separation is not None and found.separation.lost:
        drawn["separation"] = _draw_separation(found)
    if found.by_activity is not None:
        drawn["activity"] = _draw_activity(found)
    return drawn


def results(found: Explanation) -> dict[str, Any]:
    """Everything that was found, for JSON."""
    comparison = found.by_activity
    return {
        "simulated": found.simulated,
        "options": vars(found.options),
        "class_names": found.class_names,
        "seen_in_training": found.seen,
        "recordings": {each.recording_id: _facts(found, each) for each in found.recordings},
        "skipped": found.skipped,
        "groups": None if found.trial.groups is None else vars(found.trial.groups),
        "scores": found.scores,
        "methods": {name: verdict.to_dict() for name, verdict in found.verdicts.items()},
        "separation": None if found.separation is None else found.separation.to_dict(),
        "neurons": None if found.neurons is None else found.neurons.to_dict(),
        "attribution": found.attribution.summary,
        "channels": {
            channel: {name: dataclasses.asdict(each) for name, each in row.items()}
            for channel, row in _channel_rows(found).items()
        },
        "contributions": {
            "recording": found.whole.recording.recording_id,
            "towards": found.whole.towards,
            "log_odds": dict(
                zip(found.whole.recording.accepted_neurons().roi_ids, found.whole.contributions.tolist(), strict=True)
            ),
        },
        "activity": None if comparison is None else {"bins": ACTIVITY_BINS, **_arrays_as_lists(vars(comparison))},
    }


def _arrays_as_lists(values: Mapping[str, Any]) -> dict[str, list]:
    return {name: value.tolist() for name, value in values.items() if isinstance(value, np.ndarray)}


def _data(found: Explanation) -> Section:
    facts = {each.recording_id: _facts(found, each) for each in found.recordings}
    rows = [(name, *("–" if fact is None else str(fact) for fact in each.values())) for name, each in facts.items()]
    header = ("recording", "animal", found.options.label or "label", "neurons", "frames", "Hz")
    text = [
        f"{len(found.windows)} windows of {len(np.unique(found.windows.subjects))} animals were explained, a sample "
        f"of the same size of each recording (seed {found.options.seed})."
    ]
    text += [f"Left out: {name}, {why}." for name, why in found.skipped.items()]
    return Section("What was read", text, tables=[Table("Recordings", header, rows)])


def _facts(found: Explanation, recording: Recording) -> dict[str, Any]:
    """Animal, label (None where none was asked for), accepted neurons, frames, frames per second."""
    return {
        "subject": recording.subject_id,
        "label": None if found.options.label is None else recording.labels[found.options.label],
        "neurons": int(recording.accepted.sum()),
        "frames": recording.num_frames,
        "sampling_rate": float(f"{recording.sampling_rate:.3g}"),
    }


def _scores(found: Explanation) -> Section:
    if not found.scores:
        return Section("How well are the groups told apart?", ["Not measured: no label was asked for."])
    names = {"accuracy": "accuracy", "roc_auc": "AUC", "mcc": "MCC", "brier": "Brier score", "log_loss": "log loss"}
    # As after a training: of so few an AUC is chance, however many windows they have.
    if min(found.scores["subject"]["n_per_class"]) < FEWEST_SUBJECTS:
        del names["roc_auc"]
    rows = [
        (level, str(scores["n"]), *(f"{scores[name]:.2f}" for name in names)) for level, scores in found.scores.items()
    ]
    text = [
        "The animal is the unit; windows of one animal are not independent. For baselines on the same folds and a "
        "p-value of the whole procedure, run neurt crossval."
    ]
    sentence = [] if found.trial.groups is None else [found.trial.groups.sentence]
    return Section(
        "How well are the groups told apart?",
        [*sentence, *text],
        tables=[Table("Scores of the windows that are explained", ("level", "n", *names.values()), rows)],
    )


def _separation(found: Explanation, pictures: Mapping[str, Picture]) -> Section:
    title, separation = "What separates the groups?", found.separation
    if not separation.lost:
        return Section(title, [separation.sentence])
    rows = [(name, *(lost[column].percent() for column in COLUMNS)) for name, lost in separation.lost.items()]
    text = [
        separation.sentence,
        "One aspect of one channel after the other is made alike in all animals, and the gap between the groups' "
        "log-odds shrinks by what the model owes to it. Level is a window's mean, with the distribution that is usual "
        "at that level; variability is how the distribution differs from that; timing is the order of frames; "
        "coupling is timing against the other channels.",
    ]
    table = Table("Share of the gap that is lost, with 95 % interval over animals", ("channel", *COLUMNS), rows)
    warnings = [] if found.trial.groups.tells else [f"{NO_GROUPS.capitalize()}."]
    return Section(title, text, warnings, [table], [pictures["separation"]])


def _believe(found: Explanation, pictures: Mapping[str, Picture]) -> Section:
    controls = [name for name in CONTROLS if any(name in verdict.areas for verdict in found.verdicts.values())]
    areas = Table(
        "Log-odds that hiding the most important frames takes more than each control",
        ("explanation", "test", *controls),
        [
            (name, verdict.stamp, *(_short(verdict.areas.get(control)) for control in controls))
            for name, verdict in found.verdicts.items()
        ],
    )
    likeness = Table(
        "How alike maps are to those of other models (Spearman correlation)",
        ("explanation", *ALIKE),
        [(name, *(_short(verdict.alike.get(other)) for other in ALIKE)) for name, verdict in found.verdicts.items()],
    )
    text = [
        "Each explanation says which frames matter. It is tested by hiding the frames that it calls most important, "
        "first 5 %, then up to 80 %, and following the log-odds of the class that the model gives the whole window. "
        "It must take more from them than each control: frames in random order, the same map turned in time, and the "
        "same method on models that know nothing (random weights, shuffled labels). Its maps must also differ from "
        "those of such models (Spearman correlation of at most 0.5). Intervals are over animals. Each explanation is "
        "judged by itself: of several worthless ones it is likelier that some passes than that a given one does.",
        "Differences are means over the shares hidden, with 95 % interval; above 0 speaks for the explanation.",
    ]
    curves = [picture for name, picture in pictures.items() if name.startswith("frames_")]
    return Section("Which explanation may be believed?", text, tables=[areas, likeness], pictures=curves)


def _short(estimate: Estimate | None) -> str:
    return "–" if estimate is None else estimate.short()


def _example(pictures: Mapping[str, Picture]) -> Section:
    text = ["The window of which the model is surest, and what each explanation says of it."]
    return Section("An example", text, pictures=[pictures["example_window"]])


def _channel_rows(found: Explanation) -> dict[str, dict[str, Estimate]]:
    """Mean over animals of what each channel adds and what hiding it takes, by channel."""
    subjects, gradients = found.windows.subjects, found.attribution.of_channels
    return {
        channel: {
            "integrated_gradients": over_subjects(gradients[:, place], subjects),
            "hidden": over_subjects(found.ablation[:, place], subjects),
        }
        for place, channel in enumerate(CHANNELS)
    }


def _channels(found: Explanation) -> Section:
    rows = [(name, *map(_short, each.values())) for name, each in _channel_rows(found).items()]
    header = ("channel", "integrated gradients", "lost when hidden")
    table = Table("Log-odds of the class that the model gives each window, by channel", header, rows)
    text = [found.attribution.summary, "Near and far are the other neurons of the field, by their distance."]
    return Section("Which channels matter?", text, tables=[table])


def _neurons(found: Explanation, pictures: Mapping[str, Picture]) -> Section:
    title = "Which neurons matter?"
    if found.neurons is None:
        return Section(title, ["Not measured: no recording has two windows of two neurons or more."])
    text = [
        "Importance of a neuron: what hiding its own trace takes from the log-odds of its windows, measured on every "
        "other window. Tested on the windows between: the most important neurons are removed from the recording, also "
        "from the neighbourhoods of the others.",
        f"Result: {found.neurons.sentence}",
    ]
    return Section(title, text, pictures=[pictures["neurons"]])


def _recording(found: Explanation, pictures: Mapping[str, Picture]) -> Section:
    whole = found.whole
    text = [
        f"{whole.windows} windows of recording {whole.recording.recording_id}, side by side. Attention sums to one in "
        "every window, so that it cannot tell which window or neuron matters more; what a neuron contributes is told "
        f"by the log-odds of its windows for {whole.towards}, less the mean of all neurons."
    ]
    maps = [picture for name, picture in pictures.items() if name.startswith("recording_")]
    return Section("A whole recording", text, pictures=maps)


def _groups(found: Explanation, pictures: Mapping[str, Picture]) -> Section:
    text = [found.by_activity.sentence(ACTIVITY_BINS)]
    seen = (
        ["The model has learnt the labels of some of these animals: its p-value is too small."] if found.seen else []
    )
    return Section("Is attention different in the groups?", text, seen, pictures=[pictures["activity"]])


def _how(about: Mapping[str, Any]) -> Section:
    used = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    digests = f"SHA-256 of the weights {about['weights_sha256']}, of the build's manifest {about['build_sha256']}"
    return Section("How this was made", [f"With {used}; {digests}."], code=about["command"])


def _provenance(model: str | Path, build: Path) -> dict[str, Any]:
    digests = {"weights_sha256": weights_digest(model), "build_sha256": manifest_digest(build)}
    return {**digests, "versions": versions()}


def _draw_separation(found: Explanation) -> Picture:
    lost = {name: row for name, row in found.separation.lost.items() if name != ALL_CHANNELS}
    cells = [[[row[column].mean, row[column].low, row[column].high] for column in COLUMNS] for row in lost.values()]
    shares, low, high = 100 * np.moveaxis(np.array(cells), 2, 0)
    title = f"What separates {' from '.join(found.separation.class_names)}"
    figure = shares_figure(
        list(lost),
        COLUMNS,
        shares,
        low,
        high,
        ylabel="gap between groups that is lost (%)",
        title=title,
        simulated=found.simulated,
    )
    caption = "What is lost when an aspect of a channel is made alike in all animals."
    return _picture(figure, title, caption, None if found.trial.groups.tells else f"not faithful: {NO_GROUPS}")


def _draw_example(found: Explanation) -> Picture:
    trial, windows = found.trial, found.windows
    row = int(np.argmax(trial.visible))
    real = windows.real[row]
    trace = np.where(real, windows.inputs["input_values"][row, :, 0].numpy(), np.nan)
    maps = {name: each[row] for name, each in found.maps.items()}
    maps |= {name: relative_weights(maps[name][None], windows.real[[row]])[0] for name in ATTENTION}
    recording = found.recordings[windows.recording[row]]
    figure = window_figure(
        trace,
        maps,
        maps[POOLING_ATTENTION],
        sampling_rate=recording.sampling_rate,
        title=f"Neuron {windows.roi_ids[row]} of {recording.recording_id}",
        start_frame=int(windows.start_frame[row]),
        verdicts={name: verdict.stamp for name, verdict in found.verdicts.items()},
        units=UNITS,
        simulated=found.simulated,
    )
    caption = "Own trace, scaled; dots grow with the pooling weight. Below, the importance of each frame."
    return _picture(figure, "Maps of one window", caption)


def _draw_neurons(found: Explanation) -> dict[str, Picture]:
    verdict = found.neurons
    if verdict is None:
        return {}
    curves = {"removed": verdict.deletion}
    figure = removal_figure(verdict.shares, curves, unit="neurons", title="Neurons removed", simulated=found.simulated)
    caption = "The most important neurons are removed first, and random ones for comparison."
    return {"neurons": _picture(figure, "Neurons removed", caption, verdict.stamp)}


def _draw_recording(found: Explanation) -> dict[str, Picture]:
    whole, drawn = found.whole, {}
    recording = whole.recording.accepted_neurons()
    for name, values in whole.maps.items():
        figure = recording_figure(
            values,
            row_order(values, "first peak"),
            sampling_rate=recording.sampling_rate,
            label="weight, 1 = an average frame",
            title=f"{name.capitalize()} in {recording.recording_id}",
            roi_ids=recording.roi_ids,
            sorted_by="by first peak",
            contribution=whole.contributions,
            class_name=whole.towards,
            centroids=recording.centroids,
            coordinate_unit=recording.coordinate_unit,
            simulated=found.simulated,
        )
        title = f"{name.capitalize()}, all neurons"
        caption = "Rows are neurons. Beside it, where they lie and what each adds to the log-odds."
        drawn[f"recording_{_file(name)}"] = _picture(figure, title, caption, found.verdicts[name].stamp)
    return drawn


def _draw_activity(found: Explanation) -> Picture:
    figure = group_figure(
        found.by_activity,
        np.arange(1, len(ACTIVITY_BINS) + 1),
        xlabel="tenth of the window's frames by activity of the own trace (10: the most active)",
        ylabel="pooling weight\n(1 = an average frame)",
        title="Pooling attention and activity",
    )
    caption = "Mean of each animal, of each group, and their difference with the family-wise test."
    return _picture(figure, "Pooling attention by activity", caption, found.verdicts[POOLING_ATTENTION].stamp)


def _picture(figure: Figure, title: str, caption: str, verdict: str | None = None) -> Picture:
    """A picture with the verdict on it; without one, where the figure itself has one for each map, or is a test."""
    if verdict is not None:
        stamp(figure, verdict)
    return Picture.drawn(figure, title, caption)


def _file(name: str) -> str:
    return name.replace(" ", "_")
