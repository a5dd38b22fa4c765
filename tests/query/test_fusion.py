"""Fusion: the picture's vector, the composer's, and the change of the words, mixed; and a model's default options."""

import json
import shutil
from io import BytesIO

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from cir_vectorizer.cli import main
from cir_vectorizer.errors import ModelError, QueryError
from cir_vectorizer.models import describe, import_checkpoint, load, read_record, save, set_defaults
from cir_vectorizer.models.published import TINY_FOLDER
from cir_vectorizer.query import ComposedQuery, Options
from tests.support.stranger import installed

COMPOSERS = ("lincir", "sum", "compodiff")
NUMBERS = [{"a": 1.4, "b": 0.8, "c": 0.9}, {"b": 0.6}, {"a": 0.0, "b": 0.3, "c": 2.0}]


def png(colour, size=(64, 64)):
    stream = BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


RED, GREEN = png("red"), png("green", (80, 60))
QUERY = {"image": RED, "text": "is blue and striped"}


def unit(vector):
    return vector / np.linalg.norm(vector)


def vector_of(model, query, **options):
    return model.compose([{**query, "options": options}]).vectors[0]


def expected(composed, wordless, picture, a=1.0, b=1.0, c=1.0):
    change = composed - wordless
    return unit((1 - b) * (picture + a * change) + b * (wordless + c * change))


def close(one, other):
    np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(TINY_FOLDER, tmp_path / "model")
    return tmp_path / "model"


def wordless(model, query, composer):
    """Return the vector of a query without words, by each composer's own definition."""
    if composer == "sum":
        return model.compose([{"image": query["image"], "composer": "sum"}]).vectors[0]
    if composer == "lincir":
        return model.compose([{"image": query["image"], "template": "a photo of $", "composer": "lincir"}]).vectors[0]
    seed = model.plan({**query, "composer": "compodiff"}).plan.own.seed
    bare = {"image": query["image"], "composer": "compodiff"} | ({"mask": query["mask"]} if "mask" in query else {})
    return vector_of(model, bare, seed=seed)


class TestFormula:
    @pytest.mark.parametrize("numbers", NUMBERS)
    @pytest.mark.parametrize("composer", COMPOSERS)
    def test_the_vector_is_that_of_the_formula(self, tiny, composer, numbers):
        query = {**QUERY, "composer": composer}
        picture = unit(tiny.compose([{"image": RED}]).vectors[0])
        parts = (vector_of(tiny, query), wordless(tiny, query, composer), picture)
        fused = vector_of(tiny, query, fusion=numbers)
        close(fused, expected(*parts, **numbers))
        assert composer == "sum" or np.abs(fused - parts[0]).max() > 1e-3

    @pytest.mark.parametrize("composer", COMPOSERS)
    def test_its_ends_are_the_composers_own_vector_and_the_picture(self, tiny, composer):
        query = {**QUERY, "negative_text": "dots", "composer": composer}
        assert (vector_of(tiny, query, fusion={"a": 3, "b": 1, "c": 1}) == vector_of(tiny, query)).all()
        close(vector_of(tiny, query, fusion={"a": 0, "b": 0}), tiny.compose([{"image": RED}]).vectors[0])

    def test_the_words_are_text_negative_text_and_template(self, tiny):
        query = {**QUERY, "negative_text": "dots", "template": "$ but {text}", "composer": "lincir"}
        picture = tiny.compose([{"image": RED}]).vectors[0]
        wanted = expected(vector_of(tiny, query), wordless(tiny, query, "lincir"), picture, 1.0, 0.5, 1.5)
        close(vector_of(tiny, query, fusion={"b": 0.5, "c": 1.5}), wanted)

    def test_a_sum_weighs_its_parts_before_the_fusion(self, tiny):
        query, weights = {**QUERY, "composer": "sum"}, {"image": 0.0, "text": 1.0}
        picture = tiny.compose([{"image": RED}]).vectors[0]
        wanted = expected(tiny.compose([{"text": QUERY["text"]}]).vectors[0], picture, picture, 0.4, 0.5, 0.4)
        close(vector_of(tiny, query, weights=weights, fusion={"a": 0.4, "b": 0.5, "c": 0.4}), wanted)

    def test_several_pictures_count_by_their_mean_direction(self, tiny):
        query = {"image": [RED, GREEN], "text": "as one dress", "composer": "lincir"}
        picture = unit(tiny.compose([{"image": RED}]).vectors[0] + tiny.compose([{"image": GREEN}]).vectors[0])
        wanted = expected(vector_of(tiny, query), wordless(tiny, query, "lincir"), picture, b=0.4, a=0.5)
        close(vector_of(tiny, query, fusion={"b": 0.4, "a": 0.5}), wanted)

    def test_a_mask_hides_the_same_part_in_all_of_compodiffs_vectors(self, tiny):
        query = {**QUERY, "mask": [0.0, 0.0, 0.5, 1.0], "composer": "compodiff"}
        work = tiny.plan(query)
        embedded = tiny.embed_pixels(tiny.decode(work.pictures[0])[None])[0]
        wanted = expected(vector_of(tiny, query), wordless(tiny, query, "compodiff"), unit(embedded), b=0.5, a=0.7)
        close(vector_of(tiny, query, fusion={"b": 0.5, "a": 0.7}), wanted)

    @pytest.mark.parametrize("composer", COMPOSERS)
    def test_without_words_there_is_no_change_to_follow(self, tiny, composer):
        query = {"image": RED, "composer": composer}
        picture, composed = tiny.compose([{"image": RED}]).vectors[0], vector_of(tiny, query)
        close(vector_of(tiny, query, fusion={"a": 4, "b": 0.5}), unit(picture + composed))
        if composer != "compodiff":
            work = tiny.plan({**query, "options": {"fusion": {"b": 0.5}}})
            assert len(work.plan.parts) == 1, "nothing is composed twice"

    @pytest.mark.parametrize("composer", ["lincir", "sum", "compodiff", "text", "image"])
    def test_it_is_ignored_where_a_side_is_missing(self, tiny, composer):
        query = {"text": "a red dress", "negative_text": "dots"} if composer in COMPOSERS else QUERY
        query = {**query, "composer": composer}
        assert (vector_of(tiny, query, fusion={"b": 0.5}) == vector_of(tiny, query)).all()

    def test_a_mix_that_cancels_out_is_refused(self, tiny):
        query = {**QUERY, "composer": "sum"}
        with pytest.raises(QueryError, match=r"options\.fusion: the vectors that it mixes cancel out"):
            vector_of(tiny, query, weights={"image": -1.0, "text": 0.0}, fusion={"a": 0, "b": 0.5, "c": 1})


class TestBatches:
    def test_plans_with_and_without_fusion_in_one_batch_are_as_alone(self, tiny):
        queries = [
            {**QUERY, "composer": composer, "negative_text": negative, "options": options}
            for composer in COMPOSERS
            for negative in (None, "dots")
            for options in ({}, {"fusion": {"b": 0.6}}, {"fusion": {"b": 0.6, "a": 2}, "keep": 0.2}, {"keep": 0.2})
        ] + [{"text": "a dress", "negative_text": "dots"}, {"image": [RED, GREEN], "options": {"fusion": {"b": 0.1}}}]
        together = tiny.compose(queries).vectors
        for query, vector in zip(queries, together, strict=True):
            close(vector, tiny.compose([query]).vectors[0])

    def test_the_composer_runs_once_for_all_parts(self, tiny, monkeypatch):
        composer, sizes = tiny.composers["lincir"], []
        run = composer.compose
        monkeypatch.setattr(composer, "compose", lambda plans, refs: sizes.append(len(plans)) or run(plans, refs))
        tiny.compose([{**QUERY, "options": {"fusion": {"b": 0.5}}}, QUERY, {**QUERY, "options": {"keep": 0.3}}])
        assert sizes == [4]

    def test_the_work_of_all_parts_is_admitted(self, tiny):
        for composer in COMPOSERS:
            query = {**QUERY, "composer": composer}
            plain, bare = tiny.plan(query).plan, tiny.plan({"image": RED, "composer": composer}).plan
            fused = tiny.plan({**query, "options": {"fusion": {"b": 0.5}}}).plan
            turned = tiny.plan({**query, "options": {"fusion": {"b": 0.5}, "keep": 0.1}}).plan
            assert (fused.units, fused.tokens) == (plain.units + bare.units, plain.tokens + bare.tokens)
            assert turned.units >= fused.units + plain.units

    def test_a_cut_text_is_noted_once(self, tiny):
        query = {"image": RED, "text": "red " * 200, "composer": "lincir"}
        for options in ({}, {"fusion": {"b": 0.5}}, {"fusion": {"b": 0.5}, "keep": 0.1}):
            assert tiny.compose([{**query, "options": options}]).notes == tiny.compose([query]).notes


class TestKeep:
    @pytest.mark.parametrize("composer", COMPOSERS)
    def test_beside_fusion_it_turns_the_fused_vector(self, tiny, composer):
        query, numbers = {**QUERY, "composer": composer}, {"a": 0.5, "b": 0.6, "c": 1.2}
        picture, words = tiny.compose([{"image": RED}]).vectors[0], vector_of(tiny, query, keep=0.0)
        fused = vector_of(tiny, query, fusion=numbers)
        close(vector_of(tiny, query, fusion=numbers, keep=0.5), fused)
        close(vector_of(tiny, query, fusion=numbers, keep=1.0), picture)
        close(vector_of(tiny, query, fusion=numbers, keep=0.0), words)
        close(vector_of(tiny, query, fusion=numbers, keep=0.8), unit(fused + 0.6 * (picture - fused)))
        close(vector_of(tiny, query, fusion=numbers, keep=0.3), unit(fused + 0.4 * (words - fused)))

    def test_without_words_it_turns_to_the_picture_alone(self, tiny):
        query = {"image": RED, "composer": "sum"}
        close(vector_of(tiny, query, fusion={"b": 0.5}, keep=0.2), vector_of(tiny, query))

    def test_default_weights_are_its_middle(self, folder):
        set_defaults(folder, "sum", {"weights": {"image": 0.2, "text": 0.8}})
        model, plain = load(str(folder), "cpu"), load("tiny", "cpu")
        own = vector_of(plain, {**QUERY, "composer": "sum"}, weights={"image": 0.2, "text": 0.8})
        close(vector_of(model, QUERY), own)
        close(vector_of(model, QUERY, keep=0.5), own)
        close(vector_of(model, QUERY, keep=1.0), plain.compose([{"image": RED}]).vectors[0])
        close(vector_of(model, QUERY, keep=0.0), plain.compose([{"text": QUERY["text"]}]).vectors[0])


class TestOption:
    @pytest.mark.parametrize(
        ("fusion", "field", "says"),
        [
            ({"b": 1.5}, "options.fusion.b", "less than or equal to 1"),
            ({"b": -0.1}, "options.fusion.b", "greater than or equal to 0"),
            ({"a": 5.1}, "options.fusion.a", "less than or equal to 5"),
            ({"c": float("inf")}, "options.fusion.c", "must be a finite number"),
            ({"a": float("nan")}, "options.fusion.a", "must be a finite number"),
            ({"b": "0.5"}, "options.fusion.b", "should be a valid number"),
            ({"d": 1}, "options.fusion.d", "is not a field; the fields are a, b, c"),
            (0.5, "options.fusion", "should be a JSON object"),
        ],
    )
    def test_wrong_numbers_are_named(self, fusion, field, says):
        with pytest.raises(QueryError, match=says) as refused:
            ComposedQuery.parse({**QUERY, "options": {"fusion": fusion}})
        assert refused.value.field == field

    def test_composers_that_read_a_picture_and_words_take_it(self, tiny):
        for name, takes in tiny.takes.items():
            named = {"fusion.a", "fusion.b", "fusion.c"} & set(takes.options)
            assert len(named) == (3 if name in COMPOSERS else 0), name

    def test_composers_of_strangers_take_it(self, tmp_path):
        with installed(tmp_path, mild="MildTint", tint="Tint"):
            model = load("tiny", "cpu")
        assert "fusion.b" in model.takes["mild"].options
        assert "fusion.b" not in model.takes["tint"].options, "it makes no vector without words"
        query = {**QUERY, "composer": "mild"}
        picture = model.compose([{"image": RED}]).vectors[0]
        bare = model.compose([{"image": RED, "composer": "mild"}]).vectors[0]
        wanted = expected(vector_of(model, query), bare, picture, 2.0, 0.5, 1.0)
        close(vector_of(model, query, fusion={"a": 2.0, "b": 0.5}), wanted)
        tinted = {**QUERY, "composer": "tint"}
        assert (vector_of(model, tinted, fusion={"b": 0.5}) == vector_of(model, tinted)).all()


DEFAULTS = {
    "lincir": {"fusion": {"a": 1.2, "b": 0.8, "c": 1.0}},
    "sum": {"weights": {"image": 0.3, "text": 0.7}},
    "compodiff": {"steps": 3, "guidance": [1.0, 5.0]},
}


class TestDefaults:
    def test_they_are_written_read_and_applied(self, folder, tiny):
        for composer, options in DEFAULTS.items():
            set_defaults(folder, composer, options)
            assert describe(str(folder)).default_composer == composer
        record = read_record(folder)
        assert (record["format"], record["defaults"]) == (4, DEFAULTS)
        assert describe(str(folder)).defaults["sum"] == Options.model_validate(DEFAULTS["sum"])
        model = load(str(folder), "cpu")
        for composer, options in DEFAULTS.items():
            query = {**QUERY, "composer": composer}
            close(vector_of(model, query), vector_of(tiny, query, **options))

    def test_options_of_a_query_override_them(self, folder, tiny):
        for composer, options in DEFAULTS.items():
            set_defaults(folder, composer, options)
        model = load(str(folder), "cpu")
        for composer, asked, as_if in (
            ("lincir", {"fusion": {"b": 0.5}}, {"fusion": {"a": 1.0, "b": 0.5, "c": 1.0}}),
            ("lincir", {"fusion": {}}, {}),
            ("sum", {"weights": {"image": 0.9}}, {"weights": {"image": 0.9, "text": 0.7}}),
            ("compodiff", {"steps": 5}, {"steps": 5, "guidance": [1.0, 5.0]}),
        ):
            query = {**QUERY, "composer": composer}
            close(vector_of(model, query, **asked), vector_of(tiny, query, **as_if))

    @pytest.mark.parametrize("weights", [{"image": 0.0, "text": 1.0}, {"image": 1.0, "text": 0.0}])
    def test_weights_of_picture_and_text_leave_a_query_with_one_of_them_alone(self, folder, tiny, weights):
        """So `like` and `unlike` of a search, pictures alone for the query's composer, work with any defaults."""
        set_defaults(folder, "sum", {"weights": weights})
        model = load(str(folder), "cpu")
        for query in (
            {"image": RED, "composer": "sum"},
            {"text": "a hat", "negative_text": "straw", "composer": "sum"},
        ):
            close(vector_of(model, query), vector_of(tiny, query))
        close(
            vector_of(model, {**QUERY, "composer": "sum"}),
            vector_of(tiny, {**QUERY, "composer": "sum"}, weights=weights),
        )

    def test_plain_searches_stay_plain_whatever_the_default_composer(self, folder, tiny):
        set_defaults(folder, "sum", {"weights": {"image": 0.3, "text": 0.7}, "fusion": {"b": 0.5, "a": 0.2}})
        model = load(str(folder), "cpu")
        for query in ({"image": RED}, {"text": "a red dress"}):
            assert (model.compose([query]).vectors == tiny.compose([query]).vectors).all()
        assert model.plan(QUERY).composer_name == "sum"

    def test_a_folder_without_them_stays_as_it_was(self, folder):
        before = read_record(folder)
        set_defaults(folder, "lincir", {"fusion": {"b": 0.5}})
        assert before["format"] < 4
        set_defaults(folder, before["default_composer"], {})
        set_defaults(folder, "lincir", {})
        assert read_record(folder) == {**before, "default_composer": "lincir"}
        set_defaults(folder, before["default_composer"], Options())
        assert (folder / "model.json").read_text() == (TINY_FOLDER / "model.json").read_text()

    def test_weights_and_records_are_not_touched(self, folder):
        before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        record = read_record(folder)
        set_defaults(folder, "compodiff", {"steps": 2})
        after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        assert {name for name in before | after if before.get(name) != after.get(name)} == {"model.json"}
        assert read_record(folder)["composers"] == record["composers"]

    def test_defaults_of_composers_that_are_replaced_are_dropped(self, folder, tmp_path, tiny):
        for composer, options in DEFAULTS.items():
            set_defaults(folder, composer, options)
        set_defaults(folder, "sum", DEFAULTS["sum"])
        phi = folder / read_record(folder)["composers"]["lincir"]["file"]
        import_checkpoint(phi, describe(str(folder)).backbone, folder, overwrite=True)
        record = describe(str(folder))
        assert (set(record.defaults), record.default_composer) == ({"sum", "compodiff"}, "sum")
        save(tmp_path / "beside", tiny.backbone, {}, beside=folder)
        assert read_record(tmp_path / "beside")["defaults"] == {k: DEFAULTS[k] for k in ("sum", "compodiff")}

    def test_models_show_prints_them(self, folder):
        set_defaults(folder, "sum", DEFAULTS["sum"])
        shown = json.loads(CliRunner().invoke(main, ["models", "show", str(folder)]).output)
        assert shown["defaults"] == {"sum": DEFAULTS["sum"]}
        assert "fusion.b" in shown["composers"]["lincir"]["takes"]["options"]

    def test_composers_that_are_left_out_need_no_check(self, folder):
        set_defaults(folder, "lincir", DEFAULTS["lincir"])
        assert load(str(folder), "cpu", parts=()).defaults == {}

    @pytest.mark.parametrize(
        ("defaults", "says"),
        [
            ({"lincir": {"fusion": {"b": 2}}}, r"defaults\.lincir\.fusion\.b: should be less than or equal to 1"),
            ({"lincir": {"pace": 2}}, r"defaults\.lincir\.pace: is no option; correct it or remove it"),
            ({"sum": {"steps": 3}}, r"defaults\.sum\.steps: 'sum' takes no such option; it takes keep, weights\.image"),
            ({"text": {"fusion": {"b": 0.5}}}, r"defaults\.text\.fusion\.a: 'text' takes no such option"),
            ({"magic": {}}, r"the model has no composer 'magic'; it has lincir, compodiff"),
            ([1], r"defaults: should be a JSON object"),
        ],
    )
    def test_wrong_ones_are_refused_when_the_folder_is_loaded(self, folder, defaults, says):
        record = read_record(folder)
        (folder / "model.json").write_text(json.dumps({**record, "format": 4, "defaults": defaults}))
        with pytest.raises(ModelError, match=rf"model\.json: {says}"):
            load(str(folder), "cpu")

    @pytest.mark.parametrize(
        ("composer", "options", "says"),
        [
            ("magic", {}, "the model has no composer 'magic'"),
            ("lincir", {"weights": {"image": 1.0}}, r"defaults\.lincir\.weights\.image: 'lincir' takes no such option"),
            ("lincir", {"fusion": {"b": 2}}, r"defaults\.lincir\.fusion\.b: should be less"),
        ],
    )
    def test_wrong_ones_are_not_written(self, folder, composer, options, says):
        before = (folder / "model.json").read_bytes()
        with pytest.raises(ModelError, match=says):
            set_defaults(folder, composer, options)
        assert (folder / "model.json").read_bytes() == before

    @pytest.mark.parametrize("name", ["tiny", str(TINY_FOLDER), "lincir-vit-l"])
    def test_built_in_models_are_not_changed(self, name):
        with pytest.raises(
            ModelError, match="is built in and cannot have defaults of yours; make a folder of your own"
        ):
            set_defaults(name, "sum", {})
