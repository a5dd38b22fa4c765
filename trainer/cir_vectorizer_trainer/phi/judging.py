"""Judging Φ without pictures: composed queries made of held-out captions must find their own target caption.

A query is the prompt of an edit, with Φ of the reference caption's noised embedding at its marker. It is searched among
the embeddings of thousands of captions by the frozen tower: all targets, hard negatives and other held-out captions.
Captions that hold the same values as the target are found as well as the target itself. The noise stands for the gap
between captions and pictures. It has the default strength times 0.5, 1 and 1.5, however the training noises its captions,
so that recipes can be compared; the three results are averaged.

Where pictures are given, true pictures are searched too: from the picture that the reference caption finds first, the
query must find the one that the target caption finds first.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from cir_vectorizer.backbones import Backbone, TextEncoder
from cir_vectorizer.composers.prompts import ENGLISH, Wording
from cir_vectorizer.digests import PartsDigest
from cir_vectorizer_trainer.edits.kinds import Kind
from cir_vectorizer_trainer.edits.mining import grouped
from cir_vectorizer_trainer.edits.probes import Probe
from cir_vectorizer_trainer.phi.edits_examples import edit_prompts, embeddings_of
from cir_vectorizer_trainer.phi.examples import with_own_slots
from cir_vectorizer_trainer.phi.loss import Noise, add_noise

MOST_PROBES = 600
MOST_OTHERS = 3000
"""Largest number of captions in the gallery that are no probe's."""
NOISES = (0.5, 1.0, 1.5)
FIGURES = ("r_at_1", "r_at_10", "edit", "keep")
_BATCH = 512
_MISSING = -1


class Judge:
    """Judges Φ and a reader of prompts by probes; a judgement is a function of their weights.

    Args:
        backbone: its text tower embeds the gallery, when it is first needed.
        probes: at least one.
        others: further captions of the gallery; at most `MOST_OTHERS` are used.
        kinds: kinds of the captions' values, which tell captions that hold the same values.
        pictures: (n, dim), unnormalised embeddings of pictures like those that are searched. Reference embeddings are
            shifted by the difference of their mean from that of the gallery's captions, the modality gap. None shifts nothing.
        wording: prompts of the captions' language.
    """

    def __init__(
        self,
        backbone: Backbone,
        probes: Sequence[Probe],
        others: Sequence[str] = (),
        kinds: Sequence[Kind] = (),
        pictures: Tensor | None = None,
        wording: Wording = ENGLISH,
    ) -> None:
        self._backbone = backbone
        self._prompts = edit_prompts([probe.edit for probe in probes], backbone.text.tokenizer, wording)
        numbers: dict[str, int] = {}

        def column(captions: Sequence[str | None]) -> Tensor:
            found = [_MISSING if each is None else numbers.setdefault(each, len(numbers)) for each in captions]
            return torch.tensor(found, device=backbone.device)

        self._references = column([probe.edit.reference for probe in probes])
        self._targets = column([probe.edit.target for probe in probes])
        self._wrong_values = column([probe.wrong_value for probe in probes])
        self._wrong_items = column([probe.wrong_item for probe in probes])
        for caption in list(dict.fromkeys(others))[:MOST_OTHERS]:
            numbers.setdefault(caption, len(numbers))
        self.captions = list(numbers)
        groups = torch.tensor(grouped(self.captions, kinds), device=backbone.device)
        self._wanted = groups[self._targets][:, None] == groups[None]
        self._pictures = pictures

    def digest(self) -> str:
        """Return a digest of everything that a judgement depends on beside the weights (hex)."""
        digest = PartsDigest(*self.captions, self._wanted.cpu().numpy().tobytes(), repr(self._prompts))
        for column in (self._references, self._targets, self._wrong_values, self._wrong_items):
            digest.add(column.cpu().numpy().tobytes())
        return digest.add(b"" if self._pictures is None else self._pictures.cpu().numpy().tobytes()).hexdigest()

    @torch.no_grad()
    def figures(self, reader: TextEncoder, phi: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Return R@1, R@10, edit accuracy, keep accuracy and their mean, the score, each from 0 to 1.

        Edit accuracy is the share of queries nearer to their target than to the reference and to the target with a wrong
        value; keep accuracy, the share nearer to it than to the right value on a wrong item. A figure that no probe
        allows is left out, and the score is the mean of the others. With pictures, `pictures_r_at_10` is their R@10,
        which is no part of the score.
        """
        gallery = self.embeddings
        references = gallery[self._references]
        if self._pictures is not None:
            references = references + self._pictures.mean(dim=0).to(gallery) - gallery.mean(dim=0)
        unit = F.normalize(gallery, dim=-1)
        scale = Noise.of(self._backbone.text, gallery).scale
        noised = (add_noise(references, noise * scale, torch.Generator().manual_seed(0)) for noise in NOISES)
        found = [self._found(unit, self._queries(reader, phi, each)) for each in noised]
        figures = {name: sum(each[name] for each in found) / len(found) for name in found[0]}
        figures["score"] = sum(figures.values()) / len(figures)
        if self._pictures is not None:
            figures["pictures_r_at_10"] = self._found_pictures(self._pictures.to(gallery), unit, reader, phi)
        return figures

    def _found_pictures(
        self, pictures: Tensor, gallery: Tensor, reader: TextEncoder, phi: Callable[[Tensor], Tensor]
    ) -> float:
        unit = F.normalize(pictures, dim=-1)
        references, targets = ((gallery[column] @ unit.T).argmax(dim=1) for column in (self._references, self._targets))
        cosines = self._queries(reader, phi, pictures[references]) @ unit.T
        cosines.scatter_(1, references[:, None], -torch.inf)
        asked = references != targets  # a picture that stands for both captions asks for nothing
        found = (cosines.topk(min(10, len(pictures)), dim=1).indices == targets[:, None]).any(dim=1)
        return found[asked].float().mean().item() if asked.any() else 0.0

    def _queries(self, reader: TextEncoder, phi: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        parts = []
        for start in range(0, len(self._prompts), _BATCH):
            rows = with_own_slots(self._prompts[start : start + _BATCH])
            parts.append(reader.encode_text(rows, phi(inputs[start : start + _BATCH])))
        return F.normalize(torch.cat(parts), dim=-1)

    def _found(self, gallery: Tensor, queries: Tensor) -> dict[str, float]:
        cosines = queries @ gallery.T

        def of(column: Tensor) -> Tensor:
            return cosines.gather(1, column.clamp(min=0)[:, None])[:, 0].masked_fill(column == _MISSING, -torch.inf)

        target = of(self._targets)
        nearest = cosines.masked_fill(~self._wanted, -torch.inf).amax(dim=1, keepdim=True)
        ranks = (cosines > nearest).sum(dim=1)
        edited = (target > of(self._references)) & (target > of(self._wrong_values))
        figures = {
            "r_at_1": (ranks < 1).float().mean().item(),
            "r_at_10": (ranks < 10).float().mean().item(),
            "edit": edited.float().mean().item(),
        }
        have = self._wrong_items != _MISSING
        if have.any():
            figures["keep"] = (target > of(self._wrong_items))[have].float().mean().item()
        return figures

    @cached_property
    def embeddings(self) -> Tensor:
        """Embeddings of the gallery's captions, unnormalised. (captions, dim)"""
        return embeddings_of(self.captions, self._backbone.text, _BATCH)
