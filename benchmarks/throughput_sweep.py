"""Training of the default network over window lengths and batch sizes: a table and a figure."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from measurement import MIB, interleaved_times, markdown_table, median_ratio
from neurt import NeurtConfig
from throughput_work import Work, make_call, make_products, training_flop

# Compiling takes most of the time on an accelerator, hence fewer batch sizes.
LENGTHS = {"cpu": (64, 128, 256, 512), "cuda": (512, 1024, 2048, 4096)}
BATCH_SIZES = {"cpu": (8, 16, 32, 64, 128), "cuda": (32, 128)}
WORKS = {
    "cpu": {"fp32": Work("default"), "bf16": Work("default", precision="bf16")},
    "cuda": {
        "bf16": Work("default", precision="bf16"),
        "bf16, compiled": Work("default", precision="bf16", is_compiled=True),
    },
}
ROUNDS = {"cpu": 3, "cuda": 7}


@dataclass(frozen=True)
class Cell:
    """Training at one size.

    Args:
        words: What was done, a key of `WORKS`.
        frames: Window length.
        windows: Batch size.
        windows_per_second: Of the median step.
        peak_share: Share of the matrix peak in the same precision, measured in the same rounds.
        memory: Most bytes held on the accelerator; NaN on a CPU.
    """

    words: str
    frames: int
    windows: int
    windows_per_second: float
    peak_share: float
    memory: float


def sweep(device: str) -> list[Cell]:
    sizes = [(frames, windows) for frames in LENGTHS[device] for windows in BATCH_SIZES[device]]
    return [cell for frames, windows in sizes for cell in measure(device, frames, windows)]


def measure(device: str, frames: int, windows: int) -> Iterator[Cell]:
    """One cell for each of the device's works, timed in the same rounds as the matrix products."""
    torch.compiler.reset()  # else the code compiled for other sizes counts against a limit
    works = WORKS[device]
    calls = {words: make_call(work, windows, frames, device) for words, work in works.items()}
    memory = {words: peak_memory(call, device) for words, call in calls.items()}
    products = {work.precision: make_products(work.precision, device) for work in works.values()}
    calls |= {f"peak {precision}": multiply for precision, (multiply, _) in products.items()}
    times = interleaved_times(calls, ROUNDS[device])
    flop = windows * training_flop(NeurtConfig(), frames)
    for words, work in works.items():
        share = median_ratio(times[f"peak {work.precision}"], times[words]) * flop / products[work.precision][1]
        rate = windows / statistics.median(times[words])
        yield Cell(words, frames, windows, rate, share, memory[words])


def peak_memory(call, device: str) -> float:
    """Most bytes that the second of two calls holds on the accelerator, parameters and optimizer included."""
    if device != "cuda":
        return float("nan")
    call()
    torch.cuda.reset_peak_memory_stats()
    call()
    return torch.cuda.max_memory_allocated()


def sweep_table(cells: Sequence[Cell], device: str) -> str:
    rows = []
    for cell in cells:
        rates = [f"{cell.windows_per_second:,.0f}", f"{cell.windows_per_second * cell.frames:,.0f}"]
        memory = [f"{cell.memory / MIB:,.0f}"] if device == "cuda" else []
        rows.append([cell.words, str(cell.frames), str(cell.windows), *rates, f"{100 * cell.peak_share:.0f}", *memory])
    header = ["precision", "frames", "batch", "windows/s", "frames/s", "% of the matrix peak"]
    header += ["peak memory, MiB"] if device == "cuda" else []
    title = f"Training the default network: medians of {ROUNDS[device]} rounds"
    title += f", {torch.cuda.get_device_name()}" if device == "cuda" else ""
    return f"{title}.\n\n{markdown_table(header, rows)}"


def save_figure(cells: Sequence[Cell], path: Path):
    """Windows and frames a second against window length, a line for each batch size and a column for each work."""
    figure = Figure(figsize=(9, 6), layout="constrained", dpi=90)
    FigureCanvasAgg(figure)
    works = list(dict.fromkeys(cell.words for cell in cells))
    panels = figure.subplots(2, len(works), sharex=True, sharey="row", squeeze=False)
    for words, column in zip(works, panels.T, strict=True):
        draw(column, [cell for cell in cells if cell.words == words])
        column[0].set_title(f"training in {words}")
        column[1].set_xlabel("window length (frames)")
    panels[1, 0].set_ylim(bottom=0)  # only now, for it fixes the top as well
    panels[0, 0].set_ylabel("windows/s")
    panels[1, 0].set_ylabel("frames/s")
    panels[0, 0].legend(title="windows in a batch", fontsize="small")
    figure.savefig(path, metadata={"Software": None})


def draw(column: Sequence, cells: Sequence[Cell]):
    sizes = sorted({cell.windows for cell in cells})
    for i, windows in enumerate(sizes):
        line = [cell for cell in cells if cell.windows == windows]
        frames = [cell.frames for cell in line]
        rates = [cell.windows_per_second for cell in line]
        # Light to dark tells batch sizes apart without colour vision.
        style = {"color": str(0.75 * (1 - i / max(len(sizes) - 1, 1))), "marker": "o", "label": str(windows)}
        column[0].plot(frames, rates, **style)
        column[1].plot(frames, [rate * length for rate, length in zip(rates, frames, strict=True)], **style)
    column[0].set_xscale("log", base=2)
    column[0].set_yscale("log")
    column[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    column[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    column[0].yaxis.set_minor_locator(NullLocator())
    column[0].set_xticks(frames, map(str, frames))
