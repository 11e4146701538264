"""What the throughput benchmark times: training steps, inference and bare matrix products; and their cost in FLOP.

Shapes: B windows, T frames, C channels, D hidden size, F intermediate size, L layers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from measurement import REPOSITORY, load_file
from neurt import NeurtConfig, NeurtForMaskedSignalModeling
from neurt.convert_checkpoint import build_model

original_neurt = load_file(REPOSITORY / "tests" / "original_neurt.py")

CHANNELS = 5
MASKED_SHARE = 0.15
SAMPLING_RATE = 8.0  # Hz
LEARNING_RATE = 1e-3
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Width and number of the matrix products whose speed stands for the peak.
PRODUCTS = {"cpu": (2048, 2), "cuda": (8192, 20)}


@dataclass(frozen=True)
class Work:
    """What a candidate computes.

    Args:
        network: "rival", the original's code path written anew; "original", the same architecture and weights in
            NEuRT; or "default", the network of `NeurtConfig()`.
        attention: "sdpa" (fused) or "eager" (explicit); of NEuRT only.
        precision: "fp32", or "bf16" by autocast.
        is_training: Forward, backward and Adam; otherwise forward in inference mode.
        is_compiled: Whether `torch.compile` is used.
    """

    network: str
    attention: str = "sdpa"
    precision: str = "fp32"
    is_training: bool = True
    is_compiled: bool = False


def training_flop(config: NeurtConfig, frames: int) -> float:
    """FLOP of training on one window: the encoder layers' matrix products, backward counted as two forwards.

    3 L (8 T D² + 4 T D F + 4 T² D): four projections, two products of the feed-forward, scores and their use; and an
    input convolution's 8 T C D K, to whose input no gradient flows. Left out is what is small (embedding, read-out,
    normalisation: 0.1 % at the default sizes) and what fused attention computes twice. 4.05 GFLOP at 512 frames and
    the default sizes.
    """
    width, inner = config.hidden_size, config.intermediate_size
    layer = 8 * frames * width**2 + 4 * frames * width * inner + 4 * frames**2 * width
    kernel_size = config.input_kernel_size if config.input_kernel_size > 1 else 0
    convolution = 8 * frames * config.num_channels * width * kernel_size
    return 3.0 * config.num_hidden_layers * layer + convolution


def make_batch(windows: int, frames: int, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Inputs of NEuRT as the collator gives them, without padding."""
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(windows, frames, CHANNELS, generator=generator)
    batch = {
        "input_values": values,
        "attention_mask": torch.ones(windows, frames, dtype=torch.long),
        "bool_masked_pos": torch.rand(windows, frames, generator=generator) < MASKED_SHARE,
        "sampling_rate": torch.full((windows,), SAMPLING_RATE),
        "labels": values,
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


class Rival(torch.nn.Module):
    """The original's code path, called as NEuRT is; its loss is the mean squared error over hidden frames."""

    def __init__(self, frames: int):
        super().__init__()
        self.network = original_neurt.OriginalNeurt(
            {
                "hidden": 128,
                "hidden_ff": 512,
                "feature_num": CHANNELS,
                "n_layers": 4,
                "n_heads": 4,
                "seq_len": frames,
                "emb_norm": False,
                "block_embedding_mode": "not_hidden",
                "embedding_mode": "last",
                "use_parametr_sharing_strategy": False,
            }
        )

    def forward(self, input_values: torch.Tensor, bool_masked_pos: torch.Tensor, **_: torch.Tensor) -> dict:
        hidden = bool_masked_pos.unsqueeze(-1)
        reconstruction = self.network(input_values.masked_fill(hidden, 0.0))["reconstruction"]
        return {"loss": (reconstruction - input_values)[bool_masked_pos].square().mean()}


def make_model(work: Work, frames: int) -> torch.nn.Module:
    """The network of a candidate, with room for windows of `frames`."""
    torch.manual_seed(0)
    rival = Rival(frames)
    if work.network == "rival":
        return rival
    if work.network == "original":
        model = build_model(rival.network.state_dict(), {"max_position_embeddings": frames}).model
    else:
        longest = max(frames, NeurtConfig().max_position_embeddings)
        model = NeurtForMaskedSignalModeling(NeurtConfig(max_position_embeddings=longest))
    model.set_attn_implementation(work.attention)
    return model


def make_call(work: Work, windows: int, frames: int, device: str = "cpu") -> Callable[[], float]:
    """A call that does a candidate's work once, always on the same batch, and returns the loss."""
    step = make_step(make_model(work, frames).to(device), work)
    batch = make_batch(windows, frames, device)
    return lambda: step(batch)


def make_step(model: torch.nn.Module, work: Work) -> Callable[[dict[str, torch.Tensor]], float]:
    """A candidate's work as a function of the batch that returns the loss."""
    model.train(work.is_training)
    forward = torch.compile(model) if work.is_compiled else model
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)

    def loss(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        device = batch["input_values"].device.type
        with torch.autocast(device, torch.bfloat16, enabled=work.precision == "bf16"):
            return forward(**batch)["loss"]

    def train(batch: dict[str, torch.Tensor]) -> float:
        optimizer.zero_grad()
        value = loss(batch)
        value.backward()
        optimizer.step()
        return value.item()

    def infer(batch: dict[str, torch.Tensor]) -> float:
        with torch.inference_mode():
            return loss(batch).item()

    return train if work.is_training else infer


def make_products(precision: str, device: str = "cpu") -> tuple[Callable[[], None], float]:
    """A call that multiplies large matrices, and its FLOP."""
    size, repeats = PRODUCTS[device]
    left, right = torch.rand(2, size, size, device=device).to(DTYPES[precision])
    result = torch.empty_like(left)

    def multiply():
        for _ in range(repeats):
            torch.mm(left, right, out=result)
        if device == "cuda":
            torch.cuda.synchronize()

    return multiply, 2.0 * size**3 * repeats
