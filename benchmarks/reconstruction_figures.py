"""Figures of the reconstruction benchmark: errors relative to baselines, and over the horizon of a forecast."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from neurt.processing_neurt import CHANNELS
from reconstruction_predictors import AR_OTHERS, AR_OWN, COPY_LAST, INTERPOLATION, MODEL, PUBLISHED, WINDOW_MEAN

COLORS = {
    MODEL: "black",
    PUBLISHED: "tab:red",
    INTERPOLATION: "tab:blue",
    AR_OTHERS: "tab:green",
    AR_OWN: "tab:olive",
    COPY_LAST: "tab:purple",
    WINDOW_MEAN: "tab:gray",
}
IN_RATIOS = (PUBLISHED, INTERPOLATION, AR_OTHERS, AR_OWN)
IN_FORECASTS = (COPY_LAST, AR_OTHERS, AR_OWN, WINDOW_MEAN)
DPI = 150


def draw_ratios(results: Mapping[str, Any], path: Path):
    """The model's squared error in gaps of the own trace, over that of others; nothing where no gaps were measured."""
    sets = [name for name, found in results.items() if "span" in found["tasks"]]
    if not sets:
        return
    figure, axes = plt.subplots(figsize=(7, 1.2 + 0.55 * len(sets)), layout="constrained")
    for k, predictor in enumerate(IN_RATIOS):
        for place, name in enumerate(sets):
            for row in results[name]["tasks"]["span"]["rows"]:
                if (row["predictor"], row["channel"]) == (predictor, CHANNELS[0]):
                    height = place + 0.15 * (k - (len(IN_RATIOS) - 1) / 2)
                    axes.plot(row["ratio_interval"], [height] * 2, color=COLORS[predictor])
                    label = predictor if place == 0 else None
                    axes.plot(row["ratio"], height, "o", ms=4, color=COLORS[predictor], label=label)
    axes.axvline(1, color="black", lw=0.8)
    axes.set(xscale="log", yticks=range(len(sets)), yticklabels=sets)
    axes.set_xlabel("squared error of the model / of the other (left of 1: the model is better)")
    axes.set_title("Own trace, gaps of 1 to 10 frames, real recordings", fontsize=10)
    ticks = (0.2, 0.3, 0.5, 0.7, 1, 1.5, 2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def draw_forecasts(results: Mapping[str, Any], path: Path):
    """The model's squared error over that of others, by horizon, one panel a set; nothing without forecasts."""
    sets = [name for name, found in results.items() if "forecast" in found["tasks"]]
    if not sets:
        return
    columns = min(len(sets), 4)
    grid = -(-len(sets) // columns), columns
    figure, panels = plt.subplots(
        *grid, figsize=(2.6 * columns, 2.3 * grid[0] + 0.6), sharex=True, squeeze=False, layout="constrained"
    )
    for axes, name in zip(panels.flat, sets, strict=False):
        for predictor in IN_FORECASTS:
            rows = [
                row
                for row in results[name]["tasks"]["forecast"]["horizons"]
                if (row["predictor"], row["channel"]) == (predictor, CHANNELS[0])
            ]
            seconds = [row["seconds"] for row in rows]
            label = predictor if name == sets[0] else None
            axes.plot(seconds, [row["ratio"] for row in rows], color=COLORS[predictor], label=label)
            low, high = zip(*(row["ratio_interval"] for row in rows), strict=True)
            axes.fill_between(seconds, low, high, color=COLORS[predictor], alpha=0.15, lw=0)
        axes.axhline(1, color="black", lw=0.8)
        axes.set_title(name, fontsize=9)
        axes.set_ylim(0, 2)
    for axes in panels.flat[len(sets) :]:
        axes.set_visible(False)
    figure.supxlabel("seconds ahead", fontsize=9)
    figure.supylabel("squared error, model / other", fontsize=9)
    figure.legend(loc="outside upper center", ncols=4, fontsize=8)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
