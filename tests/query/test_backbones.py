"""Backbones: one protocol over open_clip, transformers, sentence-transformers and the packaged one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from cir_vectorizer.backbones import BackboneSpec, TokenRow, load_backbone, pick_device
from cir_vectorizer.backbones.clip import PadThen
from cir_vectorizer.backbones.text import RowTooLong
from cir_vectorizer.backbones.tokenizer import ClipTokenizer
from cir_vectorizer.errors import CheckpointError, ModelError
from cir_vectorizer.models import load

CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module")
def small_open_clip(tmp_path_factory):
    """Register a small architecture with open_clip; return its name and a local weights file."""
    folder = tmp_path_factory.mktemp("open_clip")
    (folder / "cir-test-small.json").write_text(json.dumps(CONFIG))
    (folder / "cir-test-small-quickgelu.json").write_text(json.dumps({**CONFIG, "quick_gelu": True}))
    open_clip.add_model_config(folder)
    torch.manual_seed(1)
    torch.save(open_clip.create_model("cir-test-small").state_dict(), folder / "weights.pt")
    return "cir-test-small", folder / "weights.pt"


def spec(text):
    return load_backbone(BackboneSpec.parse(text), "cpu")


def test_rows_cut_at_the_end_token_give_the_padded_rows_vectors(tiny, clip_folder):
    for backbone in (tiny.backbone, spec(f"transformers:{clip_folder}")):
        rows = [backbone.text.tokenizer.row(text) for text in ("a red dress", "", "x " * 100)]
        whole = [TokenRow(row.ids + (backbone.text.facts.end_id,) * (77 - len(row.ids))) for row in rows]
        cut = backbone.text.encode_text(rows)
        together = backbone._towers.encode_tokens(
            backbone._towers.embed_tokens(torch.tensor([row.ids for row in whole])),
            torch.tensor([row.ids for row in whole]),
            torch.tensor([len(row.ids) - 1 for row in rows]),
        )
        torch.testing.assert_close(cut, together, atol=1e-5, rtol=0)


def test_many_rows_of_mixed_length_come_back_in_order(tiny):
    backbone = tiny.backbone
    rows = [backbone.text.tokenizer.row("red " * (i % 40)) for i in range(200)]
    together = backbone.text.encode_text(rows)
    alone = torch.cat([backbone.text.encode_text([row]) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    assert backbone.text.encode_text([]).shape == (0, backbone.dim)


def test_what_stands_before_a_pseudo_token_may_be_read_once_for_all_rows(tiny, clip_folder):
    for backbone in (tiny.backbone, spec(f"transformers:{clip_folder}")):
        facts, tokenizer = backbone.text.facts, backbone.text.tokenizer
        rows = []
        for i in range(150):
            before = tokenizer.encode(("a photo of", "", "the very same")[i % 3], 75).ids
            after = tokenizer.encode("that is red and blue" + " or green" * (i % 5), 75).ids
            at = 1 + len(before)
            again = at + 1 + len(after)
            ids = (facts.start_id, *before, facts.marker_id, *after, facts.marker_id, facts.end_id)
            rows.append(TokenRow(ids, ((at, i), (again, i))))
        rows += [tokenizer.row(text) for text in ("", "no pseudo-word " * 20)]
        pseudo = torch.randn(150, facts.width, generator=torch.Generator().manual_seed(0)) * 0.05
        together, alone, plain = (pseudo.clone().requires_grad_() for _ in range(3))
        encoded = backbone.text.encode_text(rows, together)
        one_by_one = torch.cat([backbone.text.encode_text([row], alone) for row in rows])
        ids = torch.tensor([row.ids + (facts.end_id,) * (77 - len(row.ids)) for row in rows])
        slots = torch.tensor([(n, at, i) for n, row in enumerate(rows) for at, i in row.slots])
        embeddings = backbone._towers.embed_tokens(ids).index_put((slots[:, 0], slots[:, 1]), plain[slots[:, 2]])
        padded = backbone._towers.encode_tokens(embeddings, ids, torch.tensor([len(row.ids) - 1 for row in rows]))
        direction = torch.randn(padded.shape, generator=torch.Generator().manual_seed(1)) / len(padded)
        for embedded in (encoded, one_by_one, padded):
            (embedded * direction).sum().backward()
        for embedded, read in ((encoded, together), (one_by_one, alone)):
            torch.testing.assert_close(embedded, padded, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(read.grad, plain.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("text_cfg", [{"no_causal_mask": True}, {"scale_attn": True}])
def test_a_text_tower_of_another_form_is_read_by_the_library(text_cfg, tmp_path):
    (tmp_path / "cir-test-other.json").write_text(json.dumps({**CONFIG, "text_cfg": CONFIG["text_cfg"] | text_cfg}))
    open_clip.add_model_config(tmp_path)
    torch.manual_seed(0)
    model = open_clip.create_model("cir-test-other").eval()
    backbone = spec("open_clip:cir-test-other,pretrained=random")
    texts = ["a red dress", "striped shirt with buttons", "hat"]
    ours = backbone.text.encode_text([backbone.text.tokenizer.row(text) for text in texts])
    with torch.no_grad():
        torch.testing.assert_close(ours, model.encode_text(open_clip.tokenize(texts)), atol=1e-5, rtol=0)


def test_gradients_reach_pseudo_tokens_and_nothing_else(tiny):
    backbone = tiny.backbone
    pseudo = torch.zeros(1, backbone.text.facts.width, requires_grad=True)
    row = TokenRow((backbone.text.facts.start_id, backbone.text.facts.marker_id, backbone.text.facts.end_id), ((1, 0),))
    backbone.text.encode_text([row], pseudo).sum().backward()
    assert pseudo.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in backbone._towers.parameters())


def test_open_clip_text_and_pictures_match_the_librarys_own(small_open_clip):
    name, weights = small_open_clip
    backbone = spec(f"open_clip:{name},pretrained={weights},activation=gelu")
    model = open_clip.create_model(name, pretrained=str(weights)).eval()
    texts = ["a red dress", "striped shirt with buttons"]
    ours = backbone.text.encode_text([backbone.text.tokenizer.row(text) for text in texts])
    picture = Image.effect_noise((50, 40), 90).convert("RGB")
    _, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=str(weights))
    with torch.no_grad():
        torch.testing.assert_close(ours, model.encode_text(open_clip.tokenize(texts)), atol=1e-5, rtol=0)
        expected = model.encode_image(preprocess(picture)[None])
        torch.testing.assert_close(
            backbone.encode_images(backbone.preprocess(picture)[None]), expected, atol=1e-5, rtol=0
        )


def test_transformers_text_and_pictures_match_the_librarys_own(clip_folder):
    from transformers import CLIPModel

    backbone, model = spec(f"transformers:{clip_folder}"), CLIPModel.from_pretrained(clip_folder).eval()
    row = backbone.text.tokenizer.row("a red dress")
    pixels = backbone.preprocess(Image.effect_noise((50, 40), 90).convert("RGB"))[None]
    with torch.no_grad():
        out = model(input_ids=torch.tensor([row.ids]), pixel_values=pixels)
        text = model.text_projection(model.text_model(torch.tensor([row.ids])).pooler_output)
        image = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
    torch.testing.assert_close(backbone.text.encode_text([row]), text, atol=1e-5, rtol=0)
    torch.testing.assert_close(backbone.encode_images(pixels), image, atol=1e-5, rtol=0)
    assert out.logits_per_text.shape == (1, 1)


def test_sentence_transformers_clip_gives_its_inner_model(clip_folder, st_clip_folder):
    inner, direct = load(str(st_clip_folder), "cpu"), load(str(clip_folder), "cpu")
    assert inner.backbone.spec.loader == "sentence-transformers"
    np.testing.assert_allclose(inner.embed_texts(["a red dress"]), direct.embed_texts(["a red dress"]), atol=1e-6)
    picture = Image.effect_noise((50, 40), 90).convert("RGB")
    np.testing.assert_allclose(inner.embed_images([picture]), direct.embed_images([picture]), atol=1e-5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("open_clip:ViT-B-16-SigLIP,pretrained=random", "tokenizer of 'ViT-B-16-SigLIP' cannot be read"),
        ("open_clip:xlm-roberta-base-ViT-B-32,pretrained=random", "give a folder that holds them"),
        ("open_clip:coca_base,pretrained=random", "names no tokenizer"),
        ("open_clip:hf-hub:nobody/nothing", "cannot fetch the config"),
        ("open_clip:ViT-Q-99,pretrained=random", "no model"),
        ("open_clip:ViT-L-14,pretrained=openai", "quick_gelu"),
        ("open_clip:ViT-L-14-quickgelu,pretrained=openai,activation=gelu", "built with quick_gelu"),
        ("open_clip:ViT-B-32", "pretrained=TAG"),
        ("open_clip:ViT-B-32,pretrained=nosuch", "no such file"),
        ("open_clip:ViT-B-32,pretrained=random,colour=red", "no option 'colour'"),
        ("open_clip:ViT-B-32,pretrained", "no value"),
        ("keras:x", "no backbone loader"),
        ("tiny:nowhere.safetensors", "cannot be read"),
        ("transformers:/nowhere/at/all", "no CLIP model"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(text, words):
    with pytest.raises(ModelError, match=words):
        spec(text)


def test_a_local_weights_file_must_have_its_activation_said(small_open_clip, tmp_path):
    name, weights = small_open_clip
    with pytest.raises(ModelError, match="activation=quick_gelu"):
        spec(f"open_clip:{name},pretrained={weights}")
    assert spec(f"open_clip:{name}-quickgelu,pretrained={weights}").dim == 24
    broken = tmp_path / "broken.pt"
    broken.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="no weights file"):
        spec(f"open_clip:{name},pretrained={broken},activation=gelu")


def test_the_fingerprint_follows_the_weights(small_open_clip):
    name, _ = small_open_clip
    first, again, other = (spec(f"open_clip:{name},pretrained=random,seed={s}").fingerprint for s in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize(
    ("causal", "pooling", "cut"),
    [(True, "end", True), (False, "end", False), (True, "mean", False), (True, "last", False)],
)
def test_a_row_is_cut_where_the_tower_is_causal_and_pools_at_the_end_token(tiny, causal, pooling, cut):
    facts = replace(tiny.backbone.text.facts, causal=causal, pooling=pooling)
    assert facts.rows_may_be_cut == cut
    assert replace(facts, attends_padding=False).rows_may_be_cut == (pooling != "last")


class TestRows:
    """The tokenizer builds whole rows."""

    tokenizer = ClipTokenizer(10)

    def test_a_text_is_cut_to_the_context(self):
        short, long = self.tokenizer.row("a red dress"), self.tokenizer.row("red " * 20)
        assert (len(short.ids), short.cut, len(long.ids), long.cut) == (5, False, 10, True)
        assert {(row.ids[0], row.ids[-1]) for row in (short, long)} == {
            (self.tokenizer.start_id, self.tokenizer.end_id)
        }

    def test_markers_stand_by_position_and_never_melt_into_a_text(self):
        row = self.tokenizer.marked_row(["costs $", 1, "$ or", 0])
        assert row.slots == ((3, 1), (6, 0))
        assert [row.ids[at] for at, _ in row.slots] == [self.tokenizer.marker_id] * 2
        assert not row.cut

    def test_the_texts_that_may_lose_their_end_do_so_in_order(self):
        row = self.tokenizer.marked_row(["a photo of", 0, "red " * 7, "please do"], shorten=[2, 3])
        assert (len(row.ids), row.slots, row.cut) == (10, ((4, 0),), True)
        assert row.ids[-3:-1] == self.tokenizer.row("please do").ids[1:-1]
        with pytest.raises(RowTooLong) as caught:
            self.tokenizer.marked_row(["red " * 12, 0, "please"], shorten=[2])
        assert caught.value.excess == 1

    def test_a_row_without_a_rule_ends_where_the_context_does(self):
        row = self.tokenizer.marked_row(["red " * 7, 0, "and", 0])
        assert (len(row.ids), row.slots, row.cut) == (10, ((8, 0),), True)


class TestFingerprint:
    """Version 2 covers whatever changes a vector, and nothing else; one for pictures and one for texts."""

    def test_an_activation_that_the_weights_do_not_tell_makes_another(self, small_open_clip):
        name, weights = small_open_clip
        gelu, quick = (spec(f"open_clip:{name},pretrained={weights},activation={a}") for a in ("gelu", "quick_gelu"))
        row = gelu.text.tokenizer.row("a red dress")
        assert (gelu.text.encode_text([row]) - quick.text.encode_text([row])).abs().max() > 1e-4
        assert gelu.fingerprint != quick.fingerprint
        assert gelu.text.fingerprint != quick.text.fingerprint
        assert gelu.former_fingerprint == quick.former_fingerprint

    @pytest.mark.parametrize(
        ("side", "changed"),
        [
            ("vision_config", {"num_attention_heads": 4}),
            ("vision_config", {"hidden_act": "gelu"}),
            ("text_config", {"num_attention_heads": 4}),
            ("text_config", {"hidden_act": "gelu"}),
        ],
    )
    def test_each_part_follows_its_own_layers(self, clip_folder, tmp_path, side, changed):
        before = spec(f"transformers:{clip_folder}")
        copied = Path(shutil.copytree(clip_folder, tmp_path / "clip"))
        config = json.loads((copied / "config.json").read_text())
        config[side] |= changed
        (copied / "config.json").write_text(json.dumps(config))
        after = spec(f"transformers:{copied}")
        assert (before.fingerprint == after.fingerprint) == (side == "text_config")
        assert (before.text.fingerprint == after.text.fingerprint) == (side == "vision_config")
        assert before.former_fingerprint == after.former_fingerprint

    def test_the_tokenizer_and_the_row_belong_to_the_text_part(self, small_open_clip, monkeypatch):
        name, weights = small_open_clip
        named = f"open_clip:{name},pretrained={weights},activation=gelu"
        before, other = spec(named), spec(named)
        assert before.text.fingerprint
        monkeypatch.setattr(ClipTokenizer, "fingerprint", "another vocabulary")
        assert other.text.fingerprint != before.text.fingerprint
        assert other.fingerprint == before.fingerprint

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_the_precision_belongs_to_none(self, small_open_clip, dtype):
        name, weights = small_open_clip
        named = BackboneSpec.parse(f"open_clip:{name},pretrained={weights},activation=gelu")
        full, small = load_backbone(named, "cpu"), load_backbone(named, "cpu", dtype)
        names = ("fingerprint", "former_fingerprint")
        assert [getattr(full, name) for name in names] == [getattr(small, name) for name in names]
        assert full.text.fingerprint == small.text.fingerprint


class TestTargetPad:
    """SEARLE's preprocessing: pad towards a square until the sides' ratio is 1.25."""

    @pytest.mark.parametrize(
        ("size", "padded"), [((100, 100), (100, 100)), ((120, 100), (120, 100)), ((300, 100), (300, 240))]
    )
    def test_long_pictures_are_padded_with_black(self, size, padded):
        seen = []
        PadThen(1.25, seen.append)(Image.new("RGB", size, "white"))
        (image,) = seen
        assert image.size == padded
        assert image.getpixel((padded[0] // 2, padded[1] // 2)) == (255, 255, 255)
        assert (image.getpixel((0, 0)) == (0, 0, 0)) == (size != padded)

    def test_it_is_an_option_of_every_loader_and_part_of_the_picture_fingerprint(self, clip_folder, tiny):
        plain, padding = spec(f"transformers:{clip_folder}"), spec(f"transformers:{clip_folder},target_pad=1.25")
        wide = Image.new("RGB", (300, 100), "red")
        assert not torch.equal(plain.preprocess(wide), padding.preprocess(wide))
        assert plain.fingerprint != padding.fingerprint
        assert plain.text.fingerprint == padding.text.fingerprint
        assert spec("tiny:,target_pad=1.25").fingerprint != tiny.fingerprint

    @pytest.mark.parametrize("ratio", ["0.5", "wide", "nan", "inf", "-1"])
    def test_a_ratio_that_makes_no_sense_is_refused(self, ratio):
        with pytest.raises(ModelError, match=r"give the longest ratio of sides to keep, such as 1\.25"):
            spec(f"tiny:,target_pad={ratio}")


class TestForeignFolders:
    """A folder whose parts do not go together ends in a sentence when it is loaded."""

    @pytest.fixture
    def folder(self, clip_folder, tmp_path):
        return Path(shutil.copytree(clip_folder, tmp_path / "clip"))

    def test_a_tokenizer_with_ids_beyond_the_embeddings(self, folder):
        from transformers import CLIPTokenizer

        vocabulary = {"<|startoftext|>": 49406, "<|endoftext|>": 49407, "<pad>": 60_000}
        CLIPTokenizer(vocab=vocabulary, merges=[], pad_token="<pad>").save_pretrained(folder)
        with pytest.raises(ModelError, match="pads with id 60000, and the model has 49408 token embeddings"):
            spec(f"transformers:{folder}")

    def test_weights_without_a_tower(self, folder):
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        texts = {name: tensor for name, tensor in weights.items() if "vision" not in name and "visual" not in name}
        save_file(texts, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(CheckpointError, match=r"lack vis.* and \d+ more, so they are not a whole CLIPModel"):
            spec(f"transformers:{folder}")
        assert spec(f"transformers:{folder},tower=text").dim == 24

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ({"crop_size": 224}, "makes pictures of 224 pixels, and the model takes 32"),
            ({"size": {}}, "cannot be read"),
            ({"image_mean": [0.5]}, "must be three numbers each"),
            ({"image_std": [0, 0, 0]}, "std above 0"),
            ([], "cannot be read|no JSON object"),
            ("{", "no JSON object"),
        ],
    )
    def test_preprocessing_that_does_not_go_with_the_model(self, folder, content, says):
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / "preprocessor_config.json").write_text(text)
        with pytest.raises(ModelError, match=says):
            spec(f"transformers:{folder}")

    @pytest.mark.parametrize("text", ["", "[]", '{"model_type": "clip", "text_config": 3}', '{"model_type": "bert"}'])
    def test_an_odd_config(self, folder, text):
        (folder / "config.json").write_text(text)
        with pytest.raises(ModelError):
            spec(f"transformers:{folder}")

    def test_a_config_of_other_sizes_than_the_weights(self, folder):
        config = json.loads((folder / "config.json").read_text())
        config["text_config"]["hidden_size"] = 64
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match="cannot be loaded"):
            spec(f"transformers:{folder}")


def test_an_unknown_device_is_a_sentence():
    with pytest.raises(ModelError, match="try the device cpu"):
        pick_device("cuda:99")


class TestTokenizer:
    tokenizer = ClipTokenizer()

    @pytest.mark.parametrize(
        "text", ["a red dress", "T-shirt, size XL!", "50% off", "café — naïve", "don't", "$", "a $. b"]
    )
    def test_ids_are_open_clips(self, text):
        assert list(self.tokenizer.encode(text, 75).ids) == open_clip.tokenizer.SimpleTokenizer().encode(text)

    def test_special_tokens_in_a_text_stay_text(self):
        ids = self.tokenizer.encode("<end_of_text> <start_of_text> <|endoftext|>", 75).ids
        assert not {self.tokenizer.start_id, self.tokenizer.end_id} & set(ids)

    @pytest.mark.parametrize("text", ["a" * 1_000_000, "word " * 200_000, "裙" * 100_000, "!" * 100_000, "👗" * 50_000])
    def test_megabytes_of_text_are_cut_and_said_to_be(self, text):
        tokens = self.tokenizer.encode(text, 75)
        assert len(tokens.ids) <= 75
        assert tokens.cut

    def test_a_lone_surrogate_is_no_crash(self):
        assert self.tokenizer.encode("red \ud800 dress", 75).ids
