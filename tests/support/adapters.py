"""Models with an adapter of the text tower."""

import torch

from cir_vectorizer.backbones.adapter import Adapter, AdapterSettings
from cir_vectorizer.composers.lincir import LinCIR
from cir_vectorizer.models import Vectorizer


def learnt(text, rank: int = 4, seed: int = 0) -> Adapter:
    """An adapter whose matrices are all random, as after a training."""
    torch.manual_seed(seed)
    adapter = Adapter(text, AdapterSettings(rank, 8.0))
    with torch.no_grad():
        for parameter in adapter.up.values():
            parameter.normal_(std=0.1)
    return adapter


def with_adapter(model: Vectorizer, adapter: Adapter) -> Vectorizer:
    composer = LinCIR(model.backbone, model.composers["lincir"].phi, adapter=adapter)
    return Vectorizer("adapted", model.backbone, {**model.composers, "lincir": composer}, "lincir")
