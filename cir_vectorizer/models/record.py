"""Records of model folders: the checked content of `model.json`, read without loading weights.

Imports no torch.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from cir_vectorizer.backbones import BackboneSpec
from cir_vectorizer.collections import ModelRecord
from cir_vectorizer.digests import PartsDigest
from cir_vectorizer.errors import ModelError, first_line
from cir_vectorizer.models import published
from cir_vectorizer.query import Options
from cir_vectorizer.query.takes import Takes
from cir_vectorizer.query.validation import first_invalid_field

if TYPE_CHECKING:
    from cir_vectorizer.backbones import Backbone

_INCIDENTAL = ("file", "source", "training")
"""Keys of a composer's record that change no vector."""
_DEFAULTS: TypeAdapter[dict[str, Options]] = TypeAdapter(dict[str, Options])
FILE = "model.json"
WITH_ADAPTER, WITH_DEFAULTS, WITH_LANGUAGES = 3, 4, 5
FORMAT = WITH_LANGUAGES
"""Latest version of model.json. Version 1 had one fingerprint for both encoders, computed in an older way; version 3
is a version 2 of which a composer has an adapter, version 4 one with default options, and version 5 one of which a composer
has prompts of its own by language: earlier releases would leave them out."""


@dataclass(frozen=True, kw_only=True)
class FolderRecord(ModelRecord):
    """The record of a model folder.

    Attributes:
        folder: path of the model folder.
        backbone: the spec that loads its backbone.
        token_width: width of the text tower's token embeddings.
        text_fingerprint: fingerprint of the text encoder; None in folders of release 0.1.0, which have one fingerprint
            for both encoders.
        mean_image_norm: mean length of unnormalised picture embeddings, if known.
        composers: JSON record of each composer, by name.
        default_composer: runs queries that name none.
        defaults: for composers, the options that queries get where they give none.
    """

    folder: Path
    backbone: BackboneSpec
    token_width: int
    text_fingerprint: str | None
    mean_image_norm: float | None
    composers: Mapping[str, Mapping[str, Any]]
    default_composer: str
    defaults: Mapping[str, Options]

    def is_of(self, backbone: "Backbone") -> bool:
        """Tell whether the folder was made for this backbone, that is, whether both encoders are the same."""
        if self.text_fingerprint is None:
            return self.fingerprint == backbone.former_fingerprint
        return (self.fingerprint, self.text_fingerprint) == (backbone.fingerprint, backbone.text.fingerprint)

    def differing(self, backbone: "Backbone") -> tuple[str, str]:
        """Return the recorded fingerprint and the backbone's own, for the encoder that differs."""
        if self.text_fingerprint is None:
            return self.fingerprint, backbone.former_fingerprint
        if self.fingerprint != backbone.fingerprint:
            return self.fingerprint, backbone.fingerprint
        return self.text_fingerprint, backbone.text.fingerprint


def folder_of(name: str) -> Path:
    """Return the path of a model's folder, which need not exist.

    That is the packaged folder, one in the store of downloaded models, or the name itself as a path.
    """
    if name == "tiny":
        return published.TINY_FOLDER
    return published.store() / name if name in published.PUBLISHED else Path(name)


def has_record(folder: Path) -> bool:
    """Tell whether a folder is a model folder of ours."""
    return (folder / FILE).is_file()


def check_nothing_lost(folder: Path, composer: str, beside: Path, state: str | None = None) -> None:
    """Check that a composer can be written into a folder without the loss of a composer that is there.

    Args:
        beside: the model folder, perhaps `folder` itself, whose other composers are written into `folder` too.
        state: name of the file from which a training of the composer is resumed.

    Raises:
        ModelError: a composer of the folder would be replaced or left out.
    """
    if not has_record(folder):
        return
    there = read_folder(folder)
    other = read_folder(beside) if has_record(beside) else None
    same = other and (other.fingerprint, other.text_fingerprint) == (there.fingerprint, there.text_fingerprint)
    kept = other.composers if other and same else {}
    lost = [
        name
        for name, entry in there.composers.items()
        if name == composer or entry["sha256"] != kept.get(name, {}).get("sha256")
    ]
    if not lost:
        return
    complete = there.composers[lost[0]].get("training", {}).get("complete", True)
    resumable = composer in lost and state is not None and (folder / state).is_file()
    raise ModelError(
        f"{folder} already holds {'a finished' if complete else 'an unfinished'} {' and '.join(lost)} over backbone "
        f"{there.backbone}, which would be lost; name another --out, or "
        + ("go on with its training by --resume, or " if resumable else "")
        + "replace it with --overwrite"
    )


def describe(name: str) -> FolderRecord:
    """Read the record of a model; loads no weights.

    Args:
        name: a model folder of ours, or a built-in name.

    Raises:
        ModelError: no such model; a published model that is not downloaded; or a bare backbone, which has no record.
    """
    folder = folder_of(name)
    if has_record(folder):
        return read_folder(folder, name)
    if name in published.PUBLISHED:
        raise ModelError(f"{name!r} is not fetched yet; run `cir-vectorizer models pull {name}`")
    raise ModelError(
        f"{name!r} is backbone {foreign_spec(name)} without a model folder, so what it is can only be told from its "
        "weights; load it, or make a folder of it with `cir-vectorizer train`"
    )


def read_folder(folder: Path, name: str | None = None) -> FolderRecord:
    """Read and check a folder's model.json.

    Args:
        name: the model's name; the folder's path if None.

    Raises:
        ModelError: as `read_record`.
    """
    record = read_record(folder)
    backbone = record["backbone"]
    return FolderRecord(
        str(folder) if name is None else name,
        backbone["fingerprint"],
        backbone["dim"],
        backbone.get("former_fingerprint", ""),
        folder=folder,
        backbone=BackboneSpec(backbone["loader"], backbone["name"], backbone["options"]),
        token_width=backbone["token_width"],
        text_fingerprint=backbone.get("text_fingerprint"),
        mean_image_norm=backbone.get("mean_image_norm"),
        composers=record["composers"],
        default_composer=record.get("default_composer") or "sum",
        defaults=read_defaults(folder, record),
    )


def read_record(folder: Path) -> dict[str, Any]:
    """Return the checked content of a folder's model.json.

    Raises:
        ModelError: the file is missing, is not JSON, or has a later format; or its default options are wrong.
    """
    path = folder / FILE
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
    read_defaults(folder, record)
    return record


def _check_record(record: dict[str, Any]) -> None:
    """Raise KeyError, TypeError or ValueError if a part is missing or has the wrong type."""
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


def read_defaults(folder: Path, record: Mapping[str, Any]) -> dict[str, Options]:
    """Return the default options of each composer that has some. Raises ModelError if they are wrong."""
    try:
        return _DEFAULTS.validate_python(record.get("defaults", {}), strict=True)
    except ValidationError as error:
        found = first_invalid_field(error)
        place = ".".join(["defaults", *map(str, found.path)])
        problem = "is no option" if found.unknown else found.problem
        raise ModelError(f"{folder / FILE}: {place}: {problem}; correct it or remove it") from error


def check_defaults(folder: Path, composer: str, options: Options, takes: Mapping[str, Takes]) -> None:
    """Check that a composer exists and takes its default options.

    Args:
        takes: for each composer of the model, the fields and options that it reads.

    Raises:
        ModelError: the folder has no such composer, or it does not take an option.
    """
    if composer not in takes:
        raise ModelError(f"{folder / FILE}: the model has no composer {composer!r}; it has {', '.join(takes)}")
    known = takes[composer].with_fusion().options
    if unknown := sorted(options.names() - set(known)):
        raise ModelError(
            f"{folder / FILE}: defaults.{composer}.{unknown[0]}: {composer!r} takes no such option; it takes "
            f"{', '.join(known) or 'none'}"
        )


def composer_digest(name: str, entry: Mapping[str, Any], defaults: Options) -> str:
    """Return the digest of all that tells a composer from another one over the same backbone (hex).

    It covers the composer's kind, its default options, and its record in model.json with the SHA-256 of the weights; not
    the name of the file and how it was trained. No file is read.

    Args:
        name: the composer's name.
        entry: its record in model.json; empty if it has no weights.
    """
    known = {"kind": name} | {key: value for key, value in entry.items() if key not in _INCIDENTAL}
    if text := known.get("text_backbone"):
        known["text_backbone"] = text.get("fingerprint") or text
    return PartsDigest("cir-vectorizer composer 1", _sorted_json(known), _sorted_json(defaults.to_json())).hexdigest()


def _sorted_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def spec_record(spec: BackboneSpec) -> dict[str, Any]:
    """Return a backbone's spec as model.json holds it."""
    return {"loader": spec.loader, "name": spec.name, "options": dict(spec.options)}


_LIBRARY_FILES = {
    "modules.json": "sentence-transformers",
    "open_clip_config.json": "open_clip",
    "config.json": "transformers",
}
"""Files by which a folder of a library is known, and its loader; the first that is there decides."""


def foreign_spec(name: str) -> BackboneSpec:
    """Return the backbone for a name that is neither a model folder of ours nor a built-in name.

    Raises:
        ModelError: the name is neither a folder of a known library nor `loader:name`.
    """
    folder = Path(name)
    if folder.is_dir():
        for file, loader in _LIBRARY_FILES.items():
            if (folder / file).is_file():
                return BackboneSpec(loader, str(folder.resolve()))
        raise ModelError(
            f"folder {name} holds no model: no model.json, {', '.join(_LIBRARY_FILES)}; point at a model folder"
        )
    if ":" in name:
        return BackboneSpec.parse(name)
    raise ModelError(
        f"no model {name!r}: no such folder, and the built-in names are {', '.join(published.names())}; "
        "backbones alone are written loader:name, for example open_clip:ViT-B-32,pretrained=openai"
    )


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
