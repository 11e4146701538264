"""Figures of a study of groups; each from the results alone, readable without colour."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.metrics import auc, roc_curve

from ..summary import GROUP_COLOURS, GROUP_MARKERS, draw_groups, new_figure, plain, save_figure
from .protocol import BALANCED_ACCURACY

LINE_STYLES = ("-", "--", ":", "-.")


def draw_subjects(results: Mapping[str, Any], path: Path) -> None:
    """Score of every held-out animal by group, or against its value."""
    names, targets = results["class_names"], np.array(list(results["subjects"].values()))
    name, probe = next(iter(results["predictors"].items()))
    scores = np.array(probe["subjects"])
    figure = new_figure(4.2)
    panel = figure.subplots()
    if names:
        values = scores[:, 1] if len(names) == 2 else _margins(scores, targets)
        draw_groups(panel, names, targets, values)
    else:
        panel.plot(targets, scores, "o", color=GROUP_COLOURS[0])
        panel.set(xlabel="value", ylabel="predicted, held out")
    within = "" if results["score_name"] == BALANCED_ACCURACY else " within folds"
    panel.set_title(f"{_kind(results)}{name}: {results['score_name']}{within} {probe['score']:.2f}")
    save_figure(figure, path)


def _margins(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Logit of the own class less that of the best other one."""
    own = np.arange(scores.shape[1]) == targets[:, None]
    return scores[own] - np.where(own, -np.inf, scores).max(axis=1)


def draw_roc(results: Mapping[str, Any], path: Path) -> None:
    """ROC curves of mean held-out log-odds of animals, of the model and its baselines."""
    targets = np.array(list(results["subjects"].values()))
    figure = new_figure(5.4)
    panel = figure.subplots()
    for place, (name, found) in enumerate(results["predictors"].items()):
        false, true, _ = roc_curve(targets, np.array(found["subjects"])[:, 1])
        colour, style = GROUP_COLOURS[place % len(GROUP_COLOURS)], LINE_STYLES[place % len(LINE_STYLES)]
        # The curve pools folds, the score does not: both are said, for they differ.
        label = f"{name}: area {auc(false, true):.2f} ({results['score_name']} within folds {found['score']:.2f})"
        panel.plot(false, true, style, color=colour, lw=2, label=label)
    panel.plot([0, 1], [0, 1], color="grey", lw=0.8)
    panel.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    panel.set_title(f"{_kind(results)}Animals held out by {results['options']['scheme']}", fontsize=10)
    figure.legend(loc="outside lower center", fontsize=8, frameon=False)
    save_figure(figure, path)


def draw_calibration(results: Mapping[str, Any], path: Path) -> None:
    """Probability of class 1 against the truth: one dot an animal, and the mean of each third."""
    targets = np.array(list(results["subjects"].values()))
    name, probe = next(iter(results["predictors"].items()))
    probabilities = expit(np.array(probe["subjects"])[:, 1])
    figure = new_figure(4.2)
    panel = figure.subplots()
    for place, group in enumerate(results["class_names"]):
        mine = targets == place
        panel.plot(
            probabilities[mine], targets[mine], GROUP_MARKERS[place], color=GROUP_COLOURS[place], label=plain(group)
        )
    for third in np.array_split(np.argsort(probabilities), 3):
        panel.plot(probabilities[third].mean(), targets[third].mean(), "x", color="black", ms=10, mew=2)
    panel.plot([0, 1], [0, 1], color="grey", lw=0.8)
    panel.set(xlabel=f"probability of {plain(results['class_names'][1])}", ylabel="share, of thirds (crosses)")
    panel.set_title(f"{_kind(results)}{name}: calibration", fontsize=10)
    panel.legend(fontsize=8, frameon=False)
    save_figure(figure, path)


def draw_confounds(results: Mapping[str, Any], path: Path) -> None:
    """How well each property of the recordings alone separates the groups."""
    rows = results["checks"]["confounds"][::-1]
    figure = new_figure(1.2 + 0.32 * len(rows))
    panel = figure.subplots()
    places = np.arange(len(rows))
    colours = [GROUP_COLOURS[1] if row["suspicious"] else GROUP_COLOURS[0] for row in rows]
    panel.barh(places, [row["separation"] - 0.5 for row in rows], left=0.5, color=colours)
    panel.set_yticks(places, [row["name"] for row in rows])
    for place, row in zip(places, rows, strict=True):
        mark = " (look)" if row["suspicious"] else ""
        panel.text(1.01, place, f"p = {row['p_value']:.2g}{mark}", va="center", fontsize=8)
    panel.set(xlim=(0.5, 1.0), xlabel="share of pairs of animals put in order by this alone")
    panel.set_title(f"{_kind(results)}What else differs", fontsize=10)
    save_figure(figure, path)


def _kind(results: Mapping[str, Any]) -> str:
    return "Simulated: " if results["simulated"] else ""
