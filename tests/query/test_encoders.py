"""Text encoders of every kind: our rows give the vectors of the library's own tower."""

import json
import pickle
from contextlib import contextmanager

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer
from transformers import AutoModel, AutoTokenizer, SiglipTokenizer
from transformers.models.siglip2.image_processing_siglip2 import convert_image_to_patches

from benchmarks.made_encoders import (
    OPEN_CLIP,
    TEXTS,
    TRANSFORMERS,
    library_model,
    small_config,
    write_open_clip,
    write_tokenizer,
    write_transformers,
)
from cir_vectorizer.backbones import BackboneSpec, hf_tokenizer, load_backbone
from cir_vectorizer.errors import ModelError
from cir_vectorizer.models import load

PIECES = ["a photo of ", 0, " that is red, and like ", 1]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a function that writes a small open_clip model of a kind, once."""
    root = tmp_path_factory.mktemp("encoders")
    return lambda kind: root / kind if (root / kind).is_dir() else write_open_clip(kind, root / kind)


@contextmanager
def replaced(module, rows, pseudo_tokens, shift=(0,) * 9):
    """Let an embedding module give pseudo-tokens at the slots of the rows that it reads next, `shift` places later."""

    def put(_module, _inputs, embeddings):
        embeddings = embeddings.clone()
        for n, row in enumerate(rows):
            for at, which in row.slots:
                embeddings[n, shift[n] + at] = pseudo_tokens[which]
        return embeddings

    handle = module.register_forward_hook(put)
    yield
    handle.remove()


def padded(rows, facts):
    padding = [(facts.pad_id,) * (facts.context_length - len(row.ids)) for row in rows]
    pairs = zip(padding, (row.ids for row in rows), strict=True)
    return torch.tensor([pads + ids if facts.pads_left else ids + pads for pads, ids in pairs])


@torch.no_grad()
@pytest.mark.parametrize("kind", OPEN_CLIP)
def test_open_clip_texts_pictures_and_pseudo_tokens(folders, kind):
    folder = folders(kind)
    backbone, library = load(str(folder), "cpu").backbone, library_model(folder)
    text = backbone.text
    rows = [text.tokenizer.row(each) for each in TEXTS]
    ids = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    if kind not in ("pe", "clip"):  # CLIP's rows may differ by spelled special tokens only, which these texts lack
        assert torch.equal(padded(rows, text.facts), ids)
    torch.testing.assert_close(text.encode_text(rows), library.encode_text(ids, normalize=False), atol=1e-5, rtol=1e-5)
    marked = [text.tokenizer.marked_row(PIECES), *rows[:3], text.tokenizer.marked_row([0, TEXTS[5]], shorten=[1])]
    pseudo = torch.randn(2, text.facts.width, generator=torch.Generator().manual_seed(0)) * 0.05
    inside = getattr(library, "text", library)
    table = inside.transformer.get_input_embeddings() if hasattr(inside, "pooler") else inside.token_embedding
    with replaced(table, marked, pseudo):
        theirs = library.encode_text(padded(marked, text.facts), normalize=False)
    torch.testing.assert_close(text.encode_text(marked, pseudo), theirs, atol=1e-5, rtol=1e-5)
    assert all(slots for slots in (marked[0].slots, marked[-1].slots))
    pixels = torch.stack([backbone.preprocess(Image.effect_noise((50, 40), 90).convert("RGB")) for _ in range(2)])
    torch.testing.assert_close(backbone.encode_images(pixels), library.encode_image(pixels, normalize=False))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["siglip", "siglip2", "clipa", "worldwide", "roberta", "mt5", "nllb"])
def test_a_batch_of_mixed_lengths_gives_what_each_row_gives_alone(folders, kind):
    text = load(str(folders(kind)), "cpu").backbone.text
    rows = [text.tokenizer.row(each) for each in TEXTS]
    alone = torch.cat([text.encode_text([row]) for row in rows])
    torch.testing.assert_close(text.encode_text(rows), alone, atol=1e-5, rtol=1e-5)


def attention(kind, ids, facts):
    """Return the attention mask that the library's tokenizer gives; SigLIP's gives none."""
    return {} if kind.startswith("siglip") else {"attention_mask": (ids != facts.pad_id).long()}


@torch.no_grad()
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_transformers_texts_pictures_and_pseudo_tokens(tmp_path, kind):
    folder = write_transformers(kind, tmp_path / kind)
    backbone, library = load(str(folder), "cpu").backbone, AutoModel.from_pretrained(folder).eval()
    text = backbone.text
    rows = [text.tokenizer.row(each) for each in TEXTS]
    tokenizer, length = AutoTokenizer.from_pretrained(folder), text.facts.context_length
    ids = tokenizer(TEXTS, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    assert torch.equal(padded(rows, text.facts), ids)
    theirs = library.get_text_features(ids, **attention(kind, ids, text.facts)).pooler_output
    torch.testing.assert_close(text.encode_text(rows), theirs, atol=1e-5, rtol=1e-5)
    marked = [text.tokenizer.marked_row(PIECES), *rows[:3]]
    pseudo = torch.randn(2, text.facts.width, generator=torch.Generator().manual_seed(0)) * 0.05
    ids = padded(marked, text.facts)
    shift = [length - len(row.ids) if text.facts.pads_left else 0 for row in marked]
    with replaced(library.text_model.get_input_embeddings(), marked, pseudo, shift):
        theirs = library.get_text_features(ids, **attention(kind, ids, text.facts)).pooler_output
    torch.testing.assert_close(text.encode_text(marked, pseudo), theirs, atol=1e-5, rtol=1e-5)
    picture = Image.effect_noise((50, 40), 90).convert("RGB")
    pixels = backbone.preprocess(picture)[None]
    asked = {"pixel_values": pixels}
    if kind == "siglip2":
        patches = convert_image_to_patches(pixels[0], 8)
        asked = {
            "pixel_values": patches[None],
            "pixel_attention_mask": torch.ones(1, len(patches)),
            "spatial_shapes": torch.tensor([[4, 4]]),
        }
    torch.testing.assert_close(backbone.encode_images(pixels), library.get_image_features(**asked).pooler_output)
    assert (backbone.dim, len(backbone.text.fingerprint)) == (theirs.shape[1], 64)


def test_padding_stands_where_the_tokenizer_puts_it(tmp_path):
    folder = write_transformers("siglip2", tmp_path / "siglip2")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    vectors = {}
    for side in ("left", "right"):
        (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "padding_side": side}))
        text = load(str(folder), "cpu").backbone.text
        assert text.facts.pads_left == (side == "left")
        vectors[side] = text.encode_text([text.tokenizer.row("blue")])
    assert not torch.allclose(vectors["left"], vectors["right"])


class TestTextEncoderBesidePictures:
    """A sentence-transformers text encoder in the space of another model's pictures."""

    @pytest.fixture(scope="class")
    def saved(self, tmp_path_factory, st_clip_folder):
        """Return folders of a multilingual text encoder and of the CLIP whose space it is in."""
        root = tmp_path_factory.mktemp("multilingual")
        inner = root / "inner"
        small_config("xlm", write_tokenizer("xlm", inner))
        AutoModel.from_config(small_config("xlm", len(AutoTokenizer.from_pretrained(inner)))).save_pretrained(inner)
        torch.manual_seed(0)
        parts = [
            Transformer(str(inner), max_seq_length=32),
            Pooling(64, "mean"),
            Dense(64, 24, bias=False, activation_function=torch.nn.Tanh()),
        ]
        SentenceTransformer(modules=parts, device="cpu").save(str(root / "texts"))
        return root / "texts", st_clip_folder

    def test_texts_are_the_librarys(self, saved):
        texts, clip = saved
        model = load(f"sentence-transformers:{texts},pictures={clip}", "cpu")
        theirs = SentenceTransformer(str(texts), device="cpu").encode(TEXTS, convert_to_tensor=True)
        text = model.backbone.text
        ours = text.encode_text([text.tokenizer.row(each) for each in TEXTS])
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        assert text.facts.context_length == 32
        picture = Image.effect_noise((50, 40), 90).convert("RGB")
        alone = load(str(clip), "cpu")
        np.testing.assert_allclose(model.embed_images([picture]), alone.embed_images([picture]), atol=1e-5)
        assert model.backbone.fingerprint == alone.backbone.fingerprint

    def test_pictures_must_be_named_and_fit(self, saved):
        texts, clip = saved
        for text, words in (
            (f"sentence-transformers:{texts}", "reads texts only; add pictures=NAME"),
            (f"sentence-transformers:{texts},pictures={texts}", "encodes no pictures"),
            (f"sentence-transformers:{clip},pictures={clip}", "encodes pictures itself"),
        ):
            with pytest.raises(ModelError, match=words):
                load(text, "cpu")


@pytest.mark.parametrize("kind", ["siglip", "roberta", "worldwide", "coca"])
def test_gradients_reach_the_pseudo_tokens(folders, kind):
    text = load(str(folders(kind)), "cpu").backbone.text
    pseudo = torch.zeros(1, text.facts.width, requires_grad=True)
    text.encode_text([text.tokenizer.marked_row(["a photo of", 0])], pseudo).square().sum().backward()
    assert pseudo.grad.abs().max() > 0


class TestTokenizer:
    """Rows of the transformers library's tokenizers."""

    def test_special_tokens_in_a_text_stay_text(self, folders):
        for kind, spelled in (("siglip", "</s>"), ("siglip2", "<eos>"), ("roberta", "<s>"), ("clipa", "[CLS]")):
            tokenizer = load(str(folders(kind)), "cpu").backbone.text.tokenizer
            ends = {*tokenizer.before, *tokenizer.after, tokenizer.pad_id}
            assert not ends & set(tokenizer.encode(f"a {spelled} dress", 50).ids), kind

    def test_a_dollar_sign_in_a_text_is_no_marker(self, folders):
        tokenizer = load(str(folders("siglip2")), "cpu").backbone.text.tokenizer
        row = tokenizer.marked_row(["costs $", 1, "$ or", 0])
        assert [which for _, which in row.slots] == [1, 0]
        assert [row.ids[at] for at, _ in row.slots] == [tokenizer.marker_id] * 2

    def test_a_long_prompt_is_cut_to_a_short_context_and_says_so(self, folders):
        tokenizer = load(str(folders("clipa")), "cpu").backbone.text.tokenizer
        row = tokenizer.marked_row(["a photo of", 0, "that is " + "red " * 60], shorten=[2])
        assert (len(row.ids), row.cut, len(row.slots)) == (32, True, 1)

    def test_it_travels_to_other_processes(self, folders):
        tokenizer = load(str(folders("siglip")), "cpu").backbone.text.tokenizer
        copy = pickle.loads(pickle.dumps(tokenizer))
        assert [copy.row(text) for text in TEXTS] == [tokenizer.row(text) for text in TEXTS]
        assert copy.fingerprint == tokenizer.fingerprint

    def test_what_it_decodes_reads_like_the_text(self, folders):
        tokenizer = load(str(folders("siglip")), "cpu").backbone.text.tokenizer
        assert tokenizer.decode(tokenizer.row("a photo of a red dress").ids) == "a photo of a red dress"

    def test_lone_surrogates_and_very_long_texts_are_read(self, folders):
        tokenizer = load(str(folders("siglip")), "cpu").backbone.text.tokenizer
        assert tokenizer.row("\ud800 red").ids
        assert tokenizer.row("x" * 1_000_000).cut


class TestSentencePiece:
    """SigLIP with the tokenizer of its own release, a SentencePiece model."""

    @pytest.fixture
    def folder(self, tmp_path):
        sentencepiece = pytest.importorskip("sentencepiece")
        folder = write_transformers("siglip", tmp_path / "siglip")
        for file in folder.glob("tokenizer*"):
            file.unlink()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(text.lower() for text in TEXTS * 3 if text),
            model_prefix=str(folder / "spiece"),
            vocab_size=200,
            hard_vocab_limit=False,
            character_coverage=0.98,
            pad_id=-1,
            bos_id=-1,
            eos_id=1,
            unk_id=0,
            minloglevel=2,
        )
        SiglipTokenizer(str(folder / "spiece.model"), model_max_length=64).save_pretrained(folder)
        return folder

    @torch.no_grad()
    def test_texts_are_the_librarys(self, folder):
        text, library = load(str(folder), "cpu").backbone.text, AutoModel.from_pretrained(folder).eval()
        ids = AutoTokenizer.from_pretrained(folder)(
            TEXTS, padding="max_length", max_length=64, truncation=True, return_tensors="pt"
        ).input_ids
        assert torch.equal(padded([text.tokenizer.row(each) for each in TEXTS], text.facts), ids)
        ours = text.encode_text([text.tokenizer.row(each) for each in TEXTS])
        torch.testing.assert_close(ours, library.get_text_features(ids).pooler_output, atol=1e-5, rtol=1e-5)

    def test_without_its_library_the_sentence_names_it(self, folder, monkeypatch):
        monkeypatch.setattr(hf_tokenizer, "find_spec", lambda name: None)
        monkeypatch.setattr(
            AutoTokenizer, "from_pretrained", lambda name: (_ for _ in ()).throw(ValueError("needs it"))
        )
        with pytest.raises(ModelError, match="pip install sentencepiece"):
            load(str(folder), "cpu")


class TestRefusals:
    """Files that do not fit are named, with the remedy."""

    def refused(self, folder, words):
        with pytest.raises(ModelError, match=words):
            load_backbone(BackboneSpec("open_clip", str(folder)), "cpu")

    def test_a_tokenizer_of_another_model(self, folders, tmp_path):
        folder = write_open_clip("siglip", tmp_path / "siglip")
        (folder / "tokenizer.json").write_bytes((folders("siglip2") / "tokenizer.json").read_bytes())
        (folder / "tokenizer_config.json").write_bytes((folders("siglip2") / "tokenizer_config.json").read_bytes())
        self.refused(folder, "token embeddings; put the tokenizer files that belong to the model into its folder")

    @pytest.mark.parametrize("damage", ["missing", "cut"])
    def test_a_tokenizer_that_cannot_be_read(self, tmp_path, damage):
        folder = write_open_clip("siglip", tmp_path / "siglip")
        file = folder / "tokenizer.json"
        if damage == "cut":
            file.write_text(file.read_text()[:1000])
        else:
            file.unlink()
        self.refused(folder, "tokenizer of .* put the tokenizer files that belong to the model into its folder")

    def test_a_damaged_config(self, tmp_path):
        folder = write_open_clip("siglip", tmp_path / "siglip")
        (folder / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 8}}')
        self.refused(folder, "lacks model_cfg.text_cfg")
        (folder / "open_clip_config.json").write_text("{")
        self.refused(folder, "cannot be read")

    def test_weights_of_another_model(self, folders, tmp_path):
        folder = write_open_clip("siglip", tmp_path / "siglip")
        weights = folder / "open_clip_model.safetensors"
        weights.write_bytes((folders("roberta") / weights.name).read_bytes())
        self.refused(folder, "weights in .* cannot be loaded")

    def test_an_option_that_the_folder_answers_itself(self, folders):
        with pytest.raises(ModelError, match="leave out activation"):
            load_backbone(BackboneSpec("open_clip", str(folders("clip")), {"activation": "gelu"}), "cpu")
