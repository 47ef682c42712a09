"""Which addresses may be called: public ones, and those an `allow` list names.

Pure: whoever connects resolves the name first, asks here about every address it has, and then
connects to one of these very addresses, so that a second answer of the DNS changes nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ACCEPTED = 'hosts such as "10.0.0.5:8080", "*.internal", "[::1]:8080" or "10.0.0.0/8"'

# A bare IPv6 address has colons of its own, so a port needs the brackets.
_ENTRY = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>\d{1,5}))?")
_NAME = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?")
# RFC 6052: the last four bytes are the IPv4 address that a translator will call.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# What only some versions of Python know of (IANA's registries), and the address at which every
# machine of Azure finds what its host knows of it.
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "3fff::/20", "5f00::/16")
)


@dataclass(frozen=True, slots=True)
class Destination:
    """One entry of an allow list: a network, a name, or with `*.` all names below it."""

    name: str
    network: Network | None
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Raises ValueError, whose text says what would be right."""
        entry = text.strip().lower()
        network = _network(entry)
        if network is not None:
            return cls("", network, None)
        parts = _ENTRY.fullmatch(entry)
        if parts is None or not 0 < int(parts["port"] or 1) < 65536:
            raise ValueError(ACCEPTED)
        host, port = parts["v6"] or parts["host"], int(parts["port"]) if parts["port"] else None
        network = _network(host)
        if network is not None:
            return cls("", network, port)
        # Digits and dots alone are a mistyped address, never a name.
        if parts["v6"] or not _NAME.fullmatch(host) or re.fullmatch(r"[\d.]+", host):
            raise ValueError(ACCEPTED)
        return cls(host, None, port)

    def covers_name(self, host: str, port: int) -> bool:
        if self.network is not None or not self._covers_port(port):
            return False
        name = host.lower().rstrip(".")
        if self.name.startswith("*."):
            return name.endswith(self.name[1:])
        return name == self.name

    def covers(self, host: str, port: int) -> bool:
        """A name, or an address that is written as one."""
        try:
            return self.covers_address(ipaddress.ip_address(host), port)
        except ValueError:
            return self.covers_name(host, port)

    def covers_address(self, address: Address, port: int) -> bool:
        if self.network is None or not self._covers_port(port):
            return False
        return address.version == self.network.version and address in self.network

    def _covers_port(self, port: int) -> bool:
        return self.port is None or self.port == port


class AllowList:
    """Answers for one client. An empty list allows the public internet and nothing else."""

    def __init__(self, entries: Iterable[str] = ()) -> None:
        self._destinations = tuple(Destination.parse(entry) for entry in entries)

    def find_refused(self, host: str, port: int, addresses: Sequence[str]) -> str | None:
        """What is wrong with the first of these addresses that may not be called, else None.

        One bad address among good ones refuses the host: nobody could tell which is connected to.
        """
        if any(one.covers_name(host, port) for one in self._destinations):
            return None
        for text in addresses:
            for address in _reached_by(ipaddress.ip_address(text.partition("%")[0])):
                kind = _private_kind(address)
                if kind and not any(
                    one.covers_address(address, port) for one in self._destinations
                ):
                    return f"{address} is {kind} address"
        return None


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


def _reached_by(address: Address) -> Iterator[Address]:
    """Every address a packet to this one may end at: some IPv6 addresses wrap an IPv4 address."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
        return
    if address in _NAT64:
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    yield address


def _private_kind(address: Address) -> str | None:
    """With its article; None for an address of the public internet."""
    if address.is_unspecified:
        return "the unspecified"
    if address.is_loopback:
        return "a loopback"
    if address.is_link_local:
        return "a link-local"
    if address.is_multicast:
        return "a multicast"
    if address.is_reserved:
        return "a reserved"
    is_site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    is_listed = any(address in one for one in _NOT_PUBLIC if one.version == address.version)
    return None if address.is_global and not is_site_local and not is_listed else "a private"
