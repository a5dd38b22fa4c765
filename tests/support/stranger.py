"""Composers as another package would bring them, and the files that pip would write when it installs the package."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Self

from cir_vectorizer.backbones import Backbone
from cir_vectorizer.composers import Composer, Plan, Takes
from cir_vectorizer.errors import QueryError
from cir_vectorizer.query import ComposedQuery


class Tint(Composer):
    """Turns one picture's vector a little, in a direction chosen by the words; everything else is `Composer`'s default."""

    takes = Takes(image="required", text="required", mask="optional", most_images=1, options=("seed",))
    weightless = True

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    @classmethod
    def load(cls, record: Mapping[str, Any], folder: Path, backbone: Backbone) -> Self:
        return cls(backbone)

    def prepare(self, query: ComposedQuery) -> Plan:
        return Plan(query, own=zlib.crc32((query.text or "").encode()) + (query.options.seed or 0))

    def compose(self, plans: Sequence[Plan], references: Sequence[Tensor]) -> Tensor:
        pictures = torch.stack([F.normalize(reference[0].float(), dim=-1) for reference in references])
        turns = [torch.randn(self.backbone.dim, generator=torch.Generator().manual_seed(plan.own)) for plan in plans]
        return F.normalize(pictures + 0.1 * F.normalize(torch.stack(turns), dim=-1).to(pictures.device), dim=-1)


class MildTint(Tint):
    """The same with a text that may be left out."""

    takes = Takes(image="required", most_images=1)


class TalkingTint(Tint):
    """The same with its own words for pictures, with something to compile, and with a check that `takes` cannot say."""

    compiled = False

    def prepare(self, query: ComposedQuery) -> Plan:
        if len((query.text or "").split()) < 2:
            raise QueryError("text", "is a single word; add another")
        return super().prepare(query)

    def compile(self) -> None:
        self.compiled = True

    def explain(self, references: Tensor, words: int) -> list[list[tuple[str, float]]]:
        return [[("tinted", 1.0)][:words] for _ in references]


NO_COMPOSER = "not a composer"


@contextmanager
def installed(folder: Path, **composers: str) -> Iterator[None]:
    """Install a package whose entry points are these; each value is the name of something in this module."""
    info = folder / "stranger_tints-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger-tints\nVersion: 1.0\n")
    lines = [f"{name} = {__name__}:{value}" for name, value in composers.items()]
    (info / "entry_points.txt").write_text("\n".join(["[cir_vectorizer.composers]", *lines, ""]))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield
