"""The registry of databases, and functions to open a collection and to check that it fits a model."""

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
from cir_vectorizer.collections.records import TEXT_VECTOR, Info, ModelRecord
from cir_vectorizer.errors import AddressError, BackboneMismatch, CollectionError

log = logging.getLogger(__name__)

ENTRY_POINTS = "cir_vectorizer.collections"
"""Group of entry points by which a package brings a `Database`, named by the scheme of its addresses."""


Open = Callable[[Address, OpenOptions], Collection]
"""Function that opens a collection without connecting."""


@dataclass(frozen=True)
class Lack:
    """A feature that servers before `version` lack: a "problem" if nothing works without it, else a "warning"."""

    version: tuple[int, int]
    level: Literal["warning", "problem"]
    feature: str


@dataclass(frozen=True)
class Database:
    """A database as its plugin registers it, under each scheme of its addresses.

    An entry point of the group `cir_vectorizer.collections` has the scheme as its name, and its object is a Database or
    a function with the signature of `open`.

    Attributes:
        name: the database's name as shown to users.
        open: opens a collection.
        ports: the server's usual REST port, by scheme.
        key_variable: environment variable for the server's API key, used if the address holds none.
        key_header: name of the header that carries the key, and its value, with {} for the key.
        version_path: path that returns JSON with the server's `version`; empty if there is none.
        container_setting: setting of the server that holds the container's address.
        lacks: features that older servers lack.
        spell: returns a collection's name as the database spells it, for example with a capital letter first.
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
        """Return a server's address with a port: its own, or the database's usual one."""
        if address.host is None:
            return address
        return replace(address, port=address.port or self.ports.get(address.scheme))

    def api_key(self, address: Address) -> str | None:
        """Return the key in the address, or else the one in the environment."""
        return address.api_key or (os.environ.get(self.key_variable) if self.key_variable else None) or None


def database_of(address: Address) -> Database:
    """Return the database that an address's scheme names.

    Raises:
        AddressError: no plugin is registered for the scheme, or the plugin registers neither a Database nor a function.
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
    """Tell whether two addresses mean the same server or directory, however they are written."""
    return _place(one) == _place(other)


def same_collection(one: Address, other: Address) -> bool:
    """Tell whether two addresses mean the same collection, however they are written."""
    spell = database_of(one).spell
    return same_place(one, other) and spell(one.collection) == spell(other.collection)


def _place(address: Address) -> tuple[str, str | None, int | None, Path | None]:
    if address.path is not None:
        return address.scheme, None, None, address.path.resolve()
    return address.scheme, address.host, database_of(address).with_port(address).port, None


def picture_column_of(collection: Collection, info: Info | None) -> str | None:
    """Return the column that names an object's picture: that of the options, or else the one noted in the collection."""
    return collection.options.picture_column or (info.picture_column if info is not None else None)


def open_collection(
    address: Address | str, api_key: str | None = None, options: OpenOptions = OpenOptions()
) -> Collection:
    """Open a collection with the plugin for its address's scheme, without connecting.

    Args:
        api_key: overrides one in the address; without either, the plugin reads the environment variable
            `QDRANT_API_KEY` or `WEAVIATE_API_KEY`.

    Raises:
        AddressError: the address is malformed, or no plugin is registered for its scheme.
    """
    place = (parse_address(address) if isinstance(address, str) else address).with_key(api_key)
    return database_of(place)(place, options)


def ensure(collection: Collection, model: ModelRecord, options: CreateOptions = CreateOptions()) -> Info:
    """Create the collection for this model, or check that the existing one was made for it.

    Raises:
        BackboneMismatch: the collection was filled by another backbone, or its vectors have another width.
        CollectionError: the collection has another distance or holds objects of another program, or the options want
            the server to make the vectors and it is not set up for that.
    """
    if collection.options.using == TEXT_VECTOR:
        raise CollectionError(
            f"{TEXT_VECTOR} is the vector of the texts, and pictures need one of their own; name another with --using"
        )
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
        other = ", or sync into a new collection" if collection.address.path is None else ""
        raise CollectionError(
            f"{collection.address} was made for vectors that come from outside, so its server cannot make them; leave "
            f"out --vectorize server{other}"
        )
    if info.fingerprint is None and info.count:
        raise CollectionError(
            f"{collection.address} holds {info.count:,} objects that cir-vectorizer did not put there, and nothing "
            "says which model made their vectors; run cir-vectorizer doctor --adopt with that model, or sync into a new "
            "collection (searching this one works as it is)"
        )
    return info


def check(collection: Collection, model: ModelRecord) -> Info:
    """Check that the collection can be searched with this model's vectors.

    For a collection that another program made, only width and distance are checked.

    Raises:
        BackboneMismatch: the collection was filled by another backbone, or its vectors have another width.
        CollectionError: the collection does not exist, or has another distance.
    """
    info = collection.info()
    if info is None:
        raise CollectionError(
            f"there is no collection {collection.address}; correct the address, or run cir-vectorizer sync"
        )
    _check(collection.address, info, model)
    return info


def may_reembed(collection: Collection, info: Info | None, from_itself: bool = False) -> bool:
    """Tell whether `sync --reembed` can switch a collection.

    It has no tenants, and sync filled it alone; or it holds its pictures, and is the source itself.
    """
    if info is None or collection.options.tenant is not None:
        return False
    if info.pictures:
        return from_itself and not info.blends_text
    return info.fingerprint is not None and info.picture_column is None


def _check(address: Address, info: Info, model: ModelRecord) -> None:
    maker = "another program" if info.model is None else f"{info.model}@{(info.fingerprint or '?')[:12]}"
    remedy = "name another collection, or use the model that made it"
    if info.dim not in (None, model.dim):
        raise BackboneMismatch(
            f"{address} has vectors of {info.dim} numbers (made by {maker}), and {model} makes {model.dim}; {remedy}"
        )
    if not info.compares_by_cosine:
        raise CollectionError(
            f"{address} compares by {info.why_not_cosine}, and {model} needs cosine (or dot, with vectors of length 1); "
            "name another collection"
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
    """Log, once for each `where`, that it names its model by a fingerprint of an earlier release."""
    log.warning(
        "%s names its model by the fingerprint of an earlier release, %s; it fits the weights here and is accepted, "
        "though that form does not cover activation and tokenizer. sync and train write the present form",
        where,
        fingerprint[:12],
    )
