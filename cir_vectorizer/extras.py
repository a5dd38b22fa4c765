"""Optional parts: the modules that each extra installs, and the entry points of installed packages.

The base install has the query vocabulary, the client and the command line. A part that needs more calls `require` before
it opens any file. This is the only module that reads entry points.
"""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec

from cir_vectorizer.errors import MissingExtraError

_MODELS = (
    "torch",
    "torchvision",
    "open_clip",
    "transformers",
    "sentence_transformers",
    "safetensors",
    "huggingface_hub",
    "regex",
    "PIL",
)
_SERVICE = (
    "fastapi",
    "fastapi_offline",
    "uvicorn",
    "httptools",
    "orjson",
    "pydantic_settings",
    "prometheus_client",
)

MODULES: Mapping[str, tuple[str, ...]] = {
    "models": _MODELS,
    "train": (*_MODELS, "pyarrow"),
    "serve": (*_MODELS, *_SERVICE),
    "qdrant": ("qdrant_client",),
    "weaviate": ("weaviate",),
    "ray": (*_MODELS, "ray", "pyarrow"),
    "int8": (*_MODELS, "onnx", "onnxruntime", "onnxscript"),
    "heif": (*_MODELS, "pillow_heif"),
    "langchain": ("langchain_core",),
    "llamaindex": ("llama_index.core",),
    "mcp": ("fastmcp", "PIL"),
    "otel": ("opentelemetry.instrumentation.fastapi", "opentelemetry.exporter.otlp.proto.http"),
}
"""Modules that each extra of pyproject.toml installs, by the extra's name."""

_NAMED = 3
"""Largest number of missing modules that an error names."""


def plugins(group: str) -> Mapping[str, EntryPoint]:
    """Return the entry points of a group by name, our own and those of other installed packages."""
    return {point.name: point for point in entry_points(group=group)}


def missing(extra: str) -> list[str]:
    """Return the modules of an extra that are not installed; imports none of them."""
    return [module for module in MODULES[extra] if not _installed(module)]


def require(extra: str, need: str, instead: str = "") -> None:
    """Check that the packages of an extra are installed.

    Args:
        extra: its name in pyproject.toml.
        need: the part that needs the packages; begins the error's sentence.
        instead: another remedy, for the end of the sentence.

    Raises:
        MissingExtraError: some are missing; names them and the command that installs them.
    """
    if lacking := missing(extra):
        named = ", ".join(lacking[:_NAMED]) + (f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else "")
        raise MissingExtraError(
            f"{need} needs packages that are not installed ({named}); run: pip install "
            f"'cir-vectorizer[{extra}]'{f', or {instead}' if instead else ''}"
        )


def _installed(module: str) -> bool:
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:  # of the package that it is in
        return False
    return spec is not None and spec.origin is not None  # a mere folder of that name is found too, without origin
