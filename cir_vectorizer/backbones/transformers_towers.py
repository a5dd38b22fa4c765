"""Towers of transformers models, with the calls that all backbones share."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cir_vectorizer.backbones.fingerprint import EncoderFacts, module_facts
from cir_vectorizer.backbones.hf_text import HFTextTower, Pool
from cir_vectorizer.backbones.packed import TextTower
from cir_vectorizer.backbones.text import Pooling
from cir_vectorizer.errors import ModelError


class TransformersPictures(nn.Module):
    """Picture encoder of a transformers model, with the calls of `Towers` for pictures."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision_model = getattr(model, "vision_model", None)
        self.visual_projection = getattr(model, "visual_projection", None)

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        if self.vision_model is None:
            raise ModelError("this backbone holds a text tower only; pictures need a whole model")
        if self.vision_model.config.model_type == "siglip2_vision_model":
            pooled = self.vision_model(**_patches(pixels, self.vision_model.config.patch_size)).pooler_output
        else:
            pooled = self.vision_model(pixel_values=pixels).pooler_output
        projected: Tensor = pooled if self.visual_projection is None else self.visual_projection(pooled)
        return projected

    def picture_facts(self) -> EncoderFacts:
        return EncoderFacts(
            ("vision_model.", "visual_projection."), module_facts(self.vision_model) | {"pooling": "first"}
        )


class TransformersTowers(TransformersPictures):
    """Adapter from a transformers model with a text transformer like CLIP's to the calls of `Towers`."""

    layers = "text_model.encoder."
    stacked: ClassVar[dict[str, int]] = {}

    def __init__(self, model: Any, causal: bool = True) -> None:
        super().__init__(model)
        self._causal = causal
        self.text_model = model.text_model
        self.text_projection = getattr(model, "text_projection", None)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        embeddings: Tensor = self.text_model.embeddings.token_embedding(ids)
        return embeddings

    def encode_tokens(self, embeddings: Tensor, ids: Tensor, ends: Tensor) -> Tensor:
        length = embeddings.shape[1]
        hidden = self.text_model.embeddings(inputs_embeds=embeddings)
        mask, at = None, torch.full_like(ends, length - 1)
        if self._causal:
            mask = torch.full((1, 1, length, length), float("-inf"), dtype=hidden.dtype, device=hidden.device).triu(1)
            at = ends
        states = self.text_model.encoder(inputs_embeds=hidden, attention_mask=mask).last_hidden_state
        return self._project(states[torch.arange(len(ends), device=ends.device), at])

    def text_tower(self) -> TextTower:
        positions = self.text_model.embeddings.position_embedding.weight
        layers = [TransformersLayer(layer) for layer in self.text_model.encoder.layers]
        return TextTower(positions, layers, self._project)

    def _project(self, pooled: Tensor) -> Tensor:
        projection = self.text_model.head if self.text_projection is None else self.text_projection
        projected: Tensor = projection(self.text_model.final_layer_norm(pooled))
        return projected

    def encode_states(self, embeddings: Tensor, ids: Tensor, ends: Tensor) -> Tensor:
        length = embeddings.shape[1]
        hidden = self.text_model.embeddings(inputs_embeds=embeddings)
        mask = None
        if self._causal:
            at = torch.arange(length, device=ends.device)
            hides = (at > at[:, None]) | (at > ends[:, None, None])
            mask = torch.zeros(len(ends), 1, length, length, dtype=hidden.dtype, device=hidden.device)
            mask = mask.masked_fill(hides[:, None], float("-inf"))
        states: Tensor = self.text_model.encoder(inputs_embeds=hidden, attention_mask=mask).last_hidden_state
        normed: Tensor = self.text_model.final_layer_norm(states)
        return normed

    def text_facts(self) -> EncoderFacts:
        return EncoderFacts(("text_model.", "text_projection."), module_facts(self.text_model))


class TransformersHFTowers(HFTextTower, TransformersPictures):
    """Adapter from a transformers model whose text tower is BERT, XLM-R or the like."""

    def __init__(
        self, pictures: Any, encoder: Any, head: nn.Module, pooling: Pooling, pad_id: int, pool: Pool | None = None
    ) -> None:
        TransformersPictures.__init__(self, pictures)
        self._take(encoder, head, pooling, pad_id, pool)


def _patches(pixels: Tensor, side: int) -> dict[str, Tensor]:
    """Cut square pictures into patches, as SigLIP 2 for any ratio of sides takes them."""
    n, channels, height, width = pixels.shape
    down, across = height // side, width // side
    cut = pixels.view(n, channels, down, side, across, side).permute(0, 2, 4, 3, 5, 1).reshape(n, down * across, -1)
    return {
        "pixel_values": cut,
        "pixel_attention_mask": torch.ones(n, down * across, dtype=torch.int32, device=pixels.device),
        "spatial_shapes": torch.tensor([[down, across]] * n, device=pixels.device),
    }


class TransformersLayer:
    """A `TextLayer` of transformers."""

    def __init__(self, layer: Any) -> None:
        self.heads: int = layer.self_attn.num_heads
        self.norm = layer.layer_norm1
        self.queries = layer.self_attn.q_proj
        self._layer = layer

    def keys_values(self, normed: Tensor) -> Tensor:
        attention = self._layer.self_attn
        return torch.cat([attention.k_proj(normed), attention.v_proj(normed)], -1)

    def finish(self, states: Tensor, attended: Tensor) -> Tensor:
        states = states + self._layer.self_attn.out_proj(attended)
        finished: Tensor = states + self._layer.mlp(self._layer.layer_norm2(states))
        return finished
