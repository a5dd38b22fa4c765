"""Judging Φ without pictures: probes of held-out edits, and what a judgement measures."""

import random

import pytest
import torch

from cir_vectorizer_trainer.edits.base import Edit
from cir_vectorizer_trainer.edits.kinds import Kind
from cir_vectorizer_trainer.edits.phrasings import Phrasings
from cir_vectorizer_trainer.edits.probes import Probe, ProbeMaker
from cir_vectorizer_trainer.phi.judging import Judge
from examples.demo.catalog import CATEGORIES, COLOURS, PATTERNS


def kind(name: str, role: str, values) -> Kind:
    return Kind(name, role, {value: {(value,): 1} for value in values})


@pytest.fixture
def maker() -> ProbeMaker:
    kinds = [kind("colour", "colour", COLOURS), kind("thing", "noun", CATEGORIES)]
    return ProbeMaker(kinds, Phrasings.read())


def edits(count: int = 60) -> list[Edit]:
    rng = random.Random(0)
    found: dict[Edit, None] = {}
    while len(found) < count:
        pattern, thing, (old, new) = rng.choice(PATTERNS), rng.choice(CATEGORIES), rng.sample(sorted(COLOURS), 2)
        edit = Edit(f"a {old} {pattern} {thing}", f"is {new}", f"a {new} {pattern} {thing}", "replace", "is {v}")
        found[edit] = None
    return list(found)


def test_hard_negatives_have_a_wrong_value_or_are_a_wrong_item(maker):
    for probe in maker.make(edits(), 60):
        old, new = (text.split()[1] for text in (probe.edit.reference, probe.edit.target))
        _, colour, *rest = probe.wrong_value.split()
        assert colour in set(COLOURS) - {old, new}
        assert rest == probe.edit.target.split()[2:]
        _, colour, pattern, thing = probe.wrong_item.split()
        assert (colour, pattern) == (new, probe.edit.target.split()[2])
        assert thing in set(CATEGORIES) - {probe.edit.target.split()[3]}


def test_articles_of_hard_negatives_fit(maker):
    wrong = [probe.wrong_value for probe in maker.make(edits(), 60)]
    assert any(text.startswith("an orange") for text in wrong)
    assert not any(text.startswith("a orange") for text in wrong)


def test_probes_are_drawn_and_without_kinds_only_the_reference_is_left():
    probes = ProbeMaker((), Phrasings.read()).make(edits(), 20)
    assert len(probes) == 20
    assert {(probe.wrong_value, probe.wrong_item) for probe in probes} == {(None, None)}


def test_a_value_that_goes_away_has_no_wrong_value(maker):
    edit = Edit("a red mug", "without colour", "a mug", "remove", "without {v}")
    (probe,) = maker.make([edit], 1)
    assert probe.wrong_value is None
    assert probe.wrong_item.startswith("a ")
    assert probe.wrong_item != "a mug"


class Reader:
    """A reader of prompts that always answers with the same embeddings."""

    def __init__(self, text, answers: torch.Tensor) -> None:
        self.tokenizer, self._answers = text.tokenizer, answers

    def encode_text(self, rows, pseudo_tokens=None):
        return self._answers


def embedded(tiny, captions: list[str]) -> torch.Tensor:
    return torch.from_numpy(tiny.embed_texts(captions))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("target", {"r_at_1": 1.0, "r_at_10": 1.0, "edit": 1.0, "keep": 1.0, "score": 1.0}),
        ("reference", {"r_at_1": 0.0, "edit": 0.0}),
        ("wrong_value", {"r_at_1": 0.0, "edit": 0.0}),
        ("wrong_item", {"r_at_1": 0.0, "keep": 0.0}),
    ],
)
def test_figures_tell_the_target_from_each_hard_negative(answer, expected, maker, tiny):
    probes = maker.make(edits(), 40)
    captions = {
        "target": [probe.edit.target for probe in probes],
        "reference": [probe.edit.reference for probe in probes],
        "wrong_value": [probe.wrong_value for probe in probes],
        "wrong_item": [probe.wrong_item for probe in probes],
    }
    judge = Judge(tiny.backbone, probes, ["a photo of a mug"])
    reader = Reader(tiny.backbone.text, embedded(tiny, captions[answer]))
    figures = judge.figures(reader, lambda e: e)
    assert {name: figures[name] for name in expected} == expected
    assert figures["score"] == pytest.approx(sum(figures[n] for n in ("r_at_1", "r_at_10", "edit", "keep")) / 4)


def test_a_caption_with_the_same_values_is_found_as_well_as_the_target(tiny):
    kinds = [kind("colour", "colour", COLOURS), kind("thing", "noun", CATEGORIES)]
    edit, twin = Edit("a red mug", "is blue", "a blue mug", "replace", "is {v}"), "a photo of a mug that is blue"
    reader = Reader(tiny.backbone.text, embedded(tiny, [twin]))
    for known, recall in ((kinds, 1.0), ((), 0.0)):
        judge = Judge(tiny.backbone, [Probe(edit, None, None)], [twin], known)
        assert judge.figures(reader, lambda e: e)["r_at_1"] == recall


def test_a_figure_that_no_probe_allows_is_left_out(tiny):
    probes = [Probe(edit, None, None) for edit in edits(10)]
    reader = Reader(tiny.backbone.text, embedded(tiny, [probe.edit.target for probe in probes]))
    assert Judge(tiny.backbone, probes).figures(reader, lambda e: e).keys() == {"r_at_1", "r_at_10", "edit", "score"}


def test_references_are_shifted_by_the_modality_gap(maker, tiny):
    """Without a shift the mean of what Φ reads is the captions' own; with one it is the pictures'."""
    probes = maker.make(edits(), 60)
    means = {}
    for shift in (None, torch.full((tiny.dim,), 100.0)):
        seen = []
        judge = Judge(tiny.backbone, probes, pictures=None if shift is None else shift[None])
        judge.figures(Reader(tiny.backbone.text, torch.ones(60, tiny.dim)), lambda e, seen=seen: seen.append(e) or e)
        means[shift is None] = torch.cat(seen).mean().item()
    assert means[False] == pytest.approx(100.0, abs=1.0)
    assert abs(means[True]) < 5.0


def test_a_judgement_is_repeated_exactly(maker, tiny):
    lincir = tiny.composers["lincir"]
    judge = Judge(tiny.backbone, maker.make(edits(), 40))
    first = judge.figures(tiny.backbone.text, lincir.phi)
    assert judge.figures(tiny.backbone.text, lincir.phi) == first


def test_true_pictures_are_searched_from_the_one_of_the_reference_caption(tiny):
    """Pictures at the captions' own embeddings: a reader that returns a query's target finds it; one that keeps does not."""
    made = edits()
    probes = [Probe(edit, None, None) for edit in made]
    gallery = Judge(tiny.backbone, probes).embeddings
    judge = Judge(tiny.backbone, probes, pictures=gallery)
    captions = judge.captions
    targets = gallery[[captions.index(edit.target) for edit in made]]

    class Perfect:
        def encode_text(self, rows, pseudo_tokens):
            return targets[: len(rows)]

    assert judge.figures(Perfect(), lambda inputs: inputs)["pictures_r_at_10"] == 1.0
    assert "pictures_r_at_10" not in Judge(tiny.backbone, probes).figures(Perfect(), lambda inputs: inputs)
