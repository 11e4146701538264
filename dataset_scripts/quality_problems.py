"""What is wrong with recordings, judged by their measures, and what to do about each."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..processing_neurt import MIN_FRAMES, MIN_NEURONS
from .quality import SPLIT_CORRELATION, SPLIT_DISTANCE, Quality, known_median
from .wording import count, some

WINDOW = 128  # frames, the processor's default
_WIDEST_UM, _NARROWEST = 5000, 20
_MANY_ALONE = 0.1
_UNLIKE_RATE = 1.1
_NOISY = 10  # times the median; on real recordings one ROI in some two thousand, and that one is empty


class Problem(NamedTuple):
    """One thing that is wrong with one recording.

    Args:
        recording: The recording_id.
        what: What is wrong, in the same words for each recording that has it.
        value: How much of it this recording has; may be empty.
        advice: What to do; may be empty.
    """

    recording: str
    what: str
    value: str
    advice: str


def problems_of(qualities: Sequence[Quality]) -> list[Problem]:
    """Return what is wrong with recordings: first what ends their use, last what may mean nothing."""
    alone = (
        Problem(quality.recording_id, *finding)
        for rule in (_size, _nan, _kind, _duplicates, _field, _traces)
        for quality in qualities
        for finding in rule(quality)
    )
    return [*_between(qualities), *_mixed_kinds(qualities), *_mixed_rates(qualities), *alone]


def _between(qualities: Sequence[Quality]) -> Iterator[Problem]:
    """Yield the recordings with the id or the arrays of another one before them."""
    first: dict[str, Quality] = {}
    seen: set[str] = set()
    for quality in qualities:
        name = quality.recording_id
        if name in seen:
            yield Problem(name, "a recording_id that another recording has", "", "rename one in --metadata")
        seen.add(name)
        if quality.digest and first.setdefault(quality.digest, quality) is not quality:
            twin = first[quality.digest].recording_id
            yield Problem(name, "exactly the arrays of another recording", f"as {twin}", "leave one of the two out")


def _mixed_kinds(qualities: Sequence[Quality]) -> Iterator[Problem]:
    """Yield the recordings that hold another kind of traces than most of the others."""
    usual = Counter(quality.trace_kind for quality in qualities).most_common(1)
    for quality in qualities:
        if quality.trace_kind != usual[0][0]:
            what = f"another kind of traces than the {usual[0][0]} of the others"
            yield Problem(quality.recording_id, what, quality.trace_kind, "make one build for each kind")


def _mixed_rates(qualities: Sequence[Quality]) -> Iterator[Problem]:
    """Yield the recordings whose windows would last clearly less long than those of the slowest one."""
    slowest = min((quality.sampling_rate for quality in qualities), default=0)
    for quality in qualities:
        if quality.sampling_rate > _UNLIKE_RATE * slowest:
            yield Problem(
                quality.recording_id,
                f"sampled over {100 * (_UNLIKE_RATE - 1):.0f} % faster than the {slowest:.4g} Hz of the slowest",
                f"{quality.sampling_rate:.4g} Hz",
                f"import all with --resample-to {slowest:.4g}, or make one build for each rate",
            )


def group_problems(problems: Sequence[Problem], recordings: int) -> list[str]:
    """Return one line for each thing that is wrong, in order of appearance, however many recordings have it.

    Args:
        problems: Of all recordings.
        recordings: How many there are in all.
    """
    groups: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        groups.setdefault((problem.what, problem.advice), []).append(problem)
    return [_line(group, recordings) for group in groups.values()]


def _line(group: Sequence[Problem], recordings: int) -> str:
    what, advice = group[0].what, "; " + group[0].advice if group[0].advice else ""
    if len(group) == 1:
        value = f" ({group[0].value})" if group[0].value else ""
        return f"{group[0].recording}: {what}{value}{advice}"
    members = some([f"{one.recording} ({one.value})" if one.value else one.recording for one in group])
    return f"{len(group)} of {recordings} recordings: {what}{advice}: {members}"


def group_unreadable(reasons: Mapping[str, str]) -> list[str]:
    """Return one line for each reason why files cannot be read, whatever the numbers in it."""
    groups: dict[str, list[str]] = {}
    for file, why in reasons.items():
        groups.setdefault(re.sub(r"[\d.]+", "0", why), []).append(file)
    return [_unreadable_line(files, reasons[files[0]]) for files in groups.values()]


def _unreadable_line(files: Sequence[str], why: str) -> str:
    if len(files) == 1:
        return f"{files[0]}: {why}"
    return f"{len(files)} cannot be read: {files[0]}: {why}; likewise {some(files[1:])}"


_Findings = Iterator[tuple[str, str, str]]


def _size(quality: Quality) -> _Findings:
    if quality.longest_segment < MIN_FRAMES:
        advice = "no window fits: leave it out, or transpose it if one row is one neuron"
        yield f"no stretch of {MIN_FRAMES} frames", count(quality.longest_segment, "frame"), advice
    elif quality.longest_segment < WINDOW:
        advice = "windows of the default length would be padded: train with a shorter --window-length"
        yield f"no stretch of {WINDOW} frames", count(quality.longest_segment, "frame"), advice
    if quality.positioned < MIN_NEURONS:
        advice = "leave it out, or train with --missing-neighbours mask"
        needed = f"fewer than the {MIN_NEURONS} neurons with positions that neighbour channels need"
        yield needed, f"{quality.positioned}", advice


def _nan(quality: Quality) -> _Findings:
    if quality.nan_neurons:
        value = f"{quality.nan_frames} of {quality.frames} frames, {_of(quality.nan_neurons, quality)}"
        advice = "fill gaps or leave neurons out with --nan when importing"
        yield "NaN or infinite values", value, advice


def _kind(quality: Quality) -> _Findings:
    if quality.looks_like and quality.trace_kind not in quality.looks_like:
        looks = " or ".join(quality.looks_like)
        advice = "a guess from their shape: check which array was exported, then --trace-kind"
        yield f"traces said to be {quality.trace_kind} that look like {looks}", "", advice


def _traces(quality: Quality) -> _Findings:
    if quality.constant:
        yield (
            "constant traces",
            _of(quality.constant, quality),
            "an import leaves them out",
        )
    if quality.saturated:
        advice = "a clipped detector or export: leave these neurons out"
        yield "traces that stand at their maximum", _of(quality.saturated, quality), advice
    noisy = np.flatnonzero(quality.noise > _NOISY * known_median(quality.noise))
    if len(noisy):
        advice = "empty ROIs, or dF/F over a baseline near 0: leave them out"
        yield f"neurons over {_NOISY} times as noisy as the others", _of(noisy, quality), advice
    if quality.shared_steps:
        times = some([f"{frame / quality.sampling_rate:.4g}" for frame in quality.shared_steps])
        advice = "movement, a change of light, or a burst of the whole network: look at the movie there"
        yield "frames at which most neurons jump together", f"{len(quality.shared_steps)}: at {times} s", advice
    drift = known_median(quality.drift)
    if drift > 1:
        advice = "bleaching or moving focus: import fluorescence with --dff-window, or expect slow trends"
        yield "baselines that wander by over one SD in most neurons", f"median {drift:.2f} SD", advice


def _duplicates(quality: Quality) -> _Findings:
    if quality.identical:
        yield "neurons with exactly the trace of another", _of(quality.identical, quality), "leave the copies out"
    if quality.split_pairs:
        unit = quality.unit
        what = f"pairs within {SPLIT_DISTANCE:g} {unit} whose traces correlate by over {SPLIT_CORRELATION}"
        pairs = [" with ".join(quality.roi_ids[row] for row in pair) for pair in quality.split_pairs]
        value = f"{len(pairs)}: roi {some(pairs)}"
        yield what, value, "likely one cell cut in two: merge them where the ROIs were made"


def _field(quality: Quality) -> _Findings:
    distances, unit = quality.distances, quality.unit
    if distances is None:
        return
    width, height = distances.extent
    advice = "check the unit of the positions and --um-per-pixel"
    if unit == "µm" and max(width, height) > _WIDEST_UM:
        yield "a field wider than 5 mm", f"{width:.0f} x {height:.0f} µm", advice
    if max(width, height) < _NARROWEST and quality.positioned >= MIN_NEURONS:
        yield f"all positions within {_NARROWEST} {unit}", f"{width:.3g} x {height:.3g}", advice
    elif distances.crowded:
        yield f"more neurons within {SPLIT_DISTANCE:g} {unit} of each other than tissue holds", "", advice
    if distances.same_position:
        value = _of(distances.same_position, quality)
        yield "neurons at exactly the position of another", value, "check where positions come from"
    if distances.radius is None:
        advice = "pass --um-per-pixel, or use --radius-unit quantile"
        yield f"positions in {unit}, another unit than the radius", "", advice
    elif quality.positioned >= MIN_NEURONS and len(distances.alone or ()) > _MANY_ALONE * quality.positioned:
        value = _of(distances.alone, quality)
        yield "too few near or far neurons at the radius", value, "such neurons give no windows: try another --radius"


def _of(rows: Sequence[int], quality: Quality) -> str:
    names = some([quality.roi_ids[row] for row in rows])
    return f"{len(rows)} of {count(quality.neurons, 'neuron')}: roi {names}"
