"""A model of a running service in place of a local one, for `sync` and `search`; needs no torch and no Pillow."""

from collections.abc import Sequence

import numpy as np

from cir_vectorizer.client.conversation import Errors, Vectors
from cir_vectorizer.client.http import Client
from cir_vectorizer.client.names import find_model, pinned
from cir_vectorizer.errors import ImageError, ServiceError
from cir_vectorizer.query import ComposedQuery
from cir_vectorizer.query.takes import Takes
from cir_vectorizer.query.wire import Composed, Query

_REFUSED = (400, 413, 422)


class ServedModel:
    """A model that a service runs, with the parts of `Vectorizer` that `sync` and `search` use.

    Attributes:
        name: the model's name at the service.
        fingerprint: fingerprint of its picture encoder (hex); each request names it, so that another model is refused.
        former_fingerprint: fingerprint that releases up to 0.1.0 recorded; empty if the service does not send it.
        dim: length of its vectors.
        precision: precision of its weights.
        default_composer: composer of queries that name none.
        takes: for each composer, the fields and options of a query that it reads.

    Args:
        client: connection to the service; not closed here.
        name: a model, `model/composer` or an alias, with `@fingerprint` or `@digest` as in the module `service.names`; the service's
            default if None.

    Raises:
        ModelError: the service has no such model.
        ServiceError: the service refused, failed or could not be reached.
    """

    def __init__(self, client: Client, name: str | None = None) -> None:
        listed = client.models()
        entry, composer = find_model(listed, name)
        self.name = str(entry["id"])
        self.fingerprint = str(entry["fingerprint"])
        self.former_fingerprint = str(entry.get("former_fingerprint") or "")
        self.dim = int(entry["dim"])
        self.precision = str(entry.get("precision") or "float32")
        self.takes = {str(each["name"]): Takes.from_json(each.get("takes", {})) for each in entry.get("composers", ())}
        self._composer = composer
        self.default_composer = composer or str(entry["default_composer"])
        self._asked = pinned(name or self.name, self.fingerprint)
        self._client = client

    def compose(self, queries: Sequence[Query]) -> Composed:
        """Return the unit vectors of composed queries, (n, dim), and notes; exceptions as in `Client.compose`.

        Queries that name the composer "text", as words that score results do, never reach the composer in the model's name.
        """
        texts = [i for i, each in enumerate(queries) if isinstance(each, ComposedQuery) and each.composer == "text"]
        if not texts or not self._composer:
            return self._client.compose(queries, model=self._asked)
        others = [i for i in range(len(queries)) if i not in texts]
        made = [
            self._client.compose([queries[i] for i in at], model=model)
            for at, model in ((others, self._asked), (texts, pinned(self.name, self.fingerprint)))
        ]
        order = np.argsort([*others, *texts])
        notes = [said for each in made for said in each.notes]
        return Composed(np.concatenate([each.vectors for each in made])[order], [notes[i] for i in order])

    def embed_picture(self, content: bytes) -> Vectors:
        """Return the unnormalised (dim,) embedding of an encoded picture.

        Raises:
            ImageError: the service refuses the picture.
            ServiceError: the service failed or could not be reached.
        """
        errors: Errors = {}
        embeddings = self._client.embed_images([content], model=self._asked, errors=errors)
        error = errors.get(0)
        if error is None:
            embedding: Vectors = embeddings[0]
            return embedding
        if isinstance(error, ServiceError) and _blames_picture(error):
            raise ImageError("service", str(error)) from error
        raise error

    def embed_texts(self, texts: Sequence[str]) -> list[tuple[Vectors, bool] | ServiceError]:
        """Return the unit vector, (dim,), of each text, and whether it was cut; the error of a text that is refused.

        Raises:
            ServiceError: the service failed or could not be reached.
        """
        errors: Errors = {}
        queries = [{"text": text, "composer": "text"} for text in texts]
        made = self._client.compose(queries, model=pinned(self.name, self.fingerprint), errors=errors)
        found: list[tuple[Vectors, bool] | ServiceError] = []
        for i, (vector, notes) in enumerate(zip(made.vectors, made.notes, strict=True)):
            error = errors.get(i)
            if error is None:
                found.append((vector, bool(notes)))
            elif isinstance(error, ServiceError) and error.status in _REFUSED:
                found.append(error)
            else:
                raise error
        return found


def _blames_picture(error: ServiceError) -> bool:
    """Tell whether the service refused the picture; services up to 0.1.0 say so by the status alone."""
    return error.code == "image" or (error.code == "service" and error.status in _REFUSED)
