"""Loader of model folders and bare backbones: it makes a vectorizer of each."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from cir_vectorizer.backbones import Backbone, BackboneSpec, load_backbone, pick_device
from cir_vectorizer.backbones.precision import resolve
from cir_vectorizer.collections import note_former
from cir_vectorizer.composers import Composer
from cir_vectorizer.composers.kinds import composer_kinds
from cir_vectorizer.errors import BackboneMismatch, CheckpointError, ModelError, first_line
from cir_vectorizer.models import int8, published
from cir_vectorizer.models.record import (
    FolderRecord,
    check_defaults,
    folder_of,
    foreign_spec,
    has_record,
    read_folder,
    sha256,
)
from cir_vectorizer.models.vectorizer import Vectorizer
from cir_vectorizer.models.writing import pull
from cir_vectorizer.query import Options


def load(
    name: str,
    device: str | None = None,
    dtype: torch.dtype | str = torch.float32,
    parts: Collection[str] | None = None,
) -> Vectorizer:
    """Load a model.

    Args:
        name: a model folder of ours, a built-in name (`cir-vectorizer models list`), a folder of transformers,
            sentence-transformers or open_clip, or `loader:name,key=value`.
        device: for example `cuda:1`; the best available one if None.
        dtype: precision of the backbone's weights, as PyTorch's data type or as a name: `auto`, `float32`, …
        parts: names of the composers whose weights are loaded: None for all, `()` for none. The files of the others
            may be missing. Composers without weights are always loaded; `sum`, one of them, is the default if the
            model's own default is not loaded.

    Raises:
        ModelError: the model cannot be found or read; the message says where it was looked for and what to do. With the
            precision `int8`, also if its int8 copy is not checked on this machine.
        CheckpointError: a file of a part is missing or damaged.
    """
    chosen = pick_device(device)
    folder = folder_of(name)
    if name in published.PUBLISHED and not has_record(folder):
        pull(name)
    if has_record(folder):
        return _load_folder(read_folder(folder, name), chosen, dtype, parts)
    backbone = _load_backbone(name, foreign_spec(name), chosen, dtype)
    return _assemble(name, backbone, _chosen({}, parts, name), folder, "sum", {})


def _load_folder(
    record: FolderRecord, device: torch.device, dtype: torch.dtype | str, parts: Collection[str] | None
) -> Vectorizer:
    folder = record.folder
    entries = _chosen(record.composers, parts, record.name)
    backbone = _load_backbone(record.name, record.backbone, device, dtype)
    if not record.is_of(backbone):
        noted, here = record.differing(backbone)
        raise BackboneMismatch(
            f"{folder} was trained over backbone {backbone.spec} with fingerprint {noted[:12]}, but its "
            f"weights here have {here[:12]}; get the weights it was trained with, or train again"
        )
    if record.text_fingerprint is None:
        note_former(str(folder), record.fingerprint)
    if backbone.mean_image_norm is None:
        backbone.mean_image_norm = record.mean_image_norm
    for composer, entry in entries.items():
        path = folder / entry["file"]
        if not path.is_file():
            raise CheckpointError(f"{path} of composer {composer!r} is missing; copy the whole model folder")
        if sha256(path) != entry["sha256"]:
            raise CheckpointError(
                f"{path} of composer {composer!r} is damaged (its sha256 is not the recorded one); copy it again"
            )
    left_out = record.composers.keys() - entries.keys()
    default = "sum" if record.default_composer in left_out else record.default_composer
    defaults = {composer: options for composer, options in record.defaults.items() if composer not in left_out}
    return _assemble(record.name, backbone, entries, folder, default, defaults)


def _load_backbone(name: str, spec: BackboneSpec, device: torch.device, dtype: torch.dtype | str) -> Backbone:
    if dtype == "int8":
        return int8.checked(load_backbone(spec, device, resolve("auto", device)), name)
    return load_backbone(spec, device, resolve(dtype, device) if isinstance(dtype, str) else dtype)


def _chosen(
    composers: Mapping[str, Mapping[str, Any]], parts: Collection[str] | None, name: str
) -> dict[str, Mapping[str, Any]]:
    """Return the records of the composers in `parts`; of all if None."""
    if parts is None:
        return dict(composers)
    if unknown := [part for part in parts if part not in composers]:
        raise ModelError(
            f"model {name!r} has no part {unknown[0]!r}; name one of its composers with weights: {', '.join(composers) or 'none'}"
        )
    return {composer: entry for composer, entry in composers.items() if composer in parts}


def _assemble(
    name: str,
    backbone: Backbone,
    records: Mapping[str, Mapping[str, Any]],
    folder: Path,
    default: str,
    defaults: Mapping[str, Options],
) -> Vectorizer:
    kinds = composer_kinds()
    composers: dict[str, Composer] = {}
    for composer, record in records.items():
        kind = record.get("kind", composer)
        if kind not in kinds:
            raise ModelError(
                f"{folder} needs composer {kind!r}, which is not installed (installed are {', '.join(sorted(kinds))}); install "
                "its package"
            )
        try:
            composers[composer] = kinds[kind].load(record, folder, backbone)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(
                f"{folder}/model.json: the record of composer {composer!r} cannot be read ({type(error).__name__}: "
                f"{first_line(error)}); copy the whole model folder again"
            ) from error
    for kind, cls in kinds.items():
        if kind not in composers and cls.weightless:
            composers[kind] = cls.load({}, folder, backbone)
    for composer, options in defaults.items():
        check_defaults(folder, composer, options, {each: composers[each].takes for each in composers})
    return Vectorizer(
        name,
        backbone,
        composers,
        default,
        defaults=defaults,
        records={kind: records.get(kind, {}) for kind in composers},
    )
