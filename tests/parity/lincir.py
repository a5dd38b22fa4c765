"""LinCIR, SEARLE and Pic2Word: through the transformers and the open_clip backbone, with padded rows and with rows cut
after the end token, gradients included."""

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from cir_vectorizer.backbones import BackboneSpec, TokenRow
from cir_vectorizer.backbones import open_clip as open_clip_loader
from cir_vectorizer.backbones import transformers as transformers_loader
from cir_vectorizer.backbones.clip import ClipBackbone
from cir_vectorizer.composers.lincir import load_phi, prompt_row
from cir_vectorizer_trainer.phi.loss import self_masking_loss
from tests.parity.file import distance, part

BAR = 1e-5
"""Largest absolute difference allowed for each tensor."""
CPU = torch.device("cpu")


def transformers_backbone(config: dict[str, Any], weights: dict[str, Tensor]) -> ClipBackbone:
    text = CLIPTextConfig(
        hidden_size=config["hidden"],
        intermediate_size=weights["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=config["layers"],
        num_attention_heads=config["heads"],
        projection_dim=config["projection"],
        hidden_act=config["act"],
        max_position_embeddings=weights["text_model.embeddings.position_embedding.weight"].shape[0],
    )
    model = CLIPTextModelWithProjection(text)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    assert all("position_ids" in name for name in missing), missing
    return transformers_loader.from_model(BackboneSpec("transformers", "parity"), model, None, CPU, torch.float32)


def open_clip_backbone(config: dict[str, Any], weights: dict[str, Tensor]) -> ClipBackbone:
    width, heads = config["hidden"], config["heads"]
    fc1 = weights["text_model.encoder.layers.0.mlp.fc1.weight"]
    model_config = {
        "embed_dim": config["projection"],
        "quick_gelu": config["act"] == "quick_gelu",
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 64, "patch_size": 32},
        "text_cfg": {
            "width": width, "heads": heads, "layers": config["layers"], "mlp_ratio": fc1.shape[0] / width,
            "context_length": weights["text_model.embeddings.position_embedding.weight"].shape[0],
        },
    }  # fmt: skip
    model = open_clip.CLIP(**model_config)
    model.load_state_dict({**model.state_dict(), **to_open_clip(weights, config["layers"])})
    return open_clip_loader.from_model(BackboneSpec("open_clip", "parity"), model, model_config, CPU, torch.float32)


def to_open_clip(weights: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Convert a CLIP text tower from transformers' names and layouts to open_clip's."""
    out = {
        "token_embedding.weight": weights["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": weights["text_model.embeddings.position_embedding.weight"],
        "ln_final.weight": weights["text_model.final_layer_norm.weight"],
        "ln_final.bias": weights["text_model.final_layer_norm.bias"],
        "text_projection": weights["text_projection.weight"].T,
    }
    renamed = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
    }
    for i in range(layers):
        theirs, ours = f"text_model.encoder.layers.{i}.", f"transformer.resblocks.{i}."
        for kind in ("weight", "bias"):
            for old, new in renamed.items():
                out[f"{ours}{new}.{kind}"] = weights[f"{theirs}{old}.{kind}"]
            out[f"{ours}attn.in_proj_{kind}"] = torch.cat(
                [weights[f"{theirs}self_attn.{x}_proj.{kind}"] for x in "qkv"]
            )
    return out


def rows_of(ids: Tensor, backbone: ClipBackbone) -> list[TokenRow]:
    """Cut padded ids (n, length) after the first end token, with a slot for row i's pseudo-token at each marker."""
    facts, rows = backbone.text.facts, []
    for i, row in enumerate(ids.tolist()):
        kept = row[: row.index(facts.end_id) + 1]
        rows.append(TokenRow(tuple(kept), tuple((at, i) for at, x in enumerate(kept) if x == facts.marker_id)))
    return rows


def load_phi_file(weights: dict[str, Tensor], family: str, backbone: ClipBackbone) -> nn.Module:
    """Write a file in the published layout of `family` and read it with the real loader."""
    content = {
        "lincir": {"epoch": 1, "Phi": weights},
        "searle": {"Phi": weights},
        "pic2word": {"epoch": 1, "state_dict_img2text": {f"module.{name}": t for name, t in weights.items()}},
    }[family]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        torch.save(content, path)
        return load_phi(path, backbone).eval()


def differences(config: dict[str, Any], tensors: dict[str, Tensor]) -> Iterator[tuple[str, float]]:
    """Yield (name, largest absolute difference) for every recorded tensor and way of computing it."""
    weights = part(tensors, "text_model.")
    for library, build in (("transformers", transformers_backbone), ("open_clip", open_clip_backbone)):
        backbone = build(config, weights)
        for rows_are in ("cut", "padded"):
            backbone.text.facts = dataclasses.replace(backbone.text.facts, causal=rows_are == "cut")
            for name, difference in _compare(backbone, config, tensors):
                yield f"{library}, {rows_are} rows: {name}", difference


def _compare(backbone: ClipBackbone, config: dict[str, Any], tensors: dict[str, Tensor]) -> Iterator[tuple[str, float]]:
    rows = rows_of(tensors["compose.input_ids"], backbone)
    for caption, row in zip(config.get("captions", []), rows, strict=False):
        pieces = [piece for words in caption.split("$") for piece in (words, 0)][:-1]
        ours = prompt_row(backbone.text.tokenizer, pieces, 1, "")
        yield f"tokens of {caption[:40]!r}", float(ours.ids != row.ids)
    for family in ("lincir", "searle", "pic2word"):
        prefix = "pic2word." if family == "pic2word" else "phi."
        phi = load_phi_file(part(tensors, prefix), family, backbone)
        with torch.inference_mode():
            pseudo = phi(tensors["compose.image_embeds"])
            text = backbone.text.encode_text(rows, pseudo)
        if family == "pic2word":
            yield "pic2word compose.text_embeds", distance(text, tensors["compose.text_embeds_pic2word"])
        else:
            yield f"{family} compose.pseudo_tokens", distance(pseudo, tensors["compose.pseudo_tokens"])
            yield f"{family} compose.text_embeds", distance(text, tensors["compose.text_embeds"])
    phi = load_phi_file(part(tensors, "phi."), "lincir", backbone).requires_grad_(True)
    originals = backbone.text.encode_text(
        [TokenRow(row.ids) for row in rows_of(tensors["train.original_ids"], backbone)]
    )
    yield "train.original_embeds", distance(originals, tensors["train.original_embeds"])
    noised = originals + tensors["train.noise_scale"].reshape(-1, 1) * tensors["train.noise"]
    masked = rows_of(tensors["train.replaced_ids"], backbone)
    yield (
        "train.replaced_embeds",
        distance(backbone.text.encode_text(masked, phi(noised)), tensors["train.replaced_embeds"]),
    )
    loss = self_masking_loss(backbone, phi, masked, originals, noised)
    yield "train.loss", distance(loss.reshape(1), tensors["train.loss"])
    loss.backward()
    for name, parameter in phi.named_parameters():
        yield f"train.grad.{name}", distance(parameter.grad, tensors[f"train.grad.{name}"])
