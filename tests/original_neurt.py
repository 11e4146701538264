"""The original NEuRT in plain PyTorch, written anew: reference of the parity tests, rival of the training benchmark.

It keeps the original's parameter names, so that its checkpoints load with `strict=True` once the `module.` prefix is
gone, and its cost: attention scores that are formed and kept, and a LayerNorm made of elementary operations.
Nothing of the package is imported here. `model_cfg` is the dictionary in the original's `model_cfg.json`.

Shapes: B windows, T frames, C channels, D hidden size, H heads.
"""

import math

import torch
from torch import nn


class LayerNorm(nn.Module):
    def __init__(self, size: int, eps: float = 1e-12):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(size))
        self.beta = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(dim=-1, keepdim=True)
        variance = centred.pow(2).mean(dim=-1, keepdim=True)
        return self.gamma * (centred / torch.sqrt(variance + self.eps)) + self.beta


class Embedding(nn.Module):
    def __init__(self, model_cfg: dict):
        super().__init__()
        self.lin = nn.Linear(model_cfg["feature_num"], model_cfg["hidden"])
        self.pos_embed = nn.Embedding(model_cfg["seq_len"], model_cfg["hidden"])
        self.norm = LayerNorm(model_cfg["hidden"])
        self.emb_norm = model_cfg["emb_norm"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        embedded = self.lin(x)
        if self.emb_norm:
            embedded = self.norm(embedded)
        return self.norm(embedded + self.pos_embed.weight[: x.shape[1]])


class SelfAttention(nn.Module):
    """Attention without its output projection, which belongs to the block."""

    def __init__(self, model_cfg: dict):
        super().__init__()
        self.proj_q = nn.Linear(model_cfg["hidden"], model_cfg["hidden"])
        self.proj_k = nn.Linear(model_cfg["hidden"], model_cfg["hidden"])
        self.proj_v = nn.Linear(model_cfg["hidden"], model_cfg["hidden"])
        self.num_heads = model_cfg["n_heads"]
        self.scores = None

    def split_heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, T, D / H)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (self.split_heads(proj(x)) for proj in (self.proj_q, self.proj_k, self.proj_v))
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        self.scores = torch.softmax(scores, dim=-1)
        return (self.scores @ value).transpose(1, 2).flatten(2)


class FeedForward(nn.Module):
    def __init__(self, model_cfg: dict):
        super().__init__()
        self.fc1 = nn.Linear(model_cfg["hidden"], model_cfg["hidden_ff"])
        self.fc2 = nn.Linear(model_cfg["hidden_ff"], model_cfg["hidden"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(torch.relu(self.fc1(x)))


class Block(nn.Module):
    """One encoder layer; returns its output and what is read out of it."""

    def __init__(self, model_cfg: dict):
        super().__init__()
        self.attn = SelfAttention(model_cfg)
        self.proj = nn.Linear(model_cfg["hidden"], model_cfg["hidden"])
        self.norm1 = LayerNorm(model_cfg["hidden"])
        self.pwff = FeedForward(model_cfg)
        self.norm2 = LayerNorm(model_cfg["hidden"])
        self.block_embedding_mode = model_cfg["block_embedding_mode"]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        attended = self.norm1(x + self.proj(self.attn(x)))
        output = self.norm2(attended + self.pwff(attended))
        return output, {"hidden": attended, "not_hidden": output}[self.block_embedding_mode]


class OriginalNeurt(nn.Module):
    """Encoder and decoder.

    Returns a dictionary: `hidden_states`, the embedded input and each block's output, (B, T, D) each; `attentions`,
    (B, H, T, T) each; `embedding` (B, T, D), combined over blocks; `reconstruction` (B, T, C).
    """

    def __init__(self, model_cfg: dict):
        super().__init__()
        self.embed = Embedding(model_cfg)
        self.num_blocks = model_cfg["n_layers"]
        self.is_shared = model_cfg["use_parametr_sharing_strategy"]
        if self.is_shared:
            self.blocks = Block(model_cfg)
        else:
            self.blocks = nn.ModuleList(Block(model_cfg) for _ in range(self.num_blocks))
        self.decoder = nn.Linear(model_cfg["hidden"], model_cfg["feature_num"])
        self.embedding_mode = model_cfg["embedding_mode"]

    def forward(self, x: torch.Tensor) -> dict:
        hidden_states, readouts, attentions = [self.embed(x)], [], []
        for block in [self.blocks] * self.num_blocks if self.is_shared else self.blocks:
            output, readout = block(hidden_states[-1])
            hidden_states.append(output)
            readouts.append(readout)
            attentions.append(block.attn.scores)
        return {
            "hidden_states": hidden_states,
            "attentions": attentions,
            "embedding": {"last": lambda: readouts[-1], "sum_all": lambda: sum(readouts)}[self.embedding_mode](),
            "reconstruction": self.decoder(hidden_states[-1]),
        }


class AttentionPooling(nn.Module):
    def __init__(self, hidden: int, num_classes: int):
        super().__init__()
        self.q = nn.Parameter(torch.randn(1, 1, hidden))
        self.lin1 = nn.Linear(hidden, num_classes)

    def forward(self, embedding: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights = torch.softmax((self.q * embedding).sum(dim=-1), dim=1)
        return self.lin1((weights.unsqueeze(-1) * embedding).sum(dim=1)), weights


class OriginalClassifier(nn.Module):
    """The encoder with its two-class head; adds `logits` (B, 2) and `pooling_weights` (B, T) to its outputs."""

    def __init__(self, model_cfg: dict):
        super().__init__()
        self.bert = OriginalNeurt(model_cfg)
        self.classification_blocks = AttentionPooling(model_cfg["hidden"], num_classes=2)

    def forward(self, x: torch.Tensor) -> dict:
        outputs = self.bert(x)
        logits, weights = self.classification_blocks(outputs["embedding"])
        return {**outputs, "logits": logits, "pooling_weights": weights}
