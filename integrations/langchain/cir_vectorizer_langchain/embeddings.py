"""LangChain's `Embeddings` of a local model or a running service, for texts, pictures and composed queries."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from langchain_core.embeddings import Embeddings
from langchain_core.runnables.config import run_in_executor
from pydantic import SecretStr

from cir_vectorizer.searcher import composed, embedder, named_picture, unit

if TYPE_CHECKING:
    from cir_vectorizer.client import Client
    from cir_vectorizer.models import Vectorizer
    from cir_vectorizer.query.wire import Picture, Query


class ComposedEmbeddings(Embeddings):
    """Embeddings of one model; all are vectors of length 1 in one space.

    Args:
        model: a model, a client, or a name for `cir_vectorizer.load`; with `service` one of its models. The toy `tiny`, or the
            service's default model, if None.
        service: a running service in place of a local model.
        api_key: the service's key; CIR_API_KEY of the environment if None.

    Every method raises QueryError, ImageError or ServiceError, which name the item at fault by `index`.
    """

    def __init__(
        self,
        model: "Vectorizer | Client | str | None" = None,
        *,
        service: str | None = None,
        api_key: str | None = None,
    ) -> None:
        key = api_key or os.environ.get("CIR_API_KEY")
        self.api_key = None if key is None else SecretStr(key)
        self._model = embedder(model, service, key)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of texts, such as captions."""
        return unit(self._model.embed_texts(texts)) if texts else []

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a text; for one with a picture, see `embed_composed`."""
        return self.embed_documents([text])[0]

    def embed_images(self, images: "Sequence[Picture]") -> list[list[float]]:
        """Return the vectors of pictures: files by name or path, bytes, PIL images, base64 or data URIs."""
        return unit(self._model.embed_images([named_picture(image) for image in images])) if images else []

    def embed_image(self, uris: "Sequence[Picture]") -> list[list[float]]:
        """Return the vectors of pictures; vector stores that add pictures call this method of `OpenCLIPEmbeddings`."""
        return self.embed_images(uris)

    def embed_composed(self, queries: "Sequence[Query]") -> list[list[float]]:
        """Return the vectors of composed queries, such as `{"image": Path("dress.jpg"), "text": "is red"}`."""
        return composed(self._model, queries)

    async def aembed_images(self, images: "Sequence[Picture]") -> list[list[float]]:
        """Do as `embed_images`, on a thread."""
        return await run_in_executor(None, self.embed_images, images)

    async def aembed_image(self, uris: "Sequence[Picture]") -> list[list[float]]:
        """Do as `embed_image`, on a thread."""
        return await run_in_executor(None, self.embed_images, uris)

    async def aembed_composed(self, queries: "Sequence[Query]") -> list[list[float]]:
        """Do as `embed_composed`, on a thread."""
        return await run_in_executor(None, self.embed_composed, queries)
