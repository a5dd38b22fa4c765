"""An adapter of the text tower: only prompts with pictures are read with it, and a model folder keeps it beside Φ."""

import json
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cir_vectorizer import models
from cir_vectorizer.backbones import BackboneSpec, TokenRow, load_backbone
from cir_vectorizer.backbones.adapter import Adapter, AdapterSettings
from cir_vectorizer.composers.lincir import NEGATIVE_STEP, LinCIR, save_phi
from cir_vectorizer.errors import CheckpointError, ModelError
from cir_vectorizer.models import Vectorizer, load, read_record
from examples.demo.catalog import SEEN, caption
from tests.support.adapters import learnt, with_adapter


def vector(model: Vectorizer, seed: int) -> list[float]:
    return (8 * np.random.default_rng(seed).normal(size=model.dim) / model.dim**0.5).tolist()


def rows_of(text, count: int) -> list[TokenRow]:
    """Prompts of many lengths with one pseudo-token each, which begin with the same words, and plain texts."""
    rng, tokenizer = random.Random(0), text.tokenizer
    rows = [
        tokenizer.marked_row(["a photo of ", i, f" that is {caption(rng.choice(SEEN), rng)}"]) for i in range(count)
    ]
    return rows + [tokenizer.row(caption(rng.choice(SEEN), rng)) for _ in range(count)]


@pytest.fixture(params=["tiny", "transformers"])
def text(request, tiny, clip_folder):
    if request.param == "tiny":
        return tiny.backbone.text
    return load_backbone(BackboneSpec("transformers", str(clip_folder)), "cpu").text


def test_a_new_adapter_changes_nothing_bit_for_bit(text):
    pseudo_tokens = torch.randn(40, text.facts.width)
    adapted = Adapter(text, AdapterSettings()).adapt(text)
    rows = rows_of(text, 40)
    assert torch.equal(adapted.encode_text(rows, pseudo_tokens), text.encode_text(rows, pseudo_tokens))
    assert torch.equal(adapted.encode_states(rows[40:]), text.encode_states(rows[40:]))


def test_an_adapter_changes_its_own_encoder_only(text):
    rows, fingerprint = rows_of(text, 40)[40:], text.fingerprint
    before = text.encode_text(rows)
    adapted = learnt(text).adapt(text)
    assert (adapted.encode_text(rows) - before).abs().max() > 1e-2
    assert torch.equal(text.encode_text(rows), before)
    assert adapted.fingerprint != fingerprint == text.fingerprint


def test_an_adapted_weight_is_the_frozen_one_plus_the_product_of_the_two_matrices(tiny):
    text, adapter = tiny.backbone.text, learnt(tiny.backbone.text)
    name = "transformer.resblocks.0.attn.in_proj_weight"
    frozen, changed = text.layer_weights()[name], adapter.adapt(text)._weights[name]
    tensors = adapter.tensors()
    width = frozen.tensor.shape[1]
    assert frozen.parts == 3
    for part in range(3):
        change = tensors[f"adapter.{name}.up"][part] @ tensors[f"adapter.{name}.down"][part]
        own = slice(part * width, (part + 1) * width)
        torch.testing.assert_close(changed[own], frozen.tensor[own] + 8.0 / 4 * change)


def test_every_linear_map_of_every_layer_is_adapted(text):
    names = text.layer_weights()
    assert all(weight.tensor.ndim == 2 for weight in names.values())
    assert not [name for name in names if "embedding" in name or "projection" in name]
    maps = sum(weight.parts for weight in names.values())
    assert maps % 6 == 0, "queries, keys, values, output and the two of the MLP"


@pytest.mark.parametrize("loader", ["tiny", "transformers"])
def test_gradients_by_packed_rows_are_those_by_padded_rows(loader, clip_folder):
    """Shared beginnings are read once, and their gradients still reach the adapter."""
    spec = BackboneSpec("tiny", "") if loader == "tiny" else BackboneSpec("transformers", str(clip_folder))
    text = load_backbone(spec, "cpu", torch.float64).text
    adapter = learnt(text).double()
    torch.manual_seed(1)
    phi = torch.nn.Linear(text.dim, text.facts.width).double()
    embeddings = torch.randn(150, text.dim, dtype=torch.float64)
    rows = rows_of(text, 150)
    wanted = torch.randn(len(rows), text.dim, dtype=torch.float64)
    learning = [*adapter.parameters(), *phi.parameters()]

    def gradients(encode):
        embedded = encode(adapter.adapt(text), phi(embeddings))
        assert embedded.dtype == torch.float64
        return embedded, torch.autograd.grad((embedded - wanted).square().sum(), learning)

    def padded(encoder, pseudo_tokens):
        """Plain padded rows, through the library's own tower."""
        parts = list(encoder._encode_padded(rows, pseudo_tokens))
        order = [i for indices, _ in parts for i in indices]
        return torch.cat([part for _, part in parts])[torch.tensor(order).argsort()]

    ours, our_gradients = gradients(lambda encoder, pseudo_tokens: encoder.encode_text(rows, pseudo_tokens))
    plain, plain_gradients = gradients(padded)
    torch.testing.assert_close(ours, plain, atol=1e-9, rtol=1e-9)
    for mine, theirs in zip(our_gradients, plain_gradients, strict=True):
        assert theirs.abs().max() > 0
        assert (mine - theirs).abs().max() <= 1e-9 * theirs.abs().max()


def test_plain_texts_and_pictures_have_the_same_vectors_with_and_without_an_adapter(tiny):
    adapted = with_adapter(tiny, learnt(tiny.backbone.text))
    queries = [
        {"text": "a red dress"},
        {"image": vector(tiny, 1)},
        {"text": "a red dress", "composer": "lincir"},
        {"text": "a red dress", "negative_text": "stripes", "composer": "lincir"},
        {"image": vector(tiny, 1), "text": "a red dress", "options": {"keep": 0}, "composer": "lincir"},
    ]
    np.testing.assert_array_equal(adapted.embed_texts(["a red dress"]), tiny.embed_texts(["a red dress"]))
    for query in queries:
        np.testing.assert_allclose(adapted.compose([query]).vectors, tiny.compose([query]).vectors, atol=1e-6)
    np.testing.assert_array_equal(adapted.compose(queries[:2]).vectors, tiny.compose(queries[:2]).vectors)
    asked = {"image": vector(tiny, 1), "text": "is red", "composer": "lincir"}
    assert np.abs(adapted.compose([asked]).vectors - tiny.compose([asked]).vectors).max() > 1e-2


def test_without_the_adapter_a_query_has_the_published_vector(tiny):
    adapted = with_adapter(tiny, learnt(tiny.backbone.text))
    for query in (
        {"image": vector(tiny, 1), "text": "is red", "composer": "lincir"},
        {"image": vector(tiny, 1), "text": "is red", "negative_text": "is striped", "composer": "lincir"},
        {"image": vector(tiny, 1), "composer": "lincir", "template": "a picture of $"},
    ):
        without = adapted.compose([{**query, "options": {"adapter": False}}]).vectors
        np.testing.assert_array_equal(without, tiny.compose([query]).vectors)
        with_it = adapted.compose([{**query, "options": {"adapter": True}}]).vectors
        np.testing.assert_array_equal(with_it, adapted.compose([query]).vectors)
        assert np.abs(with_it - without).max() > 1e-3
        np.testing.assert_array_equal(
            tiny.compose([{**query, "options": {"adapter": True}}]).vectors, tiny.compose([query]).vectors
        )


def test_queries_of_both_kinds_may_stand_in_one_batch(tiny):
    adapted = with_adapter(tiny, learnt(tiny.backbone.text))
    asked = {"image": vector(tiny, 1), "text": "is red"}
    queries = [
        asked,
        {**asked, "options": {"adapter": False}},
        {**asked, "options": {"keep": 0.3}},
        {**asked, "negative_text": "blue"},
        {**asked, "negative_text": "blue", "options": {"adapter": False}},
    ]
    together = adapted.compose(queries).vectors
    alone = np.concatenate([adapted.compose([query]).vectors for query in queries])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert len(np.unique(together.round(4), axis=0)) == len(queries)


def test_with_an_adapter_a_negative_text_is_words_of_the_prompt(tiny):
    adapted = with_adapter(tiny, learnt(tiny.backbone.text))
    picture = {"image": vector(tiny, 1), "composer": "lincir"}
    decided = set()
    for words in ("striped", "blue"):
        unwanted = tiny.compose([{"text": words}]).vectors[0]
        for query, prompt in (
            ({"text": "is red"}, {"text": f"is red, not {words}"}),
            ({}, {"text": f"is not {words}"}),
            ({"text": "red", "template": "{text} $"}, {"text": f"red, not {words}", "template": "{text} $"}),
            ({"template": "a picture of $"}, {"text": f"is not {words}", "template": "a picture of $, {text}"}),
        ):
            asked = [{**picture, **query, "negative_text": words}, {**picture, **prompt}, {**picture, **query}]
            found, said, plain = (adapted.compose([each]).vectors[0] for each in asked)
            away = bool((said - plain) @ unwanted < 0)
            turned = said + NEGATIVE_STEP * (said - plain) if away else plain
            np.testing.assert_allclose(found, turned / np.linalg.norm(turned), atol=1e-6)
            decided.add(away)
    assert decided == {True, False}  # words that turn the prompt towards what is unwanted are left out
    long = adapted.compose([{**picture, "text": "is red", "negative_text": "very striped " * 60}])
    assert "text and negative_text: longer than" in long.notes[0][0]


def test_with_an_adapter_a_weight_asks_for_the_subtraction(tiny):
    adapted = with_adapter(tiny, learnt(tiny.backbone.text))
    query = {"image": vector(tiny, 1), "text": "is red"}
    negative = {**query, "negative_text": "is striped"}
    nothing = adapted.compose([{**negative, "options": {"weights": {"negative": 0.0}}}]).vectors
    np.testing.assert_allclose(nothing, adapted.compose([query]).vectors, atol=1e-6)
    half = adapted.compose([{**negative, "options": {"weights": {"negative": 0.5}}}]).vectors
    assert np.abs(half - adapted.compose([negative]).vectors).max() > 1e-3


@pytest.fixture
def saved(tiny, tmp_path):
    """A model folder with an adapter, and the adapter."""
    adapter, phi = learnt(tiny.backbone.text), tiny.composers["lincir"].phi
    record = {"prompt": "a photo of $ that {text}", "adapter": adapter.settings.to_record()}
    models.save(tmp_path, tiny.backbone, {"lincir": (record, lambda path: save_phi(path, phi, adapter))})
    return tmp_path, adapter


def test_a_model_folder_keeps_the_adapter_beside_phi(tiny, saved):
    folder, adapter = saved
    record = read_record(folder)
    assert record["format"] == 3, "earlier releases must refuse it, not leave the adapter out"
    entry = record["composers"]["lincir"]
    assert entry["adapter"] == {"rank": 4, "alpha": 8.0, "where": "every linear map of every layer"}
    assert len(load_file(folder / entry["file"])) == 6 + 2 * len(tiny.backbone.text.layer_weights())
    loaded = load(str(folder), "cpu")
    query = {"image": vector(tiny, 1), "text": "is red", "negative_text": "striped"}
    expected = with_adapter(tiny, adapter).compose([query]).vectors
    np.testing.assert_array_equal(loaded.compose([query]).vectors, expected)


def test_a_model_folder_without_an_adapter_has_the_format_of_before(tiny, tmp_path):
    phi = tiny.composers["lincir"].phi
    models.save(
        tmp_path, tiny.backbone, {"lincir": ({"prompt": "a photo of $ that {text}"}, lambda path: save_phi(path, phi))}
    )
    assert read_record(tmp_path)["format"] == 2
    query = {"image": vector(tiny, 1), "text": "is red", "composer": "lincir"}
    np.testing.assert_array_equal(load(str(tmp_path), "cpu").compose([query]).vectors, tiny.compose([query]).vectors)


def test_an_adapter_of_another_tower_is_refused_with_the_reason(tiny, saved):
    folder, _ = saved
    path = folder / "model.json"
    record = json.loads(path.read_text())
    record["composers"]["lincir"]["adapter"]["rank"] = 2
    path.write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=r"is for another text tower: adapter\..* is \(.*\), not \("):
        load(str(folder), "cpu")
    with pytest.raises(CheckpointError, match="is in one of the two only"):
        learnt(tiny.backbone.text).load_tensors({})
    del record["composers"]["lincir"]["adapter"]["rank"]
    path.write_text(json.dumps(record))
    with pytest.raises(ModelError, match="the record of composer 'lincir' cannot be read"):
        load(str(folder), "cpu")


def test_the_composer_says_that_it_reads_the_option():
    assert "adapter" in LinCIR.takes.options
