"""Towers of open_clip models, with the calls that all backbones share."""

from typing import Any, ClassVar

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from cir_vectorizer.backbones.fingerprint import EncoderFacts, module_facts
from cir_vectorizer.backbones.hf_text import HFTextTower
from cir_vectorizer.backbones.packed import TextTower
from cir_vectorizer.backbones.text import Pooling


class OpenClipPictures(nn.Module):
    """Picture encoder of an open_clip model, with the calls of `Towers` for pictures."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.visual: Any = model.visual

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        encoded: Tensor | tuple[Tensor, Tensor] = self.visual(pixels)
        return encoded[0] if isinstance(encoded, tuple) else encoded  # CoCa's pictures come with their patches

    def picture_facts(self) -> EncoderFacts:
        pooling = {"pooling": str(getattr(self.visual, "pool_type", "the model's own"))}
        return EncoderFacts(("visual.",), module_facts(self.visual) | pooling)


class OpenClipTowers(OpenClipPictures):
    """Adapter from an open_clip model with a text transformer of its own to the calls of `Towers`."""

    layers = "transformer."
    stacked: ClassVar[dict[str, int]] = {".in_proj_weight": 3}

    def __init__(self, model: nn.Module, pooling: Pooling, pad_id: int = 0) -> None:
        super().__init__(model)
        text: Any = getattr(model, "text", model)  # CustomTextCLIP has its text tower in `text`
        self._pooling = pooling
        self._pad_id = pad_id
        self.token_embedding = text.token_embedding
        self.positional_embedding = text.positional_embedding
        self.transformer = text.transformer
        self.ln_final = text.ln_final
        self.text_projection = text.text_projection
        self.cls_emb = getattr(text, "cls_emb", None)
        self.attn_mask: Tensor | None
        self.register_buffer("attn_mask", text.attn_mask, persistent=False)

    @property
    def token_table(self) -> Tensor:
        table: Tensor = self.token_embedding.weight
        return table

    def embed_tokens(self, ids: Tensor) -> Tensor:
        embeddings: Tensor = self.token_embedding(ids)
        return embeddings

    def encode_tokens(self, embeddings: Tensor, ids: Tensor, ends: Tensor) -> Tensor:
        if self.cls_emb is not None:
            embeddings = torch.cat([embeddings, self.cls_emb.expand(len(embeddings), 1, -1)], 1)
        length = embeddings.shape[1]
        hidden = embeddings + self.positional_embedding[:length]
        mask = None if self.attn_mask is None else self.attn_mask[:length, :length]
        if self.cls_emb is not None:
            mask = self._mask_of_coca(ids, hidden)
        hidden = self.transformer(hidden, attn_mask=mask)
        at = {"end": ends, "first": torch.zeros_like(ends), "last": torch.full_like(ends, length - 1)}[self._pooling]
        return self._project(hidden[torch.arange(len(ends), device=ends.device), at])

    def _mask_of_coca(self, ids: Tensor, hidden: Tensor) -> Tensor:
        """Return the mask of CoCa, (n · heads, length + 1, length + 1); its weights were trained with each padding token
        hidden one position too late."""
        assert self.attn_mask is not None
        hides = torch.cat([torch.zeros_like(ids[:, :1], dtype=torch.bool), ids == self._pad_id], 1)
        mask = self.attn_mask.to(hidden.dtype).masked_fill(hides[:, None, :], float("-inf"))
        return mask.repeat_interleave(self.transformer.resblocks[0].attn.num_heads, 0)

    def text_tower(self) -> TextTower | None:
        blocks = self.transformer.resblocks
        if any(type(block) is not ResidualAttentionBlock for block in blocks):
            return None
        return TextTower(self.positional_embedding, [OpenClipLayer(block) for block in blocks], self._project)

    def _project(self, pooled: Tensor) -> Tensor:
        pooled = self.ln_final(pooled)
        projection = self.text_projection
        if projection is None:
            return pooled
        projected: Tensor = projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
        return projected

    def encode_states(self, embeddings: Tensor, ids: Tensor, ends: Tensor) -> Tensor:
        length = embeddings.shape[1]
        hidden = embeddings + self.positional_embedding[:length]
        mask = torch.zeros(len(ends), length, length, dtype=hidden.dtype, device=hidden.device)
        if self.attn_mask is not None:
            mask = mask + self.attn_mask[:length, :length]
        if self._pooling != "last":
            padding = torch.arange(length, device=ends.device) > ends[:, None]
            mask = mask.masked_fill(padding[:, None, :], float("-inf"))
        for block in self.transformer.resblocks:
            hidden = block(hidden, attn_mask=mask.repeat_interleave(block.attn.num_heads, 0))
        states: Tensor = self.ln_final(hidden)
        return states

    def text_facts(self) -> EncoderFacts:
        weights = (
            "token_embedding.",
            "positional_embedding",
            "transformer.",
            "ln_final.",
            "text_projection",
            "cls_emb",
        )
        return EncoderFacts(weights, module_facts(self.transformer))


class OpenClipHFTowers(HFTextTower, OpenClipPictures):
    """Adapter from an open_clip model whose text tower is an encoder of the transformers library."""

    def __init__(self, model: Any, pooling: Pooling) -> None:
        OpenClipPictures.__init__(self, model)
        text = model.text
        self._take(text.transformer, text.proj, pooling, text.config.pad_token_id, text.pooler)


class OpenClipLayer:
    """A `TextLayer` of open_clip, which keeps the weights of queries, keys and values in one tensor."""

    def __init__(self, block: Any) -> None:
        self.heads: int = block.attn.num_heads
        self.norm = block.ln_1
        self._block = block

    def queries(self, normed: Tensor) -> Tensor:
        attention = self._block.attn
        return F.linear(normed, *(x[: attention.embed_dim] for x in (attention.in_proj_weight, attention.in_proj_bias)))

    def keys_values(self, normed: Tensor) -> Tensor:
        attention = self._block.attn
        return F.linear(normed, *(x[attention.embed_dim :] for x in (attention.in_proj_weight, attention.in_proj_bias)))

    def finish(self, states: Tensor, attended: Tensor) -> Tensor:
        block = self._block
        states = states + block.ls_1(block.attn.out_proj(attended))
        finished: Tensor = states + block.ls_2(block.mlp(block.ln_2(states)))
        return finished
