"""PyTorch NEuRT: a transformer encoder over the frames of one neuron and its neighbourhood.

Shapes: B windows, T frames, C channels, D hidden size, H heads.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import ModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_neurt import NeurtConfig
from .signal_neurt import (
    expand_mask_to_channels,
    fill_linearly,
    masked_squared_error,
    visible_center_and_scale,
)


@dataclass
class NeurtModelOutput(ModelOutput):
    """Output of the encoder.

    Args:
        last_hidden_state: (B, T, D), output of the last layer; what the decoder reads.
        embeddings: (B, T, D), what `readout` and `readout_position` select; what the classifier pools.
        filled_values: (B, T, C), the windows as the encoder saw them.
        center: (B, 1, C), what was subtracted from each channel; None unless `standardize_windows`.
        scale: (B, 1, C), what each channel was divided by; None unless `standardize_windows`.
        hidden_states: The embedded input and each layer's output, (B, T, D) each.
        attentions: Each layer's attention weights, (B, H, T, T) each.
    """

    last_hidden_state: torch.FloatTensor | None = None
    embeddings: torch.FloatTensor | None = None
    filled_values: torch.FloatTensor | None = None
    center: torch.FloatTensor | None = None
    scale: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class NeurtMaskedSignalModelingOutput(ModelOutput):
    """Output of the masked model.

    Args:
        loss: Mean squared error over hidden, real positions; None without `bool_masked_pos`.
        reconstruction: (B, T, C), the predicted signal at every frame, in the scale of `input_values`.
        hidden_states: As in `NeurtModelOutput`.
        attentions: As in `NeurtModelOutput`.
    """

    loss: torch.FloatTensor | None = None
    reconstruction: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class NeurtSequenceClassifierOutput(ModelOutput):
    """Output of the classifier.

    Args:
        loss: Loss of `config.problem_type`; None without `labels`.
        logits: (B, num_labels).
        pooling_weights: (B, T), the weight of each frame in the pooled embedding; rows sum to 1, padding has 0.
        hidden_states: As in `NeurtModelOutput`.
        attentions: As in `NeurtModelOutput`.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    pooling_weights: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


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
        self.mask_token = nn.Parameter(torch.zeros(config.hidden_size)) if config.use_mask_token else None
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
        if self.mask_token is not None:
            embeddings = embeddings + hidden.mean(-1, keepdim=True) * self.mask_token
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


class NeurtPreTrainedModel(PreTrainedModel):
    config: NeurtConfig
    base_model_prefix = "neurt"
    main_input_name = "input_values"
    input_modalities = ("time",)
    supports_gradient_checkpointing = True
    # The masked loss is a sum over hidden positions divided by their count. `Trainer` would otherwise count labels
    # instead and multiply the loss by the number of accumulation steps.
    accepts_loss_kwargs = False
    _no_split_modules = ["NeurtEmbeddings", "NeurtLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": NeurtLayer, "attentions": NeurtAttention}
    _input_embed_layer = "input_projection"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, NeurtDecoder) and self.config.predict_correction:
            init.zeros_(module.weight)  # training starts at interpolation
        elif isinstance(module, (nn.Linear, nn.Embedding)):
            init.xavier_uniform_(module.weight)  # as the original
        elif isinstance(module, NeurtEmbeddings) and module.mask_token is not None:
            init.zeros_(module.mask_token)
        elif isinstance(module, NeurtForSequenceClassification):
            init.normal_(module.pooling_query)  # standard normal, as the original


class NeurtModel(NeurtPreTrainedModel):
    """The NEuRT encoder, without a head."""

    def __init__(self, config: NeurtConfig):
        super().__init__(config)
        self.embeddings = NeurtEmbeddings(config)
        num_layers = 1 if config.share_layers else config.num_hidden_layers
        self.layers = nn.ModuleList([NeurtLayer(config) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.norm_first else nn.Identity()
        is_rotary = config.position_embedding_type != "learned"
        self.rotary_embedding = NeurtRotaryEmbedding(config) if is_rotary else None
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        sampling_rate: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> NeurtModelOutput:
        """Encode windows.

        Args:
            input_values: (B, T, C), scaled as the processor does.
            attention_mask: (B, T), 1 at real frames, 0 at padding.
            bool_masked_pos: (B, T) or (B, T, C), True where the value is hidden from the model.
            sampling_rate: (B,) in Hz; NaN or None means `config.default_sampling_rate`.

        Raises:
            ValueError: If a window is longer than `max_position_embeddings` or has another number of channels.
        """
        self._check_shape(input_values)
        hidden = torch.zeros_like(input_values, dtype=torch.bool)
        if bool_masked_pos is not None:
            hidden = expand_mask_to_channels(bool_masked_pos, input_values)
        if attention_mask is not None:
            hidden = hidden | ~attention_mask.bool().unsqueeze(-1)
        values, center, scale = self.hide(input_values.float(), hidden)

        hidden_states = self.embeddings(values, hidden, center, scale, sampling_rate, attention_mask)
        attention_mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=hidden_states, attention_mask=attention_mask
        )
        if self.rotary_embedding is not None:
            kwargs["position_embeddings"] = self.rotary_embedding(hidden_states.shape[1], hidden_states.device)
        readouts = []
        for depth in range(self.config.num_hidden_layers):
            layer = self.layers[0 if self.config.share_layers else depth]
            hidden_states, readout = layer(hidden_states, attention_mask, **kwargs)
            readouts.append(readout)
        embeddings = readouts[-1] if self.config.readout == "last" else torch.stack(readouts).sum(0)
        hidden_states, embeddings = self.norm(hidden_states), self.norm(embeddings)
        return NeurtModelOutput(
            last_hidden_state=hidden_states, embeddings=embeddings, filled_values=values, center=center, scale=scale
        )

    def hide(
        self, input_values: torch.Tensor, hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Replace hidden values, standardise; nothing returned depends on a hidden value. All float32 (B, T, C)."""
        values = torch.where(hidden, 0.0, input_values)  # not a product: NaN times zero is NaN
        center = scale = None
        if self.config.standardize_windows:
            center, scale = visible_center_and_scale(values, ~hidden)
            values = torch.where(hidden, 0.0, (values - center) / scale)
        if self.config.fill == "linear":
            values = fill_linearly(values, ~hidden)
        return values, center, scale

    def _check_shape(self, input_values: torch.Tensor):
        frames, channels = self.config.max_position_embeddings, self.config.num_channels
        shape = tuple(input_values.shape)
        if len(shape) != 3 or shape[2] != channels or shape[1] > frames:
            raise ValueError(
                f"expected input_values of shape (windows, at most {frames} frames, {channels} channels), "
                f"got {shape}; cut recordings into windows with NeurtProcessor"
            )


class NeurtDecoder(nn.Linear):
    """Linear read-out of the channels; a class of its own for the sake of its initialisation."""


class NeurtForMaskedSignalModeling(NeurtPreTrainedModel):
    """NEuRT with a linear decoder that reconstructs what is hidden."""

    def __init__(self, config: NeurtConfig):
        super().__init__(config)
        self.neurt = NeurtModel(config)
        self.decoder = NeurtDecoder(config.hidden_size, config.num_channels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        sampling_rate: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> NeurtMaskedSignalModelingOutput:
        """Reconstruct windows; score what was hidden.

        Args:
            input_values: (B, T, C), scaled and *unmasked*: the model hides the values itself.
            attention_mask: (B, T), 1 at real frames, 0 at padding.
            bool_masked_pos: (B, T) or (B, T, C), True where the value is hidden from the model.
            labels: (B, T, C), the targets where they differ from `input_values`; NaN is never scored.
            sampling_rate: (B,) in Hz; NaN or None means `config.default_sampling_rate`.
            num_items_in_batch: Number of scored values in the whole batch, over all processes and accumulation
                steps, by which the summed squared error is divided; by default the number in this call.
        """
        outputs = self.neurt(input_values, attention_mask, bool_masked_pos, sampling_rate, **kwargs)
        reconstruction = self.decode(outputs)
        loss = None
        if bool_masked_pos is not None:
            targets = input_values if labels is None else labels
            scored = self.scored_positions(targets, attention_mask, bool_masked_pos)
            loss = masked_squared_error(reconstruction, targets, scored, num_items_in_batch)
        return NeurtMaskedSignalModelingOutput(
            loss=loss,
            reconstruction=reconstruction,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def decode(self, outputs: NeurtModelOutput) -> torch.Tensor:
        """The signal (B, T, C) in the scale of `input_values`."""
        reconstruction = self.decoder(outputs.last_hidden_state)
        if self.config.predict_correction:
            reconstruction = outputs.filled_values + reconstruction
        if self.config.standardize_windows:
            reconstruction = outputs.center + outputs.scale * reconstruction
        return reconstruction

    @staticmethod
    def scored_positions(
        labels: torch.Tensor, attention_mask: torch.Tensor | None, bool_masked_pos: torch.Tensor
    ) -> torch.Tensor:
        """Bool (B, T, C), True at the values that enter the loss: hidden, real and not NaN."""
        scored = expand_mask_to_channels(bool_masked_pos, labels) & ~labels.isnan()
        if attention_mask is not None:
            scored = scored & attention_mask.bool().unsqueeze(-1)
        return scored


class NeurtForSequenceClassification(NeurtPreTrainedModel):
    """NEuRT with attention pooling over frames and a linear classifier."""

    def __init__(self, config: NeurtConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.neurt = NeurtModel(config)
        self.pooling_query = nn.Parameter(torch.empty(config.hidden_size))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        sampling_rate: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> NeurtSequenceClassifierOutput:
        """Classify windows.

        Args:
            input_values: (B, T, C), scaled as the processor does.
            attention_mask: (B, T), 1 at real frames, 0 at padding.
            bool_masked_pos: (B, T) or (B, T, C), True where the value is hidden or does not exist.
            labels: (B,) class ids, or floats when `num_labels == 1`.
            sampling_rate: (B,) in Hz; NaN or None means `config.default_sampling_rate`.
        """
        outputs = self.neurt(input_values, attention_mask, bool_masked_pos, sampling_rate, **kwargs)
        pooling_weights = self.pool(outputs.embeddings, attention_mask)
        pooled = (pooling_weights.unsqueeze(1) @ outputs.embeddings).squeeze(1)
        logits = self.classifier(pooled)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return NeurtSequenceClassifierOutput(
            loss=loss,
            logits=logits,
            pooling_weights=pooling_weights,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def pool(self, embeddings: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Softmax over real frames of query · embedding, unscaled as in the original; (B, T)."""
        scores = (embeddings @ self.pooling_query).float()
        if attention_mask is not None:
            # Not -inf: a window of padding alone would give NaN.
            scores = scores.masked_fill(~attention_mask.bool(), torch.finfo(scores.dtype).min)
        return scores.softmax(dim=-1).to(embeddings.dtype)


NeurtModel.register_for_auto_class("AutoModel")
NeurtForMaskedSignalModeling.register_for_auto_class("AutoModelForPreTraining")
NeurtForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")

__all__ = ["NeurtForMaskedSignalModeling", "NeurtForSequenceClassification", "NeurtModel", "NeurtPreTrainedModel"]
