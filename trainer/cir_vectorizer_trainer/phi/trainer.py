"""Text-only training of Φ: self-masking projection with noise (LinCIR, section 3).

For a caption c with its keywords replaced by one marker each, the frozen text tower must give the same
embedding e as for c itself, once Φ(e + noise) stands at every marker. The noise closes the gap between
text and picture embeddings, so Φ never needs a picture.

The differences from the published code only save time: rows are cut after their end token and grouped by length, the
original embeddings are computed once, and keywords are tagged once, by word and not by substring. One of them changes
the training: the random word that stands in for the keywords of a caption without any is drawn once, not at every pass.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from cir_vectorizer import models
from cir_vectorizer.backbones import Backbone, TokenRow
from cir_vectorizer.composers.lincir import PROMPT, Phi, save_phi
from cir_vectorizer.digests import PartsDigest
from cir_vectorizer.errors import CaptionError
from cir_vectorizer_trainer.captions.keywords import Tagger
from cir_vectorizer_trainer.passes import Passes
from cir_vectorizer_trainer.phi.examples import make_examples
from cir_vectorizer_trainer.phi.loss import add_noise, noise_strengths, self_masking_loss
from cir_vectorizer_trainer.progress import OnProgress, Progress, ShouldStop, Trainer, Validation, train_and_save
from cir_vectorizer_trainer.state import check_same_run, resume_from, seed_of_step, weights_of, write_state

OBJECTIVE = "lincir"
STATE_FILE = "training.pt"
BLOCK = 4096
"""Number of captions whose original embeddings are computed together."""
VALIDATE_EVERY = 100
"""Steps between two validations."""
REFUSALS = {
    "objective": "learns by objective {saved}, not {here}; resume with that one, or give another --out",
    "backbone": "was trained over another text encoder; give its model, or another --out",
    "captions": "belongs to other captions; give those, or another --out",
    "order": "belongs to the same captions in another order, so other ones were held out; give them in that order, or "
    "another --out",
    "tagger": "had its keywords tagged by {saved}, and here {here} does it; install that tagger, or give another --out",
}
"""Error sentences for a saved run that cannot be resumed, by the part of its material that differs."""


@dataclass(frozen=True)
class Hyperparameters:
    """Hyperparameters; the defaults are the published recipe's.

    Attributes:
        noise_strength: scale of the noise in units of mean ‖e‖/√dim. None is the published noise,
            N(0, I) times U(0, 1); the run's record has its strength in this unit.
        validation_share: part of the captions, at most 2,048, that is held out to choose the best weights.
    """

    batch_size: int = 512
    lr: float = 1e-4
    weight_decay: float = 0.01
    seed: int = 0
    noise_strength: float | None = None
    validation_share: float = 0.05


class PhiTrainer:
    """Trains Φ for one backbone on one list of captions.

    A run is a function of its captions, its hyperparameters and the step count: order, noise and dropout of a step
    depend only on (seed, step), so on a CPU a resumed run equals an uninterrupted one bit for bit.

    Args:
        backbone: frozen encoder.
        captions: cleaned and without duplicates; at least two.
        tagger: finds the keywords.
        beside: a model folder over the same backbone, whose other composers are copied into the new folder.

    Raises:
        CaptionError: fewer than two captions.
    """

    def __init__(
        self,
        backbone: Backbone,
        captions: Sequence[str],
        tagger: Tagger,
        hyperparameters: Hyperparameters,
        beside: Path | None = None,
    ) -> None:
        if len(captions) < 2:
            raise CaptionError(
                f"{len(captions)} caption is too few to train on: one is trained on and another validates; "
                "give a file with more product texts"
            )
        self.backbone = backbone
        self.hyperparameters = hyperparameters
        self.tagger = tagger
        self.beside = beside
        shuffled = list(captions)
        rng = random.Random(hyperparameters.seed)
        rng.shuffle(shuffled)
        held_out = min(2048, max(1, round(hyperparameters.validation_share * len(shuffled))))
        self.captions, self.validation_captions = shuffled[held_out:], shuffled[:held_out]
        self.material = {
            "objective": OBJECTIVE,
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
        self.published_strength, self.noise_strength, self.noise_scale = noise_strengths(
            backbone.dim, self._block(0), hyperparameters.noise_strength
        )
        with torch.random.fork_rng():
            torch.manual_seed(hyperparameters.seed)
            self.phi = Phi(backbone.dim, backbone.text.facts.width).to(backbone.device)
        self.optimizer = torch.optim.AdamW(
            self.phi.parameters(), lr=hyperparameters.lr, weight_decay=hyperparameters.weight_decay, foreach=True
        )
        self.step = 0
        self.best = weights_of(self.phi)
        self.best_validation: Validation | None = None
        self.history: list[Validation] = []
        self._passes = Passes(len(self.examples), self._order)

    def run(self, steps: int) -> Iterator[Progress]:
        """Train until `steps` steps are done in total; yield the progress after each.

        Validation takes place before the first step, every `VALIDATE_EVERY` steps and after the last step; it keeps
        the best weights.
        """
        if not self.history:
            self._validate()
        while self.step < steps:
            loss = self._train_step()
            self.step += 1
            if self.step % VALIDATE_EVERY == 0 or self.step == steps:
                self._validate()
            yield Progress(self.step, self.step * self.hyperparameters.batch_size, loss, self.history[-1])

    def picked(self, step: int) -> list[int]:
        """Return the indices of a step's examples."""
        size = self.hyperparameters.batch_size
        picked: list[int] = self._passes.indices(step * size, size).tolist()
        return picked

    def save(self, folder: Path, complete: bool) -> None:
        """Write the model folder with the best weights, and the state to resume from.

        Raises:
            ModelError: the folder cannot be written.
        """
        first = self.history[0]
        validated = self.best_validation or first
        record = {
            "prompt": PROMPT,
            "training": {
                **asdict(self.hyperparameters),
                "captions": len(self.captions),
                "validation_captions": len(self.validation_captions),
                "tagger": self.tagger.name,
                "steps": self.step,
                "complete": complete,
                "noise_strength": self.noise_strength,
                "first_validation_loss": first.loss,
                "best_validation_loss": validated.loss,
                "best_step": validated.step,
            },
        }
        best = Phi(self.backbone.dim, self.backbone.text.facts.width)
        best.load_state_dict(self.best)
        models.save(folder, self.backbone, {"lincir": (record, lambda path: save_phi(path, best))}, self.beside)
        write_state(folder / STATE_FILE, self.state())

    def resume(self, folder: Path) -> None:
        """Resume from the state in `folder`.

        Raises:
            ModelError: there is no state, or it has other captions (or another order of them), another tagger or
                backbone, or other hyperparameters.
        """
        resume_from(folder / STATE_FILE, self.load_state)

    def state(self) -> dict[str, Any]:
        """Return everything needed to resume the run, for `torch.save`."""
        return {
            "material": self.material,
            "settings": asdict(self.hyperparameters),
            "step": self.step,
            "history": [asdict(entry) for entry in self.history],
            "best_validation": asdict(self.best_validation) if self.best_validation else None,
            "best": self.best,
            "phi": weights_of(self.phi),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state`.

        Raises:
            ModelError: it has other material or other hyperparameters.
        """
        if "objective" not in (material := state.get("material", {"objective": ""})):  # saved before there were two
            state = {**state, "material": {**material, "objective": OBJECTIVE}}
        check_same_run(state, self.material, REFUSALS, asdict(self.hyperparameters))
        self.phi.load_state_dict(state["phi"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.best = state["step"], state["best"]
        self.history = [Validation(**entry) for entry in state["history"]]
        self.best_validation = Validation(**state["best_validation"]) if state["best_validation"] else None

    def _train_step(self) -> float:
        picked = self.picked(self.step)
        originals = self._originals_of(picked).to(self.backbone.device)
        self.phi.train()
        with torch.random.fork_rng(devices=self._cuda_devices()):
            torch.manual_seed(seed_of_step(self.hyperparameters.seed, self.step))
            noised = add_noise(originals, self.noise_scale)
            loss = self_masking_loss(
                self.backbone, self.phi, [self.examples[i].masked for i in picked], originals, noised
            )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def _validate(self) -> None:
        self.phi.eval()
        generator = torch.Generator().manual_seed(self.hyperparameters.seed)
        total = 0.0
        for start in range(0, len(self.validation), self.hyperparameters.batch_size):
            rows = [example.masked for example in self.validation[start : start + self.hyperparameters.batch_size]]
            originals = self._validation_originals[start : start + len(rows)].to(self.backbone.device)
            noised = add_noise(originals, self.noise_scale, generator)
            total += len(rows) * self_masking_loss(self.backbone, self.phi, rows, originals, noised).item()
        loss = total / len(self.validation)
        self.history.append(Validation(self.step, loss))
        if self.best_validation is None or loss < self.best_validation.loss:
            self.best_validation, self.best = self.history[-1], weights_of(self.phi)

    def _order(self, number: int) -> Tensor:
        """Return the order of a pass: for the first pass the captions' own, shuffled order; for later ones a new one."""
        order = list(range(len(self.examples)))
        if number:
            random.Random(f"{self.hyperparameters.seed}/{number}").shuffle(order)
        return torch.tensor(order)

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

    def _cuda_devices(self) -> list[torch.device]:
        return [self.backbone.device] if self.backbone.device.type == "cuda" else []


class FolderTrainer(Trainer, Protocol):
    """A trainer that writes a model folder."""

    def run(self, steps: int) -> Iterator[Progress]:
        """Train until `steps` steps are done in total; yield the progress after each."""
        ...

    def save(self, folder: Path, complete: bool) -> None:
        """Write the model folder with the best weights, and the state to resume from."""
        ...


def train(
    trainer: FolderTrainer,
    steps: int,
    folder: Path,
    on_progress: OnProgress = lambda _: None,
    should_stop: ShouldStop = lambda: False,
) -> bool:
    """Run a trainer to `steps`, or until `should_stop` returns True; save after each validation and at the end.

    Returns:
        True if all steps were done.
    """
    return train_and_save(
        trainer, trainer.run(steps), steps, lambda complete: trainer.save(folder, complete), on_progress, should_stop
    )
