"""One recording in one picture: its traces, its neurons with one neighbourhood, and their noise levels."""

import os
import textwrap
import warnings

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from ..writing_aside import file_aside
from .quality import Quality, evenly, known_median
from .recording import Recording

# Told apart without colour vision: by lightness in the raster, by shape and filling on the map.
_NEAR, _FAR, _EXAMPLE, _MISSING = "#0072B2", "0.5", "#D55E00", "#56B4E9"
_MOST_ROWS, _MOST_COLUMNS = 600, 1500
_LEAST_Z, _MOST_Z = -1, 4
_MOST_NAMED, _LONGEST_NAME = 30, 12
_TALL = 1.3  # height over width of a map that leaves no room for its legend above
# Largest over smallest noise level from which the axis is logarithmic, and from which only decades fit below it.
_WIDE, _VERY_WIDE = 5, 300


def recording_figure(recording: Recording, quality: Quality) -> Figure:
    """Draw the traces, the map of neurons with one neighbourhood, and the noise levels.

    Args:
        recording: The neurons that were measured.
        quality: Their measures.
    """
    # Not pyplot: no global state, and the same picture whatever backend or style the user has set.
    figure = Figure(figsize=(11, 6.2), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    layout = [["raster", "map"], ["raster", "noise"]]
    panels = figure.subplot_mosaic(layout, width_ratios=[1.9, 1], height_ratios=[1.7, 1])
    _draw_raster(panels["raster"], recording)
    _draw_map(panels["map"], recording, quality)
    _draw_noise(panels["noise"], quality)
    figure.suptitle(_title(quality))
    return figure


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Write a figure as PNG, in the place of one that is there."""
    with file_aside(path, replace=True) as aside:
        figure.savefig(aside, format="png", metadata={"Software": None})


def _title(quality: Quality) -> str:
    name = _plain_text(quality.recording_id)
    origin = "simulated, " if quality.simulated else ""
    return (
        f"{name}: {origin}{quality.neurons} neurons, {quality.duration:.4g} s at {quality.sampling_rate:.4g} Hz, "
        f"{quality.trace_kind}"
    )


def _draw_raster(panel: Axes, recording: Recording) -> None:
    traces = evenly(recording.traces, _MOST_ROWS)
    z = _binned(_standardised(traces), _MOST_COLUMNS)
    order = _by_first_component(z)
    # White to black reads the same in print and without colour vision; missing frames stand out by hue.
    shades = matplotlib.colormaps["Greys"].with_extremes(bad=_MISSING)
    image = panel.imshow(
        z[order],
        aspect="auto",
        interpolation="nearest",
        cmap=shades,
        vmin=_LEAST_Z,
        vmax=_MOST_Z,
        extent=(0, recording.num_frames / recording.sampling_rate, len(traces), 0),
    )
    panel.figure.colorbar(image, ax=panel, label="activity (z-score)", pad=0.01, shrink=0.5, extend="both")
    borders = np.array(recording.segment_starts[1:]) / recording.sampling_rate
    if len(borders):
        # Above the traces, so as to hide none.
        heights = np.full(len(borders), 1.01)
        panel.plot(
            borders, heights, "v", color=_EXAMPLE, markersize=3, clip_on=False, transform=panel.get_xaxis_transform()
        )
    some_of = f", {len(traces)} of {recording.num_neurons}" if len(traces) < recording.num_neurons else ""
    rows = np.arange(0, len(traces), -(-len(traces) // _MOST_NAMED))
    names = evenly(np.array(recording.roi_ids), _MOST_ROWS)[order[rows]]
    panel.set_yticks(rows + 0.5, map(_short_name, names), fontsize="small")
    panel.set(xlabel="time (s)", ylabel=f"roi, by first principal component{some_of}")
    missing = ", NaN in blue" if np.isnan(z).any() else ""
    marks = ", segments begin at ▾" if len(borders) else ""
    panel.set_title(f"Traces{missing}{marks}", loc="left", fontsize="medium", pad=10)


def _short_name(roi: str) -> str:
    # The end is kept: names that a program made begin alike.
    return _plain_text(roi if len(roi) <= _LONGEST_NAME else f"…{roi[1 - _LONGEST_NAME :]}")


def _plain_text(name: str) -> str:
    # A dollar sign in an id would begin a formula.
    return name.replace("$", r"\$")


def _standardised(traces: np.ndarray) -> np.ndarray:
    """Traces (N, T) with mean 0 and SD 1, in which NaN and infinite samples are NaN; a constant trace is 0."""
    values = np.where(np.isfinite(traces), traces, np.nan).astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # neurons without a single frame
        mean, spread = np.nanmean(values, axis=1, keepdims=True), np.nanstd(values, axis=1, keepdims=True)
    return (values - mean) / np.where(spread > 0, spread, 1)


def _binned(values: np.ndarray, columns: int) -> np.ndarray:
    """Means over neighbouring frames, so that (N, T) becomes (N, at most `columns`); a bin with a NaN frame is NaN."""
    frames = values.shape[1]
    starts = np.arange(0, frames, -(-frames // columns))
    return np.add.reduceat(values, starts, axis=1) / np.diff([*starts, frames])


def _by_first_component(z: np.ndarray) -> np.ndarray:
    """Order of the rows by their weight in the first principal component: what is active together lies together."""
    return np.argsort(np.linalg.svd(np.nan_to_num(z), full_matrices=False)[0][:, 0], kind="stable")


def _draw_map(panel: Axes, recording: Recording, quality: Quality) -> None:
    if quality.distances is None:
        why = "only one neuron has a position" if quality.positioned else "no neuron has a position"
        return _leave_empty(panel, "Positions", why)
    positions = recording.centroids[recording.positioned].astype(np.float64)
    # An example in the middle of the field: its circle is seen whole.
    example = np.argmin(np.hypot(*(positions - np.median(positions, axis=0)).T))
    away = np.hypot(*(positions - positions[example]).T)
    radius, unit = quality.distances.radius, quality.unit
    size = np.clip(4000 / len(positions), 6, 40)
    near = np.zeros(len(positions), dtype=bool) if radius is None else away < radius
    near[example] = False
    far = ~near
    far[example] = False
    name = f"roi {_short_name(quality.roi_ids[np.flatnonzero(recording.positioned)[example]])}"
    panel.scatter(*positions[example], s=2 * size + 40, color=_EXAMPLE, marker="*", label=name, zorder=3)
    others = "others"
    if radius is not None:
        others = "far"
        panel.add_patch(Circle(positions[example], radius, fill=False, edgecolor=_EXAMPLE, linewidth=1.2))
        within = f"{near.sum()} near within {radius:.3g} {unit}"
        panel.scatter(*positions[near].T, s=size, color=_NEAR, label=within)
    panel.scatter(
        *positions[far].T, s=size, facecolors="none", edgecolors=_FAR, linewidths=0.8, label=f"{far.sum()} {others}"
    )
    panel.set_aspect("equal")
    panel.invert_yaxis()  # as in an image
    panel.set(xlabel=f"x ({unit})", ylabel=f"y ({unit})")
    # Above the map, or beside a tall one, where it hides no neuron.
    width, height = quality.distances.extent
    above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 3}
    beside = {"loc": "upper left", "bbox_to_anchor": (1.02, 1)}
    panel.legend(
        **(beside if height > _TALL * width else above),
        fontsize="small",
        frameon=False,
        columnspacing=0.8,
        handletextpad=0.1,
        borderaxespad=0,
    )


def _draw_noise(panel: Axes, quality: Quality) -> None:
    levels = quality.noise[~np.isnan(quality.noise)]
    if not len(levels):
        return _leave_empty(panel, "Noise", "none to measure: most samples equal the one before")
    # One empty ROI may be a hundred times as noisy as the cells.
    spread = levels.max() / levels.min()
    logarithmic = spread > _WIDE
    spaced = np.geomspace if logarithmic else np.linspace
    edges = spaced(levels.min() / 1.05, levels.max() * 1.05, min(30, 6 + len(levels) // 4))
    panel.hist(levels, bins=edges, color="0.7", edgecolor="white", linewidth=0.5)
    if logarithmic:
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if spread < _VERY_WIDE else (1,), numticks=9))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    median = known_median(quality.noise)
    panel.axvline(median, color=_EXAMPLE, linewidth=1.5)
    of = "ΔF/F" if quality.noise_is_absolute else "the trace's SD"
    scale = " (log scale)" if logarithmic else ""
    panel.set(xlabel=f"noise in % of {of} per √Hz{scale}", ylabel="neurons")
    some_of = f" of {len(levels)} of {quality.neurons} neurons" if len(levels) < quality.neurons else ""
    panel.set_title(f"Noise{some_of}, median {median:.3g} %/√Hz", loc="left", fontsize="medium")
    panel.spines[["top", "right"]].set_visible(False)


def _leave_empty(panel: Axes, title: str, why: str) -> None:
    panel.set_title(title, loc="left", fontsize="medium")
    panel.text(0.5, 0.5, textwrap.fill(why, 32), ha="center", va="center", color="0.35", transform=panel.transAxes)
    panel.set(xticks=[], yticks=[])
