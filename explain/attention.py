"""What a classifier attends to: the weights of its pooling, and attention followed down through the layers.

Attention says where a model looks, not what it makes of what it sees. Both maps are positive, sum to 1 in each window,
and are the same whichever class is asked about. Whether they point at what the decision rests on is for
`faithfulness` to find out.

Shapes: n windows, B windows in a batch, T frames, H heads.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..masking import model_inputs
from ..modeling_neurt import NeurtForSequenceClassification
from .explained import BATCH_SIZE, ExplainedWindows, batches

# Values that the attention of all layers and heads of one batch may have: 256 MiB of float32.
MOST_WEIGHTS = 2**26


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """Both maps of windows, and what the model says of them, from one pass.

    Args:
        pooling: As of `pooling_attention`, (n, T).
        rollout: As of `attention_rollout`, (n, T).
        logits: float32 (n, K), K classes.
    """

    pooling: np.ndarray
    rollout: np.ndarray
    logits: np.ndarray


def pooling_attention(
    model: NeurtForSequenceClassification, windows: ExplainedWindows, targets: np.ndarray
) -> np.ndarray:
    """The weight that each frame's embedding has in the pooled one.

    By then every frame has attended to all others, so a weight belongs to what stands at a frame after the last layer,
    not to the input there alone.

    Args:
        model: A classifier.
        windows: What it is shown.
        targets: As for every method; attention is the same for all classes.

    Returns:
        float32 (n, T), rows sum to 1, 0 at padding.
    """
    with torch.inference_mode():
        found = [
            model(**model_inputs(batch, model.device)).pooling_weights.float().cpu()
            for batch in batches(windows.inputs)
        ]
    return torch.cat(found).numpy()


def attention_rollout(
    model: NeurtForSequenceClassification, windows: ExplainedWindows, targets: np.ndarray
) -> np.ndarray:
    """The pooling weights, followed down through the attention of all layers to the input frames; see `rollout`.

    What it leaves out: the value vectors, large or small, that attention weighs; that heads differ; feed-forward
    layers and normalisation; how much larger than the attention's output the residual stream really is, which half
    the identity stands for; the classifier, and with it sign and class. Nor does it see what enters before the first
    layer: an input convolution joins neighbouring frames, and the mean and standard deviation of a standardised window
    reach every frame.

    Args:
        model: A classifier; it attends eagerly meanwhile, since no other implementation tells its weights.
        windows: What it is shown.
        targets: As for every method; attention is the same for all classes.

    Returns:
        float32 (n, T), rows sum to 1, 0 at padding.
    """
    return attention_maps(model, windows).rollout


def attention_maps(model: NeurtForSequenceClassification, windows: ExplainedWindows) -> AttentionMaps:
    """Both maps at once, which for all windows of a recording takes a third of the time."""
    found, config = [], model.config
    frames = windows.inputs["input_values"].shape[1]
    in_a_window = config.num_hidden_layers * config.num_attention_heads * frames**2
    size = max(1, min(BATCH_SIZE, MOST_WEIGHTS // in_a_window))
    with torch.inference_mode(), eager_attention(model):
        for batch in batches(windows.inputs, size):
            outputs = model(**model_inputs(batch, model.device), output_attentions=True)
            pooling = outputs.pooling_weights.float()
            followed = rollout(outputs.attentions, pooling, every_layer=config.readout == "sum")
            found.append([values.float().cpu() for values in (pooling, followed, outputs.logits)])
    return AttentionMaps(*(torch.cat(values).numpy() for values in zip(*found, strict=True)))


@contextlib.contextmanager
def eager_attention(model: NeurtForSequenceClassification) -> Iterator[None]:
    """Let a model compute its attention in the way that can return the weights, and put it back afterwards."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def rollout(attentions: Sequence[torch.Tensor], pooling_weights: torch.Tensor, *, every_layer: bool) -> torch.Tensor:
    """Attention rollout (Abnar & Zuidema 2020, arXiv 2005.00928, section 3), read by a pooling.

    A layer passes on A = (mean over heads + identity) / 2, rows made to sum to 1; L layers A_L ... A_1. The pooling
    weights w times that product are taken from the left, w A_L first, so that no product of matrices is needed.

    Args:
        attentions: Each layer's weights, the lowest first, (B, H, T, T) each.
        pooling_weights: (B, T).
        every_layer: Whether the pooling reads the sum of all layers and not the last one alone. Layers then count
            alike.

    Returns:
        (B, T), the share of each input frame; rows sum to 1 as those of `pooling_weights` do.
    """
    read = len(attentions) if every_layer else 1
    importance = torch.zeros_like(pooling_weights)
    for above, attention in enumerate(reversed(attentions)):
        if above < read:
            importance = importance + pooling_weights / read
        mixing = attention.float().mean(1)
        mixing = mixing + torch.eye(mixing.shape[-1], device=mixing.device)
        mixing = mixing / mixing.sum(-1, keepdim=True)
        importance = (importance.unsqueeze(1) @ mixing).squeeze(1)
    return importance
