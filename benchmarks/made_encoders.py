"""Tokenizers and text configs for encoders whose own cannot be fetched without a network: small, trained on a few lines.

`fill_hub` writes them into a cache of the model hub, under the names that open_clip's configs ask for.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    M2M100Config,
    MT5Config,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

TEXTS = [
    "a photo of a red dress with long sleeves",
    "Striped T-Shirt, size XL!",
    "the same bag - but in leather & without a logo",
    "",
    "blue",
    "sneakers " * 60,
    "ein Foto von einem roten Kleid mit langen Ärmeln",
    "Größe 42, nicht gestreift",
    "Übergangsjacke für Damen, wasserdicht",
    "une photo d'une robe rouge à manches longues",
    "le même sac, mais en cuir et sans logo",
    "chaussures d’été pour l'enfant",
    "una foto de un vestido rojo de mangas largas",
    "¿la misma camisa, pero más pequeña?",
    "zapatillas de niño, número 33",
    "фото красного платья с длинными рукавами",
    "та же сумка, но кожаная",
    "长袖红色连衣裙的照片",
    "同一个包，但是皮革的",
    "アニメ柄のTシャツ 👕",
]
"""Twenty texts in six languages and a line of Japanese, one of them empty, one longer than any context."""

WIDTH = 64
UNKNOWN = "<unk>"


def _unigram(special: list[str], prefix: list[str], suffix: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=600, special_tokens=special, unk_token=UNKNOWN, show_progress=False)
    return _trained(tokenizer, trainer, prefix, suffix)


def _bytes(special: list[str], prefix: list[str], suffix: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    return _trained(tokenizer, trainer, prefix, suffix)


def _pieces(special: list[str], prefix: list[str], suffix: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    return _trained(tokenizer, trainer, prefix, suffix)


def _trained(tokenizer: Tokenizer, trainer: Any, prefix: list[str], suffix: list[str]) -> Tokenizer:
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    around = [(token, tokenizer.token_to_id(token)) for token in dict.fromkeys([*prefix, *suffix])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join([*prefix, "$A", *suffix]), special_tokens=around
    )
    return tokenizer


_Made = tuple[Callable[[list[str], list[str], list[str]], Tokenizer], list[str], list[str], list[str], dict[str, str]]

TOKENIZERS: dict[str, _Made] = {
    "siglip": (_unigram, [UNKNOWN, "</s>"], [], ["</s>"], {"pad_token": "</s>", "eos_token": "</s>", "unk_token": UNKNOWN}),
    "gemma": (
        _bytes, ["<pad>", "<eos>", "<bos>", UNKNOWN], [], ["<eos>"],
        {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"},
    ),
    "mt5": (_unigram, ["<pad>", "</s>", UNKNOWN], [], ["</s>"], {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": UNKNOWN}),
    "roberta": (
        _bytes, ["<s>", "<pad>", "</s>", UNKNOWN, "<mask>"], ["<s>"], ["</s>"],
        {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "sep_token": "</s>", "cls_token": "<s>"},
    ),
    "xlm": (
        _unigram, ["<s>", "<pad>", "</s>", UNKNOWN], ["<s>"], ["</s>"],
        {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "sep_token": "</s>", "cls_token": "<s>"},
    ),
    "nllb": (
        _unigram, ["<s>", "<pad>", "</s>", UNKNOWN, "eng_Latn"], ["eng_Latn"], ["</s>"],
        {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>"},
    ),
    "bert": (
        _pieces, ["[PAD]", UNKNOWN, "[CLS]", "[SEP]"], ["[CLS]"], ["[SEP]"],
        {"pad_token": "[PAD]", "unk_token": UNKNOWN, "cls_token": "[CLS]", "sep_token": "[SEP]"},
    ),
}  # fmt: skip
"""Tokenizers by kind: how it is made, its special tokens, those before and after a text, and their names."""


def write_tokenizer(kind: str, folder: Path) -> int:
    """Write a tokenizer's files into `folder`; return the number of its ids."""
    make, special, prefix, suffix, names = TOKENIZERS[kind]
    made = make(special, prefix, suffix)
    PreTrainedTokenizerFast(tokenizer_object=made, **names).save_pretrained(folder)
    return int(made.get_vocab_size())


def small_config(kind: str, vocabulary: int, width: int = WIDTH) -> PretrainedConfig:
    """Return the config of a text encoder of two layers."""
    common = {"vocab_size": vocabulary, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": width}
    if kind == "mt5":
        return MT5Config(
            vocab_size=vocabulary, d_model=width, d_kv=width // 4, d_ff=2 * width, num_layers=2, num_heads=4,
            pad_token_id=0,
        )  # fmt: skip
    if kind == "nllb":
        return M2M100Config(
            vocab_size=vocabulary, d_model=width, encoder_layers=2, decoder_layers=1, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=2 * width, decoder_ffn_dim=2 * width, pad_token_id=1,
        )  # fmt: skip
    if kind == "bert":
        return BertConfig(**common, intermediate_size=2 * width, max_position_embeddings=128)
    cls = RobertaConfig if kind == "roberta" else XLMRobertaConfig
    return cls(**common, intermediate_size=2 * width, max_position_embeddings=130, pad_token_id=1, type_vocab_size=1)


_REPOSITORIES = {
    "roberta-base": ("roberta", 768),
    "xlm-roberta-base": ("xlm", 768),
    "xlm-roberta-large": ("xlm", 1024),
    "google/mt5-base": ("mt5", 768),
    "google/mt5-xl": ("mt5", 2048),
    "facebook/nllb-200-distilled-600M": ("nllb", 1024),
    "facebook/nllb-200-distilled-1.3B": ("nllb", 1024),
    "facebook/xlm-v-base": ("xlm", None),
    "bert-base-uncased": ("bert", None),
}
"""Hub repositories that open_clip's configs name, with the kind of their tokenizer and the width of their encoder."""


def fill_hub(cache: Path, names: list[str]) -> None:
    """Write repositories of the hub into its local cache: a tokenizer, and a small config where a tower needs one."""
    for name in names:
        kind, width = _REPOSITORIES.get(name, ("gemma" if "SigLIP2" in name else "siglip", None))
        folder = cache / f"models--{name.replace('/', '--')}"
        snapshot = folder / "snapshots" / "made"
        snapshot.mkdir(parents=True, exist_ok=True)
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text("made")
        vocabulary = write_tokenizer(kind, snapshot)
        if width:
            small_config(kind, vocabulary, width).save_pretrained(snapshot)
        else:
            (snapshot / "config.json").write_text(json.dumps({"model_type": "bert"}))


_SIGLIP = {
    "context_length": 64, "hf_tokenizer_name": "made", "tokenizer_kwargs": {"clean": "canonicalize"},
    "no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6},
}  # fmt: skip
OPEN_CLIP: dict[str, tuple[str | None, dict[str, Any]]] = {
    "clip": (None, {"context_length": 77, "vocab_size": 49408}),
    "pe": (None, {"context_length": 32, "vocab_size": 49408}),
    "mobileclip": (None, {"context_length": 77, "vocab_size": 49408, "no_causal_mask": True}),
    "coca": (None, {"context_length": 76, "vocab_size": 49408, "embed_cls": True, "output_tokens": True}),
    "siglip": ("siglip", _SIGLIP),
    "siglip-16": ("siglip", {**_SIGLIP, "context_length": 16, "proj_type": "none"}),
    "siglip2": ("gemma", {**_SIGLIP, "act_kwargs": {"approximate": "tanh"}}),
    "clipa": (
        "bert",
        {
            "context_length": 32, "hf_tokenizer_name": "made", "tokenizer_kwargs": {"strip_sep_token": True},
            "pool_type": "last", "no_causal_mask": True,
        },
    ),
    "worldwide": ("xlm", {"context_length": 77, "hf_tokenizer_name": "made", "pool_type": "eos", "eos_id": 2}),
    "worldwide-mt5": (
        "mt5",
        {
            "context_length": 77, "hf_tokenizer_name": "made", "pool_type": "eos", "eos_id": 1,
            "tokenizer_kwargs": {"clean": "canonicalize"},
        },
    ),
    "roberta": ("roberta", {"hf_model_name": "made", "hf_tokenizer_name": "made", "hf_pooler_type": "mean_pooler"}),
    "xlm-roberta": ("xlm", {"hf_model_name": "made", "hf_tokenizer_name": "made", "hf_proj_type": "mlp"}),
    "mt5": ("mt5", {"hf_model_name": "made", "hf_tokenizer_name": "made", "hf_pooler_type": "mean_pooler"}),
    "bert": ("bert", {"hf_model_name": "made", "hf_tokenizer_name": "made", "hf_proj_type": "linear"}),
    "nllb": (
        "nllb",
        {
            "hf_model_name": "made", "hf_tokenizer_name": "made", "hf_proj_type": "linear",
            "hf_pooler_type": "cls_pooler",
        },
    ),
}  # fmt: skip
"""Kinds of text towers in open_clip: kind of the tokenizer (None for CLIP's) and the config of the tower."""


def write_open_clip(kind: str, folder: Path, side: int = 32) -> Path:
    """Write a small open_clip model at random weights into `folder`, as open_clip writes one for the hub."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer, text = OPEN_CLIP[kind]
    sizes = {"width": WIDTH, "heads": 4, "layers": 2}
    if tokenizer:
        vocabulary = write_tokenizer(tokenizer, folder)
        if "hf_model_name" in text:
            sizes = {}
            small_config(tokenizer, vocabulary).save_pretrained(folder)
        else:
            sizes["vocab_size"] = vocabulary
    config: dict[str, Any] = {
        "embed_dim": WIDTH if text.get("proj_type") == "none" or kind in ("roberta", "mt5") else 48,
        "vision_cfg": {"image_size": side, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {**sizes, **text},
        "custom_text": kind not in ("clip", "worldwide"),
    }
    if kind == "coca":
        config["vision_cfg"]["output_tokens"] = True
        config["multimodal_cfg"] = {"context_length": 76, "width": WIDTH, "heads": 4, "layers": 1}
    whole = {"model_cfg": config, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(whole))
    torch.manual_seed(0)
    save_file(library_model(folder).state_dict(), folder / "open_clip_model.safetensors")
    return folder


def library_model(folder: Path) -> Any:
    """Return open_clip's own model of a folder that `write_open_clip` wrote."""
    text = open_clip.get_model_config(f"local-dir:{folder}")["text_cfg"]
    if "hf_model_name" in text:
        text |= {"hf_model_name": str(folder), "hf_model_pretrained": False}
    return open_clip.create_model(f"local-dir:{folder}", pretrained_text=False, text_cfg=text).eval()


_SMALL = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 2 * WIDTH}
_VISION = {**_SMALL, "image_size": 32, "patch_size": 8}
TRANSFORMERS = {
    "metaclip_2": "xlm",
    "siglip": "siglip",
    "siglip2": "gemma",
    "chinese_clip": "bert",
    "altclip": "xlm",
    "vision-text-dual-encoder": "xlm",
}
"""Kinds of models of the transformers library, by `model_type`, with the kind of their tokenizer."""


def write_transformers(kind: str, folder: Path) -> Path:
    """Write a small model of the transformers library at random weights into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {"vocab_size": write_tokenizer(TRANSFORMERS[kind], folder)}
    if kind == "vision-text-dual-encoder":
        encoder = small_config("xlm", ids["vocab_size"])
        config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
            transformers.ViTConfig(**_VISION), encoder, projection_dim=48
        )
    else:
        cls = transformers.AutoConfig.for_model(kind).__class__
        text = {
            "metaclip_2": {**_SMALL, **ids, "max_position_embeddings": 77, "eos_token_id": 2, "pad_token_id": 1},
            "siglip": {**_SMALL, **ids, "max_position_embeddings": 64, "projection_size": WIDTH},
            "siglip2": {**_SMALL, **ids, "max_position_embeddings": 64, "projection_size": WIDTH},
            "chinese_clip": {**_SMALL, **ids, "max_position_embeddings": 128, "pad_token_id": 0},
            "altclip": {**_SMALL, **ids, "max_position_embeddings": 130, "pad_token_id": 1, "project_dim": 40},
        }[kind]
        vision = {**_SMALL, "num_patches": 16, "patch_size": 8} if kind == "siglip2" else _VISION
        config = cls(text_config=text, vision_config=vision, projection_dim=48)
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    preprocessing = {"size": {"height": 32, "width": 32}, "image_mean": half, "image_std": half, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return folder
