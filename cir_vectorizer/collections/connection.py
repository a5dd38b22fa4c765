"""The connection to a database: one client for all its collections, calls that are tried again, and closing."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import ClassVar, Generic, TypeVar

from cir_vectorizer.collections.addresses import Address
from cir_vectorizer.collections.opening import Database
from cir_vectorizer.collections.protocol import OpenOptions
from cir_vectorizer.collections.retry import persist
from cir_vectorizer.errors import CirError, CollectionError

ATTEMPTS = 10
"""Attempts for a call to a server that answered before: with the waits between them about 40 s, enough to restart."""
FIRST_ATTEMPTS = 2
"""Attempts for a call before the server ever answered: the address may be wrong."""
SEARCH_ATTEMPTS = 3
"""Attempts for container-composed searches; few, because a user is waiting."""

ClientT = TypeVar("ClientT")
_T = TypeVar("_T")


class Connection(ABC, Generic[ClientT]):
    """A database's client, made at the first call and shared by all collections that `beside` opens.

    Args:
        address: a collection of the server or directory.
        options: how it is spoken to.
        database: what the plugin registers.
    """

    errors: ClassVar[tuple[type[Exception], ...]]
    """Errors of the client, which become CollectionErrors."""

    def __init__(self, address: Address, options: OpenOptions, database: Database) -> None:
        self.address = database.with_port(address)
        self.options = options
        self.database = database
        self._reached = False

    @cached_property
    def client(self) -> ClientT:
        """The database's own client; touches the network or the directory."""
        return self.connect()

    @abstractmethod
    def connect(self) -> ClientT:
        """Make a client."""

    @abstractmethod
    def disconnect(self, client: ClientT) -> None:
        """Let go of a client."""

    @abstractmethod
    def may_pass(self, error: Exception) -> bool:
        """Tell whether the same call may succeed later: the server is busy or restarts."""

    @abstractmethod
    def sentence(self, error: Exception, collection: str) -> str:
        """Return cause and remedy of a client's error."""

    def call(self, work: Callable[[ClientT], _T], collection: str, attempts: int = ATTEMPTS) -> _T:
        """Run a call; what may pass is tried again.

        Args:
            collection: its name, for the sentence of an error.

        Raises:
            CollectionError: cause and remedy; `__cause__` is the client's error.
        """
        try:
            result = persist(lambda: work(self.client), self.may_pass, attempts if self._reached else FIRST_ATTEMPTS)
        except CirError:
            raise  # some are ValueErrors too
        except self.errors as error:
            raise CollectionError(self.sentence(error, collection)) from error
        self._reached = True
        return result

    def close(self) -> None:
        """Let go of the client; the next call makes another."""
        if "client" in self.__dict__:
            self.disconnect(self.client)
            del self.client

    @property
    def api_key(self) -> str | None:
        """The server's API key, from the address or the environment."""
        return self.database.api_key(self.address)

    def key_sentence(self) -> str:
        """Return the sentence for a server that lets nobody in without a key, or not with this one."""
        given = "the API key was refused" if self.api_key else "an API key is needed"
        return f"{self.address.server}: {given}; give --api-key or set {self.database.key_variable}"
