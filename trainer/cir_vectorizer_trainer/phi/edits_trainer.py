"""Training on edits of texts: Φ and an adapter of the query-side text tower learn to change a caption, not to rebuild it.

For an edit (reference caption, words, target caption) the prompt "a photo of $ that {words}", with Φ of the reference's
noised embedding at its marker, must have the embedding of the target caption; `edits_loss` says how. The adapter changes
the tower that reads prompts, and it learns from edits only. Targets, and LinCIR's own loss over captions that gave no
edit, come from the frozen tower, so the index and plain searches stay as they are.
"""

import copy
import math
import random
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cir_vectorizer import models
from cir_vectorizer.backbones import Backbone, TextEncoder
from cir_vectorizer.backbones.adapter import Adapter, AdapterSettings
from cir_vectorizer.composers.lincir import LinCIR, Phi, save_phi
from cir_vectorizer.composers.prompts import Prompts
from cir_vectorizer.digests import PartsDigest
from cir_vectorizer.errors import CaptionError
from cir_vectorizer_trainer.captions.keywords import Tagger, prepare
from cir_vectorizer_trainer.captions.store import Picked, digest_of_order, digest_of_set
from cir_vectorizer_trainer.edits.base import Edit
from cir_vectorizer_trainer.edits.kinds import Kind
from cir_vectorizer_trainer.edits.phrasings import Phrasings
from cir_vectorizer_trainer.edits.probes import ProbeMaker
from cir_vectorizer_trainer.passes import Passes
from cir_vectorizer_trainer.phi.edits_examples import EditExamples
from cir_vectorizer_trainer.phi.edits_loss import EditWeights, edits_loss
from cir_vectorizer_trainer.phi.examples import Examples, order_of_pass
from cir_vectorizer_trainer.phi.forgetting import Blend, blended, choose, general_judge
from cir_vectorizer_trainer.phi.judging import MOST_PROBES, Judge
from cir_vectorizer_trainer.phi.loop import DEFAULTS, LoopSettings
from cir_vectorizer_trainer.phi.loss import Noise, add_noise, has_form_of_clip, self_masking_loss
from cir_vectorizer_trainer.phi.training import REFUSALS, STATE_FILE, Training, digest_of_start, optimizer_of
from cir_vectorizer_trainer.state import weights_of, write_state

OBJECTIVE = "edits"
MOST_VALIDATION = 2048
MEASURED = 4096
"""Number of captions on which the noise is measured."""


@dataclass(frozen=True)
class EditHyperparameters:
    """Hyperparameters of a training on edits.

    Attributes:
        lr: learning rate of Φ; the adapter's is `adapter_lr_ratio` times that.
        noise_strength: as in LinCIR's training; None is the default for the tower.
        validation_share: part of the reference captions whose edits, at most 2,048, are held out to choose the best
            weights: those that do best on probes made of them (see `judging`).
        dropout: Φ's dropout while it learns.
        smoothing: share, in a target, of the mean embedding of captions that hold the same values.
        adapt_text_tower: whether the adapter learns; without it Φ alone does.
        language: BCP 47 tag of the prompts' language; English if we have no prompts in it.
    """

    batch_size: int = 128
    lr: float = 1e-4
    adapter_lr_ratio: float = 2.0
    weight_decay: float = 0.01
    seed: int = 0
    noise_strength: float | None = None
    validation_share: float = 0.05
    dropout: float = 0.1
    smoothing: float = 0.5
    adapt_text_tower: bool = True
    language: str = "en"
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    weights: EditWeights = field(default_factory=EditWeights)

    def to_record(self) -> dict[str, Any]:
        """Return all of them by name, those of the loss and of the adapter among them."""
        own = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("adapter", "weights")}
        weights = {
            "temperature": self.weights.temperature,
            "squared_weight": self.weights.squared,
            "anchor_weight": self.weights.anchor,
        }
        return {**own, "adapter_rank": self.adapter.rank, "adapter_alpha": self.adapter.alpha, **weights}


class EditTrainer(Training):
    """Trains Φ and an adapter for one backbone on one list of edits.

    Args:
        backbone: frozen encoder.
        edits: each once. Edits without words are left out, since every reference is also trained with the empty edit.
        captions: all captions; those that are no edit's reference or target are trained on as LinCIR does.
        tagger: finds the keywords of such captions.
        start: the composer whose Φ and adapter are the start, the adapter only if it has the same sizes; new ones if
            None.
        beside: a model folder over the same backbone, whose other composers are copied into the new folder.
        kinds: kinds of the captions' values, which tell captions that hold the same values, and give probes their hard
            negatives.
        phrasings: of the captions' language; our English ones if None.
        pictures: (n, dim), unnormalised embeddings of pictures like those that are searched, to judge by; None if there are none.
        loop: settings of the loop.

    Raises:
        CaptionError: too few edits to train on some and to validate on others.
    """

    weights_key = "learning"
    refusals: ClassVar[Mapping[str, str]] = {
        **REFUSALS,
        "judge": "was judged by other captions or pictures; give the same --phrasings, --language and --picture-index",
        "groups": "told captions apart by other words; give the same --phrasings and --language",
        "edits": "belongs to other edits, or to another order of them; give those",
    }

    def __init__(
        self,
        backbone: Backbone,
        edits: Sequence[Edit],
        captions: Sequence[str],
        tagger: Tagger,
        hyperparameters: EditHyperparameters,
        start: LinCIR | None = None,
        beside: Path | None = None,
        kinds: Sequence[Kind] = (),
        phrasings: Phrasings | None = None,
        pictures: Tensor | None = None,
        loop: LoopSettings = DEFAULTS,
    ) -> None:
        self.backbone = backbone
        self.hyperparameters = hyperparameters
        self.beside = beside
        training, validation = self._split([edit for edit in edits if edit.words or edit.negative])
        self.prompts = Prompts.built_in(hyperparameters.language)
        wording = self.prompts.of(None)
        self.examples = EditExamples(training, backbone, kinds, hyperparameters.smoothing, wording)
        self.validation = EditExamples(validation, backbone, kinds, hyperparameters.smoothing, wording)
        maker = ProbeMaker(kinds, phrasings or Phrasings.read())
        self.judge = Judge(
            backbone,
            maker.make(validation, MOST_PROBES, hyperparameters.seed),
            [caption for edit in validation for caption in (edit.target, edit.reference)],
            kinds,
            pictures,
            wording,
        )
        used = {caption for edit in edits for caption in (edit.reference, edit.target)}
        unused = array("q", (at for at, caption in enumerate(captions) if prepare(caption) not in used))
        shuffled = np.random.default_rng(hyperparameters.seed).permutation(np.frombuffer(unused, np.int64))
        self.captions_without_edit = Picked(captions, shuffled)
        tokenizer = backbone.text.tokenizer
        self.anchors = Examples(self.captions_without_edit, tokenizer, tagger, hyperparameters.seed, wording)
        self.tagged = self.anchors
        share = len(self.anchors) / max(1, len(training) + len(self.anchors))
        self.anchor_size = math.ceil(share * hyperparameters.batch_size)
        noise = Noise.of(backbone.text, self.examples.embeddings[:MEASURED], hyperparameters.noise_strength)
        weights = hyperparameters.weights
        self.weights = weights if has_form_of_clip(backbone.text) else weights.for_unit(noise.unit)
        with torch.random.fork_rng():
            torch.manual_seed(hyperparameters.seed)
            phi = Phi(backbone.dim, backbone.text.facts.width) if start is None else copy.deepcopy(start.phi)
            self.phi = phi.to(backbone.device).requires_grad_(True)
            for module in phi.modules():
                if isinstance(module, nn.Dropout):
                    module.p = hyperparameters.dropout
            adapter = Adapter(backbone.text, hyperparameters.adapter)
        other = False
        if start is not None and start.adapter is not None:
            other = start.adapter.settings != adapter.settings
            if not other:
                adapter.load_tensors(start.adapter.tensors())
        self.adapter = adapter if hyperparameters.adapt_text_tower else None
        learning = nn.ModuleDict({"phi": self.phi, **({"adapter": adapter} if self.adapter is not None else {})})
        rates = {"phi": hyperparameters.lr, "adapter": hyperparameters.lr * hyperparameters.adapter_lr_ratio}
        optimizer = optimizer_of(
            [(part, rates[name]) for name, part in learning.items()], hyperparameters.weight_decay, backbone.device
        )
        material = {
            "objective": OBJECTIVE,
            "backbone": backbone.text.fingerprint,
            "captions": digest_of_set(captions),
            "order": digest_of_order(captions),
            "edits": PartsDigest(
                *(part for edit in edits for part in (edit.reference, edit.words, edit.target, edit.negative))
            ).hexdigest(),
            "judge": self.judge.digest(),
            "groups": PartsDigest(self.examples.groups.numpy().tobytes()).hexdigest(),
            "tagger": tagger.name,
            "start": digest_of_start(start),
        }
        settings = hyperparameters.to_record()
        self._start_weights = weights_of(learning) if start is not None else None
        super().__init__(backbone, tagger, settings, material, learning, optimizer, len(self.examples), noise, loop)
        if other:
            self.remarks.append("the adapter of --model has other sizes, so a new one was trained")
        count, seed = max(1, len(self.anchors)), f"{hyperparameters.seed}/anchors"
        self._anchor_passes = Passes(count, lambda number: order_of_pass(count, number, seed))

    def save(self, folder: Path, complete: bool) -> None:
        kept, blend = (self._blend() if complete else None) or (self.best, None)
        record: dict[str, Any] = self.prompts.to_record()
        if self.adapter is not None:
            record["adapter"] = self.adapter.settings.to_record()
        record["training"] = {
            "objective": OBJECTIVE,
            **replace(self.hyperparameters, weights=self.weights).to_record(),
            "edits": len(self.examples),
            "validation_edits": len(self.validation),
            "captions_without_edit": len(self.captions_without_edit),
            "anchor_captions_a_step": self.anchor_size,
            **self.run_record(complete),
            **({"blend": blend.to_record()} if blend is not None else {}),
        }
        phi, adapter = self._parts(kept)
        models.save(folder, self.backbone, {"lincir": (record, lambda path: save_phi(path, phi, adapter))}, self.beside)
        write_state(folder / STATE_FILE, self.state())

    def _parts(self, weights: Mapping[str, Tensor]) -> tuple[nn.Module, Adapter | None]:
        """Return copies of Φ and the adapter with some weights."""
        learning = copy.deepcopy(self.learning).eval()
        learning.load_state_dict(weights)
        parts = dict(learning.named_children())
        adapter = parts.get("adapter")
        assert adapter is None or isinstance(adapter, Adapter)
        return parts["phi"], adapter

    def _blend(self) -> tuple[Mapping[str, Tensor], Blend] | None:
        """Blend the best weights with those of the start; None if there were none, or nothing to judge them by."""
        if self._start_weights is None:
            return None
        general = general_judge(self.backbone)
        if general is None:
            self.remarks.append(
                "forgetting is not checked, since this text tower does not know the words of the general captions"
            )
            return None

        def score(judge: Judge, weights: Mapping[str, Tensor]) -> float:
            phi, adapter = self._parts(weights)
            text = self.backbone.text
            with torch.no_grad():
                return judge.figures(text if adapter is None else adapter.adapt(text), phi)["score"]

        own = partial(score, self.judge)
        blend = choose(self._start_weights, self.best, own, partial(score, general))
        self.remarks.append(blend.sentence())
        return blended(self._start_weights, self.best, blend.share), blend

    def reader(self) -> TextEncoder:
        """Return the encoder that reads prompts: with the adapter as it is now, and with a graph if one is recorded."""
        return self.backbone.text if self.adapter is None else self.adapter.adapt(self.backbone.text)

    def loss(self, picked: Sequence[int], anchors: Sequence[int] = ()) -> Tensor:
        """Return the loss of some edits, by index, and of some captions without edit; draws noise and dropout."""
        weights = self.weights
        batch = self.examples.batch(picked)
        pseudo_tokens = self.phi(add_noise(batch.references, self.noise.scale))
        loss = edits_loss(self.split(self.reader()), pseudo_tokens, batch, weights)
        if anchors:
            captions, reader = [self.anchors[i] for i in anchors], self.split(self.backbone.text)
            with torch.no_grad():
                originals = reader.encode_text([example.original for example in captions])
            noised = add_noise(originals, self.noise.scale)
            masked = [each.masked for each in captions]
            own = self_masking_loss(self.backbone, self.phi, masked, originals, noised, reader)
            loss = loss + weights.anchor * len(captions) / len(picked) * own
        return loss

    def _split(self, edits: Sequence[Edit]) -> tuple[list[Edit], list[Edit]]:
        """Hold out some reference captions: their edits validate, and no edit with such a caption is trained on."""
        shuffled = list(edits)
        rng = random.Random(self.hyperparameters.seed)
        rng.shuffle(shuffled)
        references = list(dict.fromkeys(edit.reference for edit in shuffled))
        held_out = set(references[: max(1, round(self.hyperparameters.validation_share * len(references)))])
        training = [edit for edit in shuffled if not held_out & {edit.reference, edit.target}]
        validation = [edit for edit in shuffled if edit.reference in held_out][:MOST_VALIDATION]
        if not training or not validation:
            raise CaptionError(
                f"{len(edits)} edits of {len(references)} captions are too few: some are trained on and others "
                "validate; give more edits"
            )
        return training, validation

    def _step_loss(self, step: int) -> Tensor:
        self.needed_soon(self.anchors, self._anchor_passes, step * self.anchor_size)
        anchors: list[int] = self._anchor_passes.indices(step * self.anchor_size, self.anchor_size).tolist()
        return self.loss(self.picked(step), anchors)

    def _validation_loss(self, generator: torch.Generator) -> float:
        reader, size, total = self.split(self.reader()), self.hyperparameters.batch_size, 0.0
        for start in range(0, len(self.validation), size):
            batch = self.validation.batch(range(start, min(start + size, len(self.validation))))
            noised = add_noise(batch.references, self.noise.scale, generator)
            loss = edits_loss(reader, self.phi(noised), batch, self.weights)
            total += len(batch.prompts) * loss.item()
        return total / len(self.validation)

    def _figures(self) -> dict[str, float]:
        return self.judge.figures(self.reader(), self.phi)


def lincir_of(model: models.Vectorizer) -> LinCIR | None:
    """Return a model's LinCIR, from which a training may start; None if it has none."""
    return next((each for each in model.composers.values() if isinstance(each, LinCIR)), None)
