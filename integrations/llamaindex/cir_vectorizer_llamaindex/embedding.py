"""LlamaIndex's `MultiModalEmbedding` of a local model or a running service."""

import asyncio
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.embeddings import MultiModalEmbedding
from llama_index.core.schema import ImageType

from cir_vectorizer.searcher import TOY, composed, embedder, named_picture, unit

if TYPE_CHECKING:
    from cir_vectorizer.models import Vectorizer
    from cir_vectorizer.query.wire import Picture, Query


class ComposedEmbedding(MultiModalEmbedding):
    """Embeddings of one model for texts, pictures and composed queries; all are vectors of length 1 in one space.

    Args:
        model: a model, or a name for `cir_vectorizer.load`; with `service` one of its models. The toy `tiny`, or
            the service's default model, if None.
        service: a running service in place of a local model.
        api_key: the service's key; CIR_API_KEY of the environment if None. It is not part of `to_dict`.

    Every method raises QueryError, ImageError or ServiceError, which name the item at fault by `index`.
    """

    service: str | None = Field(None, description="a running service in place of a local model")

    _model: Any = PrivateAttr()

    def __init__(
        self,
        model: "Vectorizer | str | None" = None,
        *,
        service: str | None = None,
        api_key: str | None = None,
        model_name: str | None = None,
        **more: Any,
    ) -> None:
        named = model or model_name or None  # `from_dict` gives the name that `to_dict` wrote
        shown = named if isinstance(named, str | None) else named.name
        super().__init__(model_name=shown or ("" if service else TOY), service=service, **more)
        self._model = embedder(named, service, api_key)

    @classmethod
    def class_name(cls) -> str:
        """Return the name of the class, as LlamaIndex writes it into `to_dict`."""
        return "ComposedEmbedding"

    def get_composed_embeddings(self, queries: "Sequence[Query]") -> list[list[float]]:
        """Return the vectors of composed queries, such as `{"image": Path("dress.jpg"), "text": "is red"}`."""
        return composed(self._model, queries)

    async def aget_composed_embeddings(self, queries: "Sequence[Query]") -> list[list[float]]:
        """Do as `get_composed_embeddings`, on a thread."""
        return await asyncio.to_thread(self.get_composed_embeddings, queries)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return unit(self._model.embed_texts(texts)) if texts else []

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    def _get_image_embeddings(self, img_file_paths: list[ImageType]) -> list[list[float]]:
        return unit(self._model.embed_images([_picture(each) for each in img_file_paths])) if img_file_paths else []

    def _get_image_embedding(self, img_file_path: ImageType) -> list[float]:
        return self._get_image_embeddings([img_file_path])[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_image_embeddings(self, img_file_paths: list[ImageType]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_image_embeddings, img_file_paths)

    async def _aget_image_embedding(self, img_file_path: ImageType) -> list[float]:
        return await asyncio.to_thread(self._get_image_embedding, img_file_path)


def _picture(image: "ImageType | Picture") -> "Picture":
    return image.getvalue() if isinstance(image, BytesIO) else named_picture(image)
