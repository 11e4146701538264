"""Layers of NEuRT: embeddings, rotary positions, attention, feed-forward.

Shapes: B windows, T frames, C channels, D hidden size, H heads.
"""

from collections.abc import Callable

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .configuration_neurt import NeurtConfig


class NeurtEmbeddings(nn.Module):
    """Project values, mark what is hidden, add positions."""

    def __init__(self, config: NeurtConfig):
        super().__init__()
        self.config = config
        input_size = config.num_channels * (2 if config.use_mask_indicator else 1)
        self.input_projection = nn.Linear(input_size, config.hidden_size)
        kernel_size = config.input_kernel_size
        self.input_convolution = (
            nn.Conv1d(input_size, config.hidden_size, kernel_size, padding="same", bias=False)
            if kernel_size > 1
            else None
        )
        # Standardised windows have lost the level and spread that may tell groups of animals apart.
        self.level_projection = (
            nn.Linear(2 * config.num_channels, config.hidden_size, bias=False) if config.standardize_windows else None
        )
        self.rate_projection = nn.Linear(1, config.hidden_size, bias=False) if config.use_sampling_rate else None
        is_learned = config.position_embedding_type == "learned"
        self.position_embeddings = (
            nn.Embedding(config.max_position_embeddings, config.hidden_size) if is_learned else None
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        values: torch.Tensor,
        hidden: torch.Tensor,
        center: torch.Tensor | None = None,
        scale: torch.Tensor | None = None,
        sampling_rate: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        values = values.to(self.input_projection.weight.dtype)
        hidden = hidden.to(values.dtype)
        if self.config.use_mask_indicator:
            values = torch.cat([values, hidden], dim=-1)
        embeddings = self.input_projection(values)
        if self.input_convolution is not None:
            # Beyond the window the convolution meets zeros; padding must look the same.
            real = values if attention_mask is None else values * attention_mask.unsqueeze(-1)
            embeddings = embeddings + self.input_convolution(real.transpose(1, 2)).transpose(1, 2)
        if self.level_projection is not None:
            level = torch.cat([center.asinh(), scale.log()], dim=-1)  # compressed: traces may be unscaled
            embeddings = embeddings + self.level_projection(level.to(values.dtype))
        if self.rate_projection is not None and sampling_rate is not None:
            ratio = sampling_rate.float() / self.config.default_sampling_rate
            octaves = torch.where(ratio > 0, ratio, 1.0).log2()  # NaN is not above 0
            embeddings = embeddings + self.rate_projection(octaves.to(values.dtype).view(-1, 1, 1))
        if self.config.embedding_norm:
            embeddings = self.norm(embeddings)
        if self.position_embeddings is not None:
            positions = torch.arange(values.shape[1], device=values.device)
            embeddings = embeddings + self.position_embeddings(positions)
        return self.dropout(self.norm(embeddings))


class NeurtRotaryEmbedding(nn.Module):
    """Angles by which queries and keys are turned, so that attention depends on how many frames lie between them.

    As in RoFormer (Su et al. 2021, arXiv 2104.09864).
    """

    def __init__(self, config: NeurtConfig):
        super().__init__()
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.theta = config.rope_theta

    def forward(self, num_frames: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and sine of each frame's angles, (T, head_dim / 2) each."""
        exponents = torch.arange(0, self.head_dim, 2, device=device, dtype=torch.float32) / self.head_dim
        frames = torch.arange(num_frames, device=device, dtype=torch.float32)
        angles = frames.unsqueeze(-1) * self.theta**-exponents
        return angles.cos(), angles.sin()


def rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn (B, H, T, head_dim) by angles: the first half of a head holds the real parts, the second the imaginary."""
    real, imaginary = states.chunk(2, dim=-1)
    cos, sin = cos.to(states.dtype), sin.to(states.dtype)
    return torch.cat([real * cos - imaginary * sin, imaginary * cos + real * sin], dim=-1)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class NeurtAttention(nn.Module):
    """Multi-head attention over the frames of a window."""

    def __init__(self, config: NeurtConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        input_shape = hidden_states.shape[:-1]
        head_shape = (*input_shape, -1, self.head_dim)
        query = self.q_proj(hidden_states).view(head_shape).transpose(1, 2)
        key = self.k_proj(hidden_states).view(head_shape).transpose(1, 2)
        value = self.v_proj(hidden_states).view(head_shape).transpose(1, 2)
        if position_embeddings is not None:
            query, key = rotate(query, *position_embeddings), rotate(key, *position_embeddings)
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(output.reshape(*input_shape, -1)), weights


class NeurtMLP(nn.Module):
    def __init__(self, config: NeurtConfig):
        super().__init__()
        self.activation = ACT2FN[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(hidden_states)))


class NeurtLayer(GradientCheckpointingLayer):
    """Attention, then feed-forward, normalised before or after each; returns its output and its read-out."""

    def __init__(self, config: NeurtConfig):
        super().__init__()
        self.config = config
        self.attention = NeurtAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = NeurtMLP(config)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.config.norm_first:
            attended, _ = self.attention(self.attention_norm(hidden_states), attention_mask, **kwargs)
            attended = hidden_states + self.dropout(attended)
            output = attended + self.dropout(self.mlp(self.mlp_norm(attended)))
        else:
            attended, _ = self.attention(hidden_states, attention_mask, **kwargs)
            attended = self.attention_norm(hidden_states + self.dropout(attended))
            output = self.mlp_norm(attended + self.dropout(self.mlp(attended)))
        return output, attended if self.config.readout_position == "attention" else output
