"""Training of CompoDiff's network, in two stages, on precomputed embeddings and text states.

Gu et al., "CompoDiff: Versatile Composed Image Retrieval With Latent Diffusion" (TMLR 2024), section 4. Stage 1 draws a
picture's embedding from its text. Stage 2 mixes three tasks in each batch: triplets (from a picture and a text to
another picture), masked pictures (fill in the hidden part, with the caption), and the task of stage 1.
"""

import copy
import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cir_vectorizer.composers.compodiff.network import Network
from cir_vectorizer.composers.compodiff.schedule import cosine_schedule
from cir_vectorizer.digests import PartsDigest
from cir_vectorizer.errors import ModelError, SourceError
from cir_vectorizer_trainer.compodiff.examples import TASKS, Data, Examples, Task, joined, shuffled, split, without
from cir_vectorizer_trainer.compodiff.loss import Batch, denoising_losses, draw_noise
from cir_vectorizer_trainer.passes import Passes
from cir_vectorizer_trainer.progress import Progress, Validation
from cir_vectorizer_trainer.state import check_same_run, seed_of_step, weights_of
from cir_vectorizer_trainer.steps import check_finite, update_average

Stage = Literal["prior", "composed"]
MOST_VALIDATION = 512
"""Largest number of validation examples of a task."""
VALIDATION_DRAWS = 4
"""Number of times at which each of them is noised."""
_REFUSALS = {"data": "belongs to other pairs, triplets, models or sizes of the network; give those"}


@dataclass(frozen=True)
class Hyperparameters:
    """Hyperparameters of the training.

    Attributes:
        batch_size: examples a step.
        draws: times and noises for each example of a step; they share the example's context, so more of them cost
            little and make the gradient less noisy.
        rows_per_text: number of examples with the same text that go into a batch together, if the data has them; a
            batch then has fewer different texts to compute.
        decay: how the learning rate falls after its warm-up: along a cosine to zero at the run's last step, or not.
        warmup: steps over which the learning rate rises.
        clip: largest norm of the gradient.
        ema: largest decay of the weights' moving average; after n steps the decay is at most (1 + n) / (10 + n).
        drop_text, drop_image, drop_both: shares of the examples that lose these conditions, for guidance; a dropped
            text becomes the empty one, a dropped picture zeros. The mask stays.
        shares: shares of pairs, triplets and masked pictures in a batch of stage 2; tasks without examples leave
            theirs to the others.
        validation_share: share of the target pictures that is held out to choose the best weights.
        validate_every: steps between two validations.
    """

    batch_size: int = 256
    draws: int = 2
    rows_per_text: int = 1
    lr: float = 3e-4
    weight_decay: float = 0.01
    decay: Literal["cosine", "constant"] = "cosine"
    warmup: int = 200
    clip: float = 1.0
    ema: float = 0.9999
    seed: int = 0
    drop_text: float = 0.1
    drop_image: float = 0.05
    drop_both: float = 0.05
    shares: tuple[float, float, float] = (0.25, 0.5, 0.25)
    validation_share: float = 0.05
    validate_every: int = 250


class CompoDiffTrainer:
    """Trains a network; validates, keeps and saves the moving average of its weights.

    A run is a function of data, hyperparameters and step count: a step's order, times, noise and dropped conditions
    depend only on (seed, step), so on a CPU a resumed run equals an uninterrupted one bit for bit.

    Args:
        network: trained in place, on the device where it is.

    Attributes:
        ema: the network with the present averaged weights.
        best: the averaged weights with the lowest validation loss of the stage.
        step: steps done, of both stages.
        total: all steps of the run; None before `run`.
        history: every validation.

    Raises:
        SourceError: too few different pictures to hold some out.
    """

    def __init__(self, network: Network, data: Data, hyperparameters: Hyperparameters | None = None) -> None:
        self.network = network.train()
        self.ema = copy.deepcopy(network).requires_grad_(False).eval()
        self.data = data
        self.hyperparameters = hyperparameters or Hyperparameters()
        self._schedule = cosine_schedule()
        self.examples, self.held_out = split(
            data, self.hyperparameters.validation_share, MOST_VALIDATION, self.hyperparameters.seed
        )
        self._validation = {task: self._validation_batch(task, rows) for task, rows in self.held_out.items()}
        self._passes = {
            task: Passes(len(rows), lambda number, task=task: self._order(task, number))  # type: ignore[misc]
            for task, rows in self.examples.items()
        }
        self.optimizer = _optimizer(network, self.hyperparameters)
        self.material = {"data": self._digest()}
        self.step = 0
        self.prior_steps = 0
        self.total: int | None = None
        self.history: list[Validation] = []
        self.best: dict[str, Tensor] = {}
        self.best_validation: Validation | None = None

    def run(self, prior_steps: int, steps: int) -> Iterator[Progress]:
        """Train until `prior_steps` of stage 1 and `steps` of stage 2 are done in total; yield the progress after each.

        Validation takes place before the first step of each stage, every `validate_every` steps and after each stage.

        Raises:
            SourceError: a stage has no examples.
            ModelError: the loss is no longer finite; or a resumed run is past stage 1 and had another number of steps
                there; or its learning rate falls to zero at another last step.
        """
        self._check(prior_steps, steps)
        self.prior_steps = prior_steps
        self.total = total = prior_steps + steps
        if self.step < total and (not self.history or self.history[-1].stage != self._stage(self.step)):
            self._validate(self._stage(self.step))
        while self.step < total:
            stage = self._stage(self.step)
            loss = self._train_step(stage, total)
            self.step += 1
            ends = self.step in (prior_steps, total)
            if ends or self.step % self.hyperparameters.validate_every == 0:
                self._validate(stage)
            rows = self.step * self.hyperparameters.batch_size * self.hyperparameters.draws
            yield Progress(self.step, rows, loss, self.history[-1])
            if self.step == prior_steps and steps:
                self._validate("composed")

    def best_network(self) -> Network:
        """Return a new network on the CPU with the best weights."""
        network = copy.deepcopy(self.ema).cpu()
        network.load_state_dict(self.best or self.ema.state_dict())
        return network

    def state(self) -> dict[str, Any]:
        """Return everything needed to resume the run, for `torch.save`."""
        return {
            "material": self.material,
            "settings": asdict(self.hyperparameters),
            "step": self.step,
            "prior_steps": self.prior_steps,
            "total": self.total,
            "history": [asdict(entry) for entry in self.history],
            "best_validation": asdict(self.best_validation) if self.best_validation else None,
            "best": self.best,
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state`.

        Raises:
            ModelError: it has other data, another network or other hyperparameters.
        """
        check_same_run(state, self.material, _REFUSALS, asdict(self.hyperparameters))
        self.network.load_state_dict(state["network"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.prior_steps, self.best = state["step"], state["prior_steps"], state["best"]
        self.total = state["total"]
        self.history = [Validation(**entry) for entry in state["history"]]
        self.best_validation = Validation(**state["best_validation"]) if state["best_validation"] else None

    def _check(self, prior_steps: int, steps: int) -> None:
        if prior_steps and "pairs" not in self.examples:
            raise SourceError("stage 1 needs pictures with texts and there are none; give --pairs, or --prior-steps 0")
        if steps and not self.examples:
            raise SourceError("there is nothing to train on; give --pairs or --triplets")
        if min(self.step, self.prior_steps) != min(self.step, prior_steps):
            raise ModelError(
                f"the saved run had {self.prior_steps:,} steps of stage 1 and is past {min(prior_steps, self.step):,}; "
                f"go on with --prior-steps {self.prior_steps}"
            )
        if self.step and self.hyperparameters.decay != "constant" and self.total not in (None, prior_steps + steps):
            raise ModelError(
                f"the saved run's learning rate falls to zero at step {self.total:,}, and {prior_steps + steps:,} steps "
                f"were asked for in all; give --steps {self.total - prior_steps}, or train anew with --overwrite in place of --resume"
            )

    def _stage(self, step: int) -> Stage:
        return "prior" if step < self.prior_steps else "composed"

    # --- a step ------------------------------------------------------------------------------------

    def _train_step(self, stage: Stage, total: int) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.hyperparameters.lr * _rate(self.step, total, self.hyperparameters)
        loss = denoising_losses(self.network, self.data, self._schedule, self._batch(stage)).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.hyperparameters.clip)
        self.optimizer.step()
        update_average(self.ema, self.network, self.hyperparameters.ema, self.step)
        found = loss.item()
        check_finite(found, self.step)
        return found

    # --- what goes into a step -----------------------------------------------------------------------

    def _batch(self, stage: Stage) -> Batch:
        generator = torch.Generator().manual_seed(seed_of_step(self.hyperparameters.seed, self.step))
        parts = []
        for task, count in self._counts(stage).items():
            before = min(self.step, self.prior_steps) * self._counts("prior").get(task, 0)
            before += max(0, self.step - self.prior_steps) * self._counts("composed").get(task, 0)
            parts.append(self.examples[task][self._passes[task].indices(before, count)])
        hyperparameters = self.hyperparameters
        shares = hyperparameters.drop_text, hyperparameters.drop_image, hyperparameters.drop_both
        examples = without(joined(parts), shares, self.data.empty, generator)
        return self._noised(examples, hyperparameters.draws, generator)

    def _counts(self, stage: Stage) -> dict[Task, int]:
        """Return the number of examples of each task in a batch of a stage."""
        size = self.hyperparameters.batch_size
        if stage == "prior":
            return {"pairs": size}
        shares = {
            task: share for task, share in zip(TASKS, self.hyperparameters.shares, strict=True) if task in self.examples
        }
        whole = sum(shares.values())
        if not whole:
            raise SourceError("no task that has examples has a share of the batches; change the shares")
        ends = [round(size * sum(list(shares.values())[:i]) / whole) for i in range(len(shares) + 1)]
        return {task: end - start for task, start, end in zip(shares, ends, ends[1:], strict=False)}

    def _order(self, task: Task, number: int) -> Tensor:
        seed = hashlib.sha256(f"{self.hyperparameters.seed}/{task}/{number}".encode()).digest()[:7]
        generator = torch.Generator().manual_seed(int.from_bytes(seed, "big"))
        return shuffled(self.examples[task].text, self.hyperparameters.rows_per_text, generator)

    def _noised(self, examples: Examples, draws: int, generator: torch.Generator) -> Batch:
        config = self.network.config
        return draw_noise(examples, draws, config.dim, config.noise_scale, generator)

    # --- validation ----------------------------------------------------------------------------------

    def _validation_batch(self, task: Task, rows: Examples) -> Batch:
        return self._noised(
            rows, VALIDATION_DRAWS, torch.Generator().manual_seed(self.hyperparameters.seed + TASKS.index(task))
        )

    @torch.no_grad()
    def _validate(self, stage: Stage) -> None:
        tasks: dict[str, float] = {}
        for task, batch in self._validation.items():
            if stage == "composed" or task == "pairs":
                size = max(1, self.hyperparameters.batch_size * self.hyperparameters.draws // VALIDATION_DRAWS)
                parts = [
                    denoising_losses(self.ema, self.data, self._schedule, batch[part])
                    for part in torch.split(torch.arange(len(batch.examples)), size)
                ]
                tasks[task] = torch.cat(parts).mean().item()
        counts = {task: count for task, count in self._counts(stage).items() if task in tasks}
        whole = sum(counts.values())
        loss = sum(tasks[task] * count for task, count in counts.items()) / whole if whole else math.nan
        found = Validation(self.step, loss, stage, tasks)
        self.history.append(found)
        best = self.best_validation
        if best is None or best.stage != stage or not loss >= best.loss:
            self.best_validation = found
            self.best = weights_of(self.ema)

    def _digest(self) -> str:
        digest = PartsDigest(self.data.digest, repr((self.network.config, self.data.embeddings.shape)))
        for task, examples in self.data.tasks().items():
            digest.add(task)
            for column in (examples.text, examples.target, examples.column("reference"), examples.column("mask")):
                digest.add(column.cpu().numpy().tobytes())
        return digest.hexdigest()


def _optimizer(network: Network, hyperparameters: Hyperparameters) -> torch.optim.AdamW:
    """Return AdamW, with weight decay only for the matrices of linear layers."""
    decaying = {id(module.weight) for module in network.modules() if isinstance(module, nn.Linear)}
    groups: list[dict[str, Any]] = [
        {"params": [each for each in network.parameters() if id(each) in decaying]},
        {"params": [each for each in network.parameters() if id(each) not in decaying], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=hyperparameters.lr, weight_decay=hyperparameters.weight_decay, fused=True)


def _rate(step: int, total: int, hyperparameters: Hyperparameters) -> float:
    """Return the factor by which the learning rate is multiplied at a step."""
    rise = min(1.0, (step + 1) / hyperparameters.warmup) if hyperparameters.warmup else 1.0
    if hyperparameters.decay == "constant":
        return rise
    return rise * (1 + math.cos(math.pi * step / total)) / 2
