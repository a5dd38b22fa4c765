"""Pictures that are searched, as far as a training needs them: embeddings of some."""

import random
from pathlib import Path

import torch
from torch import Tensor

from cir_vectorizer.backbones import Backbone
from cir_vectorizer.collections import ANY_VECTOR, ModelRecord, OpenOptions, SyncRecord, check, open_collection
from cir_vectorizer.errors import ImageError, ModelError
from cir_vectorizer.models.vectorizer import Vectorizer
from cir_vectorizer.pictures.images import open_image
from cir_vectorizer.query.encoded import DEFAULT_LIMITS
from cir_vectorizer.sources.base import Failure
from cir_vectorizer.sources.folder import FolderSource

MOST_PICTURES = 2000
_BATCH = 64


def embeddings_of_pictures(place: str, model: Vectorizer) -> Tensor:
    """Return the unnormalised embeddings of at most `MOST_PICTURES` pictures. (pictures, dim)

    Args:
        place: address of a collection that holds the model's vectors, or a folder of pictures.

    Raises:
        AddressError, CollectionError, SourceError: the place cannot be opened or read, or has another model's vectors.
        ModelError: it holds no picture, or several vectors an object.
    """
    folder = Path(place)
    found = _stored(place, model) if ":" in place and not folder.is_dir() else _encoded(folder, model.backbone)
    if not len(found):
        raise ModelError(f"{place} holds no picture that can be read; correct --picture-index")
    return found


def _stored(place: str, model: Vectorizer) -> Tensor:
    """Read embeddings from a collection; a vector without a known length gets the backbone's mean length."""
    collection = open_collection(place, options=OpenOptions(ANY_VECTOR))
    try:
        info = check(collection, ModelRecord.of(model))
        if len(info.vectors) > 1:
            raise ModelError(
                f"{place} has the vectors {', '.join(info.vectors)}, and --picture-index takes a collection with one; give "
                "another, or a folder of its pictures"
            )
        ids = [id_ for id_, _ in collection.scan()]
        drawn = random.Random(0).sample(ids, min(len(ids), MOST_PICTURES))
        points = [point for at in range(0, len(drawn), _BATCH) for point in collection.get(drawn[at : at + _BATCH])]
    finally:
        collection.close()
    found = []
    for point in points:
        if point.vector is not None:
            record = SyncRecord.read(point.payload)
            norm = (record.norm if record is not None else None) or model.backbone.mean_image_norm or 1.0
            found.append(torch.from_numpy(point.vector) * norm)
    return torch.stack(found) if found else torch.empty(0, model.dim)


def _encoded(folder: Path, backbone: Backbone) -> Tensor:
    """Encode pictures of a folder; those that cannot be read are left out."""
    source = FolderSource(folder)
    try:
        items = [item for item in source.items() if not isinstance(item, Failure)]
    finally:
        source.close()
    random.Random(0).shuffle(items)
    parts = []
    for at in range(0, min(len(items), MOST_PICTURES), _BATCH):
        pixels = []
        for item in items[at : at + _BATCH]:
            try:
                pixels.append(backbone.preprocess(open_image(item.picture.read(DEFAULT_LIMITS))))
            except (ImageError, OSError):
                continue
        if pixels:
            with torch.no_grad():
                parts.append(backbone.encode_images(torch.stack(pixels).to(backbone.device)).cpu())
    return torch.cat(parts).float() if parts else torch.empty(0, backbone.dim)
