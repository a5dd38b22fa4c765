"""CompoDiff's network for training: the same function with its multiplications in another order.

`Network.forward` reads keys and values of the context, which a sampler computes once and reads often. In training every
context is read by few rows and changes at every step. There it is cheaper to leave the context as it is and to project
the two queries of a row instead: q · (W t) = (Wᵀ q) · t, and Σ a (W t) = W (Σ a t). No key or value is computed.
"""

from typing import cast

import torch
from torch import Tensor

from cir_vectorizer.composers.compodiff.network import CROSS_HEADS, TOKENS, CrossAttention, Layer, Network


def denoise(network: Network, x: Tensor, times: Tensor, context: Tensor) -> Tensor:
    """Predict the clean embeddings; equals `network(x, times, network.remember(...))` up to rounding.

    Args:
        x: (n, dim) noised embeddings.
        times: (n, dim), made by `Network.embed_times`.
        context: (m, length, dim) tokens of m contexts; rows 0 … n/m − 1 have the first context, and so on.

    Returns:
        (n, dim).
    """
    hidden = torch.stack([x.to(network.dtype), times], dim=1)
    bias = network._bias()
    last = len(network.layers) - 1
    for i, layer in enumerate(cast(list[Layer], network.layers)):
        queries = 1 if i == last else TOKENS
        hidden = hidden[:, :queries] + layer.self_attention(hidden, bias, queries)
        hidden = hidden + _attend(layer.cross_attention, hidden, context)
        hidden = hidden + layer.feed_forward(hidden)
    drawn: Tensor = network.project_out(network.norm(hidden[:, 0]))
    return drawn


def _attend(attention: CrossAttention, x: Tensor, context: Tensor) -> Tensor:
    """Return the cross-attention of `x`, (n, tokens, dim), to `context`, (m, length, dim)."""
    n, tokens, dim = x.shape
    m = len(context)
    rows = n // m * tokens

    def by_head(each: Tensor) -> Tensor:
        """(m, heads · rows, width) -> (heads, m · rows, width)"""
        return each.view(m, CROSS_HEADS, rows, -1).transpose(0, 1).reshape(CROSS_HEADS, m * rows, -1)

    def by_context(each: Tensor) -> Tensor:
        """(heads, m · rows, width) -> (m, heads · rows, width)"""
        return each.view(CROSS_HEADS, m, rows, -1).transpose(0, 1).reshape(m, CROSS_HEADS * rows, -1)

    q = attention.to_q(attention.norm(x)).view(m * rows, CROSS_HEADS, -1).transpose(0, 1)
    to_keys, to_values = attention.to_kv.weight.view(2, CROSS_HEADS, -1, dim).unbind(0)
    null_key, null_value = attention.null_kv.unbind(0)
    logits = torch.bmm(by_context(torch.bmm(q, to_keys)), context.transpose(1, 2))
    null_logits = by_context((q @ null_key).unsqueeze(-1))
    weights = (torch.cat([null_logits, logits], dim=-1) * attention.head_dim**-0.5).softmax(dim=-1)
    seen = by_head(torch.bmm(weights[..., 1:], context))
    out = torch.bmm(seen, to_values.transpose(1, 2)) + by_head(weights[..., :1]) * null_value
    attended: Tensor = attention.out_norm(attention.to_out(out.transpose(0, 1).reshape(n, tokens, -1)))
    return attended
