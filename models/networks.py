"""Addresses and networks of the Internet, as numbers of 16 bytes: so a network is a range, whatever its version."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

_MAPPED = int(IPv6Address("::ffff:0.0.0.0"))
MAPPED_BITS = 96


@lru_cache(maxsize=4096)
def make_key(address: str) -> bytes | None:
    """The address as 16 bytes, IPv4 mapped into IPv6 (RFC 4291, section 2.5.5.2); None where it is none."""
    try:
        return _map(ip_address(address.partition("%")[0])).to_bytes(16, "big")
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Network:
    """One address, or all that a network holds; `text` is its usual form."""

    text: str
    first: bytes
    last: bytes

    @classmethod
    def parse(cls, text: str) -> Network:
        """`192.0.2.7`, `192.0.2.0/24`, `2001:db8::/32`; bits past the prefix may be set. Raises ValueError."""
        network = ip_network(text.strip(), strict=False)
        if isinstance(network, IPv6Network) and network.prefixlen >= MAPPED_BITS and network[0].ipv4_mapped:
            network = ip_network(f"{network[0].ipv4_mapped}/{network.prefixlen - MAPPED_BITS}", strict=False)
        first, last = (_map(end).to_bytes(16, "big") for end in (network[0], network[-1]))
        is_one = network.num_addresses == 1
        return cls(str(network[0]) if is_one else str(network), first, last)

    def __str__(self) -> str:
        return self.text


def _map(address: IPv4Address | IPv6Address) -> int:
    return _MAPPED + int(address) if isinstance(address, IPv4Address) else int(address)
