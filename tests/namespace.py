"""A network of its own, for servers that open ports on every address they find, or none on loopback."""

import contextlib
import os
import subprocess
from collections.abc import Iterator

import pytest

NAME, INSIDE, OUTSIDE = "audiomixer-test", "10.77.0.1", "10.77.0.2"
"""The namespace, the address in it, and the one on this side, on which the two reach each other."""
INSIDE_6, OUTSIDE_6 = "fd77::1", "fd77::2"
"""The same by IPv6."""
SPARE = "10.77.0.3"
"""Another address inside."""
ENTER = ("ip", "netns", "exec", NAME)
"""What a command begins with that is to be run inside."""


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@contextlib.contextmanager
def namespace() -> Iterator[None]:
    """Makes the network, for the length of the context. Needs root."""
    if os.geteuid() != 0:
        pytest.skip("a network of its own needs root")
    with contextlib.ExitStack() as stack:
        # What may be left of a run that was killed.
        subprocess.run(["ip", "link", "delete", "test-out"], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "delete", NAME], capture_output=True, check=False)
        _ip("netns", "add", NAME)
        stack.callback(_ip, "netns", "delete", NAME)
        _ip("link", "add", "test-out", "type", "veth", "peer", "name", "test-in", "netns", NAME)
        _ip("address", "add", f"{OUTSIDE}/24", "dev", "test-out")
        _ip("address", "add", f"{OUTSIDE_6}/64", "dev", "test-out", "nodad")
        _ip("link", "set", "test-out", "up")
        for command in (
            ["address", "add", f"{INSIDE}/24", "dev", "test-in"],
            ["address", "add", f"{SPARE}/24", "dev", "test-in"],
            ["address", "add", f"{INSIDE_6}/64", "dev", "test-in", "nodad"],
            ["link", "set", "test-in", "up"],
            ["link", "set", "lo", "up"],
            # Leads nowhere; without one, browsers take a machine for one without a network.
            ["route", "add", "default", "via", OUTSIDE],
        ):
            _ip("-netns", NAME, *command)
        yield


@contextlib.contextmanager
def rules(*chain: str, hook: str = "type filter hook output priority 0") -> Iterator[None]:
    """What the network lets through, for the length of the context: rules of nftables for what is sent in it."""
    lines = ["table inet test {", "chain sent {", hook, *chain, "}", "}"]
    script = "\n".join(lines) + "\n"
    subprocess.run([*ENTER, "nft", "-f", "-"], input=script.encode(), check=True)
    try:
        yield
    finally:
        subprocess.run([*ENTER, "nft", "delete", "table", "inet", "test"], check=True)


def no_udp() -> contextlib.AbstractContextManager[None]:
    """Nothing passes but TCP, loopback aside."""
    return rules("ip daddr 127.0.0.0/8 accept", "meta l4proto udp drop")
