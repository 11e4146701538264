"""How the benchmarks measure: interleaved times, peak memory of a fresh process; what reports are made with."""

import hashlib
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import threadpoolctl
import torch
from neurt.crossval.provenance import versions, weights_digest
from neurt.dataset_scripts.recording import Recording
from neurt.evaluation import json_ready
from neurt.ledger import plain_command
from neurt.markdown_text import markdown_table as markdown_table

REPOSITORY = Path(__file__).resolve().parents[1]
NUM_THREADS = 2
MIB = 2**20


def limit_threads():
    """Two threads for torch and for numpy's matrix products."""
    torch.set_num_threads(NUM_THREADS)
    threadpoolctl.threadpool_limits(NUM_THREADS)


def interleaved_times(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, one of every candidate in each round.

    Interleaving makes rivals share whatever else the machine does; every second round runs backwards, so that none
    always follows the same other. One round before the first is not counted.
    """
    times = {name: [] for name in candidates}
    for i in range(-1, rounds):
        for name in list(candidates)[:: 1 if i % 2 else -1]:
            start = time.perf_counter()
            candidates[name]()
            if i >= 0:
                times[name].append(time.perf_counter() - start)
    return times


def median_ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """Median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))


def print_memory_above_idle(action: Callable[[], object]):
    """Run `action` and print how far its peak lies above the memory held before it, in MiB; Linux only."""
    idle = _memory("VmRSS")
    action()
    # VmHWM, not getrusage: the latter starts a child at the peak of its parent.
    print(f"peak above idle: {(_memory('VmHWM') - idle) / MIB:.1f} MiB")


def _memory(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE).group(1)) * 1024


def memory_in_fresh_process(script: str, candidate: str) -> float:
    """Peak memory above idle, in MiB, of `script --memory-of candidate`, which calls `print_memory_above_idle`."""
    command = [sys.executable, script, "--memory-of", candidate]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(re.search(r"peak above idle: ([\d.]+) MiB", printed).group(1))


def load_file(path: Path) -> ModuleType:
    """Import a Python file that belongs to no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def machine() -> str:
    """The processor, in words."""
    names = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {NUM_THREADS} threads"


def publish(report: str, output: Path | None):
    """Print a report and, where asked to, save it."""
    print(report)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(report + "\n")


def save_found(
    found: Mapping[str, Any],
    output: Path,
    *,
    model: Path | None,
    seed: int,
    simulated: bool,
    data_sha256: str,
    split_sha256: str | None = None,
):
    """Save what was found as JSON beside a report, with what the ledger of a release says of a measurement.

    Args:
        found: Ready for JSON but for NaN.
        output: The report.
        model: Folder of the weights that were measured; None if it is not about any that are released.
        seed: Of everything random.
        simulated: Whether the recordings were.
        data_sha256: Of the recordings, or of the settings that they are simulated by.
        split_sha256: Of who was held out.
    """
    provenance = {
        "command": plain_command(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "seed": seed,
        "simulated": simulated,
        "weights_sha256": None if model is None else weights_digest(model),
        "data_sha256": data_sha256,
        "split_sha256": split_sha256,
        "versions": versions(),
    }
    text = json.dumps(json_ready({"provenance": provenance, **found}), indent=1, allow_nan=False)
    output.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


def digest_of(value: Any) -> str:
    """SHA-256 of something that JSON can say."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def recordings_digest(recordings: Iterable[Recording]) -> str:
    """SHA-256 over the names of recordings and the digests of the arrays that they were read from."""
    return digest_of([[recording.recording_id, recording.source.get("sha256")] for recording in recordings])
