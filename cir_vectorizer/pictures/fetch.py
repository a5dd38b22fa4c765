"""A fetcher for pictures by URL, guarded against requests to this machine's own network (SSRF).

Each host name is resolved once, all its addresses are checked, and the connection goes to a checked address, so DNS
rebinding has no effect; TLS and `Host` still use the name. Redirects are checked in the same way. Proxies and
credentials of the environment are ignored. Only a fetcher made with `private=True`, for URLs that its own user wrote,
connects to any address.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from fnmatch import fnmatchcase

import httpx

from cir_vectorizer.errors import ImageError
from cir_vectorizer.pictures.busy import Waits, is_busy
from cir_vectorizer.retry_after import retry_after

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

MAX_REDIRECTS = 3
MAX_FETCHES = 16
"""Largest number of fetches at a time; others wait."""

_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65535
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses under which an IPv6-only network reaches IPv4 addresses."""

_NEVER = [ipaddress.ip_network(text) for text in ("168.63.129.16/32", "192.0.0.0/24", "100.64.0.0/10")]
"""Networks that `ipaddress` takes for public in some versions of Python, but that belong to a cloud or a provider."""


class NotPublicError(ImageError):
    """An address that `Fetcher` refuses unless `private=True`."""


class _BusyError(Exception):
    """An answer of a server that is busy."""

    def __init__(self, status: int, retry_after: float | None) -> None:
        self.status = status
        self.retry_after = retry_after


class Fetcher:
    """A fetcher of pictures over http and https.

    Args:
        hosts: allowed host names (`*.shop.example` for all subdomains); every public host if empty. A port other than
            the usual one must be named too: `images.shop.example:8443`.
        most_bytes: largest picture.
        timeout: seconds for one picture, including redirects.
        resolve: host name and port -> addresses; the system's resolver if None.
        transport: transport of the HTTP client; the network if None.
        private: fetch from every address and port, including this machine and its network. Never for strangers' URLs.
        patience: seconds to wait in all for a busy server (429 or 5xx) to give a picture. Once a host has used them up,
            its other pictures are asked for once, until it gives one again.
        instead: end of the sentences for pictures that cannot be fetched: another way to hand one in, if there is one.
    """

    def __init__(
        self,
        hosts: Sequence[str] = (),
        most_bytes: int = 32 * 2**20,
        timeout: float = 10.0,
        resolve: Resolve | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        private: bool = False,
        patience: float = 0.0,
        instead: str = ", or send the picture as base64",
    ) -> None:
        self._patience = patience
        self._instead = instead
        self._given_up: set[str] = set()
        """Hosts that were busy for longer than the patience, and have given no picture since."""
        self._hosts = [host.lower() for host in hosts]
        self._most_bytes = most_bytes
        self._timeout = timeout
        self._resolve = resolve or _resolve
        self._private = private
        self._turn = asyncio.Semaphore(MAX_FETCHES)
        self._client = httpx.AsyncClient(
            transport=transport,
            timeout=timeout,
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_keepalive_connections=0),  # kept by address, one could serve another name
            headers={"accept": "image/*", "accept-encoding": "identity", "user-agent": "cir-vectorizer"},
        )

    async def fetch(self, url: str, most_bytes: int | None = None) -> bytes:
        """Return the picture at `url`.

        Args:
            most_bytes: largest picture; overrides the fetcher's own limit.

        Raises:
            NotPublicError: the address is not on the public internet, or its host or port is not allowed.
            ImageError: with reason "url", or "bytes" if it is too large.
        """
        most = self._most_bytes if most_bytes is None else most_bytes
        try:
            return await self._patiently(url, most)
        except asyncio.TimeoutError as error:
            problem = f"did not arrive within {self._timeout:g} s; check the address{self._instead}"
            raise ImageError("url", problem) from error
        except httpx.InvalidURL as error:
            raise ImageError("url", "redirects to an invalid URL; give the picture's own address") from error
        except httpx.HTTPError as error:
            raise ImageError(
                "url",
                f"could not be fetched: its server does not answer properly, or not in time; check the address{self._instead}",
            ) from error

    async def head(self, url: str) -> httpx.Headers:
        """Return the headers that the server sends for `url` without its body; empty if the request fails.

        Raises:
            NotPublicError: as in `fetch`.
            ImageError: the address is refused, or redirects too often.
        """
        try:
            async with self._turn:
                response = await asyncio.wait_for(self._send("HEAD", url), self._timeout)
        except (asyncio.TimeoutError, httpx.InvalidURL, httpx.HTTPError):
            return httpx.Headers()  # `fetch` will say what is wrong
        await response.aclose()
        return response.headers if response.status_code == 200 else httpx.Headers()

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _patiently(self, url: str, most_bytes: int) -> bytes:
        """Fetch a picture; while its server is busy, wait as long as it asks for, or longer from try to try."""
        host = url.partition("://")[2].partition("/")[0]
        waits = Waits(0.0 if host in self._given_up else self._patience, self._instead)
        while True:
            try:
                async with self._turn:
                    content = await asyncio.wait_for(self._get(url, most_bytes), self._timeout)
            except _BusyError as busy:
                try:
                    wait = waits.next(busy.status, busy.retry_after)
                except ImageError:
                    self._given_up.add(host)
                    raise
                await asyncio.sleep(wait)
            else:
                self._given_up.discard(host)
                return content

    async def _get(self, url: str, most_bytes: int) -> bytes:
        response = await self._send("GET", url)
        try:
            return await self._read(response, most_bytes)
        finally:
            await response.aclose()

    async def _send(self, method: str, url: str) -> httpx.Response:
        """Follow redirects and return the final answer; its body is not read yet."""
        for _ in range(MAX_REDIRECTS + 1):
            address, headers, host = await self._checked(url)
            request = self._client.build_request(method, address, headers=headers, extensions={"sni_hostname": host})
            response = await self._client.send(request, stream=True)
            if not response.has_redirect_location:
                return response
            await response.aclose()
            url = str(httpx.URL(url).join(response.headers["location"]))
        raise ImageError("url", f"redirects more than {MAX_REDIRECTS} times; give the picture's own address")

    async def _read(self, response: httpx.Response, most_bytes: int) -> bytes:
        if is_busy(response.status_code):
            raise _BusyError(response.status_code, retry_after(response.headers))
        if response.status_code != 200:
            raise ImageError("url", f"answers with status {response.status_code}; check the address")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise ImageError("url", f"comes compressed, which was not asked for; give another address{self._instead}")
        declared = response.headers.get("content-length", "")
        _check_size(int(declared) if declared.isdecimal() else 0, most_bytes)
        body = bytearray()
        async for part in response.aiter_raw():
            body += part
            _check_size(len(body), most_bytes)
        return bytes(body)

    async def _checked(self, text: str) -> tuple[httpx.URL, dict[str, str], str]:
        """Return the URL with a checked address in place of the host, the `Host` header, and the host's name."""
        try:
            url = httpx.URL(text)
            port = url.port or _PORTS.get(url.scheme, 0)
            host = url.raw_host.decode("ascii").lower().rstrip(".")
        except (httpx.InvalidURL, ValueError) as error:
            raise ImageError("url", f"is not a valid URL; check it{self._instead}") from error
        if url.scheme not in _PORTS or not host or url.userinfo:
            raise ImageError("url", f"is not a plain http or https address; remove user and password{self._instead}")
        if self._private:
            if port > _MAX_PORT:
                raise ImageError("url", f"names port {port}, and ports end at {_MAX_PORT}; check it")
            return url, {}, host
        if not self._allowed(host, port, url.scheme):
            problem = f"is at a host or port that is not allowed here; give another address{self._instead}"
            raise NotPublicError("url", problem)
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise ImageError("url", f"is at a host that is not known; check it{self._instead}") from error
        if not addresses or not all(is_public(address) for address in addresses):
            problem = f"is at a host that is not on the public internet; give another address{self._instead}"
            raise NotPublicError("url", problem)
        header = host if url.port is None else f"{host}:{port}"
        return url.copy_with(host=addresses[0]), {"host": header}, host

    def _allowed(self, host: str, port: int, scheme: str) -> bool:
        usual = port == _PORTS[scheme]
        names = [f"{host}:{port}"] + ([host] if usual else [])
        return (
            usual if not self._hosts else any(fnmatchcase(name, pattern) for name in names for pattern in self._hosts)
        )


def _check_size(count: int, most_bytes: int) -> None:
    if count > most_bytes:
        raise ImageError("bytes", f"is over the limit of {most_bytes / 2**20:,.0f} MiB; make it smaller")


def is_public(text: str) -> bool:
    """Tell whether an IP address belongs to the public internet.

    False for private, loopback, link-local, multicast and reserved addresses, for a cloud's metadata service, and for
    IPv6 addresses that stand for such an IPv4 address.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)))
        if address.sixtofour is not None or address.teredo is not None or address.ipv4_mapped is not None:
            return False
    elif any(address in network for network in _NEVER):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


async def _resolve(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]
