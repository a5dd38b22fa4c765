"""LangChain's retriever over a collection: a text, a picture, or both become one query."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables.config import run_in_executor
from pydantic import Field, PrivateAttr, SecretStr

from cir_vectorizer.collections import Hit, shown_columns
from cir_vectorizer.searcher import Searcher, as_query, text_of

if TYPE_CHECKING:
    from cir_vectorizer.query.wire import Query


class ComposedRetriever(BaseRetriever):
    """Retriever of a collection's objects as documents.

        retriever = ComposedRetriever(collection="qdrant://localhost:6333/shop", model="lincir-vit-l", k=5)
        retriever.invoke("in red, long sleeves", image=Path("dress.jpg"), filter="price<50")

    A query is a text, a composed query as dict, or one as JSON text, so that an agent can write it. A document has the
    object's id; its content is the texts of the object's columns, or of `content_column` alone; its metadata are the
    columns, `path` of the picture if it is known, `score`, and `signals` (the parts of the score).
    """

    collection: Any = Field(description="an opened collection, or its address")
    model: Any = Field(
        None, description="a model, or a name for `cir_vectorizer.load` or of one of the service's models"
    )
    service: str | None = Field(None, description="a running service in place of a local model")
    api_key: SecretStr | None = Field(None, description="the service's key; CIR_API_KEY of the environment if None")
    k: int = Field(10, description="largest number of documents")
    filter: str | None = Field(None, description="conditions that every object meets, such as colour=red and price<50")
    content_column: str | None = Field(None, description="column whose text is a document's content")
    search_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="further options of `cir_vectorizer.search`, such as hybrid or diversity"
    )

    _searcher: Searcher = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Open the collection; the model is loaded at the first query."""
        key = None if self.api_key is None else self.api_key.get_secret_value()
        self._searcher = Searcher(self.collection, self.model, self.service, key)

    def close(self) -> None:
        """Close the connections that the retriever opened."""
        self._searcher.close()

    def _get_relevant_documents(
        self,
        query: "Query",
        *,
        run_manager: CallbackManagerForRetrieverRun,
        image: Any = None,
        k: int | None = None,
        filter: str | None = None,
        **search_kwargs: Any,
    ) -> list[Document]:
        """Search; arguments of `invoke` override those of the retriever.

        Args:
            image: the reference picture beside the text, or several: paths, bytes, PIL images, base64 or data URIs.
            search_kwargs: further options of `cir_vectorizer.search`.

        Raises:
            QueryError, ImageError, ModelError, CollectionError, ServiceError: as `cir_vectorizer.search`.
        """
        options = {**self.search_kwargs, **search_kwargs, "limit": self.k if k is None else k}
        options["where"] = self.filter if filter is None else filter
        found = self._searcher.search(as_query(query, image), **options)
        for note in found.notes:
            run_manager.on_text(f"{note}\n")
        return [self._document(hit) for hit in found]

    async def _aget_relevant_documents(
        self, query: "Query", *, run_manager: AsyncCallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        """Do as `_get_relevant_documents`, on a thread."""
        search = partial(self._get_relevant_documents, query, run_manager=run_manager.get_sync(), **options)
        return await run_in_executor(None, search)

    def _document(self, hit: Hit) -> Document:
        ours: Mapping[str, Any] = {"score": hit.score, "signals": dict(hit.signals)}
        metadata = {**shown_columns(hit.payload), **ours}
        return Document(id=str(hit.id), page_content=text_of(hit.payload, self.content_column), metadata=metadata)
