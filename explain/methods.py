"""The explanations that are tried side by side, by the names that reports call them."""

from .attention import attention_rollout, pooling_attention
from .attribution import correlation, frame_ablation, integrated_gradients
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
