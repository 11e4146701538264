"""The report of the reconstruction benchmark: criteria first, then every number."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from measurement import markdown_table
from neurt.processing_neurt import CHANNELS
from reconstruction_predictors import (
    AR_OTHERS,
    AR_OWN,
    COPY_LAST,
    INTERPOLATION,
    MODEL,
    PUBLISHED,
    RIDGE_OTHERS,
    RIDGE_OWN,
    WINDOW_MEAN,
)
from reconstruction_statistics import better_until
from reconstruction_windows import FORECAST_SECONDS, NEURON_NOT_CLOSE

SMOOTH = 0.8  # R² of interpolation from which a set's channel counts as smooth
GOALS = {"algamal_two_photon": 0.70}  # own-trace squared error over that of interpolation
JUDGED_AFTER = 1.0  # s, of forecasts
OVERVIEW = (MODEL, PUBLISHED, INTERPOLATION, "Gaussian process", AR_OTHERS, AR_OWN, COPY_LAST, WINDOW_MEAN)

NOTES = """\
Ratio: the model's squared error over the predictor's; below 1 the model is better. Brackets: 95 % bootstrap intervals
over the unit named with each table, of ratios paired; with five or six animals they are somewhat too narrow.
R² is pooled over neurons, mostly variance between them; within R² is relative to the mean of each window's hidden
values, which no predictor knows, so a constant scores below 0.

Autoregression fills a gap with its conditional mean given all visible frames on both sides. "Of others": fitted to
other animals recorded at a similar rate; in a set of one animal, to other neurons of the same animal. "Own past":
fitted to the neuron's frames before the window and, unless the channel is hidden throughout, to what is visible in
it; where that is too short, the fit of others stands in. Gaussian processes: Matérn kernels whose length, smoothness
and noise are the likeliest for each recording and channel, given visible frames alone. The published checkpoint gets
zeros at hidden frames, as it was trained; it never was trained on whole channels or forecasts. "Level and size from
others": the model sees one window and cannot know at which level a wholly hidden channel of this set lies, which ridge
of others does; here its predictions are mapped linearly as fits the others' windows best. Forecasts are scaled
by the first 80 % of each recording and lie in the rest, and 1 s stands for the frames after 0.75 s up to 1 s; in all
other tasks min-max scaling has seen the whole recording."""


def report(results: Mapping[str, Any], settings: Mapping[str, Any], seconds: float) -> str:
    """Everything, as Markdown.

    Args:
        results: By set, what `measure_set` of the benchmark found.
        settings: windows, seed and window_length.
        seconds: What the run took.
    """
    parts = [
        "# Reconstruction of real recordings",
        f"Windows of {settings['window_length']} frames, at most {settings['windows']} of a recording (more in "
        f"sets of few recordings), seed {settings['seed']}; the whole run took {seconds / 60:.0f} minutes. No "
        "recording is simulated.",
        NOTES,
        "## Criteria",
        markdown_table(["set", "criterion", "ratios", ""], criteria(results)),
        "## Own trace, gaps of 1 to 10 frames: R²",
        overview_table(results),
    ]
    for name, found in results.items():
        parts += [f"## {name}", set_line(found["about"])]
        parts += [f"{task}: left out, {why}." for task, why in found["left_out"].items()]
        for task, scores in found["tasks"].items():
            parts += [f"### {name}: {task}", measured_line(scores), scores_table(scores)]
            parts += [horizon_table(scores)] if "horizons" in scores else []
            parts += [ceiling_table(scores)] if "ceiling" in scores else []
    return "\n\n".join(parts)


def criteria(results: Mapping[str, Any]) -> Iterator[list[str]]:
    """Rows of set, criterion, ratios, verdict."""
    for name, found in results.items():
        tasks = found["tasks"]
        if "span" in tasks:
            yield from ([name, *row] for row in span_criteria(name, tasks["span"]))
        for task in ("neuron", NEURON_NOT_CLOSE, "population"):
            if task in tasks:
                for ridge in (RIDGE_OTHERS, RIDGE_OWN):
                    yield [name, *judged(f"{task}: below {ridge}", rows_of(tasks[task], ridge))]
                    rows = rows_of(tasks[task], ridge, "calibrated_rows")
                    yield [name, *judged(f"{task}, level and size from others: below {ridge}", rows)]
        if "forecast" in tasks:
            at_second = [row for row in tasks["forecast"]["horizons"] if row["seconds"] == JUDGED_AFTER]
            for baseline in (COPY_LAST, AR_OTHERS, AR_OWN):
                rows = [row for row in at_second if row["predictor"] == baseline]
                yield [name, *judged(f"forecast at {JUDGED_AFTER:g} s: below {baseline}", rows)]


def span_criteria(name: str, task: Mapping[str, Any]) -> Iterator[list[str]]:
    """Rows of criterion, ratios, verdict for gaps."""
    if rows_of(task, PUBLISHED):
        yield judged("gaps: below the published checkpoint", rows_of(task, PUBLISHED))
    lines = rows_of(task, INTERPOLATION)
    rough = [row["channel"] for row in lines if row["r2"] < SMOOTH]
    if rough:
        best = [best_row(task, channel, (INTERPOLATION, WINDOW_MEAN, AR_OTHERS, AR_OWN)) for channel in rough]
        which = f"gaps, where interpolation's R² is below {SMOOTH}: below the best of it, window mean, autoregression"
        yield judged(which, best)
    smooth = [row for row in lines if row["channel"] not in rough]
    if smooth:
        yield judged(f"gaps, where interpolation's R² is {SMOOTH} or more: at most interpolation", smooth)
    if name in GOALS:
        own = [row for row in lines if row["channel"] == CHANNELS[0]]
        yield judged(f"gaps, own trace: at most {GOALS[name]} of interpolation", own, GOALS[name])


def rows_of(task: Mapping[str, Any], predictor: str, among: str = "rows") -> list[dict]:
    """A predictor's rows, one for each hidden channel; `among` says in which list."""
    return [row for row in task[among] if row["predictor"] == predictor]


def best_row(task: Mapping[str, Any], channel: str, among: Sequence[str]) -> dict:
    """The row of the predictor with the smallest error."""
    rows = [row for row in task["rows"] if row["channel"] == channel and row["predictor"] in among]
    return min(rows, key=lambda row: row["squared_error"])


def judged(criterion: str, rows: Iterable[Mapping[str, Any]], goal: float = 1.0) -> list[str]:
    """The criterion, each channel's ratio, and the verdict: which channels fail, which pass without certainty."""
    rows = list(rows)
    if not rows:
        return [criterion, "", "not measured"]
    ratios = "; ".join(f"{row['channel']} {with_brackets(row, 'ratio', 2)}" for row in rows)
    failed = [row["channel"] for row in rows if not row["ratio"] <= goal]
    if failed:
        return [criterion, ratios, f"FAIL: {', '.join(failed)}"]
    unsure = [row["channel"] for row in rows if not row["ratio_interval"][1] <= goal]
    return [criterion, ratios, f"PASS (interval reaches beyond {goal:g}: {', '.join(unsure)})" if unsure else "PASS"]


def overview_table(results: Mapping[str, Any]) -> str:
    """R² of the own trace by set and predictor."""
    rows = []
    for name, found in results.items():
        if "span" in found["tasks"]:
            by_name = {
                row["predictor"]: row for row in found["tasks"]["span"]["rows"] if row["channel"] == CHANNELS[0]
            }
            cells = [with_brackets(by_name[p], "r2", 3) if p in by_name else "–" for p in OVERVIEW]
            rows.append([name, *cells])
    return markdown_table(["set", *OVERVIEW], rows)


def set_line(about: Mapping[str, Any]) -> str:
    """What a set is."""
    slowest, fastest = about["rates"]
    rate = f"{slowest:.1f} Hz" if fastest - slowest < 0.05 else f"{slowest:.1f} to {fastest:.1f} Hz"
    kinds = " and ".join(about["trace_kinds"])
    return f"Animals: {about['animals']}; recordings: {about['recordings']}; traces: {kinds} at {rate}."


def measured_line(task: Mapping[str, Any]) -> str:
    """What a task was measured on."""
    line = f"{task['windows']} windows of {task['neurons']} neurons; intervals over {task['units']} {task['unit']}s."
    if task["skipped"]:
        recording, why = next(iter(task["skipped"].items()))
        line += f" Recordings skipped: {len(task['skipped'])} ({recording}: {why})."
    return line


def scores_table(task: Mapping[str, Any]) -> str:
    rows = [
        [
            row["channel"],
            row["predictor"],
            with_brackets(row, "r2", 3),
            with_brackets(row, "r2_within", 3),
            f"{row['mae']:.3g}",
            "" if row["predictor"] == MODEL else with_brackets(row, "ratio", 3),
        ]
        for row in task["rows"]
    ]
    return markdown_table(["channel", "predictor", "R²", "within R²", "MAE", "ratio"], rows)


def horizon_table(task: Mapping[str, Any]) -> str:
    """Up to which horizon the model beats each predictor, by channel."""
    rows = task["horizons"]
    channels, predictors = (list(dict.fromkeys(row[key] for row in rows)) for key in ("channel", "predictor"))
    table = [
        [predictor, *(seconds_cell(better_until(rows, predictor, channel)) for channel in channels)]
        for predictor in predictors
        if predictor != MODEL
    ]
    title = "The model is better, its interval below 1 at every horizon, up to (s):"
    return f"{title}\n\n{markdown_table(['predictor', *channels], table)}"


def seconds_cell(seconds: float) -> str:
    if not seconds:
        return "–"
    return f"{seconds:g} or more" if seconds >= FORECAST_SECONDS else f"{seconds:g}"


def ceiling_table(task: Mapping[str, Any]) -> str:
    """Share of the own trace's explainable variance that each predictor reaches, or why none is told."""
    if not task["ceiling"]:
        return "No estimate of the noise ceiling: such traces have lost the white noise that it needs."
    ceiling = task["ceiling"][0]
    title = (
        f"White noise leaves R² at most {ceiling['ceiling']:.3f}, within windows {ceiling['ceiling_within']:.3f} (own "
        "trace). Fast signal counts as noise, so that shares may pass 1; resampled recordings have lost part of "
        "their noise. Share of what can be explained:"
    )
    rows = [[row["predictor"], f"{row['share']:.3f}", f"{row['share_within']:.3f}"] for row in task["ceiling"]]
    return f"{title}\n\n{markdown_table(['predictor', 'share', 'share within windows'], rows)}"


def with_brackets(row: Mapping[str, Any], name: str, digits: int) -> str:
    """A number and its interval."""
    low, high = row[f"{name}_interval"]
    return f"{row[name]:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
