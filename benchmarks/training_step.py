"""Time and memory of a training step: the original's code path, NEuRT with explicit attention, NEuRT as it trains.

    python benchmarks/training_step.py [--output benchmarks/results/training_step.md]

A step is forward, backward and Adam on 32 windows of 512 frames in fp32. All three candidates have the same
architecture, weights, batch, masked frames, loss and optimizer; that their first losses agree is checked.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
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
from neurt.convert_checkpoint import build_model

original_neurt = load_file(REPOSITORY / "tests" / "original_neurt.py")

BATCH_SIZE, FRAMES, CHANNELS = 32, 512, 5
MASKED_SHARE = 0.15
LEARNING_RATE = 1e-3
ROUNDS = 7
MODEL_CFG = {
    "hidden": 128,
    "hidden_ff": 512,
    "feature_num": CHANNELS,
    "n_layers": 4,
    "n_heads": 4,
    "seq_len": FRAMES,
    "emb_norm": False,
    "block_embedding_mode": "not_hidden",
    "embedding_mode": "last",
    "use_parametr_sharing_strategy": False,
}
CANDIDATES = {
    "original": "(a) the original's code path",
    "eager": "(b) NEuRT, explicit attention",
    "sdpa": "(c) NEuRT, SDPA",
}


def make_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Windows (B, T, C) and which frames are masked (B, T)."""
    generator = torch.Generator().manual_seed(0)
    windows = torch.rand(BATCH_SIZE, FRAMES, CHANNELS, generator=generator)
    return windows, torch.rand(BATCH_SIZE, FRAMES, generator=generator) < MASKED_SHARE


def make_loss(candidate: str) -> tuple[torch.nn.Module, Callable[[], torch.Tensor]]:
    """A candidate in training mode, and a call that gives its loss on the batch: mean squared error, masked frames."""
    torch.manual_seed(0)
    original = original_neurt.OriginalNeurt(MODEL_CFG)
    windows, masked = make_batch()
    if candidate == "original":
        inputs = windows.masked_fill(masked.unsqueeze(-1), 0.0)
        return original, lambda: (original(inputs)["reconstruction"] - windows)[masked].square().mean()
    options = {"max_position_embeddings": FRAMES}
    model = build_model(original.state_dict(), options).model.train()
    model.set_attn_implementation(candidate)
    return model, lambda: model(windows, bool_masked_pos=masked).loss


def make_step(candidate: str) -> Callable[[], float]:
    """One training step of a candidate, as a call that returns the loss before it."""
    model, compute_loss = make_loss(candidate)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)

    def step() -> float:
        optimizer.zero_grad()
        loss = compute_loss()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def check_same_loss():
    """Refuse to compare candidates that do not compute the same thing."""
    losses = {name: make_loss(name)[1]().item() for name in CANDIDATES}
    if max(losses.values()) - min(losses.values()) > 1e-5:
        raise ValueError(f"expected the same first loss of all candidates, got {losses}")


def report(times: dict[str, list[float]], memory: dict[str, float]) -> str:
    rows = []
    for name, words in CANDIDATES.items():
        seconds = statistics.median(times[name])
        ratio = median_ratio(times[name], times["sdpa"])
        rows.append([words, f"{seconds:.2f}", f"{BATCH_SIZE / seconds:.1f}", f"{ratio:.2f}", f"{memory[name]:.0f}"])
    header = ["training step", "seconds", "windows/s", "times (c)", "peak memory above idle, MiB"]
    title = (
        f"Training step, {BATCH_SIZE} windows x {FRAMES} frames, fp32: medians of {ROUNDS} interleaved rounds.\n"
        f"{machine()}, PyTorch {torch.__version__}."
    )
    return f"{title}\n\n{markdown_table(header, rows)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="also save the table to this file")
    parser.add_argument("--memory-of", choices=CANDIDATES, help="only print the peak memory of two steps of one")
    arguments = parser.parse_args()
    limit_threads()
    if arguments.memory_of:
        step = make_step(arguments.memory_of)
        print_memory_above_idle(lambda: (step(), step()))
        return
    check_same_loss()
    memory = {name: memory_in_fresh_process(__file__, name) for name in CANDIDATES}
    times = interleaved_times({name: make_step(name) for name in CANDIDATES}, ROUNDS)
    publish(report(times, memory), arguments.output)


if __name__ == "__main__":
    main()
