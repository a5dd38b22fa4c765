"""Prompts by language: the query's `language`, the model's own, and the record that holds them."""

import json
from pathlib import Path

import numpy as np
import pytest

from cir_vectorizer import models
from cir_vectorizer.composers.lincir import LinCIR, save_phi
from cir_vectorizer.composers.prompts import ENGLISH, OURS, Prompts, known_tag
from cir_vectorizer.errors import CheckpointError, ModelError, QueryError
from cir_vectorizer.evaluate.judged.reading import read_judged
from cir_vectorizer.models import Vectorizer, load, read_record, set_defaults
from cir_vectorizer.query import ComposedQuery, read_text
from tests.support.adapters import learnt, with_adapter

GERMAN = "ein Foto von $, {text}"
SWAHILI = {
    "prompt": "picha ya $, {text}",
    "prompt_without_text": "picha ya $",
    "photo": "picha",
    "join": "na",
    "negative": "{text}, si {negative_text}",
    "negative_alone": "si {negative_text}",
}


def picture(model: Vectorizer, seed: int = 0) -> list[float]:
    return (8 * np.random.default_rng(seed).normal(size=model.dim) / model.dim**0.5).tolist()


def one(model: Vectorizer, **query) -> np.ndarray:
    return model.compose([{"image": picture(model), "composer": "lincir", **query}]).vectors[0]


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a - b).max() < 1e-6)


def folder_with(tiny, folder, **record):
    """A model folder with the packaged Φ and this record."""
    phi = tiny.composers["lincir"].phi
    models.save(folder, tiny.backbone, {"lincir": (record, lambda path: save_phi(path, phi))})
    return folder


class TestQueries:
    def test_a_language_chooses_the_prompt(self, tiny):
        german = one(tiny, text="in rot", language="de")
        assert same(german, one(tiny, text="in rot", template=GERMAN))
        assert not same(german, one(tiny, text="in rot"))
        assert same(one(tiny, language="de"), one(tiny, template="ein Foto von $"))
        assert same(one(tiny, text="赤い", language="ja"), one(tiny, text="赤い", template="$の写真、{text}"))

    def test_no_language_is_english_as_before(self, tiny):
        template = "a photo of $ that {text}"
        for query in ({}, {"language": "en"}, {"language": "en-GB"}):
            assert same(one(tiny, text="is red", **query), one(tiny, text="is red", template=template))

    def test_a_longer_tag_falls_back_to_a_shorter_one(self, tiny):
        german = one(tiny, text="in rot", language="de")
        for tag in ("de-AT", "DE", "de-Latn-CH-1996"):
            assert same(one(tiny, text="in rot", language=tag), german)
        assert known_tag("zh-Hant-TW", OURS) == "zh"
        assert known_tag("deu", OURS) is None

    def test_several_pictures_are_joined_by_a_word_of_the_language(self, tiny):
        two = [picture(tiny), picture(tiny, 1)]
        pictures = {"image": [{"vector": each} for each in two]}
        said = one(tiny, **pictures, text="in rot", template="ein Foto von $1 und $2, {text}")
        assert same(one(tiny, **pictures, text="in rot", language="de"), said)
        own = {"text": "in rot", "template": "{text}: $"}
        assert same(
            one(tiny, **pictures, **own, language="de"),
            one(tiny, **pictures, text="in rot", template="{text}: $1 und $2"),
        )

    def test_an_own_template_replaces_the_prompt(self, tiny):
        own = {"text": "in rot", "template": "{text} $"}
        assert same(one(tiny, **own, language="de"), one(tiny, **own))

    def test_a_negative_text_is_subtracted_by_prompts_of_the_language(self, tiny):
        found = one(tiny, text="in rot", negative_text="gestreift", language="de")
        wanted, unwanted, bare = (
            one(tiny, **words, language="de") for words in ({"text": "in rot"}, {"text": "gestreift"}, {})
        )
        expected = wanted - 0.5 * (unwanted - bare)
        assert same(found, expected / np.linalg.norm(expected))
        words = {"image": [], "text": "rot", "negative_text": "gestreift"}
        assert not same(one(tiny, **words, language="de"), one(tiny, **words))

    def test_an_adapter_reads_the_word_for_not_in_the_language(self, tiny):
        adapted = with_adapter(tiny, learnt(tiny.backbone.text))
        composer = adapted.composers["lincir"]
        for language, text, row in (
            ("de", "in rot", "in rot, nicht gestreift"),
            ("de", None, "nicht gestreift"),
            ("tr", "kirmizi", "kirmizi, gestreift değil"),
        ):
            image = ({"vector": picture(tiny)},)
            query = ComposedQuery.parse(
                {"image": image, "text": text, "negative_text": "gestreift", "language": language}
            )
            said = ComposedQuery.parse({"image": image, "text": row, "language": language})
            assert composer.prepare(query).rows[0] == composer.prepare(said).rows[0]

    def test_the_change_that_fusion_mixes_is_measured_in_the_language(self, tiny):
        fused = one(tiny, text="in rot", language="de", options={"fusion": {"b": 1.0, "c": 0.0}})
        assert same(fused, one(tiny, language="de"))

    def test_an_unknown_language_lists_the_known_ones(self, tiny):
        with pytest.raises(QueryError, match="no prompt in 'sw'; choose one of en, ar, cs, da, de, ") as caught:
            one(tiny, text="is red", language="sw")
        assert caught.value.field == "language"

    @pytest.mark.parametrize("tag", ["", "d", "de_AT", "de-", "German language", "*", "de-AT\n", 5])
    def test_what_is_no_tag_is_refused(self, tag):
        with pytest.raises(QueryError) as caught:
            ComposedQuery.parse({"text": "red", "language": tag})
        assert caught.value.field == "language"

    def test_composers_without_a_prompt_refuse_it(self, tiny):
        for composer in ("sum", "compodiff"):
            with pytest.raises(QueryError, match="reads no language; use composer 'lincir', or remove it") as caught:
                one(tiny, text="is red", language="de", composer=composer)
            assert caught.value.field == "language"
        assert tiny.takes["lincir"].language == "optional"

    def test_plain_searches_have_no_prompt_and_stay_as_they_are(self, tiny):
        for query in ({"text": "ein rotes Kleid"}, {"image": picture(tiny)}):
            assert ComposedQuery.parse({**query, "language": "de"}).plain
            found, plain = tiny.compose([{**query, "language": "de"}, query]).vectors
            assert same(found, plain)

    def test_language_alone_makes_no_text_a_composed_query(self):
        text = '{"text": "red", "language": "de"}'
        assert read_text(text) == text
        assert read_text('{"text": "rot", "language": "de", "negative_text": "Logo"}').language == "de"

    def test_a_judged_query_names_it_as_every_query_does(self, tmp_path):
        (tmp_path / "judged.jsonl").write_text(json.dumps({"text": "rot", "language": "de", "relevant": [1]}))
        (judged,), problems = read_judged(tmp_path / "judged.jsonl")
        assert (judged.query.language, problems) == ("de", [])


class TestRecords:
    def test_a_model_has_a_language_of_its_own(self, tiny, tmp_path):
        model = load(str(folder_with(tiny, tmp_path, **Prompts.built_in("de-AT").to_record())), "cpu")
        record = read_record(tmp_path)
        assert record["format"] == 5, "earlier releases must refuse it, not compose in English"
        assert record["composers"]["lincir"]["prompts"]["de"]["prompt"] == GERMAN
        assert same(one(model, text="in rot"), one(tiny, text="in rot", language="de"))
        assert same(one(model, text="is red", language="en"), one(tiny, text="is red"))
        set_defaults(tmp_path, "lincir", {"keep": 0.6})
        set_defaults(tmp_path, "lincir", {})
        assert read_record(tmp_path) == record

    def test_an_english_model_keeps_the_form_of_earlier_releases(self, tiny, tmp_path):
        assert Prompts.built_in("en").to_record() == {"prompt": "a photo of $ that {text}"}
        assert Prompts.built_in("sw").to_record() == Prompts.built_in("en").to_record()
        folder_with(tiny, tmp_path, prompt="a photo of $ , {text}")
        assert read_record(tmp_path)["format"] == 2
        model = load(str(tmp_path), "cpu")
        for query in ({}, {"language": "en-US"}):
            assert same(one(model, text="red", **query), one(tiny, text="red", template="a photo of $ , {text}"))
        assert same(one(model, text="rot", language="de"), one(tiny, text="rot", language="de"))
        assert same(one(load(str(folder_with(tiny, tmp_path)), "cpu"), text="is red"), one(tiny, text="is red"))

    def test_a_record_adds_languages_and_changes_ours(self, tiny, tmp_path):
        shorter = "Foto: $ {text}"
        folder_with(tiny, tmp_path, prompts={"sw": SWAHILI, "de": {"prompt": shorter}})
        model = load(str(tmp_path), "cpu")
        assert same(one(model, text="nyekundu", language="sw"), one(tiny, text="nyekundu", template=SWAHILI["prompt"]))
        assert same(one(model, text="rot", language="de"), one(tiny, text="rot", template=shorter))
        assert same(one(model, language="de"), one(tiny, language="de"))
        assert same(one(model, text="is red"), one(tiny, text="is red"))

    def test_the_digest_of_a_composer_covers_them(self, tiny, tmp_path):
        folders = [folder_with(tiny, tmp_path / tag, **Prompts.built_in(tag).to_record()) for tag in ("en", "de")]
        english, german = (load(str(folder), "cpu").digests["lincir"] for folder in folders)
        assert english != german

    @pytest.mark.parametrize(
        ("record", "sentence"),
        [
            ({"prompt": "no marker {text}"}, r"prompts\.en\.prompt: has no \$"),
            (
                {"prompts": {"de": {"prompt_without_text": "Foto $ {text}"}}},
                r"prompts\.de\.prompt_without_text: has {text}",
            ),
            ({"prompts": {"sw": {"prompt": "picha ya $, {text}"}}}, r"prompts\.sw\.prompt_without_text: "),
            (
                {"prompts": {"de": {"promt": "Foto $"}}},
                r"prompts\.de\.promt: is no part of a prompt; they are prompt, ",
            ),
            ({"prompts": {"de": {"negative": "{text} ohne"}}}, r"prompts\.de\.negative: is '{text} ohne'; write "),
            ({"prompts": {"de": {"join": 3}}}, r"prompts\.de\.join: "),
            ({"language": "sw"}, r"language: is 'sw', and there are no prompts of it"),
        ],
    )
    def test_a_wrong_record_names_file_and_field(self, tiny, tmp_path, record, sentence):
        folder_with(tiny, tmp_path, **record)
        with pytest.raises(CheckpointError, match=rf"{tmp_path}/model\.json: {sentence}"):
            load(str(tmp_path), "cpu")

    @pytest.mark.parametrize("record", [{"prompts": "de"}, {"prompts": {"de": 3}}, {"language": 3}])
    def test_a_misshapen_record_is_a_sentence(self, tiny, tmp_path, record):
        folder_with(tiny, tmp_path, **record)
        with pytest.raises(ModelError, match="the record of composer 'lincir' cannot be read"):
            load(str(tmp_path), "cpu")


class TestOurs:
    @pytest.mark.parametrize("tag", OURS)
    def test_each_language_is_said_with_and_without_a_text(self, tag):
        wording = OURS[tag]
        assert wording.prompt.startswith(wording.prompt_without_text)
        assert wording.prompt_without_text.count("$") == 1
        assert wording.words_of_edit("x", "") == "x"
        assert {"x", "y"} <= {each for each in wording.words_of_edit("x", "y") if each in "xy"}
        assert "{" not in wording.words_of_edit("x", "y") + wording.words_of_edit("", "y")
        texts = json.loads(wording.model_dump_json()).values()
        assert all(text == text.strip() and text for text in texts)

    def test_languages_differ_from_english(self):
        assert next(iter(OURS)) == "en"
        assert not [tag for tag, each in OURS.items() if tag != "en" and each.prompt == ENGLISH.prompt]

    def test_braces_and_dollars_of_a_text_stay_as_they_are(self):
        assert ENGLISH.words_of_edit("{negative_text} $", "{text}") == "{negative_text} $, not {text}"

    def test_the_composer_says_that_it_reads_a_language(self):
        assert LinCIR.takes.reads("language")
        assert LinCIR.takes.picture_alone

    def test_the_document_lists_them(self):
        document = (Path(__file__).parents[2] / "docs" / "lincir.md").read_text(encoding="utf-8")
        assert ", ".join(f"`{tag}`" for tag in sorted(OURS)) + "." in document
