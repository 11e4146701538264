"""The measures of recordings as a table of text, one row a recording, and what its columns mean."""

from collections.abc import Sequence

import numpy as np

from .quality import QUANTILES, Quality, known_median

COLUMNS = (
    "recording",
    "neurons",
    "placed",
    "frames",
    "seconds",
    "Hz",
    "rate from",
    "segments",
    "NaN %",
    "noise",
    "drift",
    "traces",
    "look like",
    "distances",
    "alone",
)
MEANINGS = {
    "placed": "neurons with a position",
    "rate from": "where the sampling rate stands; unknown where the recording does not say",
    "noise": "median over neurons, in % of ΔF/F per √Hz (CASCADE's level); ~ in % of the trace's own SD per √Hz",
    "drift": "median over neurons of the change of the 10th percentile over thirds of the recording, in SD",
    "look like": "a guess from the shape of the traces, ? where they could be anything",
    "distances": f"between neurons, at the quantiles {', '.join(f'{q:g}' for q in QUANTILES)}",
    "alone": "neurons with fewer than two near or two far neurons at the radius; - where not counted",
}


def measures_table(qualities: Sequence[Quality]) -> list[str]:
    """Return the lines of the table and, below it, what its columns mean."""
    rows = [COLUMNS, *map(measures_row, qualities)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*lines, "", *(f"{column}: {meaning}" for column, meaning in MEANINGS.items())]


def measures_row(quality: Quality) -> tuple[str, ...]:
    """Return the cells of a recording, one for each of `COLUMNS`."""
    distances = quality.distances
    return (
        quality.recording_id,
        f"{quality.neurons}",
        f"{quality.positioned}",
        f"{quality.frames}",
        f"{quality.duration:.4g}",
        f"{quality.sampling_rate:.4g}",
        quality.sampling_rate_from,
        f"{quality.segments}",
        f"{100 * quality.nan_share:.3g}",
        ("" if quality.noise_is_absolute else "~") + _number(known_median(quality.noise)),
        _number(known_median(quality.drift)),
        quality.trace_kind,
        " or ".join(quality.looks_like) or "?",
        "-" if distances is None else f"{' '.join(map(_number, distances.quantiles))} {quality.unit}",
        "-" if distances is None or distances.alone is None else f"{len(distances.alone)}",
    )


def _number(value: float) -> str:
    """Return three digits, or a dash for NaN."""
    return "-" if np.isnan(value) else f"{value:.3g}"
