"""The connection to a database: one client for all its collections, calls with retries, and closing."""

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
"""Attempts for a call once the server has answered: about 40 s with the waits, long enough for a restart."""
FIRST_ATTEMPTS = 2
"""Attempts for a call while the server has never answered; few, because the address may be wrong."""
SEARCH_ATTEMPTS = 3
"""Attempts for container-composed searches; few, because a user is waiting."""

ClientT = TypeVar("ClientT")
_T = TypeVar("_T")


class Connection(ABC, Generic[ClientT]):
    """A database's client, made at the first call and shared by all collections that `beside` opens.

    Args:
        address: a collection of the server or directory.
        options: the options that the collection was opened with.
        database: the Database that the plugin registers.
    """

    errors: ClassVar[tuple[type[Exception], ...]]
    """Errors of the client that are turned into CollectionErrors."""

    def __init__(self, address: Address, options: OpenOptions, database: Database) -> None:
        self.address = database.with_port(address)
        self.options = options
        self.database = database
        self._reached = False

    @cached_property
    def client(self) -> ClientT:
        """The database's own client; the first access connects to the server or opens the directory."""
        return self.connect()

    @abstractmethod
    def connect(self) -> ClientT:
        """Make a client."""

    @abstractmethod
    def disconnect(self, client: ClientT) -> None:
        """Close a client."""

    @abstractmethod
    def may_pass(self, error: Exception) -> bool:
        """Tell whether the same call may succeed later, because the server is busy or restarting."""

    @abstractmethod
    def sentence(self, error: Exception, collection: str) -> str:
        """Return a sentence with the cause and remedy of a client's error."""

    def call(self, work: Callable[[ClientT], _T], collection: str, attempts: int = ATTEMPTS) -> _T:
        """Run a call, with retries after errors for which `may_pass` is True.

        Args:
            collection: the collection's name, for the error's sentence.

        Raises:
            CollectionError: cause and remedy; `__cause__` is the client's error.
        """
        try:
            result = persist(lambda: work(self.client), self.may_pass, attempts if self._reached else FIRST_ATTEMPTS)
        except CirError:
            raise  # some CirErrors are ValueErrors, which `errors` may hold
        except self.errors as error:
            raise CollectionError(self.sentence(error, collection)) from error
        self._reached = True
        return result

    def close(self) -> None:
        """Close the client; the next call makes a new one."""
        if "client" in self.__dict__:
            self.disconnect(self.client)
            del self.client

    @property
    def api_key(self) -> str | None:
        """The server's API key, from the address or the environment."""
        return self.database.api_key(self.address)

    def key_sentence(self) -> str:
        """Return the sentence for a server that needs an API key or rejected this one."""
        variable = self.database.key_variable
        if self.api_key:
            return f"{self.address.server}: the API key was refused; correct {variable}, or the key given in its place"
        return f"{self.address.server}: an API key is needed; set {variable}"
