"""What a model says of one recording, in sections of a page: quality, reconstruction, class, explanation.

    for html in show("recording.npz", "EMPTY FOLDER", "MODEL", Stated()):
        ...

Each section is made when it is asked for. One that cannot be made says why, and the others are made all the same.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from .dataset_scripts.import_recordings import find_recordings, given
from .dataset_scripts.inspect_figure import recording_figure
from .dataset_scripts.inspect_table import COLUMNS, MEANINGS, measures_row
from .dataset_scripts.metadata import Facts
from .dataset_scripts.quality import Quality, measure
from .dataset_scripts.quality_problems import group_problems, problems_of
from .dataset_scripts.readers import READERS
from .dataset_scripts.readers.source import NothingUsable
from .dataset_scripts.recording import Recording
from .dataset_scripts.simulate import Place, simulate_recording
from .dataset_scripts.simulation_config import SimulationConfig
from .dataset_scripts.windows import WindowDataset
from .dataset_scripts.wording import count, printable, some
from .evaluation import MODEL, ReconstructionScores, evaluate_reconstruction, reconstruction_examples
from .explain.explained import gather
from .explain.faithfulness import Trial, Verdict, judge, open_trial
from .explain.figures import removal_figure, stamp, window_figure
from .explain.methods import FRAME_ABLATION, METHODS, POOLING_ATTENTION
from .explain.page import Picture, Section, Table, render_sections
from .explain.recording_map import relative_weights
from .inference import is_classifier
from .loading import load_processor, load_quietly, shipped_model
from .masking import MaskedSignalCollator
from .modeling_neurt import NeurtForMaskedSignalModeling, NeurtForSequenceClassification
from .pipeline_neurt import NeuronSignalClassificationPipeline
from .processing_neurt import MIN_NEURONS, NeurtProcessor
from .summary import reconstruction_figure
from .uploads import FORMATS, check_values, take_in

SEED = 0
# Few enough for a page that somebody waits for; which windows they are depends on the seed alone.
RECONSTRUCTED, CLASSIFIED, EXPLAINED, DRAWN = 128, 4096, 8, 4
EXPLANATIONS = (POOLING_ATTENTION, FRAME_ABLATION)
# One mouse of the simulator's, of the group in which half of the neurons fire three times as often.
EXAMPLE = SimulationConfig(subjects_per_group=1, neurons=40, duration=180.0, sampling_rate=5.0, seed=7)
RATE, PIXEL, KIND = "Frames per second (Hz)", "Micrometres per pixel", "What the traces are"
SERIES = "Series of an NWB file"
# What errors call a flag of the command line is a field of the page, or not to be had there.
_FIELDS = {
    "pass --sampling-rate or a sampling_rate column in --metadata": f'fill in "{RATE}"',
    "pass --trace-kind": f'choose "{KIND}":',
    "choose with --series and a name in its path": f'fill in one of them, or a name in it, as "{SERIES}"',
    "with --trace-kind": f'with "{KIND}":',
    "pass --neuropil-coefficient 0 to go without": "put it in the zip",
    "pass --all-rois": "put it in the zip",
    "--sampling-rate": f'"{RATE}"',
    "--um-per-pixel": f'"{PIXEL}"',
    "--trace-kind": f'"{KIND}"',
    "--series": f'"{SERIES}"',
}


@dataclass(frozen=True)
class Stated:
    """What the file does not say; None where nothing is stated.

    Args:
        sampling_rate: Frames per second (Hz).
        um_per_pixel: Edge of a pixel in µm.
        trace_kind: One of `TRACE_KINDS`.
        series: Which series of an NWB file to read: a path, or one name in it.
    """

    sampling_rate: float | None = None
    um_per_pixel: float | None = None
    trace_kind: str | None = None
    series: str | None = None


def show(upload: str | None, folder: str, model: str, stated: Stated) -> Iterator[str]:
    """Yield the sections as HTML, text of strangers escaped.

    Args:
        upload: An `.npz` archive, a zip of a suite2p folder or an NWB file; None for the simulated example.
        folder: An empty folder for what is unpacked, to be removed by the caller.
        model: Folder or Hub name of a masked model or a classifier.
        stated: What the file does not say.

    Raises:
        ValueError: If the upload is refused, or holds no recording that can be read.
    """
    try:
        recordings, notes = ([example()], []) if upload is None else read_upload(Path(upload), Path(folder), stated)
    except (ValueError, OSError) as error:
        raise ValueError(in_words_of_the_page(str(error), folder)) from None
    for place, section in enumerate(sections(recordings, notes, model)):
        yield render_sections([section], before=place)


def example() -> Recording:
    """The built-in recording, always the same; no animal was recorded."""
    # Not by the name of a mouse of the simulator's, which a model may have been trained on another of.
    return replace(simulate_recording(EXAMPLE, Place(mouse=2)), recording_id="example", subject_id="example")


def read_upload(upload: Path, folder: Path, stated: Stated) -> tuple[list[Recording], list[str]]:
    """Take in an upload and read its recordings; also what was passed over, in words.

    Raises:
        ValueError: If it is refused, or cannot be read.
    """
    path = take_in(upload, folder)
    flags = Facts(sampling_rate=stated.sampling_rate, um_per_pixel=stated.um_per_pixel)
    options = given(trace_kind=stated.trace_kind, series=stated.series)
    format, found, facts = find_recordings(path, FORMATS[upload.suffix.lower()], flags, options)
    recordings, passed_over, values = [], list(found.passed_over), 0
    for source in found.sources:
        try:
            for recording in READERS[format].read(source, facts[source.file], **options):
                values += recording.traces.size
                check_values(values)
                recordings.append(recording.accepted_neurons())
        except NothingUsable as nothing:
            passed_over.append((source.file, str(nothing)))
    notes = [f"left {file}: {why}" for file, why in passed_over]
    if not recordings:
        raise ValueError(f"expected a recording with neurons in it, got none; {'; '.join(notes)}")
    return recordings, notes


def in_words_of_the_page(said: str, folder: str | None = None) -> str:
    """What a reader says in one line, without the place of the file and with fields instead of flags."""
    line = printable(" ".join((said.replace(f"{folder}/", "") if folder else said).split()))
    for words, field in _FIELDS.items():
        line = line.replace(words, field)
    return line


def sections(recordings: Sequence[Recording], notes: Sequence[str], model: str) -> Iterator[Section]:
    """The sections; those after the first are of one recording, the first with positions for neighbour channels."""
    qualities = [measure(recording) for recording in recordings]
    chosen = next((i for i, quality in enumerate(qualities) if quality.positioned >= MIN_NEURONS), 0)
    recording = recordings[chosen]
    yield quality_section(recording, qualities, chosen, notes)
    classifies = is_classifier(model)
    masked = str(shipped_model()) if classifies else model
    yield _or_why("Reconstruction of hidden gaps", reconstruction_section, recording, masked)
    if not classifies:
        why = "Not asked: this model has no classification head, and without a decision there is nothing to explain."
        yield Section("Class and explanation", [why])
        return
    yield _or_why("Class of the recording", classification_section, recording, model)
    yield _or_why("Explanation, and whether it may be believed", explanation_section, recording, model)


def _or_why(title: str, make: Callable[..., Section], *arguments) -> Section:
    try:
        return make(title, *arguments)
    except ValueError as error:
        return Section(title, [f"Not possible: {in_words_of_the_page(str(error))}."])


def quality_section(recording: Recording, qualities: Sequence[Quality], chosen: int, notes: Sequence[str]) -> Section:
    """What `neurt inspect` says of the recordings, and a picture of one of them.

    Args:
        recording: The one to draw.
        qualities: The measures of all.
        chosen: The place of the recording among them.
        notes: What readers passed over.
    """
    problems = group_problems(problems_of(qualities), len(qualities))
    said = [f"Problem: {line}." for line in problems] or ["No problem was found."]
    if len(qualities) > 1:
        names = some([quality.recording_id for quality in qualities])
        said.append(f"{len(qualities)} recordings are in the file ({names}); what follows is of the one below.")
    said += [f"Note: {note}." for quality in qualities for note in quality.notes]
    said = [in_words_of_the_page(line) for line in [*said, *(f"Note: {note}." for note in notes)]]
    if any(" --" in line for line in said):
        said.append("What begins with -- is said on the command line, for example to neurt import.")
    rows = [
        (name, cell, MEANINGS.get(name, ""))
        for name, cell in zip(COLUMNS, measures_row(qualities[chosen]), strict=True)
    ]
    caption = "Traces in the order of their first principal component; one neuron with the neurons near it; noise."
    return Section(
        "Quality check",
        said,
        _simulated(recording),
        [Table("Measures", ("measure", "value", "meaning"), rows)],
        [Picture.drawn(recording_figure(recording, qualities[chosen]), "Traces, positions and noise", caption)],
    )


def reconstruction_section(title: str, recording: Recording, model: str) -> Section:
    """Hidden gaps as the model and straight lines fill them, with the errors of both."""
    network = load_quietly(NeurtForMaskedSignalModeling, model).eval()
    processor = load_processor(model)
    dataset = windows_of(recording, processor)
    collate = MaskedSignalCollator(SEED, default_sampling_rate=network.config.default_sampling_rate)
    batch = collate([dataset[row] for row in dataset.sample(RECONSTRUCTED, SEED)])
    scores = evaluate_reconstruction(network, [batch], simulated=recording.simulated, seed=SEED)
    examples = reconstruction_examples(network, batch, DRAWN)
    figure = reconstruction_figure(examples, recording.simulated)
    caption = f"{DRAWN} windows evenly spaced among those scored, not chosen by how well they look. Grey: hidden."
    return Section(
        title,
        [compare_errors(scores), *_about_windows(dataset)],
        [*_seen(recording, network), *_unlike(recording, processor)],
        [errors_table(scores)],
        [Picture.drawn(figure, "Hidden gaps, reconstructed", caption)],
    )


def compare_errors(scores: ReconstructionScores) -> str:
    """Whether the model comes nearer to what was hidden than straight lines do."""
    model, lines = (_root(scores.row(name)["squared_error"]) for name in (MODEL, "linear interpolation"))
    words = "smaller than" if model < lines else "not smaller than"
    return (
        f"At hidden frames of the own trace the model's error is {words} that of linear interpolation: {model:.3g} "
        f"against {lines:.3g}, root mean squares on the scale of the model's input. {scores.measured_on}; one "
        "recording says nothing of how much that varies over animals."
    )


def errors_table(scores: ReconstructionScores) -> Table:
    """Errors on the own trace, the model first."""
    rows = []
    for predictor in scores.predictors:
        row = scores.row(predictor)
        cells = (_root(row["squared_error"]), row["mae"], row["r2_within"])
        rows.append((predictor, *(f"{cell:.3g}" for cell in cells), f"{row['n']}"))
    header = ("predictor", "root mean squared error", "mean absolute error", "R² within windows", "hidden frames")
    return Table("Errors at hidden frames, own trace", header, rows)


def _root(squared: float) -> float:
    return float(np.sqrt(squared))


def classification_section(title: str, recording: Recording, model: str) -> Section:
    """The class of the recording by the mean log-odds of its windows."""
    network = _classifier(model)
    processor = load_processor(model)
    classify = NeuronSignalClassificationPipeline(network, processor=processor, device="cpu")
    windows = classify.preprocess(recording, missing_neighbours="mask")
    number = len(windows["input_values"])
    kept = np.sort(np.random.default_rng(SEED).permutation(number)[:CLASSIFIED])
    some_of = {name: values if name == "dropped" else values[kept] for name, values in windows.items()}
    found = classify.postprocess(classify.forward(some_of))
    of_neurons = [neuron["label"] for neuron in found["neurons"]]
    rows = [(name, f"{score:.3f}", f"{of_neurons.count(name)}") for name, score in found["scores"].items()]
    sampled = f", a sample of {number:,}" if len(kept) < number else ""
    said = [
        f"The model says {found['label']}, with a probability of {found['score']:.2f} by the mean log-odds of "
        f"{len(kept):,} windows{sampled}. Probabilities are not calibrated. This is one recording of one animal: how "
        "often the model is right is told by a test on animals that it was not trained on; see its card."
    ]
    header = ("class", "probability", "neurons given this class")
    warnings = [*_seen(recording, network), *_unlike(recording, processor)]
    return Section(title, said, warnings, [Table("Scores of the recording", header, rows)])


def explanation_section(title: str, recording: Recording, model: str) -> Section:
    """Which frames the decision rests on by two methods, and how far that could be tested on one recording."""
    network = _classifier(model)
    dataset = windows_of(recording, load_processor(model))
    trial = open_trial(network, gather(dataset, dataset.sample(EXPLAINED, SEED)), seed=SEED)
    verdicts = {name: judge(trial, METHODS[name]) for name in EXPLANATIONS}
    said = [
        "Frames that an explanation calls important are hidden, the most important first; the log-odds must then fall "
        "faster than with each control: frames in random order, the same map turned in time, and the same method on "
        "random weights. Whether an explanation holds is a statement about animals, and one recording is one animal: "
        "there are no intervals, and nothing here counts as tested. neurt explain report tests it on a cohort.",
        *(f"{name.capitalize()}: {verdict.sentence}" for name, verdict in verdicts.items()),
    ]
    pictures = [_example_window(trial, recording, verdicts)]
    pictures += [_curves(name, verdict, recording) for name, verdict in verdicts.items()]
    return Section(title, said, _seen(recording, network), pictures=pictures)


def _example_window(trial: Trial, recording: Recording, verdicts: dict[str, Verdict]) -> Picture:
    """Maps of the window of which the model is surest."""
    row, windows = np.array([int(np.argmax(trial.visible))]), trial.windows
    window, target = windows[row], trial.targets[row]
    maps = {name: METHODS[name](trial.model, window, target) for name in EXPLANATIONS}
    maps[POOLING_ATTENTION] = relative_weights(maps[POOLING_ATTENTION], window.real)
    figure = window_figure(
        np.where(window.real[0], window.inputs["input_values"][0, :, 0].numpy(), np.nan),
        {name: each[0] for name, each in maps.items()},
        maps[POOLING_ATTENTION][0],
        sampling_rate=recording.sampling_rate,
        title=f"Neuron {window.roi_ids[0]} of {recording.recording_id}",
        start_frame=int(window.start_frame[0]),
        units={POOLING_ATTENTION: "weight", FRAME_ABLATION: "log-odds"},
        verdicts={name: verdict.stamp for name, verdict in verdicts.items()},
        simulated=recording.simulated,
    )
    caption = "The window of which the model is surest: its own trace, scaled, and the importance of each frame."
    return Picture.drawn(figure, "Maps of one window", caption)


def _curves(name: str, verdict: Verdict, recording: Recording) -> Picture:
    curves = {"removed": verdict.deletion, "shown": verdict.insertion}
    title = f"Frames by {name}"
    figure = removal_figure(verdict.shares, curves, unit="frames", title=title, simulated=recording.simulated)
    stamp(figure, verdict.stamp)
    caption = (
        "Left: hidden, the curve should fall faster than those of all controls. Right: shown; this does not decide."
    )
    return Picture.drawn(figure, title, caption)


def windows_of(recording: Recording, processor: NeurtProcessor) -> WindowDataset:
    """The windows of a recording; of neurons without neighbours they have the own trace alone."""
    return WindowDataset([recording], processor, missing_neighbours="mask")


def _about_windows(dataset: WindowDataset) -> list[str]:
    """What was left out, and whether neighbours were."""
    (windows,) = dataset.by_recording
    alone = int(np.isnan(windows.channels[windows.neurons, 0]).any(1).sum())
    of = f"{alone} of {count(len(windows.neurons), 'neuron')}"
    said = f"Of {of} the model sees the own trace alone: too few others have a position, near or far."
    lost = [f"{count(number, 'neuron')} left out: {reason}." for reason, number in windows.dropped.items()]
    return [said, *lost] if alone else lost


def _classifier(model: str) -> NeurtForSequenceClassification:
    network = load_quietly(NeurtForSequenceClassification, model).eval()
    if network.config.num_labels < 2:
        raise ValueError(f"expected a classifier of two classes or more, got one of {network.config.num_labels}")
    return network


def _seen(recording: Recording, network: torch.nn.Module) -> list[str]:
    if recording.subject_id not in (network.config.pretraining_subjects or ()):
        return []
    return [f"The model was trained on {recording.subject_id}: this says nothing of new animals."]


def _unlike(recording: Recording, processor: NeurtProcessor) -> list[str]:
    """What the processor warns of in the log, for those who see the page alone."""
    rate, kind = processor.sampling_rate, processor.trace_kind
    unlike = []
    if rate and abs(recording.sampling_rate / rate - 1) > 0.1:
        unlike.append(f"The model was trained at {rate:g} Hz, this recording has {recording.sampling_rate:g} Hz.")
    if kind and kind != recording.trace_kind:
        unlike.append(f"The model was trained on {kind}, these traces are {recording.trace_kind}.")
    return unlike


def _simulated(recording: Recording) -> list[str]:
    return ["This recording is simulated: no animal was recorded."] if recording.simulated else []
