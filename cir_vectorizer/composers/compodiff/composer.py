"""CompoDiff's composer: turns a query into conditions and noise, and draws the wanted picture's embedding.

Gu et al., "CompoDiff: Versatile Composed Image Retrieval With Latent Diffusion" (TMLR 2024).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cir_vectorizer.backbones import Backbone, BackboneSpec, TextEncoder, TokenRow, load_backbone
from cir_vectorizer.composers.base import Composer, Plan, cut_note
from cir_vectorizer.composers.compodiff.checkpoint import load_network
from cir_vectorizer.composers.compodiff.knobs import Knobs
from cir_vectorizer.composers.compodiff.network import MASK_SIDE, Network
from cir_vectorizer.composers.compodiff.sampler import SIZES, Denoiser, Draw, sample
from cir_vectorizer.composers.compodiff.schedule import cosine_schedule
from cir_vectorizer.digests import PartsDigest
from cir_vectorizer.errors import BackboneMismatch, CheckpointError, QueryError
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.query.takes import Takes

MOST_DRAWS = 16
"""Largest number of queries in a batch of the sampler: each keeps its context's keys and values for every layer."""
UNITS_PER_STEP = 4
"""Rough cost of one evaluation of the network, in tokens of text; only their sum is measured."""


@dataclass(frozen=True)
class _Wish:
    """Settings of one query: its knobs and the seed of its noise."""

    knobs: Knobs
    seed: int


class CompoDiff(Composer):
    """Composer that draws the embedding of the wanted picture.

    Takes pictures (the mean of their embeddings), a text, a negative text and a mask. Text alone draws from the text
    (the prior); a picture alone draws a variation of it. The noise comes from `options.seed` or, without one, from a
    digest of the query's texts, so that the same query gives the same ranking however its picture is sent. A query's
    vector does not depend on the rest of its batch.

    Args:
        backbone: the encoder of the index; the drawn embeddings lie in its picture space.
        network: the denoising network, trained for that space.
        text: the encoder whose states the network reads; `backbone.text` if None.
        knobs: defaults, which a query's options override.
    """

    takes = Takes(
        negative_text="optional",
        mask="optional",
        options=("steps", "guidance", "seed", "source_weight", "squash", "keep"),
        units_per_step=UNITS_PER_STEP * Knobs().samples,
    )

    def __init__(
        self,
        backbone: Backbone,
        network: Network,
        text: TextEncoder | None = None,
        knobs: Knobs | None = None,
    ) -> None:
        self.backbone = backbone
        self.text = text or backbone.text
        self.network = network.to(backbone.device).eval().requires_grad_(False).pack()
        self.knobs = knobs or Knobs()
        self.takes = replace(self.takes, units_per_step=UNITS_PER_STEP * self.knobs.samples)
        self._schedule = cosine_schedule()
        self._denoise: Denoiser | None = None
        self._empty = self.text.tokenizer.row("")
        self._empty_states: Tensor | None = None
        widths = (network.config.dim, network.config.text_width)
        wanted = (backbone.dim, self.text.facts.width)
        if widths != wanted:
            raise CheckpointError(
                f"this CompoDiff draws embeddings of {widths[0]} from text states of {widths[1]}, but picture backbone "
                f"{backbone.spec} has {wanted[0]} and text backbone {self.text.spec} {wanted[1]}; "
                "choose the backbones that it was trained for"
            )

    @classmethod
    def load(cls, record: Mapping[str, Any], folder: Path, backbone: Backbone) -> "CompoDiff":
        """Load CompoDiff from a model folder. Raises CheckpointError if the weights do not fit."""
        text = None
        if spec := record.get("text_backbone"):
            text_spec = BackboneSpec(spec["loader"], spec["name"], spec["options"])
            text = load_backbone(text_spec, backbone.device, backbone.text.dtype).text
            noted = spec.get("fingerprint")  # releases up to 0.1.0 noted none
            if noted not in (None, text.fingerprint):
                raise BackboneMismatch(
                    f"{folder}: CompoDiff was trained on the text states of {text_spec} with fingerprint {noted[:12]}, "
                    f"but its weights here have {text.fingerprint[:12]}; get those it was trained with"
                )
        network = load_network(folder / record["file"], record["network"])
        return cls(backbone, network, text, Knobs.read(record.get("knobs", {})))

    def compile(self) -> None:
        """Compile the network for its device, with CUDA graphs on a GPU: a slower start, faster queries.

        Batches are then padded to the sampler's `SIZES`, so that few programs are built.
        """
        mode = "reduce-overhead" if self.backbone.device.type == "cuda" else "default"
        self._denoise = torch.compile(self.network.pack(False), mode=mode, dynamic=False)

    def prepare(self, query: ComposedQuery) -> Plan:
        if query.options.weights is not None:
            raise QueryError(
                "options.weights", "CompoDiff weighs by options.guidance and options.source_weight; use these"
            )
        if query.options.squash and any(ref.vector is not None for ref in query.image):
            raise QueryError(
                "options.squash", "needs the picture itself, and a vector shows no pixels; send the picture or drop it"
            )
        if query.mask is not None and len(query.image) > 1:
            raise QueryError("mask", f"goes with one picture, and there are {len(query.image)}; send one")
        rows, notes = [], []
        for field_name, words in (("text", (query.text or "").strip()), ("negative_text", query.negative)):
            rows.append(self.text.tokenizer.row(words))
            notes += [cut_note(field_name, self.text.tokenizer)] if rows[-1].cut else []
        knobs = self.knobs.asked(query.options)
        seed = query.options.seed
        wish = _Wish(knobs, _seed_of(query) if seed is None else seed)
        units = sum(len(row.ids) for row in rows) + self.takes.units_per_step * knobs.steps
        return Plan(query, tuple(rows), tuple(notes), units=units, squash=knobs.squash, own=wish)

    def without_words(self, query: ComposedQuery) -> ComposedQuery:
        """Return the query without words but with their noise, so that the vectors differ by the words' effect alone."""
        seed = _seed_of(query) if query.options.seed is None else query.options.seed
        bare = super().without_words(query)
        return bare.with_options(bare.options.model_copy(update={"seed": seed}))

    def compose(self, plans: Sequence[Plan], references: Sequence[Tensor]) -> Tensor:
        vectors = [
            self._compose(plans[at : at + MOST_DRAWS], references[at : at + MOST_DRAWS])
            for at in range(0, len(plans), MOST_DRAWS)
        ]
        return torch.cat(vectors) if vectors else torch.empty(0, self.backbone.dim)

    def _compose(self, plans: Sequence[Plan], references: Sequence[Tensor]) -> Tensor:
        device = self.backbone.device
        texts: dict[TokenRow, int] = {}
        masks = [torch.zeros(MASK_SIDE, MASK_SIDE)]
        draws, sources = [], []
        for plan, reference in zip(plans, references, strict=True):
            wish: _Wish = plan.own
            text, negative = (texts.setdefault(row, len(texts)) for row in plan.rows)
            mask = 0
            if plan.mask is not None:
                mask = len(masks)
                masks.append(plan.mask.map)
            source = reference.to(device).float().mean(0) if len(reference) else None
            noise = self.network.config.noise_scale * _noise(wish, self.backbone.dim).to(device)
            draws.append(Draw(text, negative, mask, source, wish.knobs.image_scale, wish.knobs.text_scale, noise))
            sources.append(source)
        given = (self._states(list(texts)).to(device), torch.stack(masks).to(device), draws)
        sizes = () if self._denoise is None else SIZES
        drawn = sample(self.network, self._schedule, *given, self._denoise, sizes).mean(1)
        vectors = [
            vector if source is None else torch.lerp(vector, source, plan.own.knobs.source_weight)
            for vector, source, plan in zip(drawn, sources, plans, strict=True)
        ]
        return F.normalize(torch.stack(vectors), dim=-1)

    def _states(self, rows: Sequence[TokenRow]) -> Tensor:
        """Return the texts' states, (n, 77, text_width); the empty text's, most queries' negative text, are cached."""
        if self._empty not in rows:
            return self.text.encode_states(rows)
        if self._empty_states is None:
            self._empty_states = self.text.encode_states([self._empty])
        others = [row for row in rows if row != self._empty]
        encoded = iter(self.text.encode_states(others).unbind() if others else ())
        empty = self._empty_states[0]
        return torch.stack([empty if row == self._empty else next(encoded) for row in rows])


def _noise(wish: _Wish, dim: int) -> Tensor:
    """Return (steps, samples, dim) noise; its own generator on the host makes it equal on all devices and in all batches."""
    generator = torch.Generator().manual_seed(wish.seed)
    return torch.randn(wish.knobs.steps, wish.knobs.samples, dim, generator=generator)


def _seed_of(query: ComposedQuery) -> int:
    words = PartsDigest(*((each or "").strip() for each in (query.text, query.negative)))
    return int.from_bytes(words.digest()[:7], "big")
