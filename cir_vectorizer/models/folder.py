"""Model folders, and the vectorizer that one becomes.

A model folder holds `model.json` (format version, backbone, composers with their files and sha256) and
safetensors files. It is written file by file so that a reader never sees half a model: weights go under a
name that contains their hash, `model.json` is replaced last.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch

from cir_vectorizer.backbones import Backbone, BackboneSpec, load_backbone
from cir_vectorizer.collections import note_former
from cir_vectorizer.composers import Composer
from cir_vectorizer.composers.lincir import PIC2WORD_PROMPT, load_phi, save_phi
from cir_vectorizer.errors import BackboneMismatch, CheckpointError, ModelError, first_line
from cir_vectorizer.files import replace_file
from cir_vectorizer.models import published
from cir_vectorizer.models.vectorizer import Vectorizer

FORMAT = 2
"""Version of model.json: 1 had one fingerprint for both encoders, of an earlier form."""


def load(name: str, device: str | None = None, dtype: torch.dtype = torch.float32) -> Vectorizer:
    """Load a model.

    Args:
        name: a model folder of ours, a built-in name (`cir-vectorizer models list`), a folder of transformers,
            sentence-transformers or open_clip, or `loader:name,key=value`.
        device: for example `cuda:1`; the best one present if None.
        dtype: of the backbone's weights; float32 unless on a GPU.

    Raises:
        ModelError: says what was looked for and what to do.
    """
    folder = folder_of(name)
    if name in published.PUBLISHED and not (folder / "model.json").is_file():
        pull(name)
    if (folder / "model.json").is_file():
        return _load_folder(folder, name, device, dtype)
    backbone = load_backbone(_foreign_spec(name), device, dtype)
    return _assemble(name, backbone, {}, folder, None)


def folder_of(name: str) -> Path:
    """Where the model folder of that name is or would be: the packaged one, the store's, or the folder itself."""
    if name == "tiny":
        return published.TINY_FOLDER
    return published.store() / name if name in published.PUBLISHED else Path(name)


def pull(name: str) -> Path:
    """Fetch a published model and make it a model folder in the store.

    Raises:
        ModelError: no such name, or no network; then it says which file to put where.
    """
    files = published.fetch(name)
    entry = published.PUBLISHED[name]
    folder = files[0].parent
    source = folder if entry.composer == "compodiff" else files[0]
    text = BackboneSpec.parse(entry.text_backbone) if entry.text_backbone else None
    return import_checkpoint(source, BackboneSpec.parse(entry.backbone), folder, text)


def import_checkpoint(source: Path, spec: BackboneSpec, folder: Path, text_spec: BackboneSpec | None = None) -> Path:
    """Make a model folder of a published checkpoint and its backbone; a folder's other composers stay.

    Args:
        source: a file of Φ (LinCIR, SEARLE, Pic2Word), or a folder of CompoDiff: config.json and weights.
        spec: the backbone of the index.
        text_spec: CompoDiff: the backbone whose text states it reads, where that is another.

    Raises:
        CheckpointError: the files do not fit the backbones.
        ModelError: the folder holds composers over another backbone.
    """
    backbone = load_backbone(spec)
    if (folder / "model.json").is_file() and not _is_of(there := read_record(folder)["backbone"], backbone):
        other = BackboneSpec(there["loader"], there["name"], there["options"])
        raise ModelError(f"{folder} holds composers over backbone {other}, and this one is {spec}; name another --out")
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
    text_backbone = load_backbone(text_spec, backbone.device) if text_spec else None
    CompoDiff(backbone, network, text_backbone)
    record["network"] = network.config.to_record()
    if text_backbone is not None:
        record["text_backbone"] = text_backbone_record(text_backbone)
    save(folder, backbone, {"compodiff": (record, lambda path: save_network(path, network))}, beside=folder)
    return folder


def save(
    folder: Path,
    backbone: Backbone,
    composers: Mapping[str, tuple[Mapping[str, Any], Callable[[Path], None]]],
    beside: Path | None = None,
) -> None:
    """Write a model folder; a reader sees the old model or the new one, never a mixture.

    Args:
        folder: made if missing.
        backbone: recorded by its spec and fingerprint; its weights are not copied.
        composers: by name, a JSON record (prompt, training, …) and a function that writes the weights to a path.
        beside: a model folder over the same backbone, perhaps this one: its other composers and its default stay.

    Raises:
        ModelError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        entries, default = _kept(beside, backbone, composers, folder)
        for name, (record, write) in composers.items():
            draft = folder / f".{name}.safetensors"
            write(draft)
            draft.chmod(0o644)
            digest = _sha256(draft)
            file = f"{name}-{digest[:12]}.safetensors"
            os.replace(draft, folder / file)
            entries[name] = {**record, "file": file, "sha256": digest}
        model = {
            "format": FORMAT,
            "backbone": {
                **spec_record(backbone.spec),
                "dim": backbone.dim,
                "token_width": backbone.text.width,
                "mean_image_norm": backbone.mean_image_norm,
                "fingerprint": backbone.fingerprint,
                "text_fingerprint": backbone.text_fingerprint,
                "former_fingerprint": backbone.former_fingerprint,
            },
            "composers": entries,
            "default_composer": default or next(iter(entries)),
        }
        replace_file(folder / "model.json", (json.dumps(model, indent=2, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise ModelError(f"model folder {folder} cannot be written: {error.strerror or error}") from error
    kept = {entry["file"] for entry in entries.values()}
    for name in entries:
        for path in folder.glob(f"{name}-*.safetensors"):
            if path.name not in kept:
                with contextlib.suppress(OSError):  # an old file left behind harms nothing
                    path.unlink()


def _kept(
    beside: Path | None, backbone: Backbone, replaced: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], str | None]:
    """The entries of a folder's composers that are not replaced, their files copied, and its default composer."""
    if beside is None or not (beside / "model.json").is_file():
        return {}, None
    record = read_record(beside)
    if not _is_of(record["backbone"], backbone):
        return {}, None
    entries = {name: entry for name, entry in record["composers"].items() if name not in replaced}
    for entry in entries.values():
        if not (folder / entry["file"]).exists():
            draft = folder / f".{entry['file']}"
            shutil.copyfile(beside / entry["file"], draft)
            os.replace(draft, folder / entry["file"])
    return entries, record.get("default_composer")


def read_record(folder: Path) -> dict[str, Any]:
    """The checked content of a folder's model.json.

    Raises:
        ModelError: missing, not JSON, or of a later format.
    """
    path = folder / "model.json"
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] > FORMAT:
            raise ModelError(
                f"{path} has format {record['format']}, this version reads up to {FORMAT}; update cir-vectorizer"
            )
        _check_record(record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} is no model record ({type(error).__name__}: {first_line(error)}); point at a folder that "
            "`cir-vectorizer train` wrote"
        ) from error
    return record


def _check_record(record: dict[str, Any]) -> None:
    """Raise an error of Python's own where a part is missing or of another kind."""
    backbone = record["backbone"]
    for name in ("loader", "name", "fingerprint"):
        if not isinstance(backbone[name], str):
            raise TypeError(f"backbone.{name} is no text")
    for name in ("dim", "token_width"):
        if not isinstance(backbone[name], int):
            raise TypeError(f"backbone.{name} is no whole number")
    if not all(isinstance(value, str) for value in backbone["options"].values()):
        raise TypeError("backbone.options are not all texts")
    for name, entry in record["composers"].items():
        if not (isinstance(entry["file"], str) and isinstance(entry["sha256"], str)):
            raise TypeError(f"file or sha256 of composer {name!r} is no text")
        if Path(entry["file"]).name != entry["file"]:
            raise ValueError(f"composer {name!r} has its file {entry['file']!r} outside the folder")


def _load_folder(folder: Path, name: str, device: str | None, dtype: torch.dtype) -> Vectorizer:
    record = read_record(folder)
    wanted = record["backbone"]
    backbone = load_backbone(BackboneSpec(wanted["loader"], wanted["name"], wanted["options"]), device, dtype)
    if not _is_of(wanted, backbone):
        noted, here = _differing(wanted, backbone)
        raise BackboneMismatch(
            f"{folder} was trained over backbone {backbone.spec} with fingerprint {noted[:12]}, but its "
            f"weights here have {here[:12]}; get the weights it was trained with, or train again"
        )
    if "text_fingerprint" not in wanted:
        note_former(str(folder), wanted["fingerprint"])
    if backbone.mean_image_norm is None:
        backbone.mean_image_norm = wanted.get("mean_image_norm")
    for composer, entry in record["composers"].items():
        path = folder / entry["file"]
        if not path.is_file():
            raise CheckpointError(f"{path} of composer {composer!r} is missing; copy the whole model folder")
        if _sha256(path) != entry["sha256"]:
            raise CheckpointError(
                f"{path} of composer {composer!r} is damaged (its sha256 is not the recorded one); copy it again"
            )
    return _assemble(name, backbone, record["composers"], folder, record.get("default_composer"))


def _is_of(record: Mapping[str, Any], backbone: Backbone) -> bool:
    """Tell whether a record names this backbone, both of its encoders."""
    if "text_fingerprint" not in record:
        return bool(record["fingerprint"] == backbone.former_fingerprint)
    return (record["fingerprint"], record["text_fingerprint"]) == (backbone.fingerprint, backbone.text_fingerprint)


def _differing(record: Mapping[str, Any], backbone: Backbone) -> tuple[str, str]:
    """The fingerprint that a record notes and the backbone's own, of the encoder that is another one."""
    if "text_fingerprint" not in record:
        return record["fingerprint"], backbone.former_fingerprint
    if record["fingerprint"] != backbone.fingerprint:
        return record["fingerprint"], backbone.fingerprint
    return record["text_fingerprint"], backbone.text_fingerprint


def spec_record(spec: BackboneSpec) -> dict[str, Any]:
    """A backbone's spec as model.json holds it."""
    return {"loader": spec.loader, "name": spec.name, "options": dict(spec.options)}


def text_backbone_record(backbone: Backbone) -> dict[str, Any]:
    """A text encoder of another backbone as a composer's record holds it."""
    return {**spec_record(backbone.spec), "fingerprint": backbone.text_fingerprint}


def _assemble(
    name: str, backbone: Backbone, records: Mapping[str, Any], folder: Path, default: str | None
) -> Vectorizer:
    kinds = composer_kinds()
    composers: dict[str, Composer] = {}
    for composer, record in records.items():
        kind = record.get("kind", composer)
        if kind not in kinds:
            raise ModelError(
                f"{folder} needs composer {kind!r}, which is not installed; installed are {', '.join(sorted(kinds))}"
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
    return Vectorizer(name, backbone, composers, default or "sum")


def composer_kinds() -> dict[str, type[Composer]]:
    """Return the installed composers by name: our own and those of other packages.

    Raises:
        ModelError: an entry point of the group cannot be imported, or names no `Composer`.
    """
    kinds: dict[str, type[Composer]] = {}
    for point in entry_points(group="cir_vectorizer.composers"):
        try:
            kind = point.load()
        except Exception as error:  # anything that a package of somebody else does while it is imported
            raise ModelError(
                f"composer {point.name!r} ({point.value}) cannot be imported ({type(error).__name__}: "
                f"{first_line(error)}); update or uninstall its package"
            ) from error
        if not (isinstance(kind, type) and issubclass(kind, Composer)):
            raise ModelError(
                f"composer {point.name!r} ({point.value}) is no subclass of cir_vectorizer.composers.Composer; update or "
                "uninstall its package"
            )
        kinds[point.name] = kind
    return kinds


def _foreign_spec(name: str) -> BackboneSpec:
    folder = Path(name)
    if folder.is_dir():
        for file, loader in (("modules.json", "sentence-transformers"), ("config.json", "transformers")):
            if (folder / file).is_file():
                return BackboneSpec(loader, str(folder.resolve()))
        raise ModelError(
            f"folder {name} holds no model: no model.json, config.json or modules.json; point at a model folder"
        )
    if ":" in name:
        return BackboneSpec.parse(name)
    raise ModelError(
        f"no model {name!r}: no such folder, and the built-in names are {', '.join(published.names())}; "
        "backbones alone are written loader:name, for example open_clip:ViT-B-32,pretrained=openai"
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
