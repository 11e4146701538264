"""PyTorch NEuRT: a transformer encoder over the frames of one neuron and its neighbourhood.

Shapes: B windows, T frames, C channels, D hidden size, H heads.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import ModelOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_neurt import NeurtConfig
from .layers_neurt import NeurtAttention, NeurtEmbeddings, NeurtLayer, NeurtRotaryEmbedding
from .signal_neurt import (
    expand_mask_to_channels,
    fill_linearly,
    filling_error,
    masked_squared_error,
    visible_center_and_scale,
    visible_roughness,
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
        correction_unit: (B, 1, C), what a decoded correction of 1 adds to `filled_values`; None unless
            `predict_correction`.
        hidden_states: The embedded input and each layer's output, (B, T, D) each; the last one normalised if
            `norm_first`.
        attentions: Each layer's attention weights, (B, H, T, T) each.
    """

    last_hidden_state: torch.FloatTensor | None = None
    embeddings: torch.FloatTensor | None = None
    filled_values: torch.FloatTensor | None = None
    center: torch.FloatTensor | None = None
    scale: torch.FloatTensor | None = None
    correction_unit: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class NeurtMaskedSignalModelingOutput(ModelOutput):
    """Output of the masked model.

    Args:
        loss: Mean squared error over hidden, real positions, in units of what filling alone errs by if
            `relative_loss`; None without `bool_masked_pos`.
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
        if module is getattr(self, "decoder", None) and self.config.predict_correction:
            init.zeros_(module.weight)  # training starts at interpolation
        elif isinstance(module, (nn.Linear, nn.Embedding)):
            init.xavier_uniform_(module.weight)  # as the original
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
        is_rotary = config.position_embedding_type == "rotary"
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
            last_hidden_state=hidden_states,
            embeddings=embeddings,
            filled_values=values,
            center=center,
            scale=scale,
            correction_unit=visible_roughness(values, ~hidden).sqrt() if self.config.predict_correction else None,
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


class NeurtForMaskedSignalModeling(NeurtPreTrainedModel):
    """NEuRT with a linear decoder that reconstructs what is hidden."""

    def __init__(self, config: NeurtConfig):
        super().__init__(config)
        self.neurt = NeurtModel(config)
        self.decoder = nn.Linear(config.hidden_size, config.num_channels)
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
            unit = self.error_unit(outputs, targets, attention_mask, scored) if self.config.relative_loss else 1.0
            loss = masked_squared_error(reconstruction, targets, scored, num_items_in_batch, unit)
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
            # Where lines are nearly right, small corrections are asked for: the unit is the geometric mean of a
            # channel's spread and its roughness.
            reconstruction = outputs.filled_values + outputs.correction_unit * reconstruction
        return self.in_scale_of_input(reconstruction, outputs)

    def in_scale_of_input(self, values: torch.Tensor, outputs: NeurtModelOutput) -> torch.Tensor:
        return outputs.center + outputs.scale * values if self.config.standardize_windows else values

    def error_unit(
        self,
        outputs: NeurtModelOutput,
        targets: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scored: torch.Tensor,
    ) -> torch.Tensor:
        """The error (B, 1, C) that filling alone makes in each window and channel."""
        real = torch.ones_like(scored) if attention_mask is None else attention_mask.bool().unsqueeze(-1)
        filled = self.in_scale_of_input(outputs.filled_values, outputs)
        return filling_error(filled, targets, real.expand_as(scored), scored)

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
