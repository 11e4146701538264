"""Windows a second that the data sets of a build give, against those that training consumes, and memory.

    python benchmarks/window_stream.py [--output benchmarks/results/window_stream.md]

Recordings of 500 neurons x 5,000 frames are written as a build and read again: channels computed, windows shuffled,
masked and put into batches of 32 x 128 frames. The rival is a training step of the default model on such a batch:
forward, backward and Adam in fp32. Memory is that of one process that streams 100 small recordings.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import torch
from datasets import disable_progress_bars
from measurement import MIB, interleaved_times, limit_threads, machine, markdown_table, median_ratio, publish
from neurt import MaskedSignalCollator, NeurtConfig, NeurtForMaskedSignalModeling, NeurtProcessor
from neurt.dataset_scripts.parquet_build import write_build
from neurt.dataset_scripts.recording import Recording
from neurt.dataset_scripts.window_streams import cached_windows, stream_windows
from neurt.masking import model_inputs
from torch.utils.data import DataLoader

NUM_RECORDINGS, NUM_NEURONS, NUM_FRAMES = 2, 500, 5_000
SMALL_RECORDINGS, SMALL_NEURONS, SMALL_FRAMES = 100, 100, 2_000
FIELD_SIZE, SAMPLING_RATE = 1_000.0, 7.0  # µm, Hz
BATCH_SIZE, STEPS, ROUNDS = 32, 20, 2
GOAL = 10
CANDIDATES = {
    "mixed": "(a) streamed, both recordings mixed, no workers",
    "apart": "(b) streamed, one recording after the other, no workers",
    "workers": "(c) as (b), two workers",
    "cached": "(d) cached, shuffled, no workers",
    "step": "(e) training step of the default model",
}


def random_recordings(count: int, neurons: int, frames: int) -> Iterator[Recording]:
    for i in range(count):
        generator = np.random.default_rng(i)
        yield Recording(
            traces=generator.gamma(1.0, size=(neurons, frames)).astype(np.float32),
            sampling_rate=SAMPLING_RATE,
            recording_id=f"r{i:03}",
            subject_id="random",
            session_id="random",
            roi_ids=tuple(map(str, range(neurons))),
            centroids=generator.random((neurons, 2)) * FIELD_SIZE,
            coordinate_unit="um",
        )


def make_build(folder: Path, *sizes: int) -> Path:
    write_build(random_recordings(*sizes), folder, builder="benchmark", parameters={})
    return folder


def loader(windows, **options) -> DataLoader:
    return DataLoader(windows, BATCH_SIZE, collate_fn=MaskedSignalCollator(), **options)


def make_step(batch: dict) -> Callable[[], None]:
    """Some training steps of the default model on one batch."""
    torch.manual_seed(0)
    model = NeurtForMaskedSignalModeling(NeurtConfig()).train()
    optimizer = torch.optim.Adam(model.parameters())

    def steps():
        for _ in range(STEPS):
            optimizer.zero_grad()
            model(**model_inputs(batch, "cpu"), labels=batch["labels"]).loss.backward()
            optimizer.step()

    return steps


def make_candidates(folder: Path) -> tuple[dict[str, Callable[[], object]], dict[str, int]]:
    """A call for each candidate, and how many windows it gives or consumes."""
    build = make_build(folder / "build", NUM_RECORDINGS, NUM_NEURONS, NUM_FRAMES)
    processor = NeurtProcessor()
    mixed = loader(stream_windows(build, processor))
    apart = stream_windows(build, processor, mixed_recordings=1)
    cached = cached_windows(build, processor, cache_dir=folder / "cache")
    loaders = {
        "mixed": mixed,
        "apart": loader(apart),
        "workers": loader(apart, num_workers=2),
        "cached": loader(cached, shuffle=True),
    }
    calls = {name: lambda batches=batches: sum(1 for _ in batches) for name, batches in loaders.items()}
    counts = dict.fromkeys(loaders, len(cached)) | {"step": STEPS * BATCH_SIZE}
    return calls | {"step": make_step(next(iter(mixed)))}, counts


def memory_rows(folder: Path) -> Iterator[list[str]]:
    """Memory above that before any stream, in MiB, after some of the small recordings, and the most seen."""
    build = make_build(folder / "small", SMALL_RECORDINGS, SMALL_NEURONS, SMALL_FRAMES)
    idle = psutil.Process().memory_info().rss
    for mixed in (1, 4):
        memory = [total - idle for total in streamed_memory(build, mixed)]
        values = [memory[int(share * (len(memory) - 1))] for share in (0.1, 0.5, 1)] + [max(memory)]
        yield [str(mixed), *(f"{value / MIB:.0f}" for value in values)]


def streamed_memory(build: Path, mixed_recordings: int) -> list[int]:
    """Bytes that the process holds, once every thousand windows."""
    process = psutil.Process()
    windows = stream_windows(build, NeurtProcessor(), mixed_recordings=mixed_recordings)
    return [process.memory_info().rss for i, _ in enumerate(windows) if i % 1000 == 0]


def report(times: dict[str, list[float]], counts: dict[str, int], memory: list[list[str]]) -> str:
    rows = []
    for name, words in CANDIDATES.items():
        rate = counts[name] / statistics.median(times[name])
        ratio = median_ratio(times["step"], times[name]) * counts[name] / counts["step"]
        rows.append([words, f"{rate:,.0f}", f"{ratio:.1f}"])
    speed = markdown_table(["data set or rival", "windows/s", "times (e)"], rows)
    header = ["recordings mixed", "after 10 %", "after half", "at the end", "most"]
    return (
        f"{NUM_RECORDINGS} recordings of {NUM_NEURONS} neurons x {NUM_FRAMES:,} frames, batches of {BATCH_SIZE} x "
        f"{NeurtProcessor().window_length} frames: medians of {ROUNDS} interleaved rounds; goal: {GOAL} times (e).\n"
        f"{machine()}, PyTorch {torch.__version__}.\n\n{speed}\n\n"
        f"MiB above idle of a process that streams {SMALL_RECORDINGS} recordings of {SMALL_NEURONS} neurons x "
        f"{SMALL_FRAMES:,} frames:\n\n{markdown_table(header, memory)}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="also save the tables to this file")
    arguments = parser.parse_args()
    limit_threads()
    disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        memory = list(memory_rows(Path(folder)))
        candidates, counts = make_candidates(Path(folder))
        times = interleaved_times(candidates, ROUNDS)
    publish(report(times, counts, memory), arguments.output)


if __name__ == "__main__":
    main()
