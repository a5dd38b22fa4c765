"""Picture encoders in int8: exported to ONNX Runtime, quantised, cached, and checked against float32 on real pictures.

A copy lies in a folder of the user's cache, whose name is a digest of the picture encoder's fingerprint and of the
versions that made it. The folder also records the checks that the copy has passed; a copy without one is not loaded.
Matrix products run in int8 with a scale for each output channel and for each batch; all else stays in float32.
"""

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cir_vectorizer import extras
from cir_vectorizer.backbones import Backbone
from cir_vectorizer.backbones.clip import ClipBackbone
from cir_vectorizer.digests import PartsDigest
from cir_vectorizer.errors import ModelError, first_line
from cir_vectorizer.files import cache_folder, replace_file
from cir_vectorizer.models.vectorizer import Vectorizer, Vectors

FORMAT = "cir-vectorizer int8 1"
TOP = 10
LEAST_OVERLAP = 0.99
"""Least share of the nearest pictures in float32 that must be nearest in int8 too."""
FEWEST_PICTURES = 50
"""Fewest pictures of a check: among fewer, the nearest are nearly all pictures."""
_MODEL, _CHECKS = "pictures.onnx", "checks.json"


class Int8Backbone:
    """A backbone whose picture encoder runs in int8; its text encoder stays that of `backbone`."""

    dtype = torch.int8

    def __init__(self, backbone: Backbone, folder: Path) -> None:
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # host threads need the cores
        self._session: Any = onnxruntime.InferenceSession(
            str(folder / _MODEL), options, providers=["CPUExecutionProvider"]
        )
        self._backbone = backbone
        self.spec = backbone.spec
        self.dim = backbone.dim
        self.text = backbone.text
        self.mean_image_norm = backbone.mean_image_norm
        self.device = backbone.device

    @property
    def fingerprint(self) -> str:
        return self._backbone.fingerprint

    @property
    def former_fingerprint(self) -> str:
        return self._backbone.former_fingerprint

    @property
    def transform(self) -> Callable[[Image.Image], Tensor]:
        return self._backbone.transform

    def preprocess(self, image: Image.Image) -> Tensor:
        return self._backbone.preprocess(image)

    def encode_images(self, pixels: Tensor) -> Tensor:
        (embeddings,) = self._session.run(None, {"pixels": pixels.float().cpu().numpy()})
        return torch.from_numpy(embeddings)


def checked(backbone: Backbone, name: str) -> Int8Backbone:
    """Return the backbone with the cached int8 copy of its picture encoder.

    Args:
        name: the model's name, for messages.

    Raises:
        MissingExtraError: the packages of the extra `int8` are missing.
        ModelError: the device is no CPU, or no copy here has passed a check.
    """
    _require(backbone)
    folder = copy_folder(backbone)
    if not _passed(folder):
        raise ModelError(
            f"the int8 copy of model {name!r} is not checked on this machine; run cir-vectorizer sync --precision int8, "
            "which checks it on your pictures, or give serve --check-pictures FOLDER"
        )
    return Int8Backbone(backbone, folder)


def passed(vectorizer: Vectorizer, source: str) -> dict[str, Any] | None:
    """Return the record of a check that the int8 copy of a model passed on the pictures of a source; None if none did."""
    _require(vectorizer.backbone)
    return _passed(copy_folder(vectorizer.backbone)).get(source)


def check(vectorizer: Vectorizer, pictures: Sequence[Image.Image], source: str) -> dict[str, Any]:
    """Make the int8 copy of a model's picture encoder if none is cached, compare it with float32, and record the check.

    Args:
        vectorizer: the model in float32.
        pictures: RGB pictures of the source.
        source: name of the source.

    Returns:
        `overlap`, the mean share of the 10 nearest pictures in float32 that are among the 10 nearest in int8, and the
        number of `pictures`.

    Raises:
        ModelError: the encoder cannot be exported, there are too few pictures, or too few of the nearest stay nearest.
    """
    _require(vectorizer.backbone)
    if len(pictures) < FEWEST_PICTURES:
        raise ModelError(
            f"int8 is checked on at least {FEWEST_PICTURES} pictures, and {source} has {len(pictures)} that can be read; "
            "give --precision auto"
        )
    folder = copy_folder(vectorizer.backbone)
    if not folder.is_dir():
        make_copy(vectorizer.backbone, folder)
    copy = Int8Backbone(vectorizer.backbone, folder)
    found = overlap(
        vectorizer.embed_images(pictures), Vectorizer(vectorizer.name, copy, {}, "sum").embed_images(pictures)
    )
    if found < LEAST_OVERLAP:
        raise ModelError(
            f"int8 would change results: on {len(pictures)} pictures of {source}, {found:.1%} of the {TOP} nearest are the "
            f"same as in float32, and {LEAST_OVERLAP:.0%} are needed; give --precision auto"
        )
    record = {"overlap": round(found, 4), "pictures": len(pictures)}
    replace_file(folder / _CHECKS, json.dumps({**_passed(folder), source: record}, indent=2).encode())
    return record


def overlap(one: Vectors, other: Vectors, top: int = TOP) -> float:
    """Return the mean share of each row's `top` nearest rows in `one` that are among its nearest in `other`. (n, dim) each."""
    nearest = []
    for vectors in (one, other):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        cosines = unit @ unit.T
        np.fill_diagonal(cosines, -np.inf)
        nearest.append(np.argsort(-cosines, axis=1, kind="stable")[:, : min(top, len(unit) - 1)])
    return float(np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(*nearest, strict=True)]))


class _Pictures(nn.Module):
    """The picture encoder alone."""

    def __init__(self, backbone: ClipBackbone) -> None:
        super().__init__()
        self.towers = backbone.towers

    def forward(self, pixels: Tensor) -> Tensor:
        embeddings: Tensor = self.towers.encode_pixels(pixels)
        return embeddings


def make_copy(backbone: Backbone, folder: Path) -> None:
    """Export and quantise the picture encoder of a float32 backbone; `folder` is written whole or not at all."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if not isinstance(backbone, ClipBackbone):
        raise ModelError(f"{backbone.spec} has no picture encoder that can be exported to int8; give --precision auto")
    size = backbone.preprocess(Image.new("RGB", (256, 256))).shape
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".draft-"))
    fast = torch.backends.mha.get_fastpath_enabled()
    logging.disable(logging.WARNING)  # the exporter's remarks on its own progress
    try:
        torch.backends.mha.set_fastpath_enabled(False)  # its fused operator cannot be exported
        with torch.no_grad():
            torch.onnx.export(
                _Pictures(backbone).eval(),
                (torch.zeros(2, *size),),
                draft / "float32.onnx",
                input_names=["pixels"],
                output_names=["embeddings"],
                dynamic_shapes={"pixels": {0: torch.export.Dim("n")}},
                dynamo=True,
                verbose=False,
            )
        quantize_dynamic(
            draft / "float32.onnx",
            draft / _MODEL,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
            extra_options={"MatMulConstBOnly": True},
        )
        for part in draft.glob("float32.onnx*"):
            part.unlink()
        if not folder.is_dir():  # another process may have been faster
            draft.rename(folder)
    except Exception as error:  # the exporter and the quantiser raise many types
        raise ModelError(
            f"the picture encoder of {backbone.spec} cannot be exported to int8 ({first_line(error)}); give --precision auto"
        ) from error
    finally:
        logging.disable(logging.NOTSET)
        torch.backends.mha.set_fastpath_enabled(fast)
        shutil.rmtree(draft, ignore_errors=True)


def _require(backbone: Backbone) -> None:
    extras.require("int8", "--precision int8", "give --precision auto")
    if backbone.device.type != "cpu":
        raise ModelError(
            f"int8 runs on the CPU, and the model would run on {backbone.device}; give --device cpu, or --precision auto"
        )


def copy_folder(backbone: Backbone) -> Path:
    """Return the folder of a backbone's int8 copy, which need not exist."""
    made_by = [f"{package} {version(package)}" for package in ("torch", "onnxruntime")]
    return cache_folder() / "int8" / PartsDigest(FORMAT, backbone.fingerprint, *made_by).hexdigest()[:32]


def _passed(folder: Path) -> dict[str, Any]:
    """Return the checks that a copy has passed, by source."""
    try:
        found: dict[str, Any] = json.loads((folder / _CHECKS).read_text())
    except (OSError, ValueError):
        return {}
    return found
