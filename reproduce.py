"""Measure again what the ledger of a model folder says, and tell which numbers differ.

    for outcome in reproduce(Path("MODEL"), build=Path("BUILD")):
        print(outcome.report())

Of the shipped release every benchmark of `BENCHMARKS` that its ledger names is run, in a process of its own. Of a
model that `neurt pretrain` or `neurt finetune` made, the test on its held-out animals is made again on its build.
"""

import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers.utils import SAFE_WEIGHTS_NAME

from .crossval.provenance import manifest_digest, weights_digest
from .dataset_scripts.wording import count, printable, some
from .evaluation import json_ready
from .ledger import LEDGER, MEASUREMENTS, Difference, differences, provenance_of, read_ledger, read_object
from .loading import load_config
from .train import BEFORE, score_again

SIZE, TRAINING, WEIGHTS, HELD_OUT = "size", "training", "weights", "held_out"
_SCRIPTS = Path(__file__).parent / "benchmarks"
_REAL = "the real recordings, in the folder that NEURT_REAL_DATA names"
_MOST_SHOWN = 20
_EXACT = ("seed", "weights_sha256", "data_sha256", "split_sha256")


@dataclass(frozen=True)
class Benchmark:
    """A measurement of the release: a script, and where it leaves what it found.

    Args:
        script: Name in the folder of benchmarks.
        words: What it is told, beside the model and where to write.
        output: What `--output` names, below the folder of results.
        found: The JSON file that it leaves, below the same folder.
        of_weights: Whether the weights of the folder are measured; others train their own.
        needs: What must be there; empty if nothing.
    """

    script: str
    output: str
    found: str
    words: Sequence[str] = ()
    of_weights: bool = True
    needs: str = ""


def _with_report(name: str, *words: str, **settings: Any) -> Benchmark:
    return Benchmark(f"{name}.py", f"{name}.md", f"{name}.json", words, **settings)


def _groups(name: str) -> Benchmark:
    return Benchmark("real_groups.py", "", f"groups_{name}/{LEDGER}", ("--sets", name), needs=_REAL)


# The only scripts that are ever run: a ledger names them, and says nothing of how.
BENCHMARKS = {
    "reconstruction": _with_report("reconstruction", needs=f"{_REAL}, and the published checkpoint beside it"),
    "groups_ca1_ca3_events": _groups("ca1_ca3_events"),
    "groups_park_v1": _groups("park_v1"),
    "planted_groups": _with_report("planted_groups", "--jobs", "2"),
    "null_studies": _with_report("null_studies", "--jobs", "2"),
    "planted_explanations": _with_report("planted_explanations", "--jobs", "2"),
    "architecture_trials": _with_report("architecture_trials", "--steps", "300", of_weights=False, needs=_REAL),
}


@dataclass(frozen=True)
class Outcome:
    """What became of one measurement.

    Args:
        name: In the ledger.
        agrees: Whether all is as the ledger says.
        compared: How many values were compared.
        differences: Those that are others now.
        words: What is to be said instead of these numbers.
    """

    name: str
    agrees: bool
    compared: int = 0
    differences: Sequence[Difference] = ()
    words: str = ""

    def report(self) -> str:
        """Lines for people; strangers' words in them are harmless."""
        if self.words:
            return printable(f"{self.name}: {self.words}")
        if self.agrees:
            return printable(f"{self.name}: {count(self.compared, 'value')} compared, all as before")
        lines = [f"{self.name}: {len(self.differences)} of {count(self.compared, 'value')} differ"]
        shown = self.differences[:_MOST_SHOWN]
        lines += [f"  {each.name}: {_shown(each.old)} before, {_shown(each.new)} now" for each in shown]
        hidden = len(self.differences) - len(shown)
        return "\n".join(map(printable, [*lines, f"  and {hidden} more"] if hidden else lines))


def reproduce(
    folder: Path,
    *,
    build: Path | None = None,
    only: Sequence[str] = (),
    output: Path | None = None,
    say: Callable[[str], None] = print,
) -> Iterator[Outcome]:
    """Measure again, one measurement after the other.

    Args:
        folder: A model with its `results.json`.
        build: The Parquet build that a model was trained on; of the shipped release none is needed.
        only: Measurements to make again; by default all that the ledger has.
        output: Folder in which benchmarks leave their tables and figures; what lies there is not measured again, so
            that an interrupted run goes on. By default nothing stays.
        say: Told what is begun.

    Raises:
        ValueError: If there is no model or ledger, or no such measurement in it.
    """
    folder = Path(folder).resolve()
    load_config(folder)
    ledger = read_ledger(folder)
    entries = ledger.get(MEASUREMENTS, {HELD_OUT: ledger})
    if not isinstance(entries, Mapping) or not all(isinstance(entry, Mapping) for entry in entries.values()):
        raise ValueError(f"{folder / LEDGER}: expected measurements by their names, got something else")
    unknown = sorted(set(only) - {*entries, WEIGHTS})
    if unknown:
        raise ValueError(f"expected measurements among {some([WEIGHTS, *entries])}, got {some(unknown)}")
    yield _same_weights(folder, entries)
    asked = {name: entry for name, entry in entries.items() if not only or name in only}
    if HELD_OUT in asked and MEASUREMENTS not in ledger:
        yield _tested_again(folder, ledger, build)
        return
    with nullcontext(output) if output else tempfile.TemporaryDirectory() as results:
        (place := Path(results).absolute()).mkdir(parents=True, exist_ok=True)
        yield from (_rerun(name, entry, folder, place, say) for name, entry in asked.items())


def _same_weights(folder: Path, entries: Mapping[str, Any]) -> Outcome:
    """Whether the weights are those that every measurement of them is of."""
    now = weights_digest(folder)
    told = {
        name: entry.get("weights_sha256", provenance_of(entry).get("weights_sha256"))
        for name, entry in entries.items()
        if name not in BENCHMARKS or BENCHMARKS[name].of_weights
    }
    others = [name for name, digest in told.items() if digest != now]
    if not others:
        return Outcome(WEIGHTS, True, words=f"SHA-256 {now}, as in the ledger")
    before = some(sorted({_shown(told[name]) for name in others}))
    words = f"not those of the ledger: SHA-256 of {SAFE_WEIGHTS_NAME} is {now}, it says {before} ({some(others)})"
    return Outcome(WEIGHTS, False, words=words)


def _rerun(name: str, entry: Mapping[str, Any], folder: Path, output: Path, say: Callable[[str], None]) -> Outcome:
    """One measurement of a release."""
    if name == TRAINING:
        return Outcome(
            name, True, words="not rerun: it tells how the weights were made; `make weights` makes them anew"
        )
    if name not in (SIZE, *BENCHMARKS):
        return Outcome(name, False, words="not rerun: neurt knows no such measurement")
    if name == SIZE:
        return _compared(name, entry, {"numbers": size_of(folder)})
    place = output / BENCHMARKS[name].found
    try:
        if place.is_file():
            say(printable(f"{name}: measured before, lies in {output}"))
        else:
            say(printable(f"{name}: begins"))
            _run(BENCHMARKS[name], folder, output)
        found = read_object(place)
    except ValueError as error:
        return Outcome(name, False, words=f"not rerun: {error}")
    return _compared(name, entry, {"numbers": found} | origin_of(found))


def _compared(name: str, entry: Mapping[str, Any], found: Mapping[str, Any]) -> Outcome:
    """Numbers within tolerance, digests and seed exactly."""
    differ, compared = differences(entry.get("numbers"), found["numbers"])
    exact = {key: entry[key] for key in _EXACT if key in entry and key in found}
    others = [Difference(key, old, found[key]) for key, old in exact.items() if old != found[key]]
    differ, compared = [*others, *differ], compared + len(exact)
    return Outcome(name, not differ, compared, differ)


def _run(benchmark: Benchmark, folder: Path, results: Path) -> None:
    """Run the script.

    Raises:
        ValueError: If it does not end well.
    """
    words = [*benchmark.words, "--output", str(results / benchmark.output)]
    words += ["--model", str(folder)] if benchmark.of_weights else []
    command = [sys.executable, str(_SCRIPTS / benchmark.script), *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        needs = f"needs {benchmark.needs}; " if benchmark.needs else ""
        raise ValueError(f"{needs}{benchmark.script} ended with: {last}")


def origin_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a ledger says of a measurement beside its numbers, from the JSON file of a benchmark or of a study."""
    provenance = dict(found.get("provenance", {}))
    if "build_sha256" in provenance:  # a study of `neurt crossval`
        provenance |= {"data_sha256": provenance.pop("build_sha256"), "split_sha256": provenance.pop("folds_sha256")}
        provenance |= {"command": found["command"], "simulated": found["simulated"], "seed": found["options"]["seed"]}
    return provenance


def size_of(folder: Path) -> dict[str, int]:
    """How many numbers the weights are, and what the network looks like."""
    config = load_config(folder)
    with safe_open(folder / SAFE_WEIGHTS_NAME, framework="numpy") as weights:
        shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]
    return {
        "parameters": sum(map(math.prod, shapes)),
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "heads": config.num_attention_heads,
    }


def _tested_again(folder: Path, results: Mapping[str, Any], build: Path | None) -> Outcome:
    """The test on held-out animals, on the build that the model was trained on."""
    if build is None:
        return Outcome(HELD_OUT, False, words="not rerun: needs the build that it was trained on; pass --build")
    scores, split = score_again(folder, build, results)
    kind = next(iter(scores))
    told = {kind: _without_rows_of(BEFORE, results.get(kind))}
    entry = {"numbers": told, "split_sha256": results["split"].get("sha256")}
    entry["data_sha256"] = provenance_of(results).get("build_sha256")
    found = {"numbers": json_ready(scores), "split_sha256": split, "data_sha256": manifest_digest(build)}
    return _compared(HELD_OUT, entry, found)


def _without_rows_of(predictor: str, scores: Any) -> Any:
    """Scores without those of weights that are not in the folder any more."""
    if not isinstance(scores, Mapping) or not isinstance(scores.get("rows"), list):
        return scores
    rows = [row for row in scores["rows"] if not (isinstance(row, Mapping) and row.get("predictor") == predictor)]
    return {**scores, "rows": rows}


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return "none" if value is None else str(value)[:64]
