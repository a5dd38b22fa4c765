"""Writer of model folders: the one place that writes `model.json`.

Files are written in an order that never shows a reader half a model: the names of weights contain their hash, and
`model.json` is replaced last.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cir_vectorizer.backbones import Backbone, BackboneSpec, TextEncoder, load_backbone
from cir_vectorizer.composers.kinds import composer_kinds
from cir_vectorizer.composers.lincir import PIC2WORD_PROMPT, load_phi, save_phi
from cir_vectorizer.errors import ModelError
from cir_vectorizer.files import replace_file
from cir_vectorizer.models import published
from cir_vectorizer.models.record import (
    FILE,
    WITH_ADAPTER,
    WITH_DEFAULTS,
    WITH_LANGUAGES,
    check_defaults,
    check_nothing_lost,
    describe,
    folder_of,
    has_record,
    read_defaults,
    read_folder,
    read_record,
    sha256,
    spec_record,
)
from cir_vectorizer.query import Options


def save(
    folder: Path,
    backbone: Backbone,
    composers: Mapping[str, tuple[Mapping[str, Any], Callable[[Path], None]]],
    beside: Path | None = None,
) -> None:
    """Write a model folder; a reader sees the old model or the new one, never a mixture.

    Args:
        folder: created if missing.
        backbone: recorded by its spec and fingerprint; its weights are not copied.
        composers: by name, a JSON record (prompt, training, …) and a function that writes the weights to a path.
        beside: a model folder over the same backbone, perhaps `folder` itself, whose other composers and default
            composer are kept. So are the default options of composers that are not replaced.

    Raises:
        ModelError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        entries, default, defaults = _kept(beside, backbone, composers, folder)
        for name, (record, write) in composers.items():
            draft = folder / f".{name}.safetensors"
            write(draft)
            draft.chmod(0o644)
            digest = sha256(draft)
            file = f"{name}-{digest[:12]}.safetensors"
            os.replace(draft, folder / file)
            entries[name] = {**record, "file": file, "sha256": digest}
        model = {
            "format": _format(entries, defaults),
            "backbone": {
                **spec_record(backbone.spec),
                "dim": backbone.dim,
                "token_width": backbone.text.facts.width,
                "mean_image_norm": backbone.mean_image_norm,
                "fingerprint": backbone.fingerprint,
                "text_fingerprint": backbone.text.fingerprint,
                "former_fingerprint": backbone.former_fingerprint,
            },
            "composers": entries,
            "default_composer": default or next(iter(entries)),
            **({"defaults": defaults} if defaults else {}),
        }
        _write(folder, model)
    except OSError as error:
        raise ModelError(
            f"model folder {folder} cannot be written ({error.strerror or error}); give another folder"
        ) from error
    kept = {entry["file"] for entry in entries.values()}
    for name in entries:
        for path in folder.glob(f"{name}-*.safetensors"):
            if path.name not in kept:
                with contextlib.suppress(OSError):  # an old file left behind harms nothing
                    path.unlink()


def set_defaults(model: str | Path, composer: str, options: Options | Mapping[str, Any]) -> None:
    """Make a composer the default of a model folder, and these options the defaults of its queries; no weights change.

    A reader sees the old record or the new one.

    Args:
        model: a model folder; a built-in model stays as it is published.
        composer: a composer of the model, with or without weights.
        options: as a query's `options`; they replace earlier defaults of this composer, and an empty object removes them.

    Raises:
        ModelError: the model is built in, has no such composer or no folder, or the composer does not take an option.
    """
    folder = own_folder(model)
    record = read_record(folder)
    entries, kinds = record["composers"], composer_kinds()
    takes = {name: kind.takes for name, kind in kinds.items() if kind.weightless}
    takes |= {name: kinds[kind].takes for name in entries if (kind := entries[name].get("kind", name)) in kinds}
    if not isinstance(options, Options):
        options = read_defaults(folder, {"defaults": {composer: options}})[composer]
    check_defaults(folder, composer, options, takes)
    defaults = {name: given for name, given in record.get("defaults", {}).items() if name != composer}
    if given := options.to_json():
        defaults[composer] = given
    record |= {"default_composer": composer, "defaults": defaults}
    if defaults or record["format"] >= WITH_DEFAULTS:
        record["format"] = _format(entries, defaults)
    if not defaults:
        del record["defaults"]
    try:
        _write(folder, record)
    except OSError as error:
        raise ModelError(
            f"model folder {folder} cannot be written ({error.strerror or error}); give another folder"
        ) from error


def own_folder(model: str | Path) -> Path:
    """Return the folder of a model that may have defaults.

    Raises:
        ModelError: the model is built in or has no folder.
    """
    if folder_of(str(model)).resolve() in [folder_of(name).resolve() for name in published.names()]:
        raise ModelError(
            f"model {str(model)!r} is built in and cannot have defaults of yours; make a folder of your own first with "
            "`cir-vectorizer train` or `cir-vectorizer models import`"
        )
    return describe(str(model)).folder


def _write(folder: Path, record: Mapping[str, Any]) -> None:
    replace_file(folder / FILE, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())


def _format(entries: Mapping[str, Any], defaults: Mapping[str, Any]) -> int:
    """Return the earliest version of model.json that has these parts."""
    parts = {key for entry in entries.values() for key in entry}
    if parts & {"language", "prompts"}:
        return WITH_LANGUAGES
    if defaults:
        return WITH_DEFAULTS
    return WITH_ADAPTER if "adapter" in parts else WITH_ADAPTER - 1


def _kept(
    beside: Path | None, backbone: Backbone, replaced: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], str | None, dict[str, Any]]:
    """Copy the composers of `beside` that are not replaced; return their entries, the default composer and the defaults.

    Composers whose file is missing are left out.
    """
    if beside is None or not has_record(beside):
        return {}, None, {}
    record = read_folder(beside)
    if not record.is_of(backbone):
        return {}, None, {}
    entries = {}
    for name, entry in record.composers.items():
        file, there = folder / entry["file"], beside / entry["file"]
        if name in replaced or not (file.exists() or there.exists()):
            continue
        entries[name] = dict(entry)
        if not file.exists():
            draft = folder / f".{entry['file']}"
            shutil.copyfile(there, draft)
            os.replace(draft, file)
    lost = record.composers.keys() - entries.keys() - replaced.keys()
    gone = lost | replaced.keys()
    defaults = {name: options.to_json() for name, options in record.defaults.items() if name not in gone}
    return entries, None if record.default_composer in lost else record.default_composer, defaults


def text_encoder_record(encoder: TextEncoder) -> dict[str, Any]:
    """Return the entry of a composer's record for a text encoder that belongs to another backbone."""
    return {**spec_record(encoder.spec), "fingerprint": encoder.fingerprint}


def pull(name: str) -> Path:
    """Download a published model and make it a model folder in the store.

    Raises:
        ModelError: there is no such name, or no network; then the message says which file to put where.
    """
    files = published.fetch(name)
    entry = published.PUBLISHED[name]
    folder = files[0].parent
    source = folder if entry.composer == "compodiff" else files[0]
    text = BackboneSpec.parse(entry.text_backbone) if entry.text_backbone else None
    return import_checkpoint(source, BackboneSpec.parse(entry.backbone), folder, text, overwrite=True)


def import_checkpoint(
    source: Path, spec: BackboneSpec, folder: Path, text_spec: BackboneSpec | None = None, overwrite: bool = False
) -> Path:
    """Make a model folder from a published checkpoint and its backbone; the folder's other composers are kept.

    Args:
        source: a file of Φ (LinCIR, SEARLE, Pic2Word), or a folder of CompoDiff: config.json and weights.
        spec: the backbone of the index.
        text_spec: for CompoDiff, the backbone whose text states it reads, if it is another one.
        overwrite: replace such a composer in the folder, and composers there over another backbone.

    Raises:
        CheckpointError: the files do not fit the backbones.
        ModelError: without `overwrite`, the folder holds such a composer, or composers over another backbone.
    """
    backbone = load_backbone(spec)
    if not overwrite and has_record(folder):
        if not (there := read_folder(folder)).is_of(backbone):
            raise ModelError(
                f"{folder} holds composers over backbone {there.backbone}, and this one is {spec}; name another --out, "
                "or replace them with --overwrite"
            )
        check_nothing_lost(folder, "compodiff" if source.is_dir() else "lincir", beside=folder)
    record: dict[str, Any] = {"source": source.name}
    if not source.is_dir():
        phi = load_phi(source, backbone)
        if hasattr(phi, "fc_out"):
            record["prompt"] = PIC2WORD_PROMPT
        save(folder, backbone, {"lincir": (record, lambda path: save_phi(path, phi))}, beside=folder)
        return folder
    from cir_vectorizer.composers.compodiff.checkpoint import load_network, save_network
    from cir_vectorizer.composers.compodiff.composer import CompoDiff

    network = load_network(source)
    text = load_backbone(text_spec, backbone.device).text if text_spec else None
    CompoDiff(backbone, network, text)
    record["network"] = network.config.to_record()
    if text is not None:
        record["text_backbone"] = text_encoder_record(text)
    save(folder, backbone, {"compodiff": (record, lambda path: save_network(path, network))}, beside=folder)
    return folder
