"""State that the doors share: the models once they are loaded, the engine, the keys, and readiness."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial

import orjson
from fastapi import Request, Response

from cir_vectorizer import __version__
from cir_vectorizer.collections import Collection
from cir_vectorizer.engine import Engine, EngineOptions
from cir_vectorizer.engine.batching import Lane
from cir_vectorizer.errors import CirError, QueryError
from cir_vectorizer.models import Vectorizer, Work, load
from cir_vectorizer.pictures.fetch import Fetcher
from cir_vectorizer.query.encoded import Limits
from cir_vectorizer.service.collection import Match, ServedCollection
from cir_vectorizer.service.http.auth import Keys
from cir_vectorizer.service.http.limits import Bodies, deadline, until_gone
from cir_vectorizer.service.http.metrics import Metrics
from cir_vectorizer.service.http.problems import RefusedError
from cir_vectorizer.service.live import LOADS, LiveModels, OneLoader, Underway, on_own_thread
from cir_vectorizer.service.names import Names
from cir_vectorizer.service.page.thumbnails import Thumbnails
from cir_vectorizer.service.settings import MIB, Settings
from cir_vectorizer.service.tracing import Tracing

log = logging.getLogger(__name__)

Loader = Callable[[], Mapping[str, Vectorizer]]

MANY_NUMBERS = 20_000
"""Answers with more numbers than this are written on a host thread."""

NOTES, MODELS = "cir_notes", "cir_models"
"""Keys of a request's scope: its notes, for the log and the metrics, and the models that it used."""
_KEEP = orjson.OPT_SERIALIZE_NUMPY


class Service:
    """A running service. `load_all` is called on a thread of its own once the service has started.

    Args:
        load_all: loads the models, by the names that they are served under; the first is the default one.
        settings: the operator's settings.
        fetcher: fetches pictures by URL; made from the settings if None.
        collections: the collections to search, by name, the default one first; each is opened once for each thread that
            may call it. They are closed with the service.
        load_one: loads a further model, by folder or name, for `POST /v1/models`.
        tracing: receives each request's steps; it is closed with the service.
    """

    def __init__(
        self,
        load_all: Loader,
        settings: Settings,
        fetcher: Fetcher | None = None,
        collections: Mapping[str, Sequence[Collection]] | None = None,
        load_one: OneLoader = load,
        tracing: Tracing | None = None,
    ) -> None:
        self.settings = settings
        self.keys = Keys(settings.api_keys.get_secret_value(), settings.api_keys_file)
        self.admin = Keys(settings.admin_keys.get_secret_value(), settings.admin_keys_file, "admin")
        self.metrics = Metrics()
        self.bodies = Bodies(settings.max_body_bytes, settings.max_bodies_mib * MIB, settings.body_timeout)
        self.explaining = asyncio.Lock()
        """Held while a query with fetched pictures is explained, because their bytes stay in memory until it ends."""
        self.draining = False
        self.tracing = tracing
        self.failure: BaseException | None = None
        """Why the models could not be loaded."""
        self._load = load_all
        self._load_one = load_one
        self._engine: Engine | None = None
        self._live: LiveModels | None = None
        self._underway = Underway()
        self._used: dict[tuple[str, str], float] = {}
        self._starting: asyncio.Task[None] | None = None
        if fetcher is None and settings.allow_urls:
            most = settings.max_picture_mib * MIB
            fetcher = Fetcher(settings.url_hosts, most_bytes=most, timeout=settings.url_timeout)
        self._fetcher = fetcher
        self.collections = {
            name: ServedCollection(name, opened, self.metrics, tracing) for name, opened in (collections or {}).items()
        }
        self.thumbnails = Thumbnails(
            settings.thumbnail_mib * MIB, picture_limits(settings), fetcher.fetch if fetcher is not None else None
        )

    @property
    def ready(self) -> bool:
        """True if new work should be sent here."""
        return self._live is not None and not self.draining

    @property
    def alive(self) -> bool:
        """False once the device has failed so often in a row that only a new process can help."""
        return self._engine is None or self._engine.device.failures < 20

    @property
    def live(self) -> LiveModels:
        """The models, which may be loaded and unloaded. Raises RefusedError (503) until the first ones are loaded."""
        if self._live is None:
            raise _loading()
        return self._live

    @property
    def names(self) -> Names:
        """Names of the models. Raises RefusedError (503) until they are loaded."""
        return self.live.names

    @property
    def engine(self) -> Engine:
        """Engine that runs the models. Raises RefusedError (503) until they are loaded."""
        if self._engine is None or self._live is None:
            raise _loading()
        return self._engine

    def who(self, secrets: Sequence[str]) -> str | None:
        """Return the id of the first valid key among `secrets`, admin keys included, or None."""
        return self.keys.who(secrets) or self.admin.who(secrets)

    def hidden(self, text: str) -> str:
        """Return a text without valid keys; see `Keys.hidden`."""
        return self.admin.hidden(self.keys.hidden(text))

    def start(self) -> None:
        """Begin to load the models; call it on the event loop."""
        self._starting = asyncio.ensure_future(self._start())

    async def stop(self) -> None:
        """End the threads once all accepted work is answered."""
        if self._starting is not None:
            self._starting.cancel()
        if self._live is not None:
            self._live.close()
        if self._engine is not None:
            self._engine.close()
        if self._fetcher is not None:
            await self._fetcher.close()
        for collection in self.collections.values():
            collection.close()
        if self.tracing is not None:
            await on_own_thread(self.tracing.close, "cir-traces")

    async def _start(self) -> None:
        try:
            vectorizers = await on_own_thread(self._prepare, LOADS)
            fetch = self._fetcher.fetch if self._fetcher is not None else None
            self._engine = Engine(vectorizers, self._options(), self.metrics, fetch, self.tracing)
            self._add_gauges(self._engine)
            await self._engine.warm_up()
            limits = picture_limits(self.settings)
            self._live = LiveModels(self._engine, self._load_one, limits, self.metrics, self._underway)
            served = ", ".join(self._said(model) for model in vectorizers)
            log.info("ready: serving %s, version %s", served, __version__)
            await self._greet_collections()
        except Exception as error:
            self.failure = error
            if not isinstance(error, CirError):
                log.exception("the models could not be loaded")

    def _said(self, model: str) -> str:
        """Return a model's name and fingerprint, with the names and digests of its composers."""
        return f"{self.names.full_name(model)} ({', '.join(self.names.composer_names(model))})"

    async def _greet_collections(self) -> None:
        for name, collection in self.collections.items():
            try:
                match = await self.match(collection)
                log.info("collection %s: %d objects, searched with model %s", name, match.info.count, match.model)
            except CirError as error:
                log.warning("collection %s (%s) cannot be searched yet: %s", name, collection.address, error)

    def collection(self, name: str | None) -> ServedCollection:
        """Return the collection of that name, the default one if None. Raises QueryError if there is none."""
        found = self.collections.get(name) if name is not None else next(iter(self.collections.values()), None)
        if found is None:
            known = (
                f"there is {', '.join(self.collections)}"
                if self.collections
                else "the service's operator adds one by --collection ADDRESS"
            )
            problem = "no collection is searched here" if name is None else f"no collection {name!r} is searched here"
            raise QueryError("collection", f"{problem}; {known}")
        return found

    async def match(self, collection: ServedCollection, model: str | None = None) -> Match:
        """Return the model to search a collection with: the one that a request names, else the one that fits it.

        Raises:
            BackboneMismatch, CollectionError: as `ServedCollection.match`.
        """
        return await collection.match(self.names.served, model, self.names.default)

    def note_use(self, models: Iterable[str], door: str) -> None:
        """Note that a door used models just now."""
        for model in models:
            self._used[model, door] = time.monotonic()

    def notes_on_use(self, model: str) -> list[str]:
        """Return a sentence for each door and collection that used a model, for whoever unloads it."""
        notes = [
            f"door {door} last used it {time.monotonic() - used:.0f} s ago; a database that is configured with this model is "
            "refused until a model of this name is loaded again"
            for (name, door), used in self._used.items()
            if name == model
        ]
        return notes + [
            f"collection {collection.name} is searched with it; without it, its searches are refused"
            for collection in self.collections.values()
            if collection.last_model() == model
        ]

    def _prepare(self) -> Mapping[str, Vectorizer]:
        limits = picture_limits(self.settings)
        # messages that leave this machine show a model's served name, not its folder's path
        vectorizers = {name: vectorizer.served_as(name, limits) for name, vectorizer in self._load().items()}
        for vectorizer in vectorizers.values():
            _ = vectorizer.fingerprint  # hashes all weights, once
        return vectorizers

    def _options(self) -> EngineOptions:
        settings = self.settings
        return EngineOptions(
            host_threads=settings.host_threads,
            max_search_wait=settings.max_search_wait,
            max_update_wait=settings.max_update_wait,
            cache_bytes=settings.cache_mib * MIB,
            picture_batch=settings.picture_batch,
            text_batch=settings.text_batch,
        )

    def _add_gauges(self, engine: Engine) -> None:
        gauge = self.metrics.gauge
        for lane in Lane:
            name = lane.name.lower()
            gauge("cir_queue_depth", "Pieces of work in the queues.", partial(engine.device.depth, lane), lane=name)
            gauge(
                "cir_backlog_seconds",
                "Estimated work not done yet.",
                partial(engine.admission.backlog, lane),
                lane=name,
            )
        gauge("cir_cache_bytes", "Size of the cached embeddings.", lambda: engine.cached_bytes)
        gauge("cir_body_bytes", "Request bodies held.", lambda: self.bodies.held)
        gauge("cir_ready", "1 while ready.", lambda: float(self.ready))

    async def answer(
        self, request: Request, work: Callable[[bytes], Awaitable[Response]], lanes: Sequence[Lane], wait: float = 0.0
    ) -> Response:
        """Read a request's body and return the answer that `work` makes of it, within all limits.

        Args:
            lanes: lanes that the work may go to; if all are full, the request is rejected unread, unless it may wait.
            wait: seconds that the request may wait for room.
        """
        engine = self.engine
        seconds = deadline(request, self.settings.request_timeout)
        if wait <= 0 and all(engine.admission.full(lane) for lane in lanes):
            raise engine.admission.refusal(lanes[0])
        with self._underway.request():
            async with self.bodies.read(request, wait) as body:
                return await until_gone(request, work(body), seconds)

    async def json(self, content: object, numbers: int = 0, status: int = 200) -> Response:
        """Return an answer; one with very many numbers is written on a host thread."""
        if numbers > MANY_NUMBERS:
            return _json(await self.engine.host(orjson.dumps, content, None, _KEEP), status)
        return _json(orjson.dumps(content, option=_KEEP), status)


def picture_limits(settings: Settings) -> Limits:
    """Return the limits on one picture."""
    return Limits(settings.max_picture_mib * MIB, settings.max_megapixels * 1_000_000)


def key_of(request: Request) -> str | None:
    """Return the id of the valid key that a request came with, or None."""
    key: str | None = request.scope.get("cir_key")
    return key


def note(request: Request, works: Sequence[Work]) -> None:
    """Record a request's models, and its notes, which are logged and counted: databases pass none on, and few clients look."""
    request.scope[NOTES] = [each for work in works for each in work.notes]
    request.scope[MODELS] = {work.model for work in works}


def set_key(request: Request, key: str) -> None:
    """Record the id of the key that a request came with."""
    request.scope["cir_key"] = key


def _loading() -> RefusedError:
    return RefusedError(503, "loading", "the models are being loaded; try again in a few seconds")


def _json(body: bytes, status: int) -> Response:
    return Response(body, status, media_type="application/json")
