"""The model folder that a training of CompoDiff writes and resumes from."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cir_vectorizer import models
from cir_vectorizer.backbones import Backbone, BackboneSpec, TextEncoder
from cir_vectorizer.composers.compodiff.checkpoint import save_network
from cir_vectorizer.composers.compodiff.knobs import Knobs
from cir_vectorizer.composers.compodiff.network import Network, NetworkConfig
from cir_vectorizer.errors import ModelError
from cir_vectorizer.sources.base import Failure
from cir_vectorizer_trainer.compodiff.examples import Data
from cir_vectorizer_trainer.compodiff.frozen import Embedded
from cir_vectorizer_trainer.compodiff.trainer import CompoDiffTrainer
from cir_vectorizer_trainer.progress import OnProgress, ShouldStop, train_and_save
from cir_vectorizer_trainer.state import read_state, resume_from, write_state

STATE_FILE = "compodiff-training.pt"
PICTURES_FILE = "compodiff-pictures.pt"
SAVE_EVERY_S = 60.0
"""Least seconds between two saves of a run that goes on; a state is five times as large as the weights."""
NOISE_STRENGTH = 1.4
"""Default strength for spaces other than OpenAI's: about that of the published noise for embeddings of its ViT-L/14."""
WIDE = 512
"""Least width of a picture space for which a new network has the published size by default."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of a new network; None is the default for the width of its picture space."""

    depth: int | None = None
    heads: int | None = None
    head_dim: int | None = None


def new_network(backbone: Backbone, text: TextEncoder, sizes: Sizes, seed: int, noise_scale: float = 1.0) -> Network:
    """Return an untrained network for these encoders, on the backbone's device."""
    wide = backbone.dim >= WIDE
    config = NetworkConfig(
        dim=backbone.dim,
        depth=sizes.depth or (12 if wide else 4),
        heads=sizes.heads or (16 if wide else 8),
        head_dim=sizes.head_dim or (64 if wide else 32),
        text_width=text.facts.width,
        noise_scale=noise_scale,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Network(config).to(backbone.device)


def noise_scale(backbone: Backbone, data: Data, strength: float | None) -> float:
    """Return the noise's standard deviation in the unit of the embeddings, to three digits.

    Args:
        data: mean ‖e‖ is measured on its target pictures.
        strength: the deviation in units of mean ‖e‖/√dim. None is the published noise, of deviation 1, for OpenAI's
            spaces, and `NOISE_STRENGTH` for others.
    """
    if strength is None and is_openai(backbone.spec):
        return 1.0
    targets = torch.unique(torch.cat([examples.target for examples in data.tasks().values()]))
    mean_norm = data.embeddings[targets].float().norm(dim=-1).mean().item()
    scale = (NOISE_STRENGTH if strength is None else strength) * mean_norm / math.sqrt(backbone.dim)
    return float(f"{scale:.3g}")


def is_openai(spec: BackboneSpec) -> bool:
    """Tell whether a backbone has OpenAI's weights, by its name."""
    return spec.options.get("pretrained") == "openai" or spec.name.startswith(("openai/clip-", "clip-ViT-"))


def default_lr(backbone: Backbone) -> float:
    """Return the learning rate for a network of the default size."""
    return 1e-4 if backbone.dim >= WIDE else 1e-3


@dataclass(frozen=True)
class Folder:
    """Model folder that a training writes and resumes from.

    Attributes:
        beside: folder, which need not exist, of a model over the same backbone; its other composers are copied.
        text: encoder whose states the network reads; `backbone.text` if None.
        half: write the weights in half precision.
    """

    path: Path
    beside: Path
    backbone: Backbone
    text: TextEncoder | None = None
    half: bool = False

    def save(self, trainer: CompoDiffTrainer, complete: bool) -> None:
        """Write the model folder with the best weights, and the state to resume from.

        Raises:
            ModelError: the folder cannot be written.
        """
        best = trainer.best_network()
        dtype = torch.float16 if self.half else torch.float32
        record = {
            "network": best.config.to_record(),
            "knobs": Knobs().to_record(),
            "training": _training_record(trainer, complete),
        }
        if self.text is not None:
            record["text_backbone"] = models.text_encoder_record(self.text)
        composers = {"compodiff": (record, lambda path: save_network(path, best, dtype))}
        models.save(self.path, self.backbone, composers, beside=self.beside)
        write_state(self.path / STATE_FILE, trainer.state())

    def resume(self, trainer: CompoDiffTrainer) -> None:
        """Make a trainer resume from the state saved here.

        Raises:
            ModelError: there is no state, or it has other data, models or hyperparameters.
        """
        resume_from(self.path / STATE_FILE, trainer.load_state)

    def keep_pictures(self, embedded: Embedded) -> None:
        """Save picture embeddings, so that a resumed run need not compute them again.

        Raises:
            ModelError: the folder cannot be written.
        """
        failures = [(each.path, each.reason, each.sentence) for each in embedded.failures]
        write_state(self.path / PICTURES_FILE, {**vars(embedded), "failures": failures})

    def kept_pictures(self) -> Embedded | None:
        """Return the embeddings that `keep_pictures` saved; None if they are missing or cannot be read."""
        try:
            kept = read_state(self.path / PICTURES_FILE)
        except ModelError:
            return None
        return Embedded(**{**kept, "failures": [Failure(*each) for each in kept["failures"]]})


def train(
    trainer: CompoDiffTrainer,
    folder: Folder,
    prior_steps: int,
    steps: int,
    on_progress: OnProgress = lambda _: None,
    should_stop: ShouldStop = lambda: False,
) -> bool:
    """Run a trainer to its end, or until `should_stop` returns True; save then, and once a minute.

    Returns:
        True if all steps were done.
    """
    run = trainer.run(prior_steps, steps)
    return train_and_save(
        run, prior_steps + steps, lambda complete: folder.save(trainer, complete), on_progress, should_stop,
        SAVE_EVERY_S,
    )  # fmt: skip


def _training_record(trainer: CompoDiffTrainer, complete: bool) -> dict[str, Any]:
    first = trainer.history[0]
    best = trainer.best_validation or first
    counts: dict[str, Any] = {task: len(examples) for task, examples in trainer.data.tasks().items()}
    return {
        **asdict(trainer.hyperparameters),
        **counts,
        "validation": {task: len(examples) for task, examples in trainer.held_out.items()},
        "prior_steps": min(trainer.step, trainer.prior_steps),
        "steps": max(0, trainer.step - trainer.prior_steps),
        "complete": complete,
        "first_validation_loss": _number(first.loss),
        "best_validation_loss": _number(best.loss),
        "best_validation_losses": best.tasks,
        "best_step": best.step,
    }


def _number(loss: float) -> float | None:
    """Return a loss for JSON: None for NaN, the loss of a stage without held-out examples."""
    return loss if math.isfinite(loss) else None
