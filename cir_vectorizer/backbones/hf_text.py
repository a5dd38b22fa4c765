"""Text towers that are encoders of the transformers library: BERT, XLM-R, T5, NLLB and others.

They attend in both directions and never to padding, so rows are padded to the longest of a batch only.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cir_vectorizer.backbones.fingerprint import EncoderFacts, module_facts
from cir_vectorizer.backbones.packed import TextTower
from cir_vectorizer.backbones.text import Pooling

Pool = Callable[[Any, Tensor], Tensor]
"""Function of an encoder's output and its attention mask (n, length) that returns the pooled states (n, width)."""

_SETTINGS = (
    "model_type",
    "num_attention_heads",
    "hidden_act",
    "dense_act_fn",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "relative_attention_num_buckets",
    "relative_attention_max_distance",
    "scale_embedding",
)


class HFTextTower(nn.Module):
    """Adapter from an encoder of the transformers library to the calls of `TextTowers`."""

    stacked: ClassVar[dict[str, int]] = {}

    def _take(self, encoder: Any, head: nn.Module, pooling: Pooling, pad_id: int, pool: Pool | None = None) -> None:
        """Set the parts of the tower, after `nn.Module.__init__`.

        Args:
            encoder: takes `inputs_embeds` and `attention_mask`.
            head: maps pooled states to embeddings, (n, width) -> (n, dim).
            pooling: name of the pooling.
            pad_id: id that is not attended to.
            pool: the pooling itself; by its name if None.
        """
        self.encoder = encoder
        self.head = head
        self._pool = pool or POOLS[pooling]
        self._pad_id = pad_id
        lists = [name for name, module in encoder.named_modules() if isinstance(module, nn.ModuleList)]
        self.layers = f"encoder.{min(lists, key=len)}."

    @property
    def token_table(self) -> Tensor:
        """Table of token embeddings, (ids, width)."""
        table: Tensor = self.encoder.get_input_embeddings().weight
        return table

    def embed_tokens(self, ids: Tensor) -> Tensor:
        embeddings: Tensor = self.encoder.get_input_embeddings()(ids)
        return embeddings

    def encode_tokens(self, embeddings: Tensor, ids: Tensor, ends: Tensor) -> Tensor:
        mask = (ids != self._pad_id).long()
        output = self.encoder(inputs_embeds=embeddings, attention_mask=mask)
        projected: Tensor = self.head(self._pool(output, mask))
        return projected

    def text_tower(self) -> TextTower | None:
        return None

    def encode_states(self, embeddings: Tensor, ids: Tensor, ends: Tensor) -> Tensor:
        mask = (ids != self._pad_id).long()
        states: Tensor = self.encoder(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
        return states

    def text_facts(self) -> EncoderFacts:
        config = self.encoder.config
        settings = {name: getattr(config, name) for name in _SETTINGS if getattr(config, name, None) is not None}
        return EncoderFacts(("encoder.", "head."), module_facts(self.encoder, self.head) | {"encoder": settings})


def _mean(output: Any, mask: Tensor) -> Tensor:
    weights = mask.unsqueeze(-1).to(output.last_hidden_state.dtype)
    mean: Tensor = (output.last_hidden_state * weights).sum(1) / weights.sum(1)
    return mean


def _max(output: Any, mask: Tensor) -> Tensor:
    states: Tensor = output.last_hidden_state
    return states.masked_fill(mask.unsqueeze(-1) == 0, -torch.inf).amax(1)


def _first(output: Any, _mask: Tensor) -> Tensor:
    first: Tensor = output.last_hidden_state[:, 0]
    return first


POOLS: dict[str, Pool] = {"mean": _mean, "max": _max, "first": _first}
