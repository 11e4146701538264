"""Time, memory and bytes read of `neurt build-microns`, beside plainly reading the same arrays with h5py.

    python benchmarks/build_microns.py [--output benchmarks/results/build_microns.md]

One field of 1,000 ROIs x 20,000 frames, gzip-compressed, shaped like those of DANDI 000402, is written to a temporary
folder, once more with a dummy movie, and that file is served on the loopback interface. Linux only.
"""

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from measurement import (
    MIB,
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
from neurt.dataset_scripts.build_microns import build_microns

NUM_ROIS, NUM_FRAMES = 1_000, 20_000
IMAGE = (330, 220)  # pixels, as wide and high as the larger fields of the release
MASK_PIXELS = 5  # edge of a square mask
MOVIE_BYTES = 1024 * MIB
ROUNDS = 5
NAME = "sub-17797_ses-4-scan-7_behavior+image+ophys.nwb"
CANDIDATES = {"h5py": "(a) the same arrays, plainly read with h5py", "build": "(b) neurt build-microns"}


def write_scan(path: Path, movie_bytes: int = 0) -> Path:
    """Write one field: noisy raw fluorescence in gzip chunks, one mask an ROI, timestamps at 6.3 Hz."""
    generator = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["general/session_id"] = "4-scan-7"
        plane = file.create_group("general/optophysiology/ImagingPlane1")
        plane["grid_spacing"], plane["indicator"] = np.array([2.5e-6, 2.5e-6]), "GCaMP6s"
        table = file.create_group("processing/ophys/ImageSegmentation/PlaneSegmentation1")
        table["imaging_plane"] = h5py.SoftLink(plane.name)
        table["id"] = np.arange(1, NUM_ROIS + 1)
        table["mask_type"] = ["soma"] * NUM_ROIS
        _write_masks(table, generator)
        series = file.create_group("processing/ophys/Fluorescence/RoiResponseSeries1")
        series.attrs["neurodata_type"] = "RoiResponseSeries"
        series["timestamps"] = 20 + np.arange(NUM_FRAMES) / 6.3
        series["rois"] = np.arange(NUM_ROIS)
        series["rois"].attrs["table"] = table.ref
        _write_traces(series, generator)
        if movie_bytes:
            _write_movie(file, movie_bytes, generator)
    return path


def _write_masks(table: h5py.Group, generator: np.random.Generator) -> None:
    masks = table.create_dataset(
        "image_mask", (NUM_ROIS, *IMAGE), "f4", compression="gzip", chunks=(1, *IMAGE), fillvalue=0
    )
    for roi in range(NUM_ROIS):
        x, y = (int(generator.integers(0, size - MASK_PIXELS)) for size in IMAGE)
        mask = np.zeros(IMAGE, np.float32)
        mask[x : x + MASK_PIXELS, y : y + MASK_PIXELS] = generator.random((MASK_PIXELS, MASK_PIXELS)) + 0.1
        masks[roi] = mask


def _write_traces(series: h5py.Group, generator: np.random.Generator) -> None:
    # h5py chooses chunks that span many ROIs, as those of the release do.
    data = series.create_dataset("data", (NUM_FRAMES, NUM_ROIS), "f4", compression="gzip", chunks=True)
    # Little at a time: the memory that is measured later must not be that of writing.
    rows = data.chunks[0]
    for start in range(0, NUM_FRAMES, rows):
        stop = min(start + rows, NUM_FRAMES)
        data[start:stop] = generator.normal(500, 50, (stop - start, NUM_ROIS)).astype(np.float32)


def _write_movie(file: h5py.File, movie_bytes: int, generator: np.random.Generator) -> None:
    movie = file.create_dataset("acquisition/TwoPhotonSeries1/data", (movie_bytes // MIB, MIB), "u1", chunks=(1, MIB))
    for frame in range(len(movie)):
        movie[frame] = np.frombuffer(generator.bytes(MIB), np.uint8)


def read_plainly(path: Path) -> None:
    """Read what the build needs and keep none of it: traces whole, as float32, and masks one by one."""
    with h5py.File(path) as file:
        series = file["processing/ophys/Fluorescence/RoiResponseSeries1"]
        table = file["processing/ophys/ImageSegmentation/PlaneSegmentation1"]
        for part in (series["timestamps"], series["rois"], table["id"], table["mask_type"]):
            part[()]
        for roi in range(NUM_ROIS):
            table["image_mask"][roi]
        series["data"][()]


def make_candidates(path: Path) -> dict[str, Callable[[], object]]:
    output = path.parent / "build"

    def build():
        shutil.rmtree(output, ignore_errors=True)
        build_microns(path, output)

    return {"h5py": lambda: read_plainly(path), "build": build}


def bytes_over_http(folder: Path) -> tuple[int, int]:
    """Bytes that a loopback server sent for a build, and those of the file."""
    path = write_scan(folder / NAME, MOVIE_BYTES)
    # What tests share with benchmarks lies beside the tests.
    serving = load_file(REPOSITORY / "tests" / "range_server.py").serving
    with serving(folder) as server:
        build_microns(f"{server.url}/{NAME}", folder / "build")
    return server.sent, path.stat().st_size


def report(times: dict[str, list[float]], memory: dict[str, float], sent: int, size: int) -> str:
    traces = NUM_ROIS * NUM_FRAMES * 4 / MIB
    ratios = {"h5py": "", "build": f"{median_ratio(times['build'], times['h5py']):.2f} x (a)"}
    rows = [
        [words, f"{statistics.median(times[name]):.2f}", ratios[name], f"{memory[name]:.0f}"]
        + [f"{memory[name] / traces:.2f}"]
        for name, words in CANDIDATES.items()
    ]
    header = ["one field", "seconds", "ratio", "peak memory above idle, MiB", "peak / traces"]
    return (
        f"{NUM_ROIS:,} ROIs x {NUM_FRAMES:,} frames ({traces:.0f} MiB of float32 traces), gzip: medians of {ROUNDS} "
        f"interleaved rounds, imports aside.\n{machine()}.\n\n{markdown_table(header, rows)}\n\n"
        f"Over HTTP, beside a movie of {MOVIE_BYTES / MIB:.0f} MiB: {sent / MIB:.0f} of {size / MIB:.0f} MiB were "
        f"sent ({sent / size:.3f})."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="also save the tables to this file")
    parser.add_argument("--memory-of", choices=CANDIDATES, help="only print the peak memory of one candidate")
    arguments = parser.parse_args()
    limit_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = write_scan(Path(folder) / NAME)
        candidates = make_candidates(path)
        if arguments.memory_of:
            print_memory_above_idle(candidates[arguments.memory_of])
            return
        times = interleaved_times(candidates, ROUNDS)
        memory = {name: memory_in_fresh_process(__file__, name) for name in CANDIDATES}
        path.unlink()
        (served := Path(folder) / "served").mkdir()
        sent, size = bytes_over_http(served)
    publish(report(times, memory, sent, size), arguments.output)


if __name__ == "__main__":
    main()
