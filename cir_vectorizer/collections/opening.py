"""Databases as their plugins register them, and collections: opening one, and checking that it fits a model."""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from cir_vectorizer import extras
from cir_vectorizer.collections.addresses import Address, parse_address
from cir_vectorizer.collections.protocol import Collection, CreateOptions, OpenOptions
from cir_vectorizer.collections.records import Info, ModelRecord
from cir_vectorizer.errors import AddressError, BackboneMismatch, CollectionError

log = logging.getLogger(__name__)

ENTRY_POINTS = "cir_vectorizer.collections"


Open = Callable[[Address, OpenOptions], Collection]
"""Opens a collection; connects to nothing yet."""


@dataclass(frozen=True)
class Lack:
    """A feature that servers before `version` lack; a "problem" keeps everything from working, a "warning" does not."""

    version: tuple[int, int]
    level: Literal["warning", "problem"]
    feature: str


@dataclass(frozen=True)
class Database:
    """A database as its plugin registers it, under each scheme of its addresses.

    An entry point of the group `cir_vectorizer.collections` is named as the scheme and leads to a Database, or to a plain
    function with the signature of `open`.

    Attributes:
        name: as people write it.
        open: opens a collection of it.
        ports: the port where a server usually listens for REST, by scheme.
        key_variable: environment variable with the server's API key, where the address holds none.
        key_header: header that carries the key, and its value with {} in the key's place.
        version_path: path at which a server answers JSON with its `version`; empty if there is none.
        container_setting: setting of the server that names the container.
        lacks: features that older servers lack.
        spell: the spelling of a collection's name that the database takes for the same; the name itself if it is exact.
    """

    name: str
    open: Open
    ports: Mapping[str, int] = field(default_factory=dict)
    key_variable: str = ""
    key_header: tuple[str, str] = ("authorization", "Bearer {}")
    version_path: str = ""
    container_setting: str = "the container's address"
    lacks: tuple[Lack, ...] = ()
    spell: Callable[[str], str] = str

    def __call__(self, address: Address, options: OpenOptions = OpenOptions()) -> Collection:
        """Open a collection."""
        return self.open(address, options)

    def with_port(self, address: Address) -> Address:
        """Return the address of a server with its port written out, the usual one where none is given."""
        if address.host is None:
            return address
        return replace(address, port=address.port or self.ports.get(address.scheme))

    def api_key(self, address: Address) -> str | None:
        """Return the key in the address, or else the one in the environment."""
        return address.api_key or (os.environ.get(self.key_variable) if self.key_variable else None) or None


def database_of(address: Address) -> Database:
    """Return the database that an address's scheme names.

    Raises:
        AddressError: no plugin answers to its scheme, or what it registers opens nothing.
    """
    plugins = extras.plugins(ENTRY_POINTS)
    if address.scheme not in plugins:
        raise AddressError(
            f"no plugin is installed for {address.scheme}: addresses, only for {', '.join(sorted(plugins)) or 'none'}; "
            "correct the address or install the plugin"
        )
    registered = plugins[address.scheme].load()
    if isinstance(registered, Database):
        return registered
    if not callable(registered):
        raise AddressError(
            f"the plugin for {address.scheme}: addresses registers {plugins[address.scheme].value}, which opens no "
            "collection; have it register a cir_vectorizer.collections.Database"
        )
    return Database(address.scheme, registered)


def same_place(one: Address, other: Address) -> bool:
    """Tell whether two addresses lead to the same server or directory, however they are written."""
    return _place(one) == _place(other)


def same_collection(one: Address, other: Address) -> bool:
    """Tell whether two addresses lead to the same collection, however they are written."""
    spell = database_of(one).spell
    return same_place(one, other) and spell(one.collection) == spell(other.collection)


def _place(address: Address) -> tuple[str, str | None, int | None, Path | None]:
    if address.path is not None:
        return address.scheme, None, None, address.path.resolve()
    return address.scheme, address.host, database_of(address).with_port(address).port, None


def open_collection(
    address: Address | str, api_key: str | None = None, options: OpenOptions = OpenOptions()
) -> Collection:
    """Open a collection with the plugin that its scheme names; connects to nothing yet.

    Args:
        api_key: goes before one in the address; where neither gives one, the plugin looks into the environment
            (`QDRANT_API_KEY`, `WEAVIATE_API_KEY`).

    Raises:
        AddressError: the address is malformed, or no plugin answers to its scheme.
    """
    place = (parse_address(address) if isinstance(address, str) else address).with_key(api_key)
    return database_of(place)(place, options)


def ensure(collection: Collection, model: ModelRecord, options: CreateOptions = CreateOptions()) -> Info:
    """Make the collection for this model, or check that the one there is for it.

    Raises:
        BackboneMismatch: it was filled by another backbone, or has another width.
        CollectionError: it has another distance, holds objects of another program, or its server was to make the
            vectors and is not set to.
    """
    info = collection.info()
    if info is None:
        collection.create(model, options)
        info = collection.info()
        assert info is not None
    _check(collection.address, info, model)
    if info.model is not None and info.fingerprint != model.fingerprint:
        collection.remember(replace(model, name=info.model, precision=info.precision))
        info = replace(info, fingerprint=model.fingerprint)
    if options.vectorize == "server" and info.vectorize != "server":
        raise CollectionError(
            f"{collection.address} was made for vectors that come from outside, so its server cannot make them; leave "
            "out --vectorize server, or sync into a new collection"
        )
    if info.fingerprint is None and info.count:
        raise CollectionError(
            f"{collection.address} holds {info.count:,} objects that cir-vectorizer did not put there, and nothing "
            "says which model made their vectors; sync into a new collection (searching this one works as it is)"
        )
    return info


def check(collection: Collection, model: ModelRecord) -> Info:
    """Check that a search with this model's vectors makes sense.

    A collection that another program made passes if its width and distance do.

    Raises:
        BackboneMismatch: it was filled by another backbone, or has another width.
        CollectionError: there is none, or it has another distance.
    """
    info = collection.info()
    if info is None:
        raise CollectionError(
            f"there is no collection {collection.address}; correct the address, or run cir-vectorizer sync"
        )
    _check(collection.address, info, model)
    return info


def _check(address: Address, info: Info, model: ModelRecord) -> None:
    maker = "another program" if info.model is None else f"{info.model}@{(info.fingerprint or '?')[:12]}"
    remedy = "name another collection, or load the model that it was made with"
    if info.dim not in (None, model.dim):
        raise BackboneMismatch(
            f"{address} has vectors of {info.dim} numbers (made by {maker}), and {model} makes {model.dim}; {remedy}"
        )
    if info.distance != "cosine":
        raise CollectionError(
            f"{address} compares by {info.distance}, and {model} needs cosine; name another collection"
        )
    if info.fingerprint is not None and not model.made(info.fingerprint):
        raise BackboneMismatch(
            f"{address} was made by {maker}, and the model at hand is {model}: vectors of two backbones cannot be "
            f"compared; {remedy}"
        )
    if info.fingerprint == model.former_fingerprint:
        note_former(str(address), info.fingerprint)


@lru_cache(maxsize=1024)
def note_former(where: str, fingerprint: str) -> None:
    """Log once that `where` names its model by a fingerprint of version 1, which fits the weights at hand."""
    log.warning(
        "%s names its model by the fingerprint of an earlier release, %s; it fits the weights here and is accepted, "
        "though that form says nothing of activation and tokenizer. sync and train write the present form",
        where,
        fingerprint[:12],
    )
