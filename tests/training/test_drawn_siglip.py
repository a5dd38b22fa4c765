"""`examples/drawn_siglip`: its tokenizer, and a few steps of its model's training, loaded again as open_clip loads models."""

import math

import open_clip
import pytest
import torch
from open_clip.tokenizer import HFTokenizer, canonicalize_text

from examples.demo.catalog import SEEN
from examples.drawn_siglip import make_model
from examples.drawn_siglip.tokenizer import common_words, make_tokenizer

CONTEXT = 64


@pytest.fixture(scope="module")
def texts():
    return make_model.write_texts(SEEN[:6], 3, seed=0)


@pytest.fixture(scope="module")
def tokenizer(texts):
    return make_tokenizer([*texts, *make_model.general_lines()], make_model.IDS, CONTEXT)


def test_words_are_one_token_and_anything_else_is_spelled_in_bytes(tokenizer):
    assert tokenizer.tokenize("this dress is blue instead of striped") == [
        f"▁{word}" for word in "this dress is blue instead of striped".split()
    ]
    ids = tokenizer("größe 猫").input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "größe 猫"


def test_the_name_of_a_byte_in_a_text_is_plain_text(tokenizer):
    assert tokenizer.convert_tokens_to_ids("<0x41>") not in tokenizer("<0x41>").input_ids


def test_common_words_begin_with_the_most_frequent():
    words = list(common_words(50))
    assert len(set(words)) == 50
    assert {"the", "and", "is"} <= set(words)


def test_texts_name_seen_products_and_come_in_the_order_of_the_rows(texts):
    assert len(texts) == 6 * 2 * 3
    assert all(SEEN[0].colour in text for text in texts[:3])


def test_a_trained_folder_is_one_that_open_clip_loads(tmp_path, texts, tokenizer, capsys):
    tokenizer.save_pretrained(tmp_path)
    reader = HFTokenizer(str(tmp_path), context_length=CONTEXT, clean="canonicalize")
    world = make_model.make_world(SEEN[:6], 2, texts, reader, seed=0)
    assert world.pixels.shape == (6, 2, 64, 64, 3)
    assert world.rows.shape == (6, 2, 3, CONTEXT)
    assert torch.equal(world.rows[1, 1, 2], reader(texts[11])[0])
    model, config = make_model.build(len(tokenizer), seed=0)
    losses = make_model.train(model, world, steps=3, batch=4, lr=1e-3, seed=0)
    assert all(map(math.isfinite, losses))
    assert "R@1 in the batch" in capsys.readouterr().out
    make_model.finish(model.eval(), world)
    make_model.save(tmp_path, model, tokenizer, config)
    assert (tmp_path / "open_clip_model.safetensors").stat().st_size < 10_000_000

    loaded, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    assert isinstance(loaded, open_clip.CustomTextCLIP)
    rows = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(["A red T-shirt!"])
    assert rows.shape == (1, CONTEXT)
    assert rows[0].tolist()[:3] == tokenizer(canonicalize_text("A red T-shirt!")).input_ids[:3]
    pixels = preprocess(make_model.draw_catalog_picture((0, SEEN[0])))[None]
    with torch.no_grad():
        for ours, theirs in (
            (model.encode_text(rows), loaded.encode_text(rows)),
            (model.encode_image(pixels), loaded.encode_image(pixels)),
        ):
            assert torch.isfinite(theirs).all()
            torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0.02)

    found = make_model.caption_recall(tmp_path, torch.device("cpu"), make_model.draw_catalog(60), count=40)
    assert set(found) == {"R@1", "R@10", "R@1 of held-out targets"}


def test_unused_tokens_get_the_mean_embedding_and_embeddings_their_length(texts, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    reader = HFTokenizer(str(tmp_path), context_length=CONTEXT, clean="canonicalize")
    world = make_model.make_world(SEEN[:6], 1, texts, reader, seed=0)
    model = make_model.build(len(tokenizer), seed=0)[0].eval()
    make_model.finish(model, world)
    used = world.rows.unique().long()
    unused = tokenizer.convert_tokens_to_ids("<0x41>")
    weight = model.text.token_embedding.weight
    torch.testing.assert_close(weight[unused], weight[used].mean(0))
    with torch.no_grad():
        length = model.encode_text(world.rows[:, 0, 0].long()).norm(dim=-1).mean().item()
    assert length == pytest.approx(make_model.NORM, rel=0.05)
