"""Training of CompoDiff's network, in two stages, over embeddings and text states that are at hand.

Gu et al., "CompoDiff: Versatile Composed Image Retrieval With Latent Diffusion" (TMLR 2024), section 4. Stage 1 draws a
picture's embedding from its text. Stage 2 mixes three tasks in each batch: triplets (picture and text to another
picture), masked pictures (the hidden part to be filled in, with the caption), and stage 1's.

What costs most is the context: 77 text states through every layer's keys and values. So an example is noised several
times and its context computed once, and examples of a batch that share a text share its keys and values.
"""

import copy
import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cir_vectorizer.composers.compodiff.network import MASK_SIDE, Network
from cir_vectorizer.composers.compodiff.schedule import STEPS, cosine_schedule
from cir_vectorizer.digests import PartsDigest
from cir_vectorizer.errors import ModelError, SourceError
from cir_vectorizer_trainer.compodiff.denoise import denoise
from cir_vectorizer_trainer.compodiff.examples import NOTHING, TASKS, Data, Examples, Task, rows_of, shuffled, split

Stage = Literal["prior", "composed"]
MOST_VALIDATION = 512
"""Examples of a task that validate, at most."""
VALIDATION_DRAWS = 4
"""Times at which each of them is noised."""


@dataclass(frozen=True)
class Settings:
    """Hyperparameters.

    Attributes:
        batch_size: examples a step.
        draws: times and noises for each example of a step; they share the example's context, so more of them cost
            little and make the gradient steadier.
        rows_per_text: examples with the same text that go into a batch together, where the data has them: fewer
            different texts a batch, so fewer keys and values to compute.
        decay: of the learning rate after its warm-up: to zero along a cosine at the run's last step, or not at all.
        warmup: steps over which the learning rate rises.
        clip: largest length of the gradient.
        ema: largest decay of the weights' moving average; after n steps it is at most (1 + n) / (10 + n).
        drop_text, drop_image, drop_both: share of the examples that lose this, for guidance; a text that is dropped
            becomes the empty one, a picture zeros. The mask stays.
        shares: parts of a stage 2 batch that are pairs, triplets and masked pictures; tasks without examples leave
            theirs to the others.
        validation_share: part of the target pictures held out to choose the best weights by.
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


@dataclass(frozen=True)
class Validation:
    """Mean squared error on the held-out part after `step` steps, of each task and in a batch's proportions."""

    step: int
    stage: Stage
    loss: float
    tasks: dict[Task, float]


@dataclass(frozen=True)
class Progress:
    """Where a run stands: after `step` steps, with the last batch's loss and the newest validation.

    `rows` counts noised embeddings that went through the network.
    """

    step: int
    stage: Stage
    rows: int
    loss: float
    validation: Validation


@dataclass(frozen=True)
class _Batch:
    """Examples, and for each its times (n, draws) and noises (n, draws, dim)."""

    examples: Examples
    times: Tensor
    noise: Tensor


class CompoDiffTrainer:
    """Trains a network; the moving average of its weights is what is validated, kept and saved.

    A run is a function of data, settings and step count: a step's order, times, noise and dropped conditions are drawn
    from (seed, step) alone, so a resumed run equals an uninterrupted one bit for bit on a CPU.

    Args:
        network: trained in place, on the device where it is.

    Attributes:
        ema: the network with the averaged weights as they are now.
        best: the averaged weights with the lowest validation loss of the stage.
        step: steps done, of both stages.
        total: steps that the run is to have in all; None before it is known.
        history: every validation.

    Raises:
        SourceError: too few different pictures to hold some out.
    """

    def __init__(self, network: Network, data: Data, settings: Settings | None = None) -> None:
        self.network = network.train()
        self.ema = copy.deepcopy(network).requires_grad_(False).eval()
        self.data = data
        self.settings = settings or Settings()
        self.device = network.project_out.weight.device
        self._schedule = cosine_schedule()
        self.examples, self.held_out = split(data, self.settings.validation_share, MOST_VALIDATION, self.settings.seed)
        self._validation = {task: self._validation_batch(task, rows) for task, rows in self.held_out.items()}
        self._orders: dict[Task, tuple[int, Tensor]] = {}
        self.optimizer = _optimizer(network, self.settings)
        self.digest = self._digest()
        self.step = 0
        self.prior_steps = 0
        self.total: int | None = None
        self.history: list[Validation] = []
        self.best: dict[str, Tensor] = {}
        self.best_validation: Validation | None = None

    def run(self, prior_steps: int, steps: int) -> Iterator[Progress]:
        """Train until `prior_steps` of stage 1 and `steps` of stage 2 are done in all, reporting after each step.

        Validation comes before the first step of each stage, every `validate_every` steps and after the last.

        Raises:
            SourceError: a stage has no examples.
            ModelError: the loss is no longer finite; or a resumed run is past stage 1 and had another number of steps
                there, or its learning rate falls towards another last step.
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
            if ends or self.step % self.settings.validate_every == 0:
                self._validate(stage)
            rows = self.step * self.settings.batch_size * self.settings.draws
            yield Progress(self.step, stage, rows, loss, self.history[-1])
            if self.step == prior_steps and steps:
                self._validate("composed")

    def best_network(self) -> Network:
        """A network of its own, on the CPU, with the best weights."""
        network = copy.deepcopy(self.ema).cpu()
        network.load_state_dict(self.best or self.ema.state_dict())
        return network

    def state(self) -> dict[str, Any]:
        """All that a run goes on from, for `torch.save`."""
        return {
            "digest": self.digest,
            "settings": asdict(self.settings),
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
        """Go on from a `state`.

        Raises:
            ModelError: it is of other data, another network or other settings.
        """
        if state.get("digest") != self.digest:
            raise ModelError(
                "the saved run belongs to other pairs, triplets, models or sizes of the network; give those, or start anew"
            )
        for name, value in asdict(self.settings).items():
            if (saved := state["settings"][name]) != value:
                raise ModelError(
                    f"the saved run had {name.replace('_', '-')} {saved}, not {value}; go on with that value"
                )
        self.network.load_state_dict(state["network"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.prior_steps, self.best = state["step"], state["prior_steps"], state["best"]
        self.total = state.get("total")
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
        if self.step and self.settings.decay != "constant" and self.total not in (None, prior_steps + steps):
            raise ModelError(
                f"the saved run's learning rate falls to zero at step {self.total:,}, and {prior_steps + steps:,} steps "
                f"were asked for in all; go on with {self.total:,}, or train anew"
            )

    def _stage(self, step: int) -> Stage:
        return "prior" if step < self.prior_steps else "composed"

    # --- a step ------------------------------------------------------------------------------------

    def _train_step(self, stage: Stage, total: int) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * _rate(self.step, total, self.settings)
        loss = self._losses(self.network, self._batch(stage)).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self.optimizer.step()
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        averaged: list[Tensor] = list(self.ema.parameters())
        torch._foreach_lerp_(averaged, [each.detach() for each in self.network.parameters()], 1 - decay)
        found = loss.item()
        if not math.isfinite(found):
            raise ModelError(f"the loss is {found} at step {self.step + 1:,}; train anew with a lower learning rate")
        return found

    def _losses(self, network: Network, batch: _Batch) -> Tensor:
        """Mean squared errors of a batch, (n, draws)."""
        examples, device = batch.examples, self.device
        n, draws = batch.times.shape
        text, which_text = torch.unique(examples.text, return_inverse=True)
        mask, which_mask = torch.unique(examples.column("mask"), return_inverse=True)
        target = self.data.embeddings[examples.target].to(device, torch.float32).repeat_interleave(draws, 0)
        times = batch.times.flatten().to(device)
        noised = self._schedule.noised(target, batch.noise.flatten(0, 1).to(device), times)
        image = rows_of(self.data.embeddings, examples.column("reference")).to(device)
        with self._autocast():
            # index_select: the gradient of indexing adds up in another order at every run, on several threads
            context = (
                network.embed_texts(self._states(text).to(device)).index_select(0, which_text.to(device)),
                image.unsqueeze(1),
                network.embed_masks(self._masks(mask).to(device)).index_select(0, which_mask.to(device)),
            )
            drawn = denoise(network, noised, network.embed_times(times), torch.cat(context, dim=1))
        return (drawn.float() - target).square().mean(1).view(n, draws)

    def _states(self, text: Tensor) -> Tensor:
        states = self.data.states
        return (states[text] if isinstance(states, Tensor) else states(text)).float()

    def _masks(self, mask: Tensor) -> Tensor:
        masks = self.data.masks
        return rows_of(torch.zeros(1, MASK_SIDE, MASK_SIDE) if masks is None else masks, mask)

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()

    # --- what goes into a step -----------------------------------------------------------------------

    def _batch(self, stage: Stage) -> _Batch:
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + self.step)
        parts = []
        for task, count in self._counts(stage).items():
            before = min(self.step, self.prior_steps) * self._counts("prior").get(task, 0)
            before += max(0, self.step - self.prior_steps) * self._counts("composed").get(task, 0)
            parts.append(self.examples[task][self._picked(task, before, count)])
        examples = Examples(
            torch.cat([part.text for part in parts]),
            torch.cat([part.target for part in parts]),
            torch.cat([part.column("reference") for part in parts]),
            torch.cat([part.column("mask") for part in parts]),
        )
        return self._noised(self._dropped(examples, generator), self.settings.draws, generator)

    def _counts(self, stage: Stage) -> dict[Task, int]:
        """How many examples of each task a batch of a stage has."""
        size = self.settings.batch_size
        if stage == "prior":
            return {"pairs": size}
        shares = {task: share for task, share in zip(TASKS, self.settings.shares, strict=True) if task in self.examples}
        whole = sum(shares.values())
        if not whole:
            raise SourceError("no task that has examples has a share of the batches; change the shares")
        ends = [round(size * sum(list(shares.values())[:i]) / whole) for i in range(len(shares) + 1)]
        return {task: end - start for task, start, end in zip(shares, ends, ends[1:], strict=False)}

    def _picked(self, task: Task, at: int, count: int) -> Tensor:
        """The rows of a task from the `at`-th on, through one shuffled pass after the other."""
        rows = len(self.examples[task])
        picked: list[Tensor] = []
        while count:
            part = self._order(task, at // rows)[at % rows : at % rows + count]
            picked.append(part)
            at, count = at + len(part), count - len(part)
        return torch.cat([torch.empty(0, dtype=torch.long), *picked])

    def _order(self, task: Task, epoch: int) -> Tensor:
        if self._orders.get(task, (None,))[0] != epoch:
            seed = int.from_bytes(hashlib.sha256(f"{self.settings.seed}/{task}/{epoch}".encode()).digest()[:7], "big")
            generator = torch.Generator().manual_seed(seed)
            self._orders[task] = epoch, shuffled(self.examples[task].text, self.settings.rows_per_text, generator)
        return self._orders[task][1]

    def _dropped(self, examples: Examples, generator: torch.Generator) -> Examples:
        """Examples of which some lost their text, their reference or both."""
        chance = torch.rand(len(examples), generator=generator)
        text, image, both = self.settings.drop_text, self.settings.drop_image, self.settings.drop_both
        loses_text = (chance < text) | (chance >= 1 - both)
        loses_image = (chance >= text) & (chance < text + image) | (chance >= 1 - both)
        return Examples(
            examples.text.masked_fill(loses_text, self.data.empty),
            examples.target,
            examples.column("reference").masked_fill(loses_image, NOTHING),
            examples.mask,
        )

    def _noised(self, examples: Examples, draws: int, generator: torch.Generator) -> _Batch:
        """Times and noise: the times of an example are spread, one in each part of the schedule."""
        at = (torch.rand(len(examples), draws, generator=generator) + torch.arange(draws)) / draws
        times = (at * STEPS).long().clamp(max=STEPS - 1)
        noise = torch.randn(*times.shape, self.network.config.dim, generator=generator)
        return _Batch(examples, times, self.network.config.noise_scale * noise)

    # --- validation ----------------------------------------------------------------------------------

    def _validation_batch(self, task: Task, rows: Examples) -> _Batch:
        return self._noised(
            rows, VALIDATION_DRAWS, torch.Generator().manual_seed(self.settings.seed + TASKS.index(task))
        )

    @torch.no_grad()
    def _validate(self, stage: Stage) -> None:
        tasks: dict[Task, float] = {}
        for task, batch in self._validation.items():
            if stage == "composed" or task == "pairs":
                size = max(1, self.settings.batch_size * self.settings.draws // VALIDATION_DRAWS)
                parts = [
                    self._losses(self.ema, _Batch(batch.examples[part], batch.times[part], batch.noise[part]))
                    for part in torch.split(torch.arange(len(batch.examples)), size)
                ]
                tasks[task] = torch.cat(parts).mean().item()
        shares = self._counts(stage)
        whole = sum(shares.get(task, 0) for task in tasks)
        loss = sum(tasks[task] * shares.get(task, 0) for task in tasks) / whole if whole else math.nan
        found = Validation(self.step, stage, loss, tasks)
        self.history.append(found)
        best = self.best_validation
        if best is None or best.stage != stage or not loss >= best.loss:
            self.best_validation = found
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in self.ema.state_dict().items()}

    def _digest(self) -> str:
        digest = PartsDigest(self.data.digest, repr((self.network.config, self.data.embeddings.shape)))
        for task, examples in self.data.tasks().items():
            digest.add(task)
            for column in (examples.text, examples.target, examples.column("reference"), examples.column("mask")):
                digest.add(column.cpu().numpy().tobytes())
        return digest.hexdigest()


def _optimizer(network: Network, settings: Settings) -> torch.optim.AdamW:
    """AdamW; only the matrices of linear layers decay."""
    decaying = {id(module.weight) for module in network.modules() if isinstance(module, nn.Linear)}
    groups: list[dict[str, Any]] = [
        {"params": [each for each in network.parameters() if id(each) in decaying]},
        {"params": [each for each in network.parameters() if id(each) not in decaying], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)


def _rate(step: int, total: int, settings: Settings) -> float:
    """The learning rate of a step, as a part of the setting."""
    rise = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    if settings.decay == "constant":
        return rise
    return rise * (1 + math.cos(math.pi * step / total)) / 2


__all__ = ["CompoDiffTrainer", "Data", "Examples", "Progress", "Settings", "Validation"]
