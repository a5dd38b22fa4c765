"""Text-only training of Φ: self-masking projection with noise (LinCIR, section 3).

For a caption c with its keywords replaced by one marker each, the frozen text tower must give the same
embedding e as for c itself, once Φ(e + noise) stands at every marker. The noise closes the gap between
text and picture embeddings, so Φ never needs a picture.

The differences from the published code only save time: rows are cut after their end token and grouped by length, the
original embeddings are computed once, and keywords are tagged once, by word and not by substring. One of them changes
the training: the random word that stands in for the keywords of a caption without any is drawn once, not at every pass.
"""

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cir_vectorizer import models
from cir_vectorizer.backbones import Backbone, TokenRow
from cir_vectorizer.composers.lincir import LinCIR, Phi, save_phi
from cir_vectorizer.composers.prompts import Prompts
from cir_vectorizer.errors import CaptionError
from cir_vectorizer_trainer.captions.keywords import Tagger
from cir_vectorizer_trainer.captions.store import Picked, digest_of_order, digest_of_set
from cir_vectorizer_trainer.phi.examples import BLOCK, KEPT_BLOCKS, Blocks, Examples, make_examples
from cir_vectorizer_trainer.phi.loop import DEFAULTS, LoopSettings
from cir_vectorizer_trainer.phi.loss import Noise, add_noise, self_masking_loss
from cir_vectorizer_trainer.phi.processes import SplitReader
from cir_vectorizer_trainer.phi.training import STATE_FILE, Training, digest_of_start, optimizer_of
from cir_vectorizer_trainer.progress import Progress
from cir_vectorizer_trainer.state import write_state

OBJECTIVE = "lincir"
MOST_KEPT = 2 << 30
"""Largest number of bytes of original embeddings that are kept for the next pass."""


@dataclass(frozen=True)
class Hyperparameters:
    """Hyperparameters; the defaults are the published recipe's.

    Attributes:
        noise_strength: scale of the noise in units of mean ‖e‖/√dim. None is the default for the tower (`Noise.of`):
            for CLIP's the published noise, N(0, I) times U(0, 1).
        validation_share: part of the captions, at most 2,048, that is held out to choose the best weights.
        language: BCP 47 tag of the prompts' language; English if we have no prompts in it.
    """

    batch_size: int = 512
    lr: float = 1e-4
    weight_decay: float = 0.01
    seed: int = 0
    noise_strength: float | None = None
    validation_share: float = 0.05
    language: str = "en"


class PhiTrainer(Training):
    """Trains Φ for one backbone on one list of captions.

    A run is a function of its captions, its hyperparameters and the step count: order, noise and dropout of a step
    depend only on (seed, step), so on a CPU a resumed run equals an uninterrupted one bit for bit.

    Args:
        backbone: frozen encoder.
        captions: cleaned and without duplicates; at least two.
        tagger: finds the keywords.
        start: the composer whose Φ is the start; a new one if None. Its adapter is left out.
        beside: a model folder over the same backbone, whose other composers are copied into the new folder.
        loop: settings of the loop.

    Raises:
        CaptionError: fewer than two captions.
    """

    weights_key = "phi"

    def __init__(
        self,
        backbone: Backbone,
        captions: Sequence[str],
        tagger: Tagger,
        hyperparameters: Hyperparameters,
        start: LinCIR | None = None,
        beside: Path | None = None,
        loop: LoopSettings = DEFAULTS,
    ) -> None:
        if len(captions) < 2:
            raise CaptionError(
                f"{len(captions)} caption is too few to train on: one is trained on and another validates; "
                "give a file with more product texts"
            )
        self.backbone = backbone
        self.hyperparameters = hyperparameters
        self.beside = beside
        order = list(range(len(captions)))
        random.Random(hyperparameters.seed).shuffle(order)
        held_out = min(2048, max(1, round(hyperparameters.validation_share * len(order))))
        indices = np.array(order)
        self.captions, self.validation_captions = (
            Picked(captions, part) for part in (indices[held_out:], indices[:held_out])
        )
        tokenizer = backbone.text.tokenizer
        self.prompts = Prompts.built_in(hyperparameters.language)
        made_of = tokenizer, tagger, hyperparameters.seed, self.prompts.of(None)
        self.examples = Examples(self.captions, *made_of)
        self.tagged = self.examples
        self.validation = make_examples(self.validation_captions, *made_of)
        self._validation_originals = self._encode([example.original for example in self.validation])
        self._originals = Blocks(self._block, None)
        noise = Noise.of(backbone.text, self._originals[0], hyperparameters.noise_strength)
        with torch.random.fork_rng():
            torch.manual_seed(hyperparameters.seed)
            phi = Phi(backbone.dim, backbone.text.facts.width) if start is None else copy.deepcopy(start.phi)
            self.phi = phi.to(backbone.device).requires_grad_(True)
        optimizer = optimizer_of([(self.phi, hyperparameters.lr)], hyperparameters.weight_decay, backbone.device)
        material = {
            "objective": OBJECTIVE,
            "backbone": backbone.text.fingerprint,
            "captions": digest_of_set(captions),
            "order": digest_of_order(captions),
            "tagger": tagger.name,
            "start": digest_of_start(start),
        }
        super().__init__(
            backbone, tagger, asdict(hyperparameters), material, self.phi, optimizer, len(self.examples), noise, loop
        )

    def save(self, folder: Path, complete: bool) -> None:
        record = {
            **self.prompts.to_record(),
            "training": {
                **asdict(self.hyperparameters),
                "captions": len(self.captions),
                "validation_captions": len(self.validation_captions),
                **self.run_record(complete),
            },
        }
        best = copy.deepcopy(self.phi)
        best.load_state_dict(self.best)
        models.save(folder, self.backbone, {"lincir": (record, lambda path: save_phi(path, best))}, self.beside)
        write_state(folder / STATE_FILE, self.state())

    def load_state(self, state: Mapping[str, Any]) -> None:
        if "objective" not in state.get("material", {"objective": ""}):  # saved before there were several of these
            own = {"objective": OBJECTIVE, "start": self.material["start"]}
            state = {**state, "material": {**state["material"], **own}}
        super().load_state(state)

    def run(self, steps: int) -> Iterator[Progress]:
        used_once = steps * self.hyperparameters.batch_size <= len(self.examples)
        size = len(self.examples) * self.backbone.dim * 4
        self._originals.keep(KEPT_BLOCKS if used_once or size > MOST_KEPT else None)
        yield from super().run(steps)

    def _step_loss(self, step: int) -> Tensor:
        picked = self.picked(step)
        self.needed_soon(self.examples, self.passes, step * len(picked))
        originals = self._originals_of(picked).to(self.backbone.device)
        noised = add_noise(originals, self.noise.scale)
        masked = [self.examples[i].masked for i in picked]
        return self_masking_loss(self.backbone, self.phi, masked, originals, noised, self.split(self.backbone.text))

    def _validation_loss(self, generator: torch.Generator) -> float:
        reader, size, total = self.split(self.backbone.text), self.hyperparameters.batch_size, 0.0
        for start in range(0, len(self.validation), size):
            rows = [example.masked for example in self.validation[start : start + size]]
            originals = self._validation_originals[start : start + len(rows)].to(self.backbone.device)
            noised = add_noise(originals, self.noise.scale, generator)
            loss = self_masking_loss(self.backbone, self.phi, rows, originals, noised, reader)
            total += len(rows) * loss.item()
        return total / len(self.validation)

    def _originals_of(self, picked: Sequence[int]) -> Tensor:
        at = torch.tensor(picked)
        blocks = at // BLOCK
        originals = torch.empty(len(at), self.backbone.dim, dtype=self._validation_originals.dtype)
        for number in sorted(set(blocks.tolist())):
            here = blocks == number
            originals[here] = self._originals[number][at[here] % BLOCK]
        return originals

    def _block(self, number: int) -> Tensor:
        examples = self.examples[number * BLOCK : (number + 1) * BLOCK]
        return self._encode([example.original for example in examples])

    @torch.no_grad()
    def _encode(self, rows: Sequence[TokenRow]) -> Tensor:
        return SplitReader(self.backbone.text).encode_text(rows).cpu()
