"""Which addresses to offer for media."""

import ipaddress

import aioice.ice


def addresses_of(host: str) -> list[str]:
    """The addresses on which a server that listens on `host` can be reached, loopback included for any."""
    if host == "localhost":
        return ["127.0.0.1"]
    try:
        wildcard = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        wildcard = True
    if not wildcard:
        return [host]
    return ["127.0.0.1", *aioice.ice.get_host_addresses(use_ipv4=True, use_ipv6=True)]
