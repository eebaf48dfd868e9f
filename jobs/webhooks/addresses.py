"""Which addresses webhooks may go to: public ones, and those of networks that a setting names.

What is private, loopback, link-local, reserved or of a cloud's metadata service could be a service
that trusts all who reach it. An address that carries another one in it is judged by that.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_REFUSED = tuple(
    map(
        ipaddress.ip_network,
        (
            "168.63.129.16/32",  # the metadata service of Azure; those of others are not public
            "192.0.0.0/24",
            "192.88.99.0/24",
            "2001::/23",
            "2001:db8::/32",
            "2002::/16",
            "3fff::/20",
        ),
    )
)
"""What IANA has reserved, or a cloud has taken, and not every version of Python knows of."""

_GLOBAL_V6 = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def are_allowed(found: Iterable[str], *, allowed: Sequence[Network]) -> bool:
    """Whether all addresses of a host may be reached, of which there must be one."""
    addresses = [_address(text) for text in found]
    return bool(addresses) and all(_may(each, allowed) for each in addresses)


def is_literal(host: str) -> bool:
    """Whether a host is an address and no name."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _address(text: str) -> _Address:
    """The address, or the one of version 4 that it stands for."""
    found = ipaddress.ip_address(text.strip("[]"))
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return found.ipv4_mapped
        if found in _NAT64:
            return ipaddress.IPv4Address(int(found) & 0xFFFF_FFFF)
    return found


def _may(address: _Address, allowed: Sequence[Network]) -> bool:
    return any(address in network for network in allowed) or _is_public(address)


def _is_public(address: _Address) -> bool:
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_V6:
        return False
    return not any(address in network for network in _REFUSED)
