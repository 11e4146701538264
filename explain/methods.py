"""The explanations that are tried side by side, by the names that reports call them."""

import functools

from .attention import attention_rollout, pooling_attention
from .attribution import correlation, frame_ablation, integrated_gradients, mean_levels
from .explained import ExplainedWindows
from .faithfulness import Method

INTEGRATED_GRADIENTS, FRAME_ABLATION = "integrated gradients", "frame ablation"
ATTENTION_ROLLOUT, POOLING_ATTENTION = "attention rollout", "pooling attention"
# The last takes no look inside the model: what it finds, anyone could have found without one.
CORRELATION = "correlation alone"
METHODS: dict[str, Method] = {
    INTEGRATED_GRADIENTS: integrated_gradients,
    FRAME_ABLATION: frame_ablation,
    ATTENTION_ROLLOUT: attention_rollout,
    POOLING_ATTENTION: pooling_attention,
    CORRELATION: correlation,
}


def methods_for(windows: ExplainedWindows) -> dict[str, Method]:
    """The methods that compare a window with others compare it with these, whichever of them they are asked about.

    Control models are asked about some of the windows each. With those alone to compare with, their maps would differ
    from the explanation also where the model makes no difference.
    """
    return METHODS | {
        INTEGRATED_GRADIENTS: functools.partial(integrated_gradients, baseline=mean_levels(windows)),
        CORRELATION: functools.partial(correlation, among=windows),
    }
