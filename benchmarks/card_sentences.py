"""What the model card says beside its tables of reconstruction: all with numbers in it, from the ledger."""

from collections.abc import Callable, Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from measurement import markdown_table
from neurt.cards import MASKED, NOT_MEASURED, TAGS, fill_template
from neurt.crossval.report import verdict
from neurt.loading import load_config, shipped_model
from neurt.pipeline_neurt import TASK
from neurt.processing_neurt import CHANNELS
from neurt.reproduce import SIZE, TRAINING
from reconstruction_predictors import MODEL

GROUPS = {
    "groups_ca1_ca3_events": "CA1 against CA3, amplitudes scaled away",
    "groups_park_v1": "park_v1, knock-out against control",
}
TASKS = {
    "span": "spans of 1 to 10 frames",
    "neuron": "one's own trace",
    "near": "near neighbours",
    "far": "far neighbours",
    "population": "all neighbours",
    "forecast": "the last second of all channels",
}


def sentences(entries: Mapping[str, Any]) -> dict[str, str]:
    """Each passage by the name of its place.

    Args:
        entries: The measurements of the ledger.
    """
    rate = f"{load_config(shipped_model()).default_sampling_rate:g}"
    return {
        "use": fill_template("use.md.jinja", classifier=False).strip(),
        "inputs": fill_template("inputs.md.jinja", default_rate=rate).strip(),
        "training": training(entries),
        "trials-how": trials_how(entries["architecture_trials"]["numbers"], entries[TRAINING]["numbers"]),
        "groups": groups(entries),
        "null-studies": studies(entries, "null_studies", null_table),
        "planted-groups": studies(entries, "planted_groups", planted_table),
        "planted-explanations": studies(entries, "planted_explanations", explanations_table),
        "ledger": origins(entries),
    }


def training(entries: Mapping[str, Any]) -> str:
    """How the weights were made, and how large they are."""
    made, size = entries[TRAINING]["numbers"], entries[SIZE]["numbers"]
    (fewest, most), (slowest, fastest) = made["neurons"], made["sampling_rates"]
    windows = made["steps"] * made["batch_size"]
    tasks = ", ".join(f"{TASKS[name]} {weight:g}" for name, weight in made["tasks"].items())
    lines = [
        f"Data: `neurt simulate-corpus --recordings {made['recordings']} --seed {entries[TRAINING]['seed']}`, "
        f"{made['recordings']:,} simulated recordings of {fewest} to {most} neurons and {made['frames']} frames at "
        f"{slowest:g} to {fastest:g} Hz. Indicators, firing, coupling, noise, drift, neuropil and the treatment of "
        "the traces (dF/F, smoothed, denoised, rectified, deconvolved, events) are drawn anew for each; "
        f"{made['share_of_trials']:.0%} are cut into trials and {made['share_without_positions']:.0%} have no "
        "positions. No real recording entered training. Licence of the corpus: that of this software.",
        f"Hidden, with the weight of each: {tasks}.",
        f"One pass over {windows:,} windows of {made['window_length']} frames in batches of {made['batch_size']}, "
        f"fp32, AdamW with a cosine schedule: about {made['minutes']} minutes on two CPU cores, without a GPU. "
        f"Energy: {NOT_MEASURED.lower()}. `make weights` does all of it, and goes on where it was interrupted.",
        f"{size['parameters']:,} parameters: {size['layers']} layers, width {size['width']}, {size['heads']} heads.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def trials_how(trials: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """How short the trials were."""
    return (
        f"Each variant was trained alike from one seed on the simulated corpus, {trials['steps']} steps (the shipped "
        f"weights had {made['steps']:,}: what pays in the end may show only later)."
    )


def groups(entries: Mapping[str, Any]) -> str:
    """Groups of real animals: a table, and below it what each report begins with."""
    rows, lines = [], []
    for name, title in ((name, title) for name, title in GROUPS.items() if name in entries):
        found = entries[name]["numbers"]
        for predictor, row in found["predictors"].items():
            low, high = row["interval"]
            cells = [f"{row['score']:.3f} [{low:.2f}, {high:.2f}]", f"{row['p_value']:.3f}"]
            rows.append([title, str(len(found["subjects"])), predictor, *cells])
        lines.append(f"- {title}. {verdict(found)}")
    if not rows:
        return f"{NOT_MEASURED}."
    return f"{markdown_table(['groups', 'animals', 'predictor', 'ROC-AUC', 'p'], rows)}\n\n" + "\n".join(lines)


def studies(entries: Mapping[str, Any], name: str, table: Callable[[Mapping[str, Any]], str]) -> str:
    """The table of simulated studies, where they were made."""
    return table(entries[name]["numbers"]["summary"]) if name in entries else f"{NOT_MEASURED}."


def null_table(found: Mapping[str, Any]) -> str:
    rows = [
        [predictor, f"{row['significant']} of {row['auc']['n']}", error_cell(row["auc"])]
        for predictor, row in found.items()
    ]
    return markdown_table(["predictor", "simulated studies with p < 0.05", "mean ROC-AUC"], rows)


def planted_table(found: Mapping[str, Any]) -> str:
    predictors = list(next(iter(found["kinds"].values())))
    rows = [
        [kind, *(error_cell(of_kind[name]["auc"]) if name in of_kind else "–" for name in predictors)]
        for kind, of_kind in found["kinds"].items()
    ]
    windows = found["windows_of_signatures"]
    return (
        f"{markdown_table(['planted (simulated)', *predictors], rows)}\n\n"
        "Signature: mice differ, groups do not. Single windows that are dealt out at random then reach "
        f"{error_cell(windows['random_windows'])}, those of whole mice held out "
        f"{error_cell(windows['whole_animals'])}."
    )


def explanations_table(found: Mapping[str, Any]) -> str:
    names = list(next(iter(found.values()))["neurons"])
    rows = [
        [kind, *(error_cell(row["neurons"][name]) for name in names)]
        + [f"{row[key]} of {row['studies']}" for key in ("channel_named", "aspect_named")]
        for kind, row in found.items()
    ]
    header = ["planted (simulated)", *(f"neurons by {name}" for name in names), "channel named", "aspect named"]
    return markdown_table(header, rows)


def error_cell(row: Mapping[str, Any]) -> str:
    return f"{row['mean']:.3f} ± {row['standard_error']:.3f}"


def origins(entries: Mapping[str, Any]) -> str:
    """What each measurement was made with: the first digits of the digests, the whole of which are in the ledger."""
    rows = [
        [name, "simulated" if each["simulated"] else "real" if each["simulated"] is False else "–"]
        + [short(each[key]) for key in ("weights_sha256", "data_sha256", "split_sha256")]
        + [f"`{each['command']}`" if each["command"] else "–"]
        for name, each in entries.items()
    ]
    versions = next((each["versions"] for each in entries.values() if each["versions"]), {})
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    header = ["measurement", "recordings", "weights", "data", "split", "command"]
    return f"{markdown_table(header, rows)}\n\nWith {used}."


def short(digest: str | None) -> str:
    return "–" if digest is None else f"`{digest[:12]}`"


def metadata(entries: Mapping[str, Any]) -> str:
    """The YAML at the head of the card."""
    data = ModelCardData(
        library_name="transformers",
        license="apache-2.0",
        pipeline_tag="feature-extraction",
        tags=[*TAGS, "masked-modeling"],
        model_name="NEuRT",
        eval_results=[*gap_results(entries["reconstruction"]), *group_results(entries)],
    )
    return data.to_yaml()


def gap_results(entry: Mapping[str, Any]) -> list[EvalResult]:
    """R² of gaps in the own trace, by set."""
    rows = {
        name: next(
            row for row in found["tasks"]["span"]["rows"] if (row["predictor"], row["channel"]) == (MODEL, CHANNELS[0])
        )
        for name, found in entry["numbers"]["sets"].items()
    }
    return [
        result(entry, MASKED, name, "r_squared", "R², own trace, gaps of 1 to 10 frames", row["r2"])
        for name, row in rows.items()
    ]


def group_results(entries: Mapping[str, Any]) -> list[EvalResult]:
    """ROC-AUC over held-out animals, by set."""
    return [
        result(
            entries[name],
            TASK,
            name.removeprefix("groups_"),
            "roc_auc",
            "ROC-AUC over held-out animals, frozen encoder",
            next(iter(entries[name]["numbers"]["predictors"].values()))["score"],
        )
        for name in GROUPS
        if name in entries
    ]


def result(entry: Mapping[str, Any], task: str, dataset: str, metric: str, metric_name: str, value: float):
    """A score for the metadata; of which recordings, by their digest."""
    return EvalResult(
        task_type=task,
        dataset_type=dataset,
        dataset_name=dataset,
        dataset_args={"sha256": entry["data_sha256"]} if entry["data_sha256"] else None,
        metric_type=metric,
        metric_name=metric_name,
        metric_value=value,
    )
