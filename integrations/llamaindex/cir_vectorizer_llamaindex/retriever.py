"""LlamaIndex's retriever over a collection: a text, a picture, or both become one query."""

import asyncio
import os
from typing import TYPE_CHECKING, Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.schema import ImageNode, NodeWithScore, QueryBundle

from cir_vectorizer.collections import Collection, Hit, shown_columns
from cir_vectorizer.searcher import Searcher, as_query, text_of

if TYPE_CHECKING:
    from cir_vectorizer.client import ServedModel
    from cir_vectorizer.models import Vectorizer
    from cir_vectorizer.query.wire import Query


class ComposedRetriever(BaseRetriever):
    """Retriever of a collection's objects as image nodes.

        retriever = ComposedRetriever("qdrant://localhost:6333/shop", "lincir-vit-l", similarity_top_k=5)
        retriever.retrieve(QueryBundle("in red, long sleeves", image_path="dress.jpg"))

    A query is a text, a composed query as JSON text, or a QueryBundle whose `image_path` names the picture. A node has the
    object's id, the texts of its columns (or `text_column` alone) as text, the columns as metadata, and the file or URL of
    its picture if that is known.

    Args:
        collection, model, service, api_key: as for `cir_vectorizer.searcher.Searcher`.
        similarity_top_k: largest number of nodes.
        filter: conditions that every object meets, such as `colour=red and price<50`.
        text_column: column whose text is a node's text.
        search_kwargs: further options of `cir_vectorizer.search`, such as `hybrid` or `diversity`.
        callback_manager: LlamaIndex's.
    """

    def __init__(
        self,
        collection: Collection | str,
        model: "Vectorizer | ServedModel | str | None" = None,
        *,
        service: str | None = None,
        api_key: str | None = None,
        similarity_top_k: int = 10,
        filter: str | None = None,
        text_column: str | None = None,
        search_kwargs: dict[str, Any] | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        super().__init__(callback_manager)
        self._searcher = Searcher(collection, model, service, api_key)
        self._text_column = text_column
        self._options = {**(search_kwargs or {}), "limit": similarity_top_k, "where": filter}

    def close(self) -> None:
        """Close the connections that the retriever opened."""
        self._searcher.close()

    def retrieve_composed(self, query: "Query", **options: Any) -> list[NodeWithScore]:
        """Search for a composed query of any form; options of `cir_vectorizer.search` override those of the retriever.

        Raises:
            QueryError, ImageError, ModelError, CollectionError, ServiceError: as `cir_vectorizer.search`.
        """
        found = self._searcher.search(as_query(query), **{**self._options, **options})
        return [NodeWithScore(node=self._node(hit), score=hit.score) for hit in found]

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self.retrieve_composed(as_query(query_bundle.query_str, query_bundle.image_path))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)

    def _node(self, hit: Hit) -> ImageNode:
        text = text_of(hit.payload, self._text_column)
        place = self._searcher.place(hit.payload)
        url = place if isinstance(place, str) and place.startswith(("http://", "https://")) else None
        path = place if isinstance(place, str) and os.path.isabs(place) else None
        return ImageNode(
            id_=str(hit.id), text=text, metadata=shown_columns(hit.payload), image_path=path, image_url=url
        )
