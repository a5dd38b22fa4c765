"""The benchmark of MiniLM, on a random BERT of its width: texts, crops, and the folder that it writes."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.tokenizer import HFTokenizer
from safetensors.torch import load_file, save_file
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertModel, BertTokenizerFast

from benchmarks import minilm_shop

TEXTS = ["a red shirt for men", "shirt", "a blue dress for women that is long"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    words = BertWordPieceTokenizer()
    words.train_from_iterator(TEXTS * 5, vocab_size=100, min_frequency=1, show_progress=False)
    BertTokenizerFast(tokenizer_object=words._tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": minilm_shop.DIM, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    BertModel(BertConfig(vocab_size=words.get_vocab_size(), **size)).save_pretrained(folder)
    return folder


def test_a_text_gets_the_mean_of_its_tokens_whatever_stands_beside_it(bert: Path) -> None:
    tokenizer, model = HFTokenizer(str(bert)).tokenizer, BertModel.from_pretrained(bert)
    embedded = minilm_shop.embed_texts(bert, TEXTS)
    for text, vector in zip(TEXTS, embedded, strict=True):
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state
        torch.testing.assert_close(vector, states[0].mean(dim=0), atol=1e-5, rtol=0)


def test_crops_hold_the_photos_own_colours() -> None:
    photos = torch.tensor([0, 90, 255], dtype=torch.uint8)[:, None, None, None].expand(3, 3, 112, 112)
    cut = minilm_shop.crops(photos, torch.Generator().manual_seed(0))
    assert cut.shape == (3, 3, minilm_shop.SIDE, minilm_shop.SIDE)
    expected = minilm_shop.normalised(photos[:, :, :1, :1].float()).expand_as(cut)
    torch.testing.assert_close(cut, expected, atol=1e-4, rtol=0)


def test_the_folder_holds_both_towers_and_all_that_reads_texts(bert: Path, tmp_path: Path) -> None:
    smallest = {"layers": 1, "width": 64, "heads": 1, "vocab_size": 1}
    visual = open_clip.CLIP(minilm_shop.DIM, minilm_shop.VISION, smallest).visual
    weights, folder = tmp_path / "visual.safetensors", tmp_path / "clip"
    save_file({name: tensor.half() for name, tensor in visual.state_dict().items()}, weights)
    minilm_shop.write(bert, weights, folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    assert config["model_cfg"] == minilm_shop.CONFIG
    assert config["preprocess_cfg"]["interpolation"] == "bicubic"
    text = {**config["model_cfg"]["text_cfg"], "hf_model_name": str(folder), "hf_model_pretrained": False}
    model = open_clip.CustomTextCLIP(minilm_shop.DIM, config["model_cfg"]["vision_cfg"], text).eval()
    model.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
    with torch.no_grad():
        embedded = model.encode_text(HFTokenizer(str(folder), context_length=minilm_shop.CONTEXT)(TEXTS))
    torch.testing.assert_close(embedded, minilm_shop.embed_texts(bert, TEXTS), atol=1e-5, rtol=0)


def test_a_sample_of_the_titles_is_the_same_each_time(tmp_path: Path) -> None:
    titles = [f"red shirt {number}" for number in range(100)]
    drawn, path = minilm_shop.sampled(titles, 10, tmp_path)
    assert len(set(drawn)) == 10
    assert set(drawn) < set(titles)
    assert path.read_text().splitlines() == drawn == minilm_shop.sampled(titles, 10, tmp_path)[0]
