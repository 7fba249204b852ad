"""Which addresses a callback may go to: those of public hosts. Everything else (this machine, its network, a cloud's
metadata, what is mapped or tunnelled to any of these) is refused."""

import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from .admission import NotAdmittedError

_RESOLVE_S = 5.0
# Their own threads: names that nobody answers for must not hold up the threads that requests wait for.
_RESOLVERS = ThreadPoolExecutor(max_workers=4, thread_name_prefix="resolve")
_IPV6_GLOBAL = ipaddress.ip_network("2000::/3")
# IPv6 that carries an IPv4 address: Teredo, 6to4.
_IPV6_TUNNELS = (ipaddress.ip_network("2001::/32"), ipaddress.ip_network("2002::/16"))


def check_callback(url: str | None) -> None:
    """A callback goes to a public host over HTTP(S). Raises NotAdmittedError (422)."""
    if url is None:
        return
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        parts, port, host = None, None, None
    if parts is None or parts.scheme not in ("http", "https") or not host or parts.username is not None:
        raise NotAdmittedError("not an http(s) URL", status=422, code="invalid", field="callback_url")
    if any(ord(char) <= 32 or ord(char) > 126 for char in url):
        raise NotAdmittedError("a URL has ASCII only", status=422, code="invalid", field="callback_url")
    if not public_addresses(host, port or 443):
        raise NotAdmittedError("not the address of a public host", status=422, code="invalid", field="callback_url")


def public_addresses(host: str, port: int) -> list[str]:
    """Where a name leads, if every address it leads to is public; else nothing."""
    looked_up = _RESOLVERS.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        found = {str(info[4][0]) for info in looked_up.result(timeout=_RESOLVE_S)}
    except (OSError, UnicodeError, ValueError):  # TimeoutError is an OSError
        looked_up.cancel()
        return []
    return sorted(found) if all(is_public(address) for address in found) else []


def is_public(address: str) -> bool:
    """Whether packets to an address (no name) leave for a host of the open internet."""
    ip = ipaddress.ip_address(address)
    if not ip.is_global or ip.is_multicast or ip.is_reserved:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        return ip in _IPV6_GLOBAL and not any(ip in tunnel for tunnel in _IPV6_TUNNELS)
    return True
