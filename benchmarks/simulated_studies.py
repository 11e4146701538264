"""Studies of simulated mice: their builds, and what each study gives, measured once even if the run is interrupted."""

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl
import torch
from measurement import digest_of, publish, save_found
from neurt.crossval.data import StudyOptions
from neurt.dataset_scripts.parquet_build import write_build
from neurt.dataset_scripts.recording import Recording
from neurt.dataset_scripts.simulate import simulate_study
from neurt.dataset_scripts.simulation_config import SimulationConfig
from neurt.evaluation import json_ready
from neurt.loading import shipped_model

LABEL = "group"
# A mean is called different from what is more than so many standard errors away.
ERRORS = 2


@dataclass(frozen=True)
class SimulatedStudy:
    """One study.

    Args:
        name: The ids of its mice begin with it, so that no two studies share one.
        config: What is simulated.
        options: What is asked.
        model: Folder of the pretrained model.
        positions: Whether the recordings say where neurons are.
    """

    name: str
    config: SimulationConfig
    options: StudyOptions
    model: Path
    positions: bool = True


# From a study to what it gives, to be written as JSON.
Measure = Callable[[SimulatedStudy], dict[str, Any]]


@contextlib.contextmanager
def as_build(study: SimulatedStudy) -> Iterator[Path]:
    """A Parquet build of the study's mice in a folder of its own, which is gone afterwards."""
    parameters = {"simulated": True, **dataclasses.asdict(study.config)}
    with tempfile.TemporaryDirectory() as folder:
        yield write_build(
            simulated_recordings(study), Path(folder) / "build", builder="benchmarks", parameters=parameters
        ).folder


def simulated_recordings(study: SimulatedStudy) -> Iterator[Recording]:
    """Recordings of the study's mice, simulated one at a time."""
    hidden = {} if study.positions else {"centroids": None, "coordinate_unit": None}
    for recording in simulate_study(study.config)[0]:
        ids = {key: f"{study.name}-{getattr(recording, key)}" for key in ("recording_id", "session_id", "subject_id")}
        yield dataclasses.replace(recording, **ids, **hidden)


def check_unseen(seen: Sequence[str]) -> None:
    """Refuse a model that was pretrained on mice of a study.

    Raises:
        ValueError: If there are any.
    """
    if seen:
        raise ValueError(f"expected a model that was pretrained on others than these mice, got {', '.join(seen)}")


def measure_all(
    measure: Measure, studies: Sequence[SimulatedStudy], *, jobs: int = 1, lines: Path | None = None
) -> dict[str, dict[str, Any]]:
    """What each study gives, by its name.

    Args:
        measure: A function of a module, so that other processes find it.
        studies: Each has a name of its own.
        jobs: Processes that measure at a time, with one thread each.
        lines: A line of JSON is added to this file for each study; those that it holds are not measured again.

    Raises:
        ValueError: If the file holds a study that was measured with other settings, or as `measure` does.
    """
    marks = {study.name: fingerprint(study) for study in studies}
    found = _read_lines(lines, marks) if lines else {}
    left = [study for study in studies if study.name not in found]
    for study, result in zip(left, _in_order(measure, left, jobs), strict=True):
        line = json.dumps(json_ready({"study": study.name, "settings": marks[study.name], "found": result}))
        found[study.name] = json.loads(line)["found"]
        if lines:
            lines.parent.mkdir(parents=True, exist_ok=True)
            with lines.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        print(f"{study.name} ({len(found)} of {len(studies)}): {result['seconds']:.0f} s", flush=True)
    return found


def measure_kinds(
    words: str,
    seeds: int,
    studies_of: Callable[[int, Path], dict[str, list[SimulatedStudy]]],
    measure: Measure,
    report: Callable[[Mapping[str, Sequence[Mapping[str, Any]]], str], str],
    summary: Callable[[Mapping[str, Sequence[Mapping[str, Any]]]], dict[str, Any]],
):
    """A benchmark of studies of several kinds, as a command.

    Args:
        words: As for `parse_arguments`, like seeds.
        studies_of: The studies of each kind, from the number of seeds and the model.
        measure: As for `measure_all`.
        report: From what the studies of each kind gave, and how long they took.
        summary: From the same; what a card tells.
    """
    arguments = parse_arguments(words, seeds)
    kinds = studies_of(arguments.seeds, arguments.model)
    studies = sum(kinds.values(), [])
    lines = arguments.output and arguments.output.with_suffix(".jsonl")
    measured = measure_all(measure, studies, jobs=arguments.jobs, lines=lines)
    found = {kind: [measured[study.name] for study in members] for kind, members in kinds.items()}
    publish(report(found, cost(measured)), arguments.output)
    if arguments.output:
        save_studies(summary(found), studies, measured, arguments.output)


def fingerprint(study: SimulatedStudy) -> str:
    """Of all that a study's numbers depend on except the code."""
    with (study.model / "model.safetensors").open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    settings = dataclasses.asdict(dataclasses.replace(study, model=Path())) | {"model": weights}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _read_lines(path: Path, marks: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What the file, if it is there, holds of these studies; a last line that was not finished is cut off."""
    if not path.exists():
        return {}
    finished = path.read_bytes().rpartition(b"\n")
    os.truncate(path, len(finished[0] + finished[1]))
    rows = [json.loads(line) for line in finished[0].splitlines()]
    for row in rows:
        if marks.get(row["study"], row["settings"]) != row["settings"]:
            raise ValueError(
                f"expected studies with these settings and this model in {path}, got {row['study']} with others; "
                "remove the file to measure all again"
            )
    return {row["study"]: row["found"] for row in rows if row["study"] in marks}


def _in_order(measure: Measure, studies: Sequence[SimulatedStudy], jobs: int) -> Iterator[dict[str, Any]]:
    """The measures in the order of the studies, made in this process or in several."""
    call = functools.partial(_measured, measure)
    if jobs == 1:
        yield from map(call, studies)
        return
    # Spawned: threads of torch do not survive a fork.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(call, studies)


def _measured(measure: Measure, study: SimulatedStudy) -> dict[str, Any]:
    """With one thread, without progress bars, and with how many seconds of a processor it took."""
    torch.set_num_threads(1)
    start = time.process_time()
    with threadpoolctl.threadpool_limits(1), contextlib.redirect_stderr(io.StringIO()):
        result = measure(study)
    return {**result, "seconds": time.process_time() - start}


def save_studies(
    summary: Mapping[str, Any],
    studies: Sequence[SimulatedStudy],
    measured: Mapping[str, Mapping[str, Any]],
    output: Path,
):
    """Save what all studies say together, and what each gave, as JSON beside the report.

    Args:
        summary: What a card tells.
        studies: Of the same model; their seeds count from the first one's.
        measured: What each gave, by its name.
        output: The report.
    """
    settings = [[study.name, dataclasses.asdict(study.config), study.positions] for study in studies]
    folds = {name: found["folds_sha256"] for name, found in measured.items() if "folds_sha256" in found}
    save_found(
        {"summary": summary, "studies": measured},
        output,
        model=studies[0].model,
        seed=studies[0].options.seed,
        simulated=True,
        data_sha256=digest_of(settings),
        split_sha256=digest_of(folds) if folds else None,
    )


def mean_and_error(values: Sequence[float]) -> dict[str, float]:
    """For JSON: the mean, its standard error, and of how many values."""
    return {"mean": float(np.mean(values)), "standard_error": standard_error(values), "n": len(values)}


def standard_error(values: Sequence[float]) -> float:
    """Of the mean (ddof 1)."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def with_error(values: Sequence[float], sign: str = "") -> str:
    """The mean and its standard error; `sign` is "+" for differences."""
    return f"{np.mean(values):{sign}.3f} ± {standard_error(values):.3f}"


def cost(found: Mapping[str, Mapping[str, Any]]) -> str:
    """How long the studies took, in words."""
    seconds = [result["seconds"] for result in found.values()]
    return (
        f"{len(seconds)} studies; each took {np.mean(seconds):.0f} s of one core, {sum(seconds) / 60:.0f} min in all."
    )


def parse_arguments(words: str, seeds: int) -> argparse.Namespace:
    """The options that benchmarks of studies have in common.

    Args:
        words: What the benchmark is.
        seeds: How many there are by default.
    """
    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=seeds, help=f"studies of each kind, at least 2 [{seeds}]")
    parser.add_argument("--model", type=Path, help="folder of the pretrained model [the shipped weights]")
    parser.add_argument("--jobs", type=int, default=1, help="studies measured at a time, one core each [1]")
    parser.add_argument(
        "--output", type=Path, help="Markdown file to save; a .jsonl file beside it lets an interrupted run go on"
    )
    arguments = parser.parse_args()
    if arguments.seeds < 2 or arguments.jobs < 1:
        parser.error(f"expected two seeds and one job at least, got {arguments.seeds} and {arguments.jobs}")
    arguments.model = arguments.model or shipped_model()
    return arguments
