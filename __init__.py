"""NEuRT: a transformer for neuronal activity recorded with calcium imaging.

Importing the package registers its classes, so that the Auto classes of transformers know "neurt".
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoProcessor,
)

from .configuration_neurt import NeurtConfig
from .masking import MaskedSignalCollator
from .modeling_neurt import NeurtForMaskedSignalModeling, NeurtForSequenceClassification, NeurtModel
from .pipeline_neurt import NeuronSignalClassificationPipeline
from .processing_neurt import NeurtProcessor

__version__ = "0.1.0"

AutoConfig.register("neurt", NeurtConfig)
AutoModel.register(NeurtConfig, NeurtModel)
AutoModelForPreTraining.register(NeurtConfig, NeurtForMaskedSignalModeling)
AutoModelForSequenceClassification.register(NeurtConfig, NeurtForSequenceClassification)
AutoProcessor.register(NeurtConfig, NeurtProcessor)

__all__ = [
    "MaskedSignalCollator",
    "NeuronSignalClassificationPipeline",
    "NeurtConfig",
    "NeurtForMaskedSignalModeling",
    "NeurtForSequenceClassification",
    "NeurtModel",
    "NeurtProcessor",
]
