"""NEuRT model configuration."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

# `save_pretrained` adds only the class that is being saved; AutoModel needs the others as well, so that one folder
# opens as an encoder, a masked model or a classifier.
AUTO_MAP = {
    "AutoConfig": "configuration_neurt.NeurtConfig",
    "AutoModel": "modeling_neurt.NeurtModel",
    "AutoModelForPreTraining": "modeling_neurt.NeurtForMaskedSignalModeling",
    "AutoModelForSequenceClassification": "modeling_neurt.NeurtForSequenceClassification",
    "AutoProcessor": "processing_neurt.NeurtProcessor",
}

SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "max_position_embeddings",
    "input_kernel_size",
)
CHOICES = {
    "hidden_act": tuple(ACT2FN),
    "readout_position": ("feed_forward", "attention"),
    "readout": ("last", "sum"),
    "fill": ("zero", "linear"),
    "position_embedding_type": ("learned", "rotary"),
}


@strict
class NeurtConfig(PreTrainedConfig):
    r"""Configuration of a NEuRT model: sizes, read-out, and how hidden frames are presented.

    Args:
        hidden_size: Width D of the encoder.
        intermediate_size: Width of the feed-forward layer.
        num_hidden_layers: Depth of the encoder.
        num_attention_heads: Attention heads; must divide `hidden_size`.
        num_channels: Channels C of a frame: own trace, mean and standard deviation of near, then of far neurons.
        max_position_embeddings: Longest window, in frames.
        hidden_act: Activation of the feed-forward layer.
        layer_norm_eps: Epsilon of every LayerNorm.
        hidden_dropout_prob: Dropout on the embeddings and on both sub-layers of each layer.
        attention_probs_dropout_prob: Dropout on the attention weights.
        norm_first: Normalise what each sub-layer reads, and the last layer's output, instead of what each adds up to.
        position_embedding_type: "learned", a vector added to each frame, or "rotary", queries and keys turned by
            angles that grow with the frame.
        rope_theta: Rotary angles grow by 1 to nearly 1 / rope_theta a frame.
        input_kernel_size: Frames, an odd number, that an input convolution joins; 1 takes each frame alone.
        embedding_norm: Apply the embedding LayerNorm before adding positions as well as after (one LayerNorm, used
            twice, as in the original).
        share_layers: Use one layer's weights at every depth.
        readout_position: Where a layer's `embeddings` are read: after its "feed_forward" or its "attention"
            sub-layer.
        readout: How `embeddings` combine over layers: the "last" one, or their "sum".
        use_mask_indicator: Give the model one more input per channel, 1 where the value is hidden.
        fill: What stands in place of hidden values: "zero", or "linear", straight lines between visible ones.
        standardize_windows: Subtract each channel's mean over visible frames and divide by its standard deviation,
            which the encoder is told beside; reconstructions are returned in the scale of `input_values`.
        use_sampling_rate: Tell the encoder how many octaves a recording's rate lies above `default_sampling_rate`.
        default_sampling_rate: Rate in Hz that is taken where none is given.
        predict_correction: Decode a correction to the filled values instead of the values, in units of how rough the
            channel is; needs `fill="linear"` and `standardize_windows`.
        relative_loss: Divide errors by those of filling with straight lines in the same window and channel, so that
            smooth and noisy recordings count alike; the plain mean squared error otherwise.
        pretraining_subjects: Animals that pretraining has seen; an evaluation that meets one of them says so.

    Example:
        >>> from neurt import NeurtConfig, NeurtForMaskedSignalModeling
        >>> model = NeurtForMaskedSignalModeling(NeurtConfig(num_hidden_layers=2))
    """

    model_type = "neurt"
    keys_to_ignore_at_inference = ["embeddings", "pooling_weights", "hidden_states", "attentions"]

    hidden_size: int = 128
    intermediate_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_channels: int = 5
    max_position_embeddings: int = 128
    hidden_act: str = "relu"
    layer_norm_eps: float | int = 1e-12
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    norm_first: bool = True
    position_embedding_type: str = "rotary"
    rope_theta: float | int = 100.0
    input_kernel_size: int = 9
    embedding_norm: bool = False
    share_layers: bool = False
    readout_position: str = "feed_forward"
    readout: str = "last"
    use_mask_indicator: bool = True
    fill: str = "linear"
    standardize_windows: bool = True
    predict_correction: bool = True
    relative_loss: bool = True
    use_sampling_rate: bool = True
    default_sampling_rate: float | int = 8.0
    pretraining_subjects: list[str] | None = None

    def __post_init__(self, **kwargs):
        kwargs["auto_map"] = dict(AUTO_MAP)
        super().__post_init__(**kwargs)

    @classmethod
    def original(cls, **overrides) -> "NeurtConfig":
        """The architecture of the published checkpoints: a hidden frame is a frame of zeros.

        Args:
            **overrides: Any argument of the configuration.
        """
        original = {
            "max_position_embeddings": 512,
            "norm_first": False,
            "position_embedding_type": "learned",
            "input_kernel_size": 1,
            "use_mask_indicator": False,
            "fill": "zero",
            "standardize_windows": False,
            "predict_correction": False,
            "relative_loss": False,
            "use_sampling_rate": False,
        }
        return cls(**{**original, **overrides})

    def validate_architecture(self):
        """Refuse sizes and options that no model can be built from."""
        for name in SIZES:
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} of at least 1, got {getattr(self, name)}")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"expected {name} from 0 to below 1, got {getattr(self, name)}")
        for name in ("layer_norm_eps", "default_sampling_rate", "rope_theta"):
            if not getattr(self, name) > 0:
                raise ValueError(f"expected {name} above 0, got {getattr(self, name)}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"expected {name} among {', '.join(choices)}, got {getattr(self, name)!r}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"expected a hidden_size that num_attention_heads divides, got {self.hidden_size} and "
                f"{self.num_attention_heads}"
            )
        if self.input_kernel_size % 2 == 0:
            raise ValueError(f"expected an odd input_kernel_size, got {self.input_kernel_size}")
        if self.position_embedding_type == "rotary" and self.hidden_size // self.num_attention_heads % 2:
            raise ValueError(
                "expected an even hidden_size / num_attention_heads for rotary positions, got "
                f"{self.hidden_size // self.num_attention_heads}"
            )
        if self.predict_correction and not (self.fill == "linear" and self.standardize_windows):
            raise ValueError(
                'expected fill "linear" and standardize_windows with predict_correction, got '
                f"{self.fill!r} and {self.standardize_windows}"
            )


NeurtConfig.register_for_auto_class()

__all__ = ["NeurtConfig"]
