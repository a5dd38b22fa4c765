"""LinCIR and the baselines, through the vectorizer."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cir_vectorizer.backbones import BackboneSpec, load_backbone
from cir_vectorizer.composers.lincir import LinCIR, Phi, Pic2WordMapper, load_phi, prompt_row, save_phi
from cir_vectorizer.errors import BackboneMismatch, CheckpointError, ImageError, ModelError, QueryError
from cir_vectorizer.models import Vectorizer, import_checkpoint, load, read_record, save
from cir_vectorizer.query import check_template
from tests import parity


def vector(tiny, seed: int) -> list[float]:
    return (
        12 * torch.nn.functional.normalize(torch.randn(tiny.dim, generator=torch.Generator().manual_seed(seed)), dim=0)
    ).tolist()


def one(tiny, **query) -> np.ndarray:
    return tiny.compose([query]).vectors[0]


def test_parity_with_the_original_implementation():
    found = parity.check(Path(__file__).parents[1] / "data" / "parity" / "lincir.safetensors")
    over = [(name, difference) for name, difference, bar in found if difference > bar]
    assert len(found) > 60
    assert not over


def test_queries_are_unit_vectors_and_do_not_depend_on_their_batch(tiny):
    queries = [
        {"text": "a red dress"},
        {"image": vector(tiny, 1)},
        {"image": vector(tiny, 2), "text": "is red"},
        {"image": [{"vector": vector(tiny, 3)}, {"vector": vector(tiny, 4)}], "text": "mixed", "negative_text": "blue"},
        {"image": vector(tiny, 5), "text": "is striped", "composer": "sum"},
        {"text": "a hat", "negative_text": "red"},
    ]
    together = tiny.compose(queries).vectors
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.stack([tiny.compose([query]).vectors[0] for query in queries])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_text_alone_is_plain_text_search_and_a_picture_alone_plain_image_search(tiny):
    np.testing.assert_allclose(one(tiny, text="a red dress"), tiny.embed_texts(["a red dress"])[0], atol=1e-6)
    picture = np.array(vector(tiny, 1), dtype=np.float32)
    np.testing.assert_allclose(one(tiny, image=picture.tolist()), picture / np.linalg.norm(picture), atol=1e-6)


def test_a_dollar_in_the_users_text_stays_literal(tiny):
    backbone = tiny.backbone
    pieces = check_template("a photo of $ that {text}", 1, True)
    row = prompt_row(backbone.text.tokenizer, pieces, 1, "costs $ 50 or $1")
    assert [at for at, _ in row.slots] == [4]
    assert row.ids.count(backbone.text.facts.marker_id) > 1


def test_a_marker_beside_punctuation_stays_a_marker(tiny):
    backbone = tiny.backbone
    for template in ("$.", "$, $", "($)", "a$b", "$1,$1."):
        row = prompt_row(backbone.text.tokenizer, check_template(template, 1, False), 1, "")
        assert len(row.slots) == template.count("$")
        assert all(row.ids[at] == 259 for at, _ in row.slots)


def test_a_long_text_is_cut_so_that_marker_and_end_survive_and_the_caller_is_told(tiny):
    backbone = tiny.backbone
    for template in ("a photo of $ that {text}", "{text} $", "{text}, as in $, please"):
        row = prompt_row(backbone.text.tokenizer, check_template(template, 1, True), 1, "very bright " * 60)
        assert row.cut
        assert len(row.ids) == 77
        assert len(row.slots) == 1
        assert row.ids[-1] == backbone.text.facts.end_id
    composed = tiny.compose([{"image": vector(tiny, 1), "text": "very bright " * 60}])
    assert "its end was left out" in composed.notes[0][0]
    with pytest.raises(QueryError, match="tokens too long"):
        tiny.compose([{"image": vector(tiny, 1), "template": "word " * 90 + "$ and more"}])


def test_prompts_may_be_read_by_an_adapted_text_encoder(tiny):
    class Adapted:
        """A text encoder that changes another one's embeddings of prompts; pictures and plain texts stay as they are."""

        def __init__(self, encoder):
            self.encoder = encoder

        def __getattr__(self, name):
            return getattr(self.encoder, name)

        def encode_text(self, rows, pseudo_tokens=None):
            return self.encoder.encode_text(rows, pseudo_tokens).roll(1, dims=-1)

    phi = tiny.composers["lincir"].phi
    composer = LinCIR(tiny.backbone, phi, text=Adapted(tiny.backbone.text))
    adapted = Vectorizer("adapted", tiny.backbone, {"lincir": composer}, "lincir")
    query = {"image": vector(tiny, 1), "text": "is red"}
    expected = np.roll(tiny.compose([{**query, "composer": "lincir"}]).vectors, 1, axis=-1)
    np.testing.assert_allclose(adapted.compose([query]).vectors, expected, atol=1e-6)
    np.testing.assert_array_equal(adapted.embed_texts(["red"]), tiny.embed_texts(["red"]))


def test_several_references_each_have_their_marker(tiny):
    two = [vector(tiny, 1), vector(tiny, 2)]
    first = one(tiny, image=[{"vector": v} for v in two], template="$1 with the pattern of $2")
    swapped = one(tiny, image=[{"vector": v} for v in two[::-1]], template="$2 with the pattern of $1")
    other = one(tiny, image=[{"vector": v} for v in two[::-1]], template="$1 with the pattern of $2")
    np.testing.assert_allclose(first, swapped, atol=1e-6)
    assert np.abs(first - other).max() > 1e-3


def test_negative_text_moves_the_query_away_by_its_weight(tiny):
    query = {"image": vector(tiny, 1), "text": "is red"}
    unwanted = tiny.embed_texts(["a photo of a striped thing"])[0]
    towards = [
        float(one(tiny, **query, negative_text="is striped", options={"weights": {"negative": w}}) @ unwanted)
        for w in (0, 0.5, 1, 2)
    ]
    assert towards == sorted(towards, reverse=True)
    np.testing.assert_allclose(
        one(tiny, **query, negative_text="is striped", options={"weights": {"negative": 0.0}}),
        one(tiny, **query),
        atol=1e-6,
    )


def test_the_weighted_sum_is_the_weighted_sum(tiny):
    image, text = np.array(vector(tiny, 1), dtype=np.float32), tiny.embed_texts(["red"])[0]
    expected = -0.3 * image / np.linalg.norm(image) + 1.3 * text
    found = one(
        tiny, image=image.tolist(), text="red", composer="sum", options={"weights": {"image": -0.3, "text": 1.3}}
    )
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-5)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"text": "red", "composer": "nosuch"}, "composer"),
        ({"image": [1.0, 2.0], "text": "red"}, "image.0.vector"),
        ({"image": {"id": 3}, "text": "red"}, "image.0"),
        ({"image": "VEC", "text": "red", "mask": "aGk="}, "mask"),
        ({"image": "VEC", "text": "red", "options": {"weights": {"text": 2.0}}}, "options.weights"),
        ({"image": "VEC", "text": "red", "composer": "sum", "template": "$ {text}"}, "template"),
        ({"text": "red", "composer": "image"}, "image"),
        ({"image": "VEC", "composer": "text"}, "text"),
        (
            {"image": "VEC", "text": "a", "composer": "sum", "options": {"weights": {"image": 0.0, "text": 0.0}}},
            "options.weights",
        ),
    ],
)
def test_what_a_composer_cannot_take_is_refused_by_field(tiny, query, field):
    query = {key: vector(tiny, 1) if value == "VEC" else value for key, value in query.items()}
    with pytest.raises(QueryError) as caught:
        tiny.compose([query])
    assert caught.value.field == field


def test_a_picture_that_is_none_is_refused(tiny):
    with pytest.raises(ImageError):
        tiny.compose([{"image": "aGVsbG8gd29ybGQ=", "text": "is red"}])


def test_a_bare_unit_vector_takes_the_mean_norm(tiny):
    bare = np.array(vector(tiny, 1)) / 12
    known = one(tiny, image={"vector": bare.tolist(), "norm": tiny.mean_image_norm}, text="is red")
    np.testing.assert_allclose(one(tiny, image=bare.tolist(), text="is red"), known, atol=1e-6)


class TestCheckpoints:
    @pytest.fixture
    def backbone(self, clip_folder):
        return load_backbone(BackboneSpec("transformers", str(clip_folder)), "cpu")

    @pytest.mark.parametrize("family", ["lincir", "searle", "pic2word", "pic2word without module."])
    def test_every_published_layout_becomes_a_model_folder(self, backbone, family, tmp_path, clip_folder):
        phi = Pic2WordMapper(24, 32, 48) if "pic2word" in family else Phi(24, 32)
        prefix = "module." if family == "pic2word" else ""
        state = {prefix + name: t for name, t in phi.state_dict().items()}
        key = "state_dict_img2text" if "pic2word" in family else "Phi"
        torch.save({"epoch": 3, key: state}, tmp_path / "published.pt")
        folder = import_checkpoint(tmp_path / "published.pt", backbone.spec, tmp_path / "model")
        loaded = load(str(folder), "cpu").composers["lincir"]
        embeddings = torch.randn(3, 24)
        torch.testing.assert_close(loaded.phi(embeddings), phi.eval()(embeddings))
        assert loaded.prompts.of(None).prompt == (
            "a photo of $ , {text}" if "pic2word" in family else "a photo of $ that {text}"
        )

    def test_wrong_width_wrong_family_truncated_and_hostile_files_are_told_apart(self, backbone, tmp_path):
        path = tmp_path / "phi.pt"

        def refusal() -> str:
            with pytest.raises(CheckpointError) as caught:
                load_phi(path, backbone)
            return str(caught.value)

        assert "no weights file" in refusal()
        torch.save({"Phi": Phi(768, 768).state_dict()}, path)
        assert "768" in refusal()
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        assert "truncated" in refusal()
        torch.save({"model": {"conv.weight": torch.zeros(3)}}, path)
        assert "no Φ" in refusal()
        torch.save({"Phi": {"conv.weight": torch.zeros(3)}}, path)
        assert "no Φ of LinCIR" in refusal()
        torch.save({"Phi": {n: t for n, t in Phi(24, 32).state_dict().items() if n != "layers.3.bias"}}, path)
        assert "incomplete" in refusal()
        torch.save({"Phi": Path("boo")}, path)
        assert "more than tensors" in refusal()
        path.write_bytes(b"<html>404</html>")
        refusal()


class TestModelFolder:
    def make(self, folder, tiny, seed=0):
        torch.manual_seed(seed)
        phi = Phi(tiny.dim, tiny.backbone.text.facts.width)
        save(folder, tiny.backbone, {"lincir": ({}, lambda path: save_phi(path, phi))})
        return folder

    def test_round_trip_and_rewrite_leave_one_weights_file(self, tiny, tmp_path):
        self.make(tmp_path, tiny, 0)
        before = load(str(tmp_path), "cpu")
        self.make(tmp_path, tiny, 1)
        after = load(str(tmp_path), "cpu")
        assert before.fingerprint == after.fingerprint == tiny.fingerprint
        assert len(list(tmp_path.glob("*.safetensors"))) == 1
        assert isinstance(after, Vectorizer)
        assert isinstance(after.composers["lincir"], LinCIR)

    def test_a_damaged_missing_or_foreign_part_is_named(self, tiny, tmp_path):
        folder = self.make(tmp_path / "m", tiny)
        (weights,) = folder.glob("*.safetensors")
        good = weights.read_bytes()
        weights.write_bytes(good[:-4] + b"oops")
        with pytest.raises(CheckpointError, match="damaged"):
            load(str(folder), "cpu")
        weights.unlink()
        with pytest.raises(CheckpointError, match="missing"):
            load(str(folder), "cpu")
        weights.write_bytes(good)
        record = read_record(folder)
        record["backbone"]["fingerprint"] = "0" * 64
        (folder / "model.json").write_text(json.dumps(record))
        with pytest.raises(BackboneMismatch, match="000000000000"):
            load(str(folder), "cpu")
        (folder / "model.json").write_text("{")
        with pytest.raises(ModelError, match="no model record"):
            load(str(folder), "cpu")

    def test_a_name_that_is_nothing_lists_what_there_is(self, tmp_path):
        with pytest.raises(ModelError, match=r"tiny, lincir-vit-l"):
            load("nosuch")
        with pytest.raises(ModelError, match="holds no model"):
            load(str(tmp_path))

    def test_published_names_say_which_file_to_put_where_when_offline(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CIR_MODELS", str(tmp_path))
        with pytest.raises(ModelError, match=r"lincir_large\.pt .*put it at") as caught:
            load("lincir-vit-l")
        assert str(tmp_path / "lincir-vit-l" / "lincir_large.pt") in str(caught.value)
