"""Places that `POST /v1/models` may load models from: folders of the operator's choice, and the hub if he allows it."""

from collections.abc import Sequence
from pathlib import Path

from cir_vectorizer.backbones import BackboneSpec
from cir_vectorizer.models import folder_of, has_record
from cir_vectorizer.models.published import PUBLISHED, store
from cir_vectorizer.service.http.problems import RefusedError


def permitted(model: str, folders: Sequence[str], hub: bool) -> str:
    """Return the model as `load` takes it; a relative path is looked up below each folder.

    Links are followed first. The backbone that a permitted model folder names is not checked.

    Args:
        folders: folders below which models may be loaded; the store of downloaded models if empty.
        hub: True if names of the hub may be loaded.

    Raises:
        RefusedError: 403, it is elsewhere.
    """
    roots = [Path(folder).resolve() for folder in folders] or [store().resolve()]
    if model == "tiny":
        return model
    if model in PUBLISHED:
        if hub or has_record(folder_of(model)):
            return model
        raise _elsewhere(model, roots, hub)
    if ":" not in model or Path(model).exists():
        return str(_below(model, roots, hub))
    spec = BackboneSpec.parse(model)
    if not _is_path(spec.name) and not hub:
        raise _elsewhere(model, roots, hub)
    words = {key: _word(value, model, roots, hub) for key, value in spec.options.items()}
    return str(BackboneSpec(spec.loader, _word(spec.name, model, roots, hub), words))


def _word(word: str, model: str, roots: Sequence[Path], hub: bool) -> str:
    """Return a word of a backbone's specification; a path must be below a folder."""
    if not _is_path(word):
        return word
    head, colon, path = word.rpartition(":")
    found = _inside(Path(path).expanduser().resolve(), roots)
    if found is None:
        raise _elsewhere(model, roots, hub)
    return f"{head}{colon}{found}"


def _is_path(word: str) -> bool:
    """Tell whether a word may mean a file or folder of this machine; loaders also write `local-dir:PATH`."""
    path = word.rpartition(":")[2]
    return path.startswith(("/", "\\", ".", "~")) or Path(path).exists() or Path(word).exists()


def _below(model: str, roots: Sequence[Path], hub: bool) -> Path:
    path = Path(model).expanduser()
    for place in [path] if path.is_absolute() else [root / path for root in roots]:
        found = _inside(place.resolve(), roots)
        if found is not None and (found.exists() or len(roots) == 1):
            return found
    raise _elsewhere(model, roots, hub)


def _inside(path: Path, roots: Sequence[Path]) -> Path | None:
    return path if any(path.is_relative_to(root) and path != root for root in roots) else None


def _elsewhere(model: str, roots: Sequence[Path], hub: bool) -> RefusedError:
    allowed = " or ".join(map(str, roots))
    remedy = "" if hub else ", or lets names of the hub be loaded by --allow-hub"
    return RefusedError(
        403,
        "model-place",
        f"{model[:200]!r} may not be loaded: it is not a model below {allowed}; put it there, or the service's operator names "
        f"its folder by --model-folders{remedy}",
    )
