"""A short Markdown summary of a run with two figures, for people.

write_summary(folder, title="Demo", reconstruction=scores, examples=examples, simulated=True, command="neurt ...")
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .evaluation import FEWEST_SUBJECTS, ClassificationScores, ReconstructionExample, ReconstructionScores
from .markdown_text import code_block, escape_markdown, markdown_table, shortened
from .writing_aside import file_aside

# Okabe & Ito's colour-blind safe palette; line styles and markers tell the same things apart without colour.
TRUTH, RECONSTRUCTION, INTERPOLATION = "#000000", "#D55E00", "#0072B2"
GROUP_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GROUP_MARKERS = ("o", "s", "^", "D", "v", "P")


def write_summary(
    folder: str | os.PathLike,
    *,
    title: str,
    reconstruction: ReconstructionScores | None = None,
    classification: ClassificationScores | None = None,
    examples: Sequence[ReconstructionExample] | None = None,
    split: Mapping[str, Sequence[str]] | None = None,
    seen: Sequence[str] = (),
    simulated: bool,
    command: str,
) -> Path:
    """Write `summary.md` and, for what is given, `reconstruction.png` and `subjects.png`.

    Args:
        folder: Made if it does not exist; the summary lists the files in it.
        title: Heading.
        reconstruction: Scores of a masked model.
        classification: Scores of a classifier; drawn in `subjects.png`.
        examples: Windows for `reconstruction.png`.
        split: Subjects on each side, for example {"train": [...], "held out": [...]}.
        seen: Subjects that were tested although training has seen them; said before any score.
        simulated: Whether any recording was simulated; said wherever a number stands.
        command: What regenerates the run.

    Returns:
        The path of `summary.md`.

    Raises:
        ValueError: If scores say otherwise about being simulated.
    """
    for scores in (reconstruction, classification):
        if scores is not None and scores.measured_on.simulated != simulated:
            raise ValueError(f"expected scores with simulated={simulated}, got {scores.measured_on}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if examples:
        save_figure(reconstruction_figure(examples, simulated), folder / "reconstruction.png")
    if classification is not None:
        save_figure(subjects_figure(classification), folder / "subjects.png")

    parts = [f"# {escape_markdown(title)}", *(["**Simulated recordings are among these.**"] if simulated else [])]
    parts += [_seen_warning(seen)] if seen else []
    parts += ["## What was run", code_block(command)]
    if reconstruction is not None:
        parts += ["## Reconstruction of hidden frames", reconstruction_verdict(reconstruction)]
        parts += [reconstruction.to_markdown()]
    if examples:
        parts += ["![Example windows](reconstruction.png)"]
    if classification is not None:
        parts += ["## Groups of animals", group_verdict(classification), classification.to_markdown()]
        parts += ["![Subjects by group](subjects.png)"]
    parts += ["## Split", _split_table(split)] if split else []
    parts += ["## Files", _file_list(folder)]
    path = folder / "summary.md"
    text = "\n\n".join(part.strip() for part in parts if part)
    with file_aside(path, replace=True) as aside:
        aside.write_text(f"{text}\n", "utf-8")
    return path


def reconstruction_figure(examples: Sequence[ReconstructionExample], simulated: bool) -> Figure:
    """Own traces of a few windows: the truth, what was hidden, and what the model and interpolation put there.

    Args:
        examples: One panel each.
        simulated: Said in the title.
    """
    figure = new_figure(height=0.9 + 1.6 * len(examples))
    panels = figure.subplots(len(examples), squeeze=False)[:, 0]
    for panel, example in zip(panels, examples, strict=True):
        _draw_window(panel, example)
    figure.align_ylabels(panels)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    figure.suptitle(f"Hidden frames of {len(examples)} {'simulated ' if simulated else ''}windows, own trace")
    return figure


def subjects_figure(scores: ClassificationScores) -> Figure:
    """Mean log-odds of each subject by group, with the line at which the decision changes.

    With more than two classes: log-probability of the own class minus that of the best other class.
    """
    key = "log_odds" if len(scores.class_names) == 2 else "margin"
    labels, values = zip(*((subject["label"], subject[key]) for subject in scores.subjects), strict=True)
    figure = new_figure(height=4.2)
    panel = figure.subplots()
    draw_groups(panel, scores.class_names, np.array(labels), np.array(values))
    panel.set_title(_subjects_title(scores))
    return figure


def draw_groups(panel: Axes, class_names: Sequence[str], labels: np.ndarray, values: np.ndarray) -> None:
    """A mark for each subject above its group, the mean of each group, and the line at which the decision changes.

    Args:
        panel: Where to.
        class_names: All classes; those without a subject get no place.
        labels: Class ids of the subjects, (S,).
        values: Mean log-odds of class 1, or, with more than two classes, log-probability of the own class less that
            of the best other one; (S,).
    """
    groups = np.unique(labels).tolist()
    for place, group in enumerate(groups):
        _draw_group(panel, place, np.sort(values[labels == group]), group)
    two = len(class_names) == 2
    panel.axhline(0, color="0.3", linestyle="--", linewidth=1)
    line = "even odds" if two else "decision"
    panel.annotate(line, (1, 0), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points")
    ticks = [f"{plain(class_names[group])}\nn = {np.sum(labels == group)}" for group in groups]
    panel.set_xticks(range(len(groups)), ticks)
    panel.set_xlim(-0.6, len(groups) - 0.4)
    other = f"log-odds of {plain(class_names[1])}" if two else "own class − best other (log-probability)"
    panel.set_ylabel(f"Mean {other}")


def _draw_window(panel, example):
    rate = example.sampling_rate
    time = np.arange(len(example.truth)) / (rate or 1)
    half = 0.5 / (rate or 1)
    for n, (start, end) in enumerate(_runs(example.hidden)):
        span = (time[start] - half, time[end - 1] + half)
        panel.axvspan(*span, color="0.88", linewidth=0, label="hidden" if n == 0 else None)
    panel.plot(time, example.truth, color=TRUTH, linewidth=1, label="truth")
    styles = {
        "linear interpolation": (example.interpolation, INTERPOLATION, "--", "s"),
        "model": (example.reconstruction, RECONSTRUCTION, "-", "o"),
    }
    for name, (values, colour, line, marker) in styles.items():
        # Only where it had something to guess, from the last visible frame to the next.
        shown = np.where(example.hidden, values, np.nan)
        panel.plot(time, shown, line, color=colour, linewidth=1.4, marker=marker, markersize=2.5, label=name)
    panel.set_xlim(time[0] - half, time[-1] + half)
    panel.set_xlabel("time (s)" if rate else "frame")
    panel.set_ylabel("scaled activity")


def _draw_group(panel, position, values, group):
    colour, marker = (choices[group % len(choices)] for choices in (GROUP_COLOURS, GROUP_MARKERS))
    spread = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else [0]
    panel.plot(position + np.asarray(spread), values, marker, color=colour, markersize=7, alpha=0.85)
    panel.hlines(np.mean(values), position - 0.3, position + 0.3, color=colour, linewidth=2)


def _subjects_title(scores):
    row = scores.row("subject")
    auc = "not defined" if scores.too_few or np.isnan(row["roc_auc"]) else f"{row['roc_auc']:.2f}"
    kind = "simulated " if scores.measured_on.simulated else ""
    return f"{row['n']} {kind}subjects: AUC {auc}, accuracy {row['accuracy']:.2f}"


def _runs(hidden):
    edges = np.flatnonzero(np.diff(np.concatenate([[False], hidden, [False]]).astype(int)))
    return edges.reshape(-1, 2).tolist()


def new_figure(height):
    # Not pyplot: no global state, and the same picture whatever backend or style the user has set.
    figure = Figure(figsize=(8, height), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure, path):
    for panel in figure.axes:
        panel.spines[["top", "right"]].set_visible(False)
    with file_aside(path, replace=True) as aside:
        figure.savefig(aside, format="png", metadata={"Software": None})


def reconstruction_verdict(scores: ReconstructionScores) -> str:
    """Say first whether the model beats every baseline on the own trace; a ratio of errors hides behind no R²."""
    model, *baselines = (scores.row(predictor) for predictor in scores.predictors)
    if not model["n"] or not all(row["squared_error"] > 0 for row in baselines):
        return "The own trace could not be compared with its baselines."
    ratios = {row["predictor"]: model["squared_error"] / row["squared_error"] for row in baselines}
    kind = "simulated " if scores.measured_on.simulated else ""
    times = ", ".join(f"{ratio:.2f} times that of {name}" for name, ratio in ratios.items())
    unbeaten = [name for name, ratio in ratios.items() if not ratio < 1]
    end = f"**not better than {' and '.join(unbeaten)}**" if unbeaten else "better than each baseline"
    return f"Squared error of the model on hidden frames of the own trace ({kind}data): {times}; {end}."


def group_verdict(scores: ClassificationScores) -> str:
    """Say first whether the model tells animals apart better than every baseline; empty without one."""
    model, *baselines = (row for row in scores.rows if row["level"] == "subject")
    no_auc = scores.too_few or np.isnan(model["roc_auc"])
    measure, name = ("accuracy", "Accuracy") if no_auc else ("roc_auc", "AUC")
    compared = [row for row in baselines if not np.isnan(row[measure])]
    if not compared:
        return ""
    kind = "simulated " if scores.measured_on.simulated else ""
    values = ", ".join(f"{row[measure]:.3f} for {row['predictor']}" for row in (model, *compared))
    said = f"{name} over {model['n']} {kind}test subjects: {values}"
    if scores.too_few:
        return f"{said}; **fewer than {FEWEST_SUBJECTS} of a class were tested, too few to tell chance from skill**."
    unbeaten = {row["predictor"]: row[measure] > model[measure] for row in compared if row[measure] >= model[measure]}
    words = [f"{predictor} {'did better' if better else 'did as well'}" for predictor, better in unbeaten.items()]
    end = f"**{' and '.join(words)}, without a neural network**" if words else "the model did better"
    return f"{said}; {end}."


def _seen_warning(seen):
    names = ", ".join(map(escape_markdown, seen))
    return f"**Tested although seen in training: {names}. What follows is no test on new animals.**"


def _split_table(split):
    rows = [
        [escape_markdown(side), str(len(subjects)), ", ".join(map(escape_markdown, subjects))]
        for side, subjects in split.items()
    ]
    return markdown_table(["side", "subjects", "names"], rows)


def _file_list(folder):
    names = {path.name + "/" * path.is_dir() for path in folder.iterdir() if not path.name.startswith(".")}
    return "\n".join(f"- {escape_markdown(name)}" for name in sorted(names | {"summary.md"}))


def plain(text):
    """Text for a figure: on one line, and a dollar sign is no formula."""
    return shortened(" ".join(str(text).split())).replace("$", r"\$")
