"""The training loop that both objectives of Φ share: steps, validation, and the state to resume from.

The random numbers of a step depend only on (seed, step), so on a CPU a resumed run equals an uninterrupted one bit for
bit.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cir_vectorizer.backbones import Backbone
from cir_vectorizer.composers.lincir import LinCIR
from cir_vectorizer.digests import PartsDigest
from cir_vectorizer.errors import ModelError
from cir_vectorizer_trainer.captions.keywords import Tagger
from cir_vectorizer_trainer.passes import Passes
from cir_vectorizer_trainer.phi.examples import BLOCK, Examples, order_of_pass
from cir_vectorizer_trainer.phi.loop import LoopSettings
from cir_vectorizer_trainer.phi.loss import Noise
from cir_vectorizer_trainer.phi.processes import Reader, SplitReader, agreed, rank, size, sum_gradients
from cir_vectorizer_trainer.progress import OnProgress, Progress, ShouldStop, Validation, train_and_save
from cir_vectorizer_trainer.state import check_same_run, resume_from, seed_of_step, weights_of
from cir_vectorizer_trainer.steps import check_finite, update_average

STATE_FILE = "training.pt"
VALIDATE_EVERY = 100
"""Steps between two validations."""
SAVE_EVERY_S = 300.0
FETCH_EVERY = 10
"""Steps between two fetches of the loss from a GPU, and between two questions whether several processes should stop."""
REFUSALS = {
    "objective": "learns by objective {saved}, not {here}; give that one",
    "backbone": "was trained over another text encoder; give its model",
    "captions": "belongs to other captions; give those",
    "order": "belongs to the same captions in another order, so other ones were held out; give them in that order",
    "start": "started from other weights; give the same --model (and --from-scratch, if it was given)",
    "tagger": "had its keywords tagged by {saved}, and here {here} does it; install that tagger and give the same "
    "--keywords and --language",
}
"""Error sentences for a saved run that cannot be resumed, by the part of its material that differs."""


class Training(ABC):
    """A training of Φ by one objective; a subclass gives the losses and writes the model folder.

    Args:
        backbone: frozen encoder.
        tagger: finds the keywords.
        settings: hyperparameters by name, `batch_size` and `seed` among them.
        material: digests and names of everything that the run is trained on.
        learning: the module whose weights learn.
        optimizer: of its parameters.
        count: number of examples in a pass.
        noise: added to the embeddings that Φ reads.
        loop: settings of the loop.

    Attributes:
        remarks: sentences to print after the run.
        patience: number of validations without a better one after which the run ends; None lets it go on.
    """

    tagged: Examples
    """Examples whose keywords are tagged; their workers stop with the run."""
    weights_key: ClassVar[str]
    """Name of the learning weights in a saved state."""
    refusals: ClassVar[Mapping[str, str]] = REFUSALS

    def __init__(
        self,
        backbone: Backbone,
        tagger: Tagger,
        settings: Mapping[str, Any],
        material: Mapping[str, str],
        learning: nn.Module,
        optimizer: torch.optim.Optimizer,
        count: int,
        noise: Noise,
        loop: LoopSettings,
    ) -> None:
        self.backbone = backbone
        self.tagger = tagger
        self.material = dict(material)
        self.learning = learning
        self.optimizer = optimizer
        self.noise = noise
        self.patience: int | None = None
        self.remarks: list[str] = []
        self.step = 0
        self.best = weights_of(learning)
        self.best_validation: Validation | None = None
        self.history: list[Validation] = []
        self.loop = loop
        self.total: int | None = None
        self._settings = {**settings, **asdict(loop)}
        self._lrs = [group["lr"] for group in optimizer.param_groups]
        self._learnt = [each for group in optimizer.param_groups for each in group["params"]]
        self._average = copy.deepcopy(learning) if loop.ema is not None else None
        self._scaler = torch.amp.GradScaler(backbone.device.type, enabled=loop.precision == "fp16")
        self._loss = math.nan
        self._batch_size: int = settings["batch_size"]
        self._seed: int = settings["seed"]
        self.passes = Passes(count, lambda number: order_of_pass(count, number, str(self._seed)))

    def run(self, steps: int) -> Iterator[Progress]:
        """Train until `steps` steps are done in total; yield the progress after each.

        Validation takes place before the first step, every `VALIDATE_EVERY` steps and after the last step; it keeps
        the best weights. The run ends early when its patience does.

        Raises:
            ModelError: the loss is not finite, or the learning rate of a resumed run was to end at another step.
        """
        if self.loop.schedule != "constant" and self.total not in (None, steps):
            raise ModelError(
                f"the saved run's learning rate falls to zero at step {self.total:,}, and {steps:,} steps were asked for; "
                f"give --steps {self.total}, or train anew with --overwrite in place of --resume"
            )
        self.total = steps
        if not self.history:
            self._validate()
        try:
            while self.step < steps and not self.out_of_patience:
                self._train_step(steps)
                self.step += 1
                if self.step % VALIDATE_EVERY == 0 or self.step == steps:
                    self._validate()
                yield Progress(self.step, self.step * self._batch_size, self._loss, self.history[-1])
        finally:
            self.tagged.close()

    @property
    def out_of_patience(self) -> bool:
        """Tell whether the last `patience` validations were no better than one before them."""
        if self.patience is None or self.best_validation is None:
            return False
        return sum(entry.step > self.best_validation.step for entry in self.history) >= self.patience

    def picked(self, step: int) -> list[int]:
        """Return the indices of a step's examples."""
        picked: list[int] = self.passes.indices(step * self._batch_size, self._batch_size).tolist()
        return picked

    def needed_soon(self, examples: Examples, passes: Passes, at: int) -> None:
        """Have the blocks prepared that hold the examples after the `at`-th of the passes."""
        examples.prepare(int(passes.indices(at + number * BLOCK, 1)) for number in range(1, 2 * examples.workers + 1))

    @abstractmethod
    def save(self, folder: Path, complete: bool) -> None:
        """Write the model folder with the best weights, and the state to resume from.

        Raises:
            ModelError: the folder cannot be written.
        """

    def resume(self, folder: Path) -> None:
        """Resume from the state in `folder`.

        Raises:
            ModelError: there is no state, or it has another objective, other material (other captions, the same ones
                in another order, another tagger or backbone) or other hyperparameters.
        """
        resume_from(folder / STATE_FILE, self.load_state)

    def state(self) -> dict[str, Any]:
        """Return everything needed to resume the run, for `torch.save`."""
        return {
            "material": self.material,
            "settings": self._settings,
            "step": self.step,
            "history": [asdict(entry) for entry in self.history],
            "best_validation": asdict(self.best_validation) if self.best_validation else None,
            "best": self.best,
            self.weights_key: weights_of(self.learning),
            "optimizer": self.optimizer.state_dict(),
            "total": self.total,
            "average": weights_of(self._average) if self._average is not None else None,
            "scaler": self._scaler.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state`.

        Raises:
            ModelError: it has another objective, other material or other hyperparameters.
        """
        saved = {
            "language": "en",
            **asdict(LoopSettings()),
            **state.get("settings", {}),
        }  # states were once saved without these
        check_same_run({**state, "settings": saved}, self.material, self.refusals, self._settings)
        self.learning.load_state_dict(state[self.weights_key])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.best, self.total = state["step"], state["best"], state.get("total")
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._scaler.load_state_dict(state.get("scaler", {}))
        self.history = [Validation(**entry) for entry in state["history"]]
        self.best_validation = Validation(**state["best_validation"]) if state["best_validation"] else None

    def run_record(self, complete: bool) -> dict[str, Any]:
        """Return what the model's record says of the run, whatever its objective."""
        first = self.history[0]
        validated = self.best_validation or first
        return {
            "tagger": self.tagger.name,
            **asdict(self.loop),
            "steps": self.step,
            "complete": complete,
            "noise": self.noise.to_record(),
            "noise_strength": self.noise.strength,
            "first_validation_loss": first.loss,
            "best_validation_loss": validated.loss,
            "best_step": validated.step,
            "curve": [entry.to_record() for entry in self.history],
        }

    @abstractmethod
    def _step_loss(self, step: int) -> Tensor:
        """Return the loss of a step, with a graph; may draw random numbers."""

    @abstractmethod
    def _validation_loss(self, generator: torch.Generator) -> float:
        """Return the mean loss over the held-out examples, with noise of `generator`."""

    def split(self, text: Reader) -> SplitReader:
        """Return an encoder that reads rows in parts and together with other processes."""
        return SplitReader(text, self.loop.accumulate)

    def _figures(self) -> dict[str, float]:
        """Return what a validation measures beside the loss."""
        return {}

    def _train_step(self, steps: int) -> None:
        self.learning.train()
        for group, lr in zip(self.optimizer.param_groups, self._lrs, strict=True):
            group["lr"] = lr * self.loop.rate(self.step, steps)
        with torch.random.fork_rng(devices=self._cuda_devices()):
            torch.manual_seed(seed_of_step(self._seed, self.step))
            loss = self._step_loss(self.step)
            self.optimizer.zero_grad(set_to_none=True)
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        sum_gradients(self._learnt)
        if self.loop.clip is not None:
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._learnt, self.loop.clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self._average is not None and self.loop.ema is not None:
            update_average(self._average, self.learning, self.loop.ema, self.step)
        # fetching the loss makes the host wait for the device
        if not self._cuda_devices() or self.step % FETCH_EVERY == 0 or math.isnan(self._loss):
            self._loss = loss.item()
            check_finite(self._loss, self.step)

    @torch.no_grad()
    def _validate(self) -> None:
        self.learning.eval()
        now = weights_of(self.learning) if self._average is not None else None
        if self._average is not None:
            self.learning.load_state_dict(self._average.state_dict())
        loss, figures = agreed((self._validation_loss(torch.Generator().manual_seed(self._seed)), self._figures()))
        self.history.append(Validation(self.step, loss, figures=figures))
        if self.history[-1].better_than(self.best_validation):
            self.best_validation, self.best = self.history[-1], weights_of(self.learning)
        if now is not None:
            self.learning.load_state_dict(now)

    def _cuda_devices(self) -> list[torch.device]:
        return [self.backbone.device] if self.backbone.device.type == "cuda" else []


def optimizer_of(
    parts: Sequence[tuple[nn.Module, float]], weight_decay: float, device: torch.device
) -> torch.optim.AdamW:
    """Return AdamW for modules with their learning rates."""
    groups = [{"params": list(module.parameters()), "lr": lr} for module, lr in parts]
    fused = device.type == "cuda"
    return torch.optim.AdamW(groups, weight_decay=weight_decay, fused=fused, foreach=not fused)


def train(
    trainer: Training,
    steps: int,
    folder: Path,
    on_progress: OnProgress = lambda _: None,
    should_stop: ShouldStop = lambda: False,
    save_every_s: float = SAVE_EVERY_S,
) -> bool:
    """Run a trainer to `steps`, or until `should_stop` returns True; save from time to time and at the end.

    Args:
        save_every_s: least seconds between two saves of a run that goes on.

    Returns:
        True if all steps were done.
    """

    def save(complete: bool) -> None:
        if rank() == 0:
            trainer.save(folder, complete)

    def stop() -> bool:
        if size() == 1:
            return should_stop()
        return trainer.step % FETCH_EVERY == 0 and agreed(should_stop())

    return train_and_save(trainer.run(steps), steps, save, on_progress, stop, save_every_s)


def digest_of_start(start: LinCIR | None) -> str:
    """Return a digest of the weights that a training starts from; empty if it starts with new ones."""
    if start is None:
        return ""
    adapter = {} if start.adapter is None else start.adapter.tensors()
    digest = PartsDigest()
    for name, tensor in sorted({**weights_of(start.phi), **adapter}.items()):
        digest.add(name, tensor.float().contiguous().numpy().tobytes())
    return digest.hexdigest()
