"""Figures of explanations; what failed its test is stamped on the figure itself. Readable without colour.

    figure = window_figure(trace, {"pooling attention": weights}, weights, sampling_rate=5.1, title="roi 3")
    stamp(figure, "not faithful: frames in random order do as well")
    save_figure(figure, path)

Shapes: T frames of a window, N neurons, F frames of a recording, S shares removed, C channels, A aspects.
"""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from ..crossval.figures import LINE_STYLES
from ..crossval.permutations import SIGNIFICANT
from ..summary import GROUP_COLOURS, GROUP_MARKERS, new_figure, plain
from .curves import Estimate
from .faithfulness import EXPLANATION
from .group_maps import GroupComparison

FAITHFUL = "faithful"
DARK, ALARM = "#000000", "#B00020"
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\")
# Lightness grows with the value throughout, so that the map says the same in print and without colour vision.
SHADES = "cividis"
LARGEST_DOT, MANY_DOTS = 180, 128  # points²; dots of longer windows are smaller
MOST_TICKS = 30


def window_figure(
    trace: np.ndarray,
    maps: Mapping[str, np.ndarray],
    weights: np.ndarray | None = None,
    *,
    sampling_rate: float,
    title: str,
    start_frame: int = 0,
    units: Mapping[str, str] | None = None,
    verdicts: Mapping[str, str] | None = None,
    simulated: bool = False,
) -> Figure:
    """One window: its own trace with the pooling weights on it, and maps by several methods on the same time axis.

    Args:
        trace: Own trace as the model gets it, (T,), NaN at padding.
        maps: By name of the method, (T,) each; 0 is drawn as a line.
        weights: Pooling weights as multiples of the average one, (T,): areas of the dots on the trace.
        sampling_rate: Hz.
        title: Which window.
        start_frame: First frame of the window in its recording.
        units: By name of the method, what its maps are measured in; "importance" where none is given.
        verdicts: By name of the method, whether its maps may be believed; see `stamp`.
        simulated: Said in the title.
    """
    figure = new_figure(height=2.6 + 1.05 * len(maps))
    panels = _panels(figure, 1 + len(maps), 1, sharex=True, height_ratios=[1.9, *[1] * len(maps)])
    real, time = ~np.isnan(trace), (start_frame + np.arange(len(trace))) / sampling_rate
    note = _draw_trace(panels[0], time[real], trace[real], None if weights is None else weights[real])
    panels[0].set_title(f"{_title(title, simulated)}{note}", loc="left", fontsize="medium")
    for panel, (name, values) in zip(panels[1:], maps.items(), strict=True):
        _draw_map_of_window(panel, time[real], values[real])
        panel.set_title(plain(name), loc="left", fontsize="small")
        panel.set_ylabel((units or {}).get(name, "importance"), fontsize="small")
        if verdicts and name in verdicts:
            _stamp_panel(panel, verdicts[name])
    panels[-1].set(xlabel="time in the recording (s)", xlim=(time[real][0], time[real][-1]))
    figure.align_ylabels(panels)
    return figure


def recording_figure(
    values: np.ndarray,
    order: np.ndarray,
    *,
    sampling_rate: float,
    label: str,
    title: str,
    roi_ids: Sequence[str],
    sorted_by: str,
    contribution: np.ndarray | None = None,
    class_name: str = "",
    centroids: np.ndarray | None = None,
    coordinate_unit: str | None = None,
    simulated: bool = False,
) -> Figure:
    """A map of a whole recording, and the ROIs beside it by what they contribute.

    Args:
        values: (N, F), NaN where no window is; see `recording_map`.
        order: Rows from top to bottom, int (N,); see `row_order`.
        sampling_rate: Hz.
        label: What the values are, with their unit.
        title: Which recording.
        roi_ids: (N,).
        sorted_by: The order in words.
        contribution: In log-odds of `class_name`, (N,); see `contributions`.
        class_name: The class.
        centroids: Positions (x, y), (N, 2), NaN where unknown; without them there is no map of ROIs.
        coordinate_unit: "um" or "px".
        simulated: Said in the title.
    """
    placed = np.zeros(len(values), dtype=bool) if centroids is None else np.isfinite(centroids).all(1)
    with_rois = contribution is not None and placed.any()
    figure = new_figure(height=4.8)
    figure.set_figwidth(11 if with_rois else 8)
    panels = _panels(figure, 1, 1 + with_rois, width_ratios=[1.7, 1][: 1 + with_rois])
    _draw_recording(panels[0], values[order], sampling_rate, label)
    rows = np.arange(0, len(order), -(-len(order) // MOST_TICKS))
    panels[0].set_yticks(rows + 0.5, [_short(roi_ids[order[row]]) for row in rows], fontsize="x-small")
    missing = "; hatched: in no window" if np.isnan(values).any() else ""
    panels[0].set(xlabel=f"time (s){missing}", ylabel=f"roi, {sorted_by}")
    panels[0].set_title(_title(title, simulated), loc="left", fontsize="medium")
    if with_rois:
        _draw_rois(panels[1], centroids[placed], contribution[placed], coordinate_unit, class_name)
        missing = f", {np.sum(~placed)} without a position" if not placed.all() else ""
        panels[1].set_title(f"Contribution of each neuron{missing}", loc="left", fontsize="medium")
    return figure


def removal_figure(
    shares: Sequence[float],
    panels: Mapping[str, Mapping[str, Sequence[Estimate]]],
    *,
    unit: str,
    title: str,
    simulated: bool = False,
) -> Figure:
    """What removing, or inserting, the most important frames or neurons does to the log-odds, and controls.

    Args:
        shares: Of frames or neurons, from 0 to 1, (S,).
        panels: For each panel ("removed", "shown") the curve of the explanation and of each control, S estimates each,
            as in `Verdict.deletion`.
        unit: What is removed: "frames" or "neurons".
        title: Which explanation of what.
        simulated: Said in the title.
    """
    figure = new_figure(height=4.6)
    drawn = _panels(figure, 1, len(panels), sharey=True)
    styles = {EXPLANATION: 0}
    for panel, (how, curves) in zip(drawn, panels.items(), strict=True):
        for name, curve in curves.items():
            _draw_curve(panel, shares, curve, styles.setdefault(name, len(styles)), name)
        panel.set_xlabel(f"{unit} {how} (%),\nthe most important first")
    known = all(each.low is not None for curves in panels.values() for curve in curves.values() for each in curve)
    interval = ", 95 % interval" if known else "; too few for an interval"
    drawn[0].set_ylabel(f"log-odds of the class that the model chose\n(mean over animals{interval})")
    drawn[0].set_title(_title(title, simulated), loc="left", fontsize="medium")
    lines = {name: line for panel in drawn for line, name in zip(*panel.get_legend_handles_labels(), strict=True)}
    names = sorted(lines, key=styles.get)
    figure.legend(
        [lines[name] for name in names], names, loc="outside lower center", ncols=3, frameon=False, fontsize="small"
    )
    return figure


def group_figure(
    comparison: GroupComparison, positions: np.ndarray, *, xlabel: str, ylabel: str, title: str
) -> Figure:
    """The profiles of two groups of animals, and their difference bin by bin.

    Args:
        comparison: As of `compare_groups`.
        positions: Where the bins lie on the axis, (F,).
        xlabel: What the bins are, with their unit.
        ylabel: What the profiles are, with their unit.
        title: Which explanation of what.
    """
    figure = new_figure(height=5.6)
    upper, lower = _panels(figure, 2, 1, sharex=True, height_ratios=[1.3, 1])
    every = max(1, len(positions) // 16)
    for place, name in enumerate(comparison.class_names):
        colour, style = GROUP_COLOURS[place], LINE_STYLES[place]
        mine = comparison.classes == place
        upper.plot(positions, comparison.profiles[mine].T, style, color=colour, lw=0.6, alpha=0.5)
        upper.plot(
            positions,
            comparison.means[place],
            style,
            color=colour,
            lw=2.2,
            marker=GROUP_MARKERS[place],
            markevery=every,
            label=f"{plain(name)}, mean of {np.sum(mine)} (thin: each animal)",
        )
    upper.set_ylabel(ylabel)
    upper.set_title(_title(title, comparison.simulated), loc="left", fontsize="medium")
    _draw_difference(lower, comparison, positions)
    lower.set_xlabel(xlabel)
    figure.align_ylabels([upper, lower])
    handles = [each for panel in (upper, lower) for each in panel.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    return figure


def shares_figure(
    channels: Sequence[str],
    aspects: Sequence[str],
    shares: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    *,
    ylabel: str,
    title: str,
    simulated: bool = False,
) -> Figure:
    """Bars of what each aspect of each channel has to do with the decision.

    Args:
        channels: Names, (C,).
        aspects: Names, such as level, variability, timing; (A,).
        shares: (C, A).
        low: Lower ends of their intervals over animals, (C, A); NaN where there is none.
        high: Upper ends.
        ylabel: What the bars are, with their unit.
        title: Which explanation of what.
        simulated: Said in the title.
    """
    figure = new_figure(height=4.4)
    (panel,), width = _panels(figure, 1, 1), 0.8 / len(aspects)
    for place, aspect in enumerate(aspects):
        where = np.arange(len(channels)) + width * (place - (len(aspects) - 1) / 2)
        heights, ends = shares[:, place], np.stack([low[:, place], high[:, place]])
        style = {"color": GROUP_COLOURS[place], "hatch": HATCHES[place], "edgecolor": "white", "lw": 0}
        panel.bar(where, heights, 0.92 * width, label=plain(aspect), **style)
        panel.vlines(where, *ends, color=DARK, lw=1.4)
        panel.plot(np.tile(where, 2), ends.ravel(), "_", color=DARK, ms=5)
    panel.axhline(0, color=DARK, lw=0.8)
    panel.set_xticks(range(len(channels)), map(plain, channels))
    interval = "lines: 95 % interval over animals" if np.isfinite(low).any() else "too few animals for an interval"
    panel.set_ylabel(f"{ylabel}\n({interval})")
    panel.set_title(_title(title, simulated), loc="left", fontsize="medium")
    figure.legend(loc="outside lower center", ncols=len(aspects), frameon=False, fontsize="small")
    return figure


def stamp(figure: Figure, verdict: str) -> None:
    """Print on a figure whether what it shows may be believed; once, when all else is drawn.

    Args:
        figure: One of this module.
        verdict: "faithful", which may go on ("faithful (test in figure 3)"), is printed small above the figure. All
            else ("not faithful: why", "not tested: why") stands in a frame above it and across it.
    """
    passed = verdict.startswith(FAITHFUL)
    lines = textwrap.wrap(verdict.replace("$", r"\$"), int(8.5 * figure.get_figwidth()))
    room = 0.28 if passed else 0.32 + 0.24 * len(lines)
    _make_room_above(figure, room)
    middle = 1 - room / 2 / figure.get_figheight()
    if passed:
        figure.text(0.995, middle, f"✓ {verdict}", ha="right", va="center", fontsize="small", color="0.3")
        return
    frame = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": ALARM, "linewidth": 2.5}
    words = "\n".join(lines)
    figure.text(0.5, middle, words, ha="center", va="center", size=13, weight="bold", color=ALARM, bbox=frame)
    for panel in figure.axes:
        if panel.get_label() != "<colorbar>":
            _write_across(panel, verdict)


def _make_room_above(figure: Figure, inches: float) -> None:
    before = figure.get_figheight()
    figure.set_figheight(before + inches)
    figure.get_layout_engine().set(rect=(0, 0, 1, before / (before + inches)))


def _stamp_panel(panel: Axes, verdict: str) -> None:
    passed = verdict.startswith(FAITHFUL)
    words = {"color": "0.3"} if passed else {"color": ALARM, "weight": "bold"}
    panel.set_title(f"{'✓ ' if passed else ''}{plain(verdict)}", loc="right", fontsize="small", **words)
    if not passed:
        panel.spines[:].set_color(ALARM)
        _write_across(panel, verdict)


def _write_across(panel: Axes, verdict: str) -> None:
    """The verdict without its reason, along the diagonal of a panel, so that no copy of it goes without."""
    box = panel.get_position()
    width, height = box.width * panel.figure.get_figwidth(), box.height * panel.figure.get_figheight()
    words = verdict.partition(":")[0].upper()
    angle = np.degrees(np.arctan2(height, width))
    size = min(30, 0.75 * 72 * np.hypot(width, height) / (0.7 * len(words)), 0.5 * 72 * height)
    panel.text(
        0.5,
        0.5,
        words,
        transform=panel.transAxes,
        rotation=angle,
        ha="center",
        va="center",
        size=size,
        weight="bold",
        color=ALARM,
        alpha=0.1,  # on top of what comes with the outline
        zorder=10,
        in_layout=False,
        path_effects=[withStroke(linewidth=1.5, foreground="white", alpha=0.4)],  # for dark maps
    )


def _panels(figure: Figure, rows: int, columns: int, **options) -> Sequence[Axes]:
    panels = figure.subplots(rows, columns, squeeze=False, **options).ravel()
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    return panels


def _draw_trace(panel: Axes, time: np.ndarray, trace: np.ndarray, weights: np.ndarray | None) -> str:
    """Draw the trace; returns what the title has to say of the dots on it."""
    panel.plot(time, trace, color="0.45", lw=1)
    panel.set_ylabel("own trace\n(as scaled)")
    if weights is None:
        return ""
    areas = LARGEST_DOT * min(1, MANY_DOTS / len(trace)) * weights / weights.max()
    panel.scatter(time, trace, s=areas, color=GROUP_COLOURS[1], edgecolors=DARK, lw=0.4, alpha=0.6, zorder=2)
    return f"\nArea of a dot: weight of the frame in the pooling; the largest is {weights.max():.3g} times the average"


def _draw_map_of_window(panel: Axes, time: np.ndarray, values: np.ndarray) -> None:
    against = {"facecolor": "white", "edgecolor": GROUP_COLOURS[1], "hatch": "////"}
    panel.fill_between(time, np.maximum(values, 0), color=GROUP_COLOURS[0], alpha=0.35, step="mid", lw=0)
    panel.fill_between(time, np.minimum(values, 0), **against, step="mid", lw=0)
    panel.plot(time, values, color=DARK, lw=0.5, drawstyle="steps-mid")
    panel.axhline(0, color="0.5", lw=0.6)
    panel.yaxis.set_major_locator(MaxNLocator(3))


def _draw_recording(panel: Axes, values: np.ndarray, sampling_rate: float, label: str) -> None:
    # Where no window is, the hatched ground is seen.
    panel.add_patch(
        Rectangle((0, 0), 1, 1, transform=panel.transAxes, fill=False, hatch="xxx", edgecolor="0.75", lw=0)
    )
    known = values[np.isfinite(values)]
    limits = np.quantile(known, [0.005, 0.995]) if len(known) else (0, 1)
    if limits[0] < 0 < limits[1]:
        limits = np.array([-1, 1]) * np.abs(limits).max()
    image = panel.imshow(
        values,
        aspect="auto",
        cmap=matplotlib.colormaps[SHADES].with_extremes(bad=(0, 0, 0, 0)),
        vmin=limits[0],
        vmax=limits[1],
        extent=(0, values.shape[1] / sampling_rate, len(values), 0),
        zorder=2,
    )
    panel.figure.colorbar(image, ax=panel, label=label, pad=0.01, shrink=0.8, extend="both")


def _draw_rois(
    panel: Axes, centroids: np.ndarray, contribution: np.ndarray, coordinate_unit: str | None, class_name: str
) -> None:
    unit = "µm" if coordinate_unit == "um" else coordinate_unit
    known = np.isfinite(contribution)
    largest = np.abs(contribution[known]).max(initial=0) or 1
    panel.scatter(*centroids[~known].T, marker=".", s=10, color="0.7")
    for sign, marker in ((1, "^"), (-1, "v")):
        mine = known & (np.where(contribution < 0, -1, 1) == sign)
        dots = panel.scatter(
            *centroids[mine].T,
            c=contribution[mine],
            s=15 + 90 * np.abs(contribution[mine]) / largest,
            marker=marker,
            cmap=SHADES,
            vmin=-largest,
            vmax=largest,
            edgecolors=DARK,
            lw=0.6,
        )
    label = f"log-odds of {plain(class_name)}\n(▲ above, ▼ below the mean neuron)"
    panel.figure.colorbar(dots, ax=panel, label=label, pad=0.01, shrink=0.8)
    panel.set(aspect="equal", xlabel=f"x ({unit})", ylabel=f"y ({unit})")
    panel.invert_yaxis()  # as in an image


def _draw_curve(panel: Axes, shares: Sequence[float], curve: Sequence[Estimate], place: int, name: str) -> None:
    percent = 100 * np.asarray(shares)
    main = name == EXPLANATION
    colour = DARK if main else GROUP_COLOURS[(place - 1) % len(GROUP_COLOURS)]
    style = {"ls": LINE_STYLES[place % len(LINE_STYLES)], "marker": GROUP_MARKERS[place % len(GROUP_MARKERS)]}
    panel.plot(
        percent, [each.mean for each in curve], color=colour, lw=2.4 if main else 1.4, ms=5, label=name, **style
    )
    if all(each.low is not None for each in curve):
        ends = np.array([(each.low, each.high) for each in curve]).T
        panel.fill_between(percent, *ends, color=colour, alpha=0.15, lw=0)


def _draw_difference(panel: Axes, comparison: GroupComparison, positions: np.ndarray) -> None:
    first, second = map(plain, comparison.class_names)
    panel.axhline(0, color="0.5", lw=0.8)
    if comparison.test is not None:
        interval = {"color": "0.85", "lw": 0, "label": "95 % interval over animals, each bin"}
        panel.fill_between(positions, comparison.low, comparison.high, **interval)
    panel.plot(positions, comparison.difference, color=DARK, lw=1.5, marker=".", label=f"{second} minus {first}")
    found = comparison.significant
    if found.any():
        star = {"color": ALARM, "ms": 11, "label": f"p < {SIGNIFICANT} over all bins"}
        panel.plot(positions[found], comparison.difference[found], "*", **star)
    tested = comparison.test is not None
    said = f"smallest p over all bins {comparison.test.p_value:.2g}" if tested else comparison.note
    panel.set_title(said, loc="right", fontsize="small")
    panel.set_ylabel("difference")


def _title(title: str, simulated: bool) -> str:
    return f"{'Simulated: ' if simulated else ''}{plain(title)}"


def _short(name: str) -> str:
    return plain(name if len(name) <= 12 else f"…{name[-11:]}")
