"""The dataset card (README.md) of a Parquet build, made from its manifest alone."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import DatasetCardData

from ..processing_neurt import MIN_NEURONS
from .recording import SIMULATED, SPLITS
from .wording import some, value_range

_COLUMNS = """\
| column | type | meaning |
| --- | --- | --- |
| `recording_id`, `subject_id`, `session_id` | string | recording (one imaging field), animal, imaging session |
| `field` | int32, nullable | number of the imaging field or plane |
| `roi_id` | string | the neuron, unique within its recording |
| `unit_id` | int64, nullable | the neuron across recordings |
| `trace` | list of float32 | activity, one value per frame; what it is says `trace_kind` |
| `sampling_rate` | float64 | frames per second (Hz) |
| `x_um`, `y_um`, `z_um` | float32, nullable | position in µm |
| `x_px`, `y_px` | float32, nullable | position in pixels, where only pixels are known |
| `trace_kind` | string | fluorescence, dff, denoised, deconvolved or events |
| `modality`, `brain_area`, `indicator` | string, nullable | how, where and with which indicator |
| `segment_starts` | list of int32 | frames at which concatenated trials or bouts begin |
| `accepted` | bool | the curator's choice |"""


def render_card(manifest: Mapping[str, Any]) -> str:
    """Return the card as Markdown with YAML front matter that names the splits that exist.

    Args:
        manifest: What `write_build` is about to write: "steps" and "files".
    """
    files = manifest["files"]
    origin, warning = _origin(sum(entry["modality"] == SIMULATED for entry in files), len(files))
    sections = [
        f"---\n{_front_matter(files)}\n---",
        f"# Neuronal activity, {origin}",
        "One row is one neuron (ROI) of one recording, in the layout of NEuRT. Open it with "
        f"`datasets.load_dataset(folder)`.{warning}",
        "## Contents\n\n" + _contents(files),
        "## Columns\n\n" + _columns(files),
        "## How it was made\n\n" + _steps(manifest["steps"]),
        "## Licence\n\nNone is stated here: the licence of the recordings that it was made from applies.",
    ]
    return "\n\n".join(sections) + "\n"


def _origin(simulated: int, recordings: int) -> tuple[str, str]:
    """Say in the title and in a sentence where the recordings come from."""
    if not simulated:
        return "recorded with calcium imaging", ""
    if simulated == recordings:
        return "simulated", " **All recordings here are simulated.**"
    return "partly simulated", f" **{simulated} of {recordings} recordings here are simulated.**"


def _front_matter(files: Sequence[Mapping[str, Any]]) -> str:
    splits = [split for split in SPLITS if any(e["split"] == split for e in files)]
    data_files = [{"split": split, "path": f"data/{split}/*.parquet"} for split in splits]
    configs = [{"config_name": "traces", "default": True, "data_files": data_files}]
    return DatasetCardData(tags=["calcium-imaging", "neuroscience"], configs=configs).to_yaml().strip()


def _contents(files: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| split | recordings | subjects | neurons | with positions | frames | Hz |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for split in sorted({entry["split"] for entry in files}):
        part = [entry for entry in files if entry["split"] == split]
        subjects = len({entry["subject_id"] for entry in part})
        neurons, placed = (sum(entry[key] for entry in part) for key in ("neurons", "neurons_with_positions"))
        frames, rates = (value_range(entry[key] for entry in part) for key in ("frames", "sampling_rate"))
        lines.append(f"| {split} | {len(part)} | {subjects} | {neurons} | {placed} | {frames} | {rates} |")
    few = some([_text(entry["recording_id"]) for entry in files if not entry["neighbour_channels"]])
    if few:
        why = f"With fewer than {MIN_NEURONS} accepted neurons with positions, so without neighbour channels"
        lines += ["", f"{why}: {few}."]
    return "\n".join(lines)


def _columns(files: Sequence[Mapping[str, Any]]) -> str:
    values: dict[str, set[str]] = {}
    for entry in files:
        for name, value in entry["labels"].items():
            values.setdefault(name, set()).update(set() if value is None else {value})
    rows = [
        f"| `{name}` | string, nullable | label: {some(list(map(_text, sorted(found))))} |"
        for name, found in sorted(values.items())
    ]
    return "\n".join([_COLUMNS, *rows])


def _steps(steps: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for step in steps:
        parameters = ", ".join(f"{name} = {value}" for name, value in step["parameters"].items())
        lines.append(f"- {_text(step['builder'])} {step['version']} ({_text(parameters)})")
        lines += [
            f"  - left out: {_text(entry.get('recording_id'))}: {_text(entry['why'])}" for entry in step["dropped"]
        ]
    return "\n".join(lines)


def _text(value: Any) -> str:
    """Show text from outside as text: no HTML, no Markdown link or table border, no second line."""
    plain = html.escape(" ".join(str(value).split()))
    return "".join(f"\\{letter}" if letter in "\\`*_[]|~" else letter for letter in plain)
