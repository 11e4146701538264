"""The card of a model folder, filled from what was measured; what was not says so.

    Path("MODEL/README.md").write_text(model_card(Path("MODEL")))

A card that a person wrote, or changed, is never replaced: ours ends with a digest of itself.
"""

import functools
import hashlib
import importlib.metadata
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData
from transformers.utils import SAFE_WEIGHTS_NAME

from .crossval.provenance import weights_digest
from .dataset_scripts.wording import count, value_range
from .evaluation import ClassificationScores, MeasuredOn, ReconstructionScores
from .inference import is_classifier
from .ledger import LEDGER, provenance_of, read_object
from .loading import load_config
from .markdown_text import code_block, escape_markdown, markdown_table
from .pipeline_neurt import TASK
from .summary import group_verdict, reconstruction_verdict
from .writing_aside import file_aside

CARD, EXPLANATION = "README.md", "explanation.json"
NOT_MEASURED = "Not measured"
# In examples, where the model's own name stands once it has one.
NAME = "PATH_OR_NAME"
MASKED = "masked-signal-modeling"
TAGS = ["neuroscience", "calcium-imaging", "time-series"]
_TEMPLATES = Path(__file__).parent / "assets"
_MARK = re.compile(r"\n<!-- filled by neurt from results.json: ([0-9a-f]{64}) -->\n\Z")
_HUB_NAMES = {"r2": "r_squared", "mae": "mae", "squared_error": "mse", "accuracy": "accuracy", "roc_auc": "roc_auc"}


def model_card(folder: Path) -> str:
    """The card of a folder that `neurt pretrain` or `neurt finetune` made, or of any other NEuRT model.

    Args:
        folder: The model. Its `results.json`, and the `explanation.json` of a report on it, say what was measured.

    Raises:
        ValueError: If there is no model, or its results are not as a training writes them.
    """
    config, classifier = load_config(folder), is_classifier(folder)
    results = _of_these_weights(folder, _json(folder / LEDGER))
    explanation = _json(folder / EXPLANATION)
    try:
        text = fill_template(
            "model_card.md.jinja",
            metadata=_metadata(results, classifier).to_yaml(),
            title=_title(config, classifier),
            about=_about(config, classifier),
            classifier=classifier,
            default_rate=f"{config.default_sampling_rate:g}",
            simulated=results.get("simulated"),
            seen=_names(results.get("seen_in_training", ())),
            training=_training(results),
            results=_results(results),
            faithfulness=_faithfulness(explanation, results, classifier),
            made=_made(results),
            version=importlib.metadata.version("neurt"),
        )
    except (KeyError, TypeError, AttributeError, StopIteration, ValueError):
        raise ValueError(
            f"{folder / LEDGER}: expected results as a training writes them, or {EXPLANATION} as a report does, got "
            f"others; write {CARD} by hand, or remove them"
        ) from None
    return signed(text)


def fill_template(name: str, **values: Any) -> str:
    """A template of the cards with its places filled; values are Markdown already."""
    return _environment().get_template(name).render(values).strip() + "\n"


@functools.cache
def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(_TEMPLATES)
    # Markdown, not HTML: what is strange in it is escaped where it is put together.
    return jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, autoescape=False)


def signed(text: str) -> str:
    """A card that says at its end, where nobody sees it, that it was filled and not written."""
    return f"{text}\n<!-- filled by neurt from results.json: {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def is_filled(text: str) -> bool:
    """Whether a card is one of ours, as it was."""
    mark = _MARK.search(text)
    return mark is not None and hashlib.sha256(text[: mark.start()].encode()).hexdigest() == mark[1]


def named(card: str, name: str) -> str:
    """A card with a repository's name in its examples; one that was filled still says so."""
    text = card.replace(NAME, name)
    return signed(_MARK.sub("", text)) if is_filled(card) else text


def is_written(path: Path) -> bool:
    """Whether a card is there that a person wrote, or changed."""
    return path.is_file() and not is_filled(path.read_text(encoding="utf-8", errors="replace"))


def write_card(folder: Path) -> None:
    """Fill the card of a model folder, unless a person wrote one."""
    if not is_written(folder / CARD):
        with file_aside(folder / CARD, replace=True) as aside:
            aside.write_text(model_card(folder), encoding="utf-8")


def _json(path: Path) -> dict[str, Any]:
    """What a file holds, if it is there."""
    return read_object(path) if path.is_file() else {}


def _of_these_weights(folder: Path, results: dict[str, Any]) -> dict[str, Any]:
    """The results, or none where the folder has other weights by now."""
    measured = provenance_of(results).get("weights_sha256")
    weights = folder / SAFE_WEIGHTS_NAME
    return {} if measured and weights.is_file() and weights_digest(folder) != measured else results


def _title(config: Any, classifier: bool) -> str:
    if not classifier:
        return "NEuRT, pretrained"
    return f"NEuRT, fine-tuned to tell {_names(config.id2label.values(), ' from ')}"


def _about(config: Any, classifier: bool) -> str:
    kind = "A transformer encoder over windows of calcium-imaging recordings"
    if not classifier:
        does = "It fills gaps, gives embeddings of neurons, and is fine-tuned to tell groups of animals apart"
        return f"{kind}, pretrained by reconstructing what is hidden of them. {does}."
    return f"{kind}, with a head that tells {_names(config.id2label.values(), ' from ')}."


def _names(names: Iterable[str], between: str = ", ") -> str:
    return between.join(escape_markdown(name) for name in names)


def _metadata(results: Mapping[str, Any], classifier: bool) -> ModelCardData:
    """What the Hub reads. No licence: whose model it is decides on one."""
    found = _eval_results(results)
    return ModelCardData(
        library_name="transformers",
        # "neuron-signal-classification" is no task of the Hub, which knows none that a classifier of signals fits.
        pipeline_tag=None if classifier else "feature-extraction",
        tags=[*TAGS, TASK if classifier else "masked-modeling"],
        **({"model_name": "NEuRT", "eval_results": found} if found else {}),
    )


def _eval_results(results: Mapping[str, Any]) -> list[EvalResult]:
    """The scores of the model on held-out animals: of the own trace, or of animals."""
    if "reconstruction" in results:
        row = _reconstruction(results).row("model")
        return [
            eval_result(results, name, row[name], MASKED)
            for name in ("r2", "mae", "squared_error")
            if _known(row[name])
        ]
    if "classification" in results:
        scores = _classification(results)
        row, names = scores.row("subject"), ("accuracy",) if scores.too_few else ("accuracy", "roc_auc")
        return [eval_result(results, name, row[name], TASK) for name in names if _known(row[name])]
    return []


def _known(value: float) -> bool:
    return not math.isnan(value)


def eval_result(results: Mapping[str, Any], metric: str, value: float, task: str) -> EvalResult:
    """A score for the metadata of a card, on the held-out animals of a training."""
    simulated = ", simulated recordings among them" if results["simulated"] else ""
    digests = {
        "manifest_sha256": provenance_of(results).get("build_sha256"),
        "split_sha256": results["split"].get("sha256"),
    }
    return EvalResult(
        task_type=task,
        dataset_type="neurt-build",
        dataset_name=f"held-out animals of the training's build{simulated}",
        dataset_args={name: digest for name, digest in digests.items() if _is_digest(digest)},
        metric_type=_HUB_NAMES[metric],
        metric_name=metric.replace("_", " "),
        metric_value=value,
    )


def _reconstruction(results: Mapping[str, Any]) -> ReconstructionScores:
    return ReconstructionScores(**_scores(results["reconstruction"]))


def _classification(results: Mapping[str, Any]) -> ClassificationScores:
    return ClassificationScores(**_scores(results["classification"]))


def _scores(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of scores from JSON, in which NaN is null."""
    rows = [{name: math.nan if value is None else value for name, value in row.items()} for row in saved["rows"]]
    return {**saved, "rows": rows, "measured_on": MeasuredOn(**saved["measured_on"])}


def _training(results: Mapping[str, Any]) -> str:
    """What it was trained on, how, and how long it took."""
    data, split = results.get("data"), results.get("split", {})
    hours = results.get("training_hours")
    lines = (
        _recordings(data) if data else [f"Recordings: {NOT_MEASURED.lower()}, no results say what it was trained on."]
    )
    if split:
        sides = {"train": "trained", "validation": "chose the checkpoint", "test": "were held out for the test"}
        numbers = [f"{len(split[part])} {words}" for part, words in sides.items()]
        lines.append(f"{escape_markdown(split['by'].capitalize())}s: {', '.join(numbers)}.")
    lines.append("Licence of these weights: not stated.")
    lines.append(f"Time: {NOT_MEASURED.lower()}." if hours is None else f"Time: {_duration(hours)}.")
    lines.append(f"Energy: {NOT_MEASURED.lower()}.")
    text = "\n".join(f"- {line}" for line in lines)
    return f"{text}\n\n{code_block(results['command'])}" if "command" in results else text


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 2 else f"{60 * hours:.1f} minutes"


def _recordings(data: Mapping[str, Any]) -> list[str]:
    number = data["simulated_recordings"]
    simulated = f"{format(number, 'd') if number else 'none'} of them simulated"
    licences = [escape_markdown(licence) if licence else "not stated" for licence in data["licences"]]
    return [
        f"Recordings: {data['recordings']:d} of {count(int(data['subjects']), 'animal')}, {simulated}.",
        f"Traces: {_names(data['trace_kinds'])}, at {value_range(data['sampling_rates'])} Hz.",
        f"Licence of the recordings: {', '.join(licences)}.",
    ]


def _results(results: Mapping[str, Any]) -> str:
    """Scores beside their baselines, and every animal."""
    no_interval = (
        f"Intervals and p-values over animals: {NOT_MEASURED.lower()}; `neurt crossval` gives those of groups."
    )
    if "reconstruction" in results:
        scores = _reconstruction(results)
        parts = ["Frames of held-out animals, hidden in spans of 1 to 10.", reconstruction_verdict(scores)]
        return "\n\n".join([*parts, scores.to_markdown().strip(), no_interval])
    if "classification" in results:
        scores = _classification(results)
        parts = [group_verdict(scores), scores.to_markdown().strip(), no_interval, _animals(scores)]
        return "\n\n".join(part for part in parts if part)
    return f"{NOT_MEASURED}."


def _animals(scores: ClassificationScores) -> str:
    """Every animal that was held out: the statistical unit."""
    header = ["held-out animal", "class", "decision", "log-probability of its class less that of the best other"]
    rows = []
    for row in scores.subjects:
        classes = [scores.class_names[row[key]] for key in ("label", "decision")]
        rows.append([*map(escape_markdown, [row["subject_id"], *classes]), f"{row['margin']:.2f}"])
    return markdown_table(header, rows)


def _faithfulness(explanation: Mapping[str, Any], results: Mapping[str, Any], classifier: bool) -> str:
    """The verdict of `neurt explain report` on each explanation, if it is of these weights."""
    how = f"`neurt explain report` tests explanations of a classifier{'.' if classifier else '; this is none.'}"
    if not explanation:
        return f"{NOT_MEASURED}. {how}"
    if explanation.get("weights_sha256") != provenance_of(results).get("weights_sha256"):
        return f"{NOT_MEASURED}: {EXPLANATION} is about other weights. {how}"
    rows = [map(escape_markdown, (name, found["stamp"])) for name, found in explanation["methods"].items()]
    kind = " Simulated recordings are among those explained." if explanation.get("simulated") else ""
    how = f"Each was tested by hiding what it calls important, against four controls.{kind}"
    return f"{markdown_table(['explanation', 'verdict'], rows)}\n\n{how}"


def _digest(digest: Any) -> str:
    """All 64 digits, which names of strangers are cut to fewer than."""
    return f"`{digest}`" if _is_digest(digest) else escape_markdown(digest)


def _is_digest(text: Any) -> bool:
    return re.fullmatch("[0-9a-f]{64}", str(text)) is not None


def _made(results: Mapping[str, Any]) -> str:
    provenance = provenance_of(results)
    if not provenance:
        return f"Versions and digests: {NOT_MEASURED.lower()}."
    used = ", ".join(" ".join(map(escape_markdown, each)) for each in provenance["versions"].items())
    digests = {
        "weights": provenance["weights_sha256"],
        "manifest of the build": provenance["build_sha256"],
        "split": results["split"]["sha256"],
    }
    rows = [[what, _digest(digest)] for what, digest in digests.items()]
    again = f"With the build, `neurt reproduce FOLDER --build BUILD` measures again what `{LEDGER}` says."
    return f"With {used}. {again}\n\n{markdown_table(['SHA-256 of', ''], rows)}"
