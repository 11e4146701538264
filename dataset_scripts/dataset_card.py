"""The dataset card (README.md) of a Parquet build, made from its manifest alone."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from huggingface_hub import DatasetCardData

from ..markdown_text import markdown_table
from ..processing_neurt import MIN_NEURONS
from .build_manifest import by_split, further_columns, label_values
from .parquet_rows import LONG_COLUMNS, build_schema
from .preparation import preparation_notes
from .recording import SIMULATED
from .wording import byte_size, printable, some, tallied, value_range

CONTENTS = ("split", "recordings", "subjects", "neurons", "with positions", "frames", "Hz", "size")
_COLUMNS = """\
| column | type | meaning |
| --- | --- | --- |
| `recording_id`, `subject_id`, `session_id` | string | recording (one imaging field), animal, imaging session |
| `field` | int32, nullable | number of the imaging field or plane |
| `roi_id` | string | the neuron, unique within its recording |
| `unit_id` | int64, nullable | identity of the neuron, as its source numbers it |
| `trace` | list of float32 | activity, one value per frame; what it is says `trace_kind`; not in `units` |
| `sampling_rate` | float64 | frames per second (Hz) |
| `x_um`, `y_um`, `z_um` | float32, nullable | position in µm |
| `x_px`, `y_px` | float32, nullable | position in pixels, where only pixels are known |
| `trace_kind` | string | fluorescence, dff, denoised, deconvolved or events |
| `modality`, `brain_area`, `indicator` | string, nullable | how, where and with which indicator |
| `segment_starts` | list of int32 | frames at which concatenated trials or bouts begin; not in `units` |
| `accepted` | bool | the curator's choice |"""

_USE = """\
```python
from datasets import load_dataset

traces = load_dataset("PATH_OR_NAME")
units = load_dataset("PATH_OR_NAME", "units")
```"""

_MARKUP = frozenset("\\`*_[]|~$#")
_MOST_LEFT_OUT = 20


def render_card(manifest: Mapping[str, Any]) -> str:
    """Return the card as Markdown with YAML front matter that names the configurations, splits and features.

    Args:
        manifest: What the build is about to have as its manifest.
    """
    files, steps = manifest["files"], manifest["steps"]
    origins = _origins(steps)
    title, warning = _title(files, origins)
    meanings = {name: meaning for origin in origins for name, meaning in origin.get("columns", {}).items()}
    sections = [
        f"---\n{_front_matter(manifest)}\n---",
        f"# {title}",
        "One row is one neuron (ROI) of one recording, in the layout of NEuRT. The configuration `traces` holds all "
        f"columns, `units` the same rows without the traces.{warning}",
        _USE,
        "## Contents\n\n" + _contents(files),
        "## Columns\n\n" + _columns(files, manifest["class_labels"], meanings),
        "## How it was made\n\n" + _steps(steps) + _traces(files),
        f"The layout is format {manifest['format']} of NEuRT builds; `manifest.json` has the SHA-256 of every file.",
        *_section("Changes from the source", "changes", origins),
        "## Licence\n\n" + _licence(steps),
        *_section("Citation", "citation", origins),
    ]
    return "\n\n".join(sections) + "\n"


def _origins(steps: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the origins that are stated, each once, in order."""
    origins: list[Mapping[str, Any]] = []
    for step in steps:
        if step.get("origin") and step["origin"] not in origins:
            origins.append(step["origin"])
    return origins


def _title(files: Sequence[Mapping[str, Any]], origins: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Say in the title and in a sentence where the recordings come from."""
    simulated = sum(entry["modality"] == SIMULATED for entry in files)
    if simulated == len(files):
        return "Neuronal activity, simulated", " **All recordings here are simulated.**"
    if simulated:
        warning = f" **{simulated} of {len(files)} recordings here are simulated.**"
        return "Neuronal activity, partly simulated", warning
    titles = [origin["title"] for origin in origins if "title" in origin]
    return _text(titles[0]) if len(titles) == 1 else "Neuronal activity, recorded with calcium imaging", ""


def _front_matter(manifest: Mapping[str, Any]) -> str:
    splits = [unit["split"] for unit in manifest["units"]]
    folders = {"traces": "data/{}/*.parquet", "units": "units/{}.parquet"}
    configs = [
        {
            "config_name": name,
            **({"default": True} if name == "traces" else {}),
            "data_files": [{"split": split, "path": path.format(split)} for split in splits],
        }
        for name, path in folders.items()
    ]
    infos = [_dataset_info("traces", manifest, manifest["files"]), _dataset_info("units", manifest, manifest["units"])]
    tags = ["calcium-imaging", "neuroscience"]
    licences = {step.get("origin", {}).get("licence") for step in manifest["steps"]}
    card = DatasetCardData(
        license=licences.pop() if len(licences) == 1 else None, tags=tags, configs=configs, dataset_info=infos
    )
    return card.to_yaml().strip()


def _dataset_info(name: str, manifest: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the Hub and `datasets` want to know of a configuration; `parts` are its files."""
    splits = []
    for split, part in by_split(parts):
        size, rows = (sum(entry[key] for entry in part) for key in ("uncompressed_bytes", "neurons"))
        splits.append({"name": split, "num_bytes": size, "num_examples": rows})
    features = _features(*further_columns(manifest["files"]), manifest["class_labels"])
    return {
        "config_name": name,
        "features": [f for f in features if name == "traces" or f["name"] not in LONG_COLUMNS],
        "splits": splits,
        "download_size": sum(entry["bytes"] for entry in parts),
        "dataset_size": sum(split["num_bytes"] for split in splits),
    }


def _features(
    columns: Mapping[str, str], labels: Sequence[str], class_labels: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Return the features as `datasets` writes them in YAML.

    A class label stands as text in the files, where every tool understands it; what is said here turns it into a
    ClassLabel when `datasets` reads it.
    """
    features = []
    for field in build_schema(columns, labels):
        if field.name in class_labels:
            names = {str(number): name for number, name in enumerate(class_labels[field.name])}
            features.append({"name": field.name, "dtype": {"class_label": {"names": names}}})
        elif pa.types.is_list(field.type):
            features.append({"name": field.name, "list": _type_name(field.type.value_type)})
        else:
            features.append({"name": field.name, "dtype": _type_name(field.type)})
    return features


def _type_name(kind: pa.DataType) -> str:
    return {"float": "float32", "double": "float64"}.get(str(kind), str(kind))


def _contents(files: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for split, part in by_split(files):
        subjects = len({entry["subject_id"] for entry in part})
        neurons, placed, size = (
            sum(entry[key] for entry in part) for key in ("neurons", "neurons_with_positions", "bytes")
        )
        frames, rates = (value_range(entry[key] for entry in part) for key in ("frames", "sampling_rate"))
        cells = (split, len(part), subjects, neurons, placed, frames, rates, byte_size(size))
        rows.append(map(str, cells))
    table = markdown_table(CONTENTS, rows)
    few = some([_text(entry["recording_id"]) for entry in files if not entry["neighbour_channels"]])
    if few:
        why = f"With fewer than {MIN_NEURONS} accepted neurons with positions, so without neighbour channels"
        return f"{table}\n\n{why}: {few}."
    return table


def _columns(
    files: Sequence[Mapping[str, Any]], class_labels: Mapping[str, Sequence[str]], meanings: Mapping[str, str]
) -> str:
    columns, labels = further_columns(files)
    found = label_values(files)
    rows = [
        f"| `{name}` | {kind}, nullable | {_text(meanings.get(name, 'of each neuron'))} |"
        for name, kind in columns.items()
    ]
    for name in labels:
        if name in class_labels:
            kind, values = "class label", [f"{i} = {_text(value)}" for i, value in enumerate(class_labels[name])]
        else:
            kind, values = "string", [_text(value) for value in found[name]]
        rows.append(f"| `{name}` | {kind}, nullable | label: {some(values)} |")
    return "\n".join([_COLUMNS, *rows])


def _steps(steps: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for step in steps:
        parameters = ", ".join(f"{name} = {value}" for name, value in step["parameters"].items())
        lines.append(f"- {_text(step['builder'])}, neurt {_text(step['version'])} ({_text(parameters)})")
        dropped = step["dropped"]
        lines += [
            f"  - left out: {_text(entry.get('recording_id'))}: {_text(entry['why'])}"
            for entry in dropped[:_MOST_LEFT_OUT]
        ]
        if len(dropped) > _MOST_LEFT_OUT:
            lines.append(f"  - left out: {len(dropped) - _MOST_LEFT_OUT} more, see `manifest.json`")
    return "\n".join(lines)


def _traces(files: Sequence[Mapping[str, Any]]) -> str:
    """Say what the traces are in their source and what was done to them since, with how many recordings each is of."""
    stated = [entry["source"] for entry in files if "trace" in entry["source"]]
    kinds = tallied(map(_trace, stated), len(files))
    notes = [*(f"traces: {kind}" for kind in kinds), *preparation_notes(files)]
    return "".join(f"\n- {_text(note)}" for note in notes)


def _trace(source: Mapping[str, Any]) -> str:
    coefficient = source.get("neuropil_coefficient")
    return f"{source['trace']}" + ("" if coefficient is None else f", c = {coefficient}")


def _section(heading: str, key: str, origins: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the section of what the origins say, each sentence once; none where they say nothing."""
    texts = dict.fromkeys(_text(text) for origin in origins for text in origin.get(key, ()))
    return [f"## {heading}\n\n" + "\n".join(f"- {text}" for text in texts)] if texts else []


def _licence(steps: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for origin in _origins(steps):
        if "licence" in origin:
            of = f"{_text(origin['title'])}: " if "title" in origin else ""
            lines.append(f"- {of}{_text(origin.get('licence_name', origin['licence']))}")
    unstated = sum(len(step["recordings"]) for step in steps if "licence" not in step.get("origin", {}))
    if not lines:
        return "None is stated here: the licence of the recordings that it was made from applies."
    if unstated:
        lines.append(f"- The other recordings ({unstated}): none is stated here, that of their source applies")
    return "\n".join(lines)


def _text(value: Any) -> str:
    """Show text from outside as text: no HTML, no Markdown, no table border, no second line, nothing invisible."""
    plain = printable(" ".join(str(value).split()))
    return "".join(f"\\{letter}" if letter in _MARKUP else html.escape(letter, quote=False) for letter in plain)
