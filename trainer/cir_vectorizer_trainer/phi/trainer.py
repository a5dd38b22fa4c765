"""Text-only training of Φ: self-masking projection with noise (LinCIR, section 3).

For a caption c with its keywords replaced by one marker each, the frozen text tower must give the same
embedding e as for c itself, once Φ(e + noise) stands at every marker. The noise closes the gap between
text and picture embeddings, so Φ never needs a picture.

What differs from the reference is cost alone: rows are cut after their end token and grouped by length, the
original embeddings are computed once, and keywords are tagged once, by word and not by substring.
Only captions without any keyword have their one random word drawn once instead of at every pass.
"""

import math
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cir_vectorizer import models
from cir_vectorizer.backbones import Backbone, Tokenizer, TokenRow
from cir_vectorizer.composers.lincir import PROMPT, PROMPT_WITHOUT_TEXT, Phi, save_phi
from cir_vectorizer.digests import PartsDigest
from cir_vectorizer.errors import CaptionError, ModelError, first_line
from cir_vectorizer_trainer.captions.keywords import Tagger, all_keyword_spans, masked_pieces, prepare

STATE_FILE = "training.pt"
BLOCK = 4096
"""Captions whose original embeddings are computed together."""
VALIDATE_EVERY = 100
"""Steps between two validations."""
_OTHER_MATERIAL = {
    "backbone": "was trained over another text encoder; give its model, or another --out",
    "captions": "belongs to other captions; give those, or another --out",
    "order": "belongs to the same captions in another order, of which other ones were held out; give them in that order, "
    "or another --out",
    "tagger": "had its keywords tagged by {saved}, and here {here} does it; install that tagger, or give another --out",
}
"""Why a saved run cannot be gone on with, by the part of its material that differs."""


@dataclass(frozen=True)
class Settings:
    """Hyperparameters; the defaults are the published recipe's.

    Attributes:
        noise_strength: scale of the noise in units of mean ‖e‖/√dim. None is the published noise,
            N(0, I) times U(0, 1), whatever that is in this unit; the record of the run says.
        validation_share: part of the captions held out to choose the best weights by, at most 2,048.
    """

    batch_size: int = 512
    lr: float = 1e-4
    weight_decay: float = 0.01
    seed: int = 0
    noise_strength: float | None = None
    validation_share: float = 0.05


@dataclass(frozen=True)
class Example:
    """A caption as two token rows: itself, and with its keywords replaced by markers."""

    original: TokenRow
    masked: TokenRow


@dataclass(frozen=True)
class Progress:
    """Where a run stands: after `step` steps, with the last batch's loss and the newest validation loss."""

    step: int
    captions: int
    loss: float
    validation_loss: float | None


def make_examples(captions: Sequence[str], backbone: Backbone, tagger: Tagger, rng: random.Random) -> list[Example]:
    """Tokenise captions and their masked forms.

    A caption is cut to the context first, so both forms say the same; a masked form that lost every marker becomes
    "a photo of $".
    """
    tokenizer = backbone.text.tokenizer
    originals: list[TokenRow] = []
    texts: list[str] = []
    for caption in captions:
        text = prepare(caption)
        row = tokenizer.row(text)
        originals.append(row)
        texts.append(tokenizer.decode(row.ids[1:-1]) if row.cut else text)
    bare = _marked_row(PROMPT_WITHOUT_TEXT.split("$"), tokenizer)
    examples = []
    for original, text, spans in zip(originals, texts, all_keyword_spans(texts, tagger, rng), strict=True):
        masked = _marked_row(masked_pieces(text, spans), tokenizer)
        examples.append(Example(original, masked if masked.slots else bare))
    return examples


def _marked_row(pieces: Sequence[str], tokenizer: Tokenizer) -> TokenRow:
    """Join texts by markers for pseudo-token 0."""
    return tokenizer.marked_row([part for piece in pieces for part in (0, piece)][1:])


def self_masking_loss(
    backbone: Backbone, phi: nn.Module, masked: Sequence[TokenRow], originals: Tensor, noised: Tensor
) -> Tensor:
    """Mean squared error between the masked captions' embeddings, read with Φ(noised) at their markers, and
    the originals; both (n, dim) and unnormalised, mean over all elements."""
    rows = [TokenRow(row.ids, tuple((at, i) for at, _ in row.slots)) for i, row in enumerate(masked)]
    return F.mse_loss(backbone.text.encode_text(rows, phi(noised)), originals)


def add_noise(embeddings: Tensor, scale: float, generator: torch.Generator | None = None) -> Tensor:
    """e + scale · u · g with u ~ U(0, 1) one for each row and g ~ N(0, I). (n, dim) -> (n, dim)"""
    u = torch.rand(len(embeddings), 1, generator=generator)
    g = torch.randn(embeddings.shape, generator=generator)
    return embeddings + scale * (u * g).to(embeddings.device)


class PhiTrainer:
    """Trains Φ for one backbone on one list of captions.

    A run is a function of its captions, its settings and the step count: order, noise and dropout of a step are
    drawn from (seed, step) alone, so a resumed run equals an uninterrupted one bit for bit on a CPU.

    Args:
        backbone: frozen encoder.
        captions: cleaned and without duplicates; at least two.
        tagger: finds the keywords.
        beside: a model folder over the same backbone, whose other composers go along into the new one.

    Raises:
        CaptionError: fewer than two captions.
    """

    def __init__(
        self,
        backbone: Backbone,
        captions: Sequence[str],
        tagger: Tagger,
        settings: Settings,
        beside: Path | None = None,
    ) -> None:
        if len(captions) < 2:
            raise CaptionError(
                f"{len(captions)} caption is too few to train on: one is trained on and another validates; "
                "give a file with more product texts"
            )
        self.backbone = backbone
        self.settings = settings
        self.tagger = tagger
        self.beside = beside
        shuffled = list(captions)
        rng = random.Random(settings.seed)
        rng.shuffle(shuffled)
        held_out = min(2048, max(1, round(settings.validation_share * len(shuffled))))
        self.captions, self.validation_captions = shuffled[held_out:], shuffled[:held_out]
        self.material = {
            "backbone": backbone.text.fingerprint,
            "captions": PartsDigest(*sorted(captions)).hexdigest(),
            "order": PartsDigest(*captions).hexdigest(),
            "tagger": tagger.name,
        }
        self.examples = make_examples(self.captions, backbone, tagger, rng)
        self.validation = make_examples(self.validation_captions, backbone, tagger, rng)
        self._originals = torch.empty(len(self.examples), backbone.dim)
        self._encoded: set[int] = set()
        self._validation_originals = self._encode([example.original for example in self.validation])
        first = self._block(0)
        mean_norm = first.norm(dim=-1).mean().item()
        self.published_strength = math.sqrt(backbone.dim) / mean_norm
        strength = self.published_strength if settings.noise_strength is None else settings.noise_strength
        self.noise_strength = strength
        self.noise_scale = strength / self.published_strength
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            self.phi = Phi(backbone.dim, backbone.text.facts.width).to(backbone.device)
        self.optimizer = torch.optim.AdamW(
            self.phi.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, foreach=True
        )
        self.step = 0
        self.best_loss = math.inf
        self.best_step = 0
        self.best = self._weights()
        self.history: list[tuple[int, float]] = []

    def run(self, steps: int) -> Iterator[Progress]:
        """Train until `steps` steps are done in all, reporting after each.

        Validation comes before the first step, every `VALIDATE_EVERY` steps and after the last; it keeps the best
        weights.
        """
        if not self.history:
            self._validate()
        while self.step < steps:
            loss = self._train_step()
            self.step += 1
            if self.step % VALIDATE_EVERY == 0 or self.step == steps:
                self._validate()
            yield Progress(self.step, self.step * self.settings.batch_size, loss, self.history[-1][1])

    def save(self, folder: Path, complete: bool) -> None:
        """Write the model folder with the best weights, and the state to resume from."""
        state = {
            "material": self.material,
            "settings": asdict(self.settings),
            "step": self.step,
            "history": self.history,
            "best_loss": self.best_loss,
            "best_step": self.best_step,
            "best": self.best,
            "phi": self._weights(),
            "optimizer": self.optimizer.state_dict(),
        }
        record = {
            "prompt": PROMPT,
            "training": {
                **asdict(self.settings),
                "captions": len(self.captions),
                "validation_captions": len(self.validation_captions),
                "tagger": self.tagger.name,
                "steps": self.step,
                "complete": complete,
                "noise_strength": self.noise_strength,
                "first_validation_loss": self.history[0][1],
                "best_validation_loss": self.best_loss,
                "best_step": self.best_step,
            },
        }
        best = Phi(self.backbone.dim, self.backbone.text.facts.width)
        best.load_state_dict(self.best)
        models.save(folder, self.backbone, {"lincir": (record, lambda path: save_phi(path, best))}, self.beside)
        draft = folder / f".{STATE_FILE}"
        torch.save(state, draft)
        os.replace(draft, folder / STATE_FILE)

    def resume(self, folder: Path) -> None:
        """Continue from the state in `folder`.

        Raises:
            ModelError: no state there, or one of other captions, the same in another order, another tagger, backbone or
                other settings.
        """
        path = folder / STATE_FILE
        if not path.is_file():
            raise ModelError(f"{folder} holds no {STATE_FILE} to resume from; run without --resume")
        try:
            state: dict[str, Any] = torch.load(path, "cpu", weights_only=True)
        except Exception as error:  # truncated archives and foreign pickles raise many kinds
            raise ModelError(f"{path} cannot be read ({first_line(error)}); delete it and train anew") from error
        if "material" not in state:
            raise ModelError(
                f"{path} was saved by release 0.1.0, which did not note the order of the captions nor the tagger, so it "
                "cannot be gone on with; train anew without --resume"
            )
        for name, value in self.material.items():
            if (saved := state["material"][name]) != value:
                raise ModelError(f"{path} {_OTHER_MATERIAL[name].format(saved=saved, here=value)}")
        for name, value in asdict(self.settings).items():
            if state["settings"][name] != value:
                raise ModelError(
                    f"{path} was trained with {name.replace('_', '-')} {state['settings'][name]}, not {value}; resume with that value"
                )
        self.phi.load_state_dict(state["phi"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.history = state["step"], [tuple(entry) for entry in state["history"]]
        self.best, self.best_loss, self.best_step = state["best"], state["best_loss"], state["best_step"]

    def _train_step(self) -> float:
        picked = self._batch(self.step)
        originals = self._originals_of(picked).to(self.backbone.device)
        self.phi.train()
        with torch.random.fork_rng(devices=self._cuda_devices()):
            torch.manual_seed(self.settings.seed * 1_000_003 + self.step)
            noised = add_noise(originals, self.noise_scale)
            loss = self_masking_loss(
                self.backbone, self.phi, [self.examples[i].masked for i in picked], originals, noised
            )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def _validate(self) -> None:
        self.phi.eval()
        generator = torch.Generator().manual_seed(self.settings.seed)
        total = 0.0
        for start in range(0, len(self.validation), self.settings.batch_size):
            rows = [example.masked for example in self.validation[start : start + self.settings.batch_size]]
            originals = self._validation_originals[start : start + len(rows)].to(self.backbone.device)
            noised = add_noise(originals, self.noise_scale, generator)
            total += len(rows) * self_masking_loss(self.backbone, self.phi, rows, originals, noised).item()
        loss = total / len(self.validation)
        self.history.append((self.step, loss))
        if loss < self.best_loss:
            self.best_loss, self.best_step, self.best = loss, self.step, self._weights()

    def _batch(self, step: int) -> list[int]:
        """Indices of a step: pass 0 goes through the (shuffled) captions in order, later ones are shuffled anew."""
        size, count = self.settings.batch_size, len(self.examples)
        picked: list[int] = []
        at = step * size
        while len(picked) < size:
            order = self._order(at // count)
            part = order[at % count : at % count + size - len(picked)]
            picked += part
            at += len(part)
        return picked

    def _order(self, epoch: int) -> list[int]:
        if getattr(self, "_ordered", None) != epoch:
            self._ordered = epoch
            self._epoch_order = list(range(len(self.examples)))
            if epoch:
                random.Random(f"{self.settings.seed}/{epoch}").shuffle(self._epoch_order)
        return self._epoch_order

    def _originals_of(self, picked: Sequence[int]) -> Tensor:
        for block in sorted({i // BLOCK for i in picked}):
            self._block(block)
        return self._originals[picked]

    def _block(self, block: int) -> Tensor:
        part = slice(block * BLOCK, (block + 1) * BLOCK)
        if block not in self._encoded:
            self._originals[part] = self._encode([example.original for example in self.examples[part]])
            self._encoded.add(block)
        return self._originals[part]

    @torch.no_grad()
    def _encode(self, rows: Sequence[TokenRow]) -> Tensor:
        return self.backbone.text.encode_text(rows).cpu()

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.phi.state_dict().items()}

    def _cuda_devices(self) -> list[torch.device]:
        return [self.backbone.device] if self.backbone.device.type == "cuda" else []


def train(
    trainer: PhiTrainer,
    steps: int,
    folder: Path,
    on_progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Run a trainer to `steps`, saving after each validation and when `should_stop` says so.

    Returns:
        Whether all steps were done.
    """
    validations = len(trainer.history)
    for progress in trainer.run(steps):
        on_progress(progress)
        if should_stop() and trainer.step < steps:
            trainer.save(folder, complete=False)
            return False
        if len(trainer.history) > validations and trainer.step < steps:
            validations = len(trainer.history)
            trainer.save(folder, complete=False)
    trainer.save(folder, complete=True)
    return True
