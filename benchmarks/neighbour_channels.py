"""Time and memory of neighbour channels: one pandas selection per neuron, bare matrix products, the processor.

    python benchmarks/neighbour_channels.py [--all] [--output benchmarks/results/neighbour_channels.md]

1,000 neurons x 10,000 frames. Also prints the largest difference between the processor and pandas, on random data and
on every real recording with positions in the folder that NEURT_REAL_DATA names.
"""

import argparse
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from measurement import (
    REPOSITORY,
    interleaved_times,
    limit_threads,
    load_file,
    machine,
    markdown_table,
    median_ratio,
    memory_in_fresh_process,
    print_memory_above_idle,
    publish,
)
from neurt.processing_neurt import NeurtProcessor

NUM_NEURONS, NUM_FRAMES = 1_000, 10_000
FIELD_SIZE, RADIUS = 1_000.0, 350.0  # µm
SAMPLE_SIZE = 25  # neurons
ROUNDS = 7
REAL_DATA = Path(os.environ.get("NEURT_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
REAL_SETS = ("algamal_two_photon", "chang_rsc", "minian_ca1", "suite2p_plane0")
CANDIDATES = {
    "pandas": "(a) one pandas selection per neuron, float64",
    "products": "(b) the bare fp32 matrix products",
    "processor": "(c) NeurtProcessor.neighbour_channels, float32 in",
}


def random_recording() -> tuple[np.ndarray, np.ndarray]:
    """Traces (N, T) already scaled to [0, 1], and positions (N, 2) in µm."""
    generator = np.random.default_rng(0)
    traces = generator.random((NUM_NEURONS, NUM_FRAMES), dtype=np.float32)
    lowest, highest = traces.min(1, keepdims=True), traces.max(1, keepdims=True)
    return (traces - lowest) / (highest - lowest), generator.random((NUM_NEURONS, 2)) * FIELD_SIZE


def pandas_channels(
    traces: pd.DataFrame, centroids: np.ndarray, radius: float, neurons: Sequence[int]
) -> Iterator[np.ndarray]:
    """The channels (T, 4) of each of `neurons`, as one would write it with pandas.

    They are NaN with fewer than two near or far neurons.

    Args:
        traces: One column for each neuron, one row for each frame, scaled.
        centroids: Positions (N, 2).
        radius: In the unit of the positions.
        neurons: Which neurons to compute.
    """
    for neuron in neurons:
        distances = np.hypot(*(centroids - centroids[neuron]).T)
        others = np.arange(len(centroids)) != neuron
        sides = [traces.loc[:, others & (distances < radius)], traces.loc[:, others & (distances > radius)]]
        if min(side.shape[1] for side in sides) < 2:
            yield np.full((len(traces), 4), np.nan)
        else:
            yield np.stack([values for side in sides for values in (side.mean(axis=1), side.std(axis=1, ddof=1))], 1)


def matrix_products(traces: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums and sums of squares over near neurons: what the processor cannot do without."""
    distances = np.hypot(*(centroids[:, None] - centroids[None]).transpose(2, 0, 1))
    near = (distances < RADIUS).astype(np.float32)
    return near @ traces, near @ np.square(traces)


def make_candidates(neurons: Sequence[int]) -> dict[str, Callable[[], object]]:
    """A call for each candidate; pandas computes the given neurons only and keeps what it computed."""
    traces, centroids = random_recording()
    frame = pd.DataFrame(traces.T.astype(np.float64))  # as pandas reads numbers
    processor = NeurtProcessor(neighbour_radius=RADIUS, radius_unit="um")
    return {
        "pandas": lambda: list(pandas_channels(frame, centroids, RADIUS, neurons)),
        "products": lambda: matrix_products(traces, centroids),
        "processor": lambda: processor.neighbour_channels(traces, centroids, coordinate_unit="um"),
    }


def random_difference(candidates: dict[str, Callable[[], object]], neurons: Sequence[int]) -> float:
    expected = np.stack(candidates["pandas"]())
    return float(np.abs(candidates["processor"]()[neurons, :, 1:] - expected).max())


def real_differences() -> Iterator[tuple[str, int, int, float]]:
    """Name, recordings, neurons and largest difference to pandas (float64) of each real set with positions."""
    real_recordings = load_file(REAL_DATA / "real_recordings.py")
    for name in REAL_SETS:
        recordings = list(real_recordings.ALL[name]())
        compared = [recording_difference(item["x"], item["xy"], item["xy_unit"]) for item in recordings]
        counts, differences = zip(*(pair for pair in compared if pair is not None), strict=True)
        yield name, len(counts), sum(counts), max(differences)


def recording_difference(traces: np.ndarray, centroids: np.ndarray, unit: str) -> tuple[int, float] | None:
    """Neurons compared and their largest difference to pandas; None for a field of fewer than five neurons."""
    usable = np.isfinite(traces).all(1) & (np.ptp(traces, axis=1) > 0) & np.isfinite(centroids).all(1)
    if usable.sum() < 5:
        return None
    kept, positions = traces[usable].astype(np.float64), centroids[usable].astype(np.float64)
    distances = np.hypot(*(positions[:, None] - positions[None]).transpose(2, 0, 1))
    # Between two distances, so that rounding puts no neuron on another side of the radius.
    ordered = np.unique(distances[np.triu_indices(len(kept), 1)])
    middle = int(0.3 * (len(ordered) - 1))
    radius = float(ordered[middle : middle + 2].mean())

    lowest = kept.min(1, keepdims=True)
    frame = pd.DataFrame(((kept - lowest) / np.ptp(kept, axis=1)[:, None]).T)
    expected = np.stack(list(pandas_channels(frame, positions, radius, range(len(kept)))))
    processor = NeurtProcessor(neighbour_radius=radius, radius_unit=unit)
    channels = processor.neighbour_channels(traces, centroids, coordinate_unit=unit)[usable]
    lacking = np.isnan(expected).any((1, 2))
    if not np.array_equal(lacking, np.isnan(channels).any((1, 2))):
        raise ValueError("expected the processor to drop the neurons with fewer than two near or far, got others")
    return int((~lacking).sum()), float(np.abs(channels[~lacking, :, 1:] - expected[~lacking]).max())


def speed_table(times: dict[str, list[float]], memory: dict[str, float], num_computed: int) -> str:
    share = NUM_NEURONS / num_computed
    seconds = {name: statistics.median(values) * (share if name == "pandas" else 1) for name, values in times.items()}
    ratios = {
        "pandas": f"{median_ratio(times['pandas'], times['processor']) * share:.0f} x (c)",
        "products": "",
        "processor": f"{median_ratio(times['processor'], times['products']):.1f} x (b)",
    }
    rows = [[words, f"{seconds[name]:.2f}", ratios[name], f"{memory[name]:.0f}"] for name, words in CANDIDATES.items()]
    return markdown_table(["neighbour channels", "seconds", "ratio", "peak memory above idle, MiB"], rows)


def difference_table(random_recording_difference: float, num_computed: int) -> str:
    rows = [["random", "1", str(num_computed), f"{random_recording_difference:.1e}"]]
    if REAL_DATA.is_dir():
        rows += [
            [name, str(count), str(neurons), f"{worst:.1e}"] for name, count, neurons, worst in real_differences()
        ]
    return markdown_table(["data", "recordings", "neurons", "largest difference to pandas"], rows)


def report(times: dict[str, list[float]], memory: dict[str, float], differences: str, num_computed: int) -> str:
    how = "all neurons computed"
    if num_computed < NUM_NEURONS:
        how = (
            f"(a) extrapolated from a random sample of {num_computed} of the {NUM_NEURONS:,} neurons (--all runs all)"
        )
    return (
        f"{NUM_NEURONS:,} neurons x {NUM_FRAMES:,} frames, mean and SD over near and far: medians of "
        f"{len(times['pandas'])} interleaved rounds.\n{machine()}; {how}.\n\n"
        f"{speed_table(times, memory, num_computed)}\n\n{differences}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="pandas on all neurons (minutes), not on a sample")
    parser.add_argument("--output", type=Path, help="also save the tables to this file")
    parser.add_argument("--memory-of", choices=CANDIDATES, help="only print the peak memory of one candidate")
    arguments = parser.parse_args()
    limit_threads()
    sample = np.sort(np.random.default_rng(1).choice(NUM_NEURONS, SAMPLE_SIZE, replace=False))
    neurons = np.arange(NUM_NEURONS) if arguments.all else sample
    if arguments.memory_of:  # of pandas, the sample: each neuron is computed alone, only its result is kept
        print_memory_above_idle(make_candidates(sample)[arguments.memory_of])
        return
    memory = {name: memory_in_fresh_process(__file__, name) for name in CANDIDATES}
    candidates = make_candidates(neurons)
    times = interleaved_times(candidates, rounds=1 if arguments.all else ROUNDS)
    differences = difference_table(random_difference(candidates, neurons), len(neurons))
    publish(report(times, memory, differences, len(neurons)), arguments.output)


if __name__ == "__main__":
    main()
