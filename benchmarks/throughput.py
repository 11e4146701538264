"""Throughput of NEuRT: against the original's code path, against the machine's matrix peak, over sizes of windows.

    python benchmarks/throughput.py [--output benchmarks/results/throughput.md]

On a CPU, at 32 windows of 512 frames: training steps (forward, backward, Adam) and inference of the original's code
path in fp32, of the same architecture in NEuRT and of the default network, in fp32 and bf16, with fused and explicit
attention, in rounds that also hold large matrix products, whose speed is the peak; then what share of a step the data
loader takes; then training over window lengths and batches. On an accelerator only the last, in bf16, with and
without torch.compile, with peak memory. `throughput_work.training_flop` counts a window's FLOP. With --output the
table is saved, and the figure beside it as PNG.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from itertools import starmap
from pathlib import Path

import torch
from measurement import (
    interleaved_times,
    limit_threads,
    machine,
    markdown_table,
    median_ratio,
    memory_in_fresh_process,
    print_memory_above_idle,
    publish,
)
from neurt import NeurtConfig, NeurtProcessor
from throughput_loading import loading_times
from throughput_sweep import save_figure, sweep, sweep_table
from throughput_work import Work, make_call, make_products, training_flop

BATCH_SIZE, FRAMES = 32, 512
ROUNDS = 7
WORKS = {
    "rival": Work("rival"),
    "original eager": Work("original", "eager"),
    "original": Work("original"),
    "original bf16": Work("original", precision="bf16"),
    "default eager": Work("default", "eager"),
    "default": Work("default"),
    "default bf16": Work("default", precision="bf16"),
    "rival infers": Work("rival", is_training=False),
    "original infers": Work("original", is_training=False),
    "default infers": Work("default", is_training=False),
}
NETWORKS = {
    "rival": "the original's code path",
    "original": "NEuRT, the original's architecture",
    "default": "NEuRT, the default network",
}
CONFIGS = {"original": NeurtConfig.original(), "default": NeurtConfig()}
Times = Mapping[str, Sequence[float]]


def check_same_loss():
    """Refuse to compare candidates of the same network that do not compute the same thing."""
    same = [name for name, work in WORKS.items() if work.network != "default" and work.precision == "fp32"]
    losses = {name: make_call(WORKS[name], BATCH_SIZE, FRAMES)() for name in same}
    if max(losses.values()) - min(losses.values()) > 1e-5:
        raise ValueError(f"expected the same first loss of all candidates, got {losses}")


def measure() -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of every candidate and of the matrix products, and the FLOP of the products."""
    calls = {name: make_call(work, BATCH_SIZE, FRAMES) for name, work in WORKS.items()}
    products = {precision: make_products(precision) for precision in ("fp32", "bf16")}
    calls |= {precision: multiply for precision, (multiply, _) in products.items()}
    return interleaved_times(calls, ROUNDS), {precision: flop for precision, (_, flop) in products.items()}


def describe(work: Work) -> list[str]:
    attention = "kept scores" if work.network == "rival" else {"sdpa": "fused", "eager": "explicit"}[work.attention]
    return [NETWORKS[work.network], "training" if work.is_training else "inference", work.precision, attention]


def time_table(times: Times, memory: Mapping[str, float]) -> str:
    rows = []
    for name, work in WORKS.items():
        seconds = statistics.median(times[name])
        peak = f"{memory[name]:.0f}" if name in memory else ""
        rows.append([*describe(work), f"{seconds:.2f}", f"{BATCH_SIZE / seconds:.1f}", peak])
    header = ["network", "work", "precision", "attention", "seconds", "windows/s", "peak memory above idle, MiB"]
    return markdown_table(header, rows)


def peak_share(times: Times, name: str, precision: str, flop: float, product_flop: float) -> float:
    """Median over rounds of a step's FLOP/s over those of the matrix products in the same round."""
    return median_ratio(times[precision], times[name]) * flop / product_flop


def verdict(value: float, at_least: float | None = None, at_most: float | None = None) -> str:
    """PASS or FAIL beside the goal; nothing where there is none."""
    if at_least is not None:
        return f"at least {at_least:g}: {'PASS' if value >= at_least else 'FAIL'}"
    if at_most is not None:
        return f"at most {at_most:g}: {'PASS' if value <= at_most else 'FAIL'}"
    return ""


def ratio_rows(times: Times, product_flop: Mapping[str, float], network: str) -> list[list[str]]:
    """What a network reaches, and the goals."""
    flop = BATCH_SIZE * training_flop(CONFIGS[network], FRAMES)
    fast, bf16 = times[network], f"{network} bf16"
    shares = {
        "fp32": 100 * peak_share(times, network, "fp32", flop, product_flop["fp32"]),
        "bf16": 100 * peak_share(times, bf16, "bf16", flop, product_flop["bf16"]),
    }
    rows = [
        ("training in fp32, times the original's code path", median_ratio(times["rival"], fast), 2.5),
        ("training in bf16, times the original's code path", median_ratio(times["rival"], times[bf16]), 3.8),
        ("inference, times the original's", median_ratio(times["rival infers"], times[f"{network} infers"]), 2.8),
        ("training in fp32, % of the fp32 matrix peak", shares["fp32"], 50),
        ("training in bf16, % of the bf16 matrix peak", shares["bf16"], None),
        ("training in fp32, times explicit attention", median_ratio(times[f"{network} eager"], fast), None),
    ]
    return [[NETWORKS[network], words, f"{value:.2f}", verdict(value, goal)] for words, value, goal in rows]


def ratio_table(times: Times, product_flop: Mapping[str, float]) -> str:
    rows = [row for network in ("original", "default") for row in ratio_rows(times, product_flop, network)]
    return markdown_table(["network", "measure", "median", "goal"], rows)


def peaks(times: Times, product_flop: Mapping[str, float]) -> str:
    rates = {name: flop / statistics.median(times[name]) / 1e9 for name, flop in product_flop.items()}
    per_window = training_flop(CONFIGS["default"], FRAMES) / 1e9
    return (
        f"Matrix peak measured in the same rounds: {rates['fp32']:.0f} GFLOP/s in fp32, {rates['bf16']:.0f} in bf16; "
        f"training the default network takes {per_window:.2f} GFLOP a window."
    )


def loading_row(frames: int, precision: str) -> list[str]:
    times = loading_times(frames, BATCH_SIZE, precision, ROUNDS)
    share = 100 * median_ratio(times["load"], times["train"])
    milliseconds = [f"{1000 * statistics.median(times[name]):.1f}" for name in ("load", "train")]
    return [str(frames), precision, *milliseconds, f"{share:.1f}", verdict(share, at_most=5)]


def loading_table() -> str:
    cases = [
        (frames, precision) for frames in (FRAMES, NeurtProcessor().window_length) for precision in ("fp32", "bf16")
    ]
    header = ["frames", "precision", "loading a batch, ms", "step, ms", "loading, % of a step", "goal"]
    return markdown_table(header, starmap(loading_row, cases))


def cpu_report() -> str:
    check_same_loss()
    training = [name for name, work in WORKS.items() if work.is_training]
    memory = {name: memory_in_fresh_process(__file__, name) for name in training}
    times, product_flop = measure()
    return (
        f"{BATCH_SIZE} windows x {FRAMES} frames: medians of {ROUNDS} interleaved rounds.\n"
        f"{peaks(times, product_flop)}\n\n{time_table(times, memory)}\n\n"
        f"Medians over rounds of the ratio within a round:\n\n{ratio_table(times, product_flop)}\n\n"
        f"Loading masked batches of {BATCH_SIZE} windows beside training the default network on them:\n\n"
        f"{loading_table()}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="also save the tables to this file, and the figure beside it")
    parser.add_argument("--memory-of", choices=WORKS, help="only print the peak memory of two steps of one")
    arguments = parser.parse_args()
    limit_threads()
    if arguments.memory_of:
        step = make_call(WORKS[arguments.memory_of], BATCH_SIZE, FRAMES)
        print_memory_above_idle(lambda: (step(), step()))
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parts = [f"{machine()}, PyTorch {torch.__version__}."]
    parts += [cpu_report()] if device == "cpu" else []
    cells = sweep(device)
    parts.append(sweep_table(cells, device))
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        figure = arguments.output.with_suffix(".png")
        save_figure(cells, figure)
        parts.append(f"![Windows and frames a second against window length]({figure.name})")
    publish("\n\n".join(parts), arguments.output)


if __name__ == "__main__":
    main()
