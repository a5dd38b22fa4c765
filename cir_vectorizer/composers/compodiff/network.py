"""CompoDiff's denoising network: it predicts the clean embedding from a noised one, its time and a context.

Gu et al., "CompoDiff: Versatile Composed Image Retrieval With Latent Diffusion" (TMLR 2024). Two tokens, [noised
embedding, time], attend to themselves and to a context of 79: 77 states of the text tower, the reference picture, the
mask. The context depends neither on the time nor on the noise, so its keys and values are computed once (`remember`)
and used at every step, by every sample and guidance branch.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

CROSS_HEADS = 8
MASK_SIDE = 64
ROTARY_CHANNELS = 32
COSINE_SCALE = 16.0
BIAS_BUCKETS = 32
TOKENS = 2
PACKED_FOR_ROWS = 12
"""Number of rows for one query: three branches of two samples of two tokens."""


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of a network and the scale of its noise; the defaults are those of the published one."""

    dim: int = 768
    """Width of a picture's embedding and of the network."""
    depth: int = 12
    heads: int = 16
    """Heads of the self-attention; the cross-attention always has 8."""
    head_dim: int = 64
    text_width: int = 1280
    """Width of the text tower's states."""
    noise_scale: float = 1.0
    """Standard deviation of the noise, in the unit of the embeddings."""

    def to_record(self) -> dict[str, Any]:
        """Return the sizes as a JSON object."""
        return asdict(self)


class Linear(nn.Linear):
    """A linear layer without bias."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__(width, out, bias=False)
        self._packed: Tensor | None = None

    def pack(self, wanted: bool) -> None:
        """Keep a second copy of the weights, laid out for fast products with few rows on a CPU; drop it if not wanted."""
        possible = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        if wanted and possible and self.weight.device.type == "cpu" and self.weight.dtype == torch.float32:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), PACKED_FOR_ROWS)
        else:
            self._packed = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}  # a packed copy can be neither copied nor pickled

    def forward(self, x: Tensor) -> Tensor:
        if self._packed is None:
            return F.linear(x, self.weight)
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, None, "none", [], "")  # type: ignore[no-any-return]


class Gain(nn.Module):
    """Layer norm with a gain and no bias; `stable` first divides by the signed maximum over the features."""

    def __init__(self, dim: int, stable: bool = False) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(dim))
        self.stable = stable

    def forward(self, x: Tensor) -> Tensor:
        if self.stable:
            x = x / x.amax(dim=-1, keepdim=True)
        eps = 1e-5 if self.g.dtype == torch.float32 else 1e-3  # the gain's dtype: under autocast x may be half
        return F.layer_norm(x, x.shape[-1:], self.g, None, eps)


class SelfAttention(nn.Module):
    """Attention of the two tokens to themselves and a learnt null token: one key and value for all heads.

    Logits are 16 · cosine plus a bias by distance. (The published code also multiplies queries by 16 before it
    normalises them, which changes no bit.) `queries` is the number of tokens whose outputs are wanted.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.head_dim
        self.norm = Gain(config.dim)
        self.null_kv = nn.Parameter(torch.randn(2, config.head_dim))
        self.to_q = Linear(config.dim, config.heads * config.head_dim)
        self.to_kv = Linear(config.dim, 2 * config.head_dim)
        self.to_out = Linear(config.heads * config.head_dim, config.dim)
        self.out_norm = Gain(config.dim)
        half = min(ROTARY_CHANNELS, config.head_dim) // 2
        self.register_buffer("rotary", 1.0 / 10_000 ** (torch.arange(half) / half))
        self.rotary: Tensor

    def forward(self, x: Tensor, bias: Tensor, queries: int = TOKENS) -> Tensor:
        """(n, 2, dim) and the (heads, 2, 3) bias -> (n, queries, dim)."""
        n = len(x)
        x = self.norm(x)
        q = self.to_q(x[:, :queries]).view(n, queries, self.heads, self.head_dim)
        kv = self.to_kv(x).view(n, TOKENS, 2, self.head_dim)
        q, k, v = self._rotate(q), self._rotate(kv[:, :, :1]).squeeze(2), kv[:, :, 1]
        null = self.null_kv.to(x.dtype).expand(n, 2, self.head_dim)
        k, v = F.normalize(torch.cat([null[:, :1], k], dim=1), dim=-1), torch.cat([null[:, 1:], v], dim=1)
        # All heads share the keys, so heads and tokens can be flattened into one axis of queries.
        out = F.scaled_dot_product_attention(
            F.normalize(q, dim=-1).flatten(1, 2).unsqueeze(1),
            k.unsqueeze(1),
            v.unsqueeze(1),
            attn_mask=bias[:, :queries].transpose(0, 1).reshape(1, 1, -1, TOKENS + 1),
            scale=COSINE_SCALE,
        )
        return self.out_norm(self.to_out(out.reshape(n, queries, -1)))  # type: ignore[no-any-return]

    def _rotate(self, x: Tensor) -> Tensor:
        """Turn the second token's first channels, in interleaved pairs, in place; (n, tokens, heads, head_dim)."""
        if x.shape[1] == TOKENS:
            cos, sin = self.rotary.cos().to(x.dtype), self.rotary.sin().to(x.dtype)
            turned = x[:, 1, :, : 2 * len(self.rotary)]
            a, b = turned[..., 0::2], turned[..., 1::2]
            turned.copy_(torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2))
        return x


class CrossAttention(nn.Module):
    """Attention to the context and a learnt null token, whose keys and values come from `remember`."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        inner = CROSS_HEADS * config.head_dim
        self.head_dim = config.head_dim
        self.norm = Gain(config.dim)
        self.null_kv = nn.Parameter(torch.randn(2, config.head_dim))
        self.to_q = Linear(config.dim, inner)
        self.to_kv = Linear(config.dim, 2 * inner)
        self.to_out = Linear(inner, config.dim)
        self.out_norm = Gain(config.dim)

    def remember(self, tokens: Tensor) -> Tensor:
        """Context tokens (n, length, dim) -> their keys and values, (2, n, 8, length, head_dim)."""
        n, length, _ = tokens.shape
        return self.to_kv(tokens).view(n, length, 2, CROSS_HEADS, self.head_dim).permute(2, 0, 3, 1, 4)  # type: ignore[no-any-return]

    def null(self, n: int) -> Tensor:
        """The null token's key and value, (2, n, 8, 1, head_dim)."""
        return self.null_kv[:, None, None, None, :].expand(2, n, CROSS_HEADS, 1, self.head_dim)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """(n, tokens, dim) -> the same; each of the m contexts of `memory`, (2, m, 8, 1 + length, head_dim), serves the
        next n / m rows."""
        n, tokens, _ = x.shape
        m = memory.shape[1]
        q = self.to_q(self.norm(x)).view(m, -1, CROSS_HEADS, self.head_dim).transpose(1, 2)
        out = F.scaled_dot_product_attention(q, memory[0], memory[1])
        return self.out_norm(self.to_out(out.transpose(1, 2).reshape(n, tokens, -1)))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """Norm, linear to 8 dim, half gated by the SiLU of the other half, linear back."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = Gain(dim)
        self.inner = Linear(dim, 8 * dim)
        self.outer = Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.inner(self.norm(x)).chunk(2, dim=-1)
        return self.outer(value * F.silu(gate))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Self-attention, cross-attention and feed-forward, each added to its input."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.self_attention = SelfAttention(config)
        self.cross_attention = CrossAttention(config)
        self.feed_forward = FeedForward(config.dim)

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor, queries: int) -> Tensor:
        """(n, 2, dim) -> (n, queries, dim): in the last layer only the first token is read."""
        x = x[:, :queries] + self.self_attention(x, bias, queries)
        x = x + self.cross_attention(x, memory)
        return x + self.feed_forward(x)  # type: ignore[no-any-return]


def _mlp(width: int, inner: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, inner), nn.SiLU(), nn.Linear(inner, inner), nn.SiLU(), nn.Linear(inner, out)
    )  # fmt: skip


class Network(nn.Module):
    """Predicts the clean embedding x0 of a picture from its noised one.

    Use it as `network(x, times, network.remember(...))`.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.time_mlp = _mlp(dim, 2 * dim, dim)
        self.text_projection = nn.Linear(config.text_width, dim)
        self.mask_mlp = _mlp(MASK_SIDE**2, 2 * dim, dim)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.relative_bias = nn.Embedding(BIAS_BUCKETS, config.heads)
        self.norm = Gain(dim, stable=True)
        self.project_out = Linear(dim, dim)

    @property
    def _cross_attentions(self) -> list[CrossAttention]:
        return [module for module in self.modules() if isinstance(module, CrossAttention)]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.project_out.weight.dtype

    def pack(self, wanted: bool = True) -> Self:
        """Lay the weights out for sampling: on a CPU, in float32, one query then takes about half the time.

        Doubles the memory of the weights; later changes of the weights have no effect.
        """
        for module in self.modules():
            if isinstance(module, Linear):
                module.pack(wanted)
        return self

    def embed_times(self, times: Tensor) -> Tensor:
        """(n,) times in 0 … 999 -> (n, dim)."""
        half = self.config.dim // 2
        frequencies = torch.exp(torch.arange(half, device=times.device) * (-math.log(10_000) / (half - 1)))
        angles = times.float()[:, None] * frequencies
        return self.time_mlp(torch.cat([angles.sin(), angles.cos()], dim=-1).to(self.dtype))  # type: ignore[no-any-return]

    def embed_texts(self, states: Tensor) -> Tensor:
        """(n, 77, text_width) states of the text tower -> (n, 77, dim) context tokens."""
        return self.text_projection(states.to(self.dtype))  # type: ignore[no-any-return]

    def embed_masks(self, masks: Tensor) -> Tensor:
        """(n, 64, 64) of 0 and 1, 1 where the picture may change -> (n, 1, dim) context tokens."""
        return self.mask_mlp(masks.to(self.dtype).flatten(1)).unsqueeze(1)  # type: ignore[no-any-return]

    def remember(self, *parts: tuple[Tensor, Tensor]) -> list[Tensor]:
        """Return each layer's keys and values of n contexts, (2, n, 8, 1 + length, head_dim), the null token first.

        Args:
            parts: pieces of the context in order. Each is its m different values as tokens, (m, length, dim), and for
                each of the n contexts the index of its value, (n,). A value that many contexts share is computed once.
        """
        memories = []
        for attention in self._cross_attentions:
            pieces = [attention.remember(tokens)[:, which] for tokens, which in parts]
            memories.append(torch.cat([attention.null(pieces[0].shape[1]), *pieces], dim=3))
        return memories

    def remember_whole(self, states: Tensor, images: Tensor, masks: Tensor) -> list[Tensor]:
        """Return `remember` of n contexts, one a row: (n, 77, text_width), (n, 1, dim) and (n, 64, 64)."""
        all_ = torch.arange(len(states), device=states.device)
        tokens = (self.embed_texts(states), images.to(self.dtype), self.embed_masks(masks))
        return self.remember(*((each, all_) for each in tokens))

    def forward(self, x: Tensor, times: Tensor, memories: Sequence[Tensor], whole: bool = False) -> Tensor:
        """Predict the clean embeddings.

        Args:
            x: (n, dim) noised embeddings.
            times: (n, dim), made by `embed_times`.
            memories: made by `remember` over m contexts; rows 0 … n/m − 1 have the first context, and so on.
            whole: also run the last layer for the time token, whose output is not used.

        Returns:
            (n, dim) in the weights' dtype.
        """
        hidden = torch.stack([x.to(self.dtype), times], dim=1)
        bias = self._bias()
        last = len(self.layers) - 1
        for i, (layer, memory) in enumerate(zip(self.layers, memories, strict=True)):
            hidden = layer(hidden, memory, bias, 1 if i == last and not whole else TOKENS)
        return self.project_out(self.norm(hidden[:, 0]))  # type: ignore[no-any-return]

    def _bias(self) -> Tensor:
        """Return the bias (heads, 2, 3), by the key's distance behind the query; the null token is key 0."""
        queries, keys = torch.arange(TOKENS)[:, None], torch.arange(TOKENS + 1)
        buckets = (queries - keys).clamp(min=0)
        return self.relative_bias.weight[buckets].permute(2, 0, 1)
