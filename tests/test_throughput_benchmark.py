"""What the throughput benchmark counts, compares and prints."""

import itertools
import sys
from pathlib import Path

import pytest
import torch
from neurt import NeurtConfig
from torch.utils.flop_counter import FlopCounterMode

# The benchmarks are scripts: they find each other beside themselves.
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import throughput
import throughput_loading
import throughput_sweep
import throughput_work
from throughput_work import Work, make_batch, make_call, make_model, training_flop


def counted_flop(model, batch):
    with FlopCounterMode(display=False) as counter:
        model(**batch)["loss"].backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("network", ["original", "default"])
@pytest.mark.parametrize("frames", [64, 512])
def test_the_formula_counts_what_pytorch_counts_while_training_with_explicit_attention(network, frames):
    model = make_model(Work(network, "eager"), frames).train()
    assert training_flop(model.config, frames) == pytest.approx(counted_flop(model, make_batch(1, frames)), rel=0.002)


def test_a_window_of_512_frames_takes_four_gigaflop():
    # 3 x 4 layers x (8 x 512 x 128² + 4 x 512 x 128 x 512 + 4 x 512² x 128)
    assert training_flop(NeurtConfig.original(), 512) == 12 * (67_108_864 + 134_217_728 + 134_217_728)


def test_all_candidates_of_the_original_architecture_start_at_the_same_loss():
    works = [Work("rival"), Work("original", "eager"), Work("original"), Work("original", is_training=False)]
    losses = [make_call(work, windows=2, frames=16)() for work in works]
    assert losses == pytest.approx([losses[0]] * 4, abs=1e-6)


@pytest.mark.parametrize("is_training", [True, False])
def test_only_training_changes_weights(is_training):
    call = make_call(Work("default", is_training=is_training), windows=2, frames=16)
    assert (call() != call()) is is_training


def test_windows_longer_than_the_default_model_takes_are_trained_on():
    frames = NeurtConfig().max_position_embeddings + 8
    assert make_call(Work("default"), windows=1, frames=frames)() > 0


def test_a_share_of_the_peak_is_a_median_of_rounds_not_a_ratio_of_medians():
    # The products' rates are 100, 50 and 25 FLOP/s, the step's 50, 10 and 20.
    times = {"fp32": [1.0, 2.0, 4.0], "step": [1.0, 5.0, 2.5]}
    assert throughput.peak_share(times, "step", "fp32", flop=50.0, product_flop=100.0) == 0.5


@pytest.mark.parametrize(
    ("value", "goal", "words"),
    [
        (2.5, {"at_least": 2.5}, "at least 2.5: PASS"),
        (2.49, {"at_least": 2.5}, "at least 2.5: FAIL"),
        (5.0, {"at_most": 5}, "at most 5: PASS"),
        (5.01, {"at_most": 5}, "at most 5: FAIL"),
        (1.0, {}, ""),
    ],
)
def test_a_goal_is_passed_or_failed(value, goal, words):
    assert throughput.verdict(value, **goal) == words


def test_ratios_stand_beside_the_goals():
    times = {"rival": 4.0, "original eager": 3.0, "original": 2.0, "original bf16": 1.0}
    times |= {"rival infers": 0.9, "original infers": 0.3, "fp32": 1.0, "bf16": 1.0}
    step = throughput.BATCH_SIZE * training_flop(NeurtConfig.original(), throughput.FRAMES)
    product_flop = {"fp32": step, "bf16": 4 * step}
    rows = throughput.ratio_rows({name: [seconds] for name, seconds in times.items()}, product_flop, "original")
    assert [row[2:] for row in rows] == [
        ["2.00", "at least 2.5: FAIL"],
        ["4.00", "at least 3.8: PASS"],
        ["3.00", "at least 2.8: PASS"],
        ["50.00", "at least 50: PASS"],
        ["25.00", ""],
        ["1.50", ""],
    ]


def test_every_batch_that_is_loaded_is_trained_on_and_times_are_of_one_batch(monkeypatch):
    seconds = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(seconds)))
    steps = []
    monkeypatch.setattr(throughput_loading, "make_step", lambda model, work: steps.append)
    times = throughput_loading.loading_times(frames=40, batch_size=32, precision="fp32", rounds=1)
    # Windows of 97 to 100 neurons; a warm-up and one round.
    assert [batch["input_values"].shape for batch in steps] == [(32, 40, 5)] * 6
    assert times == {"load": [1 / 3], "train": [1 / 3]}


def cells():
    sizes = itertools.product(("fp32", "bf16"), (64, 128), (8, 16))
    return [throughput_sweep.Cell(*size, windows_per_second=10.0, peak_share=0.5, memory=2.0**21) for size in sizes]


def test_the_sweep_prints_windows_frames_share_and_on_an_accelerator_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a device")
    assert "| bf16 | 128 | 16 | 10 | 1,280 | 50 |" in throughput_sweep.sweep_table(cells(), "cpu")
    assert "| bf16 | 128 | 16 | 10 | 1,280 | 50 | 2 |" in throughput_sweep.sweep_table(cells(), "cuda")


def test_the_sweep_measures_every_work_at_every_size(monkeypatch):
    monkeypatch.setitem(throughput_sweep.LENGTHS, "cpu", (16, 24))
    monkeypatch.setitem(throughput_sweep.BATCH_SIZES, "cpu", (1, 2))
    monkeypatch.setitem(throughput_sweep.ROUNDS, "cpu", 1)
    monkeypatch.setitem(throughput_work.PRODUCTS, "cpu", (16, 1))
    measured = throughput_sweep.sweep("cpu")
    sizes = itertools.product((16, 24), (1, 2), ("fp32", "bf16"))
    assert [(cell.frames, cell.windows, cell.words) for cell in measured] == list(sizes)
    assert all(cell.windows_per_second > 0 and cell.peak_share > 0 for cell in measured)


def test_the_figure_is_small_and_always_the_same(tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        throughput_sweep.save_figure(cells(), path)
    assert paths[0].read_bytes() == paths[1].read_bytes() and paths[0].stat().st_size < 100_000
