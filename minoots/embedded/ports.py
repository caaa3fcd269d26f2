"""Choosing TCP ports on this machine, and keeping to a choice from one start to the next."""

import random
import socket

from minoots.embedded.failures import explained, port_taken
from minoots.embedded.place import Place

# Below the range that systems hand out for outgoing connections: whoever keeps dialling a stopped server there could
# otherwise be given its very port, and connect to itself.
CHOICE = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Whether an embedded server could listen there now."""
    return refusal("127.0.0.1", port) is None


def refusal(host: str, port: int) -> OSError | None:
    """What the system says to a server that wants to listen there; None when it may."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as candidate:
        # As servers do: connections that have ended do not count, a listener does.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((host, port))
        except OSError as error:
            return error
    return None


def free_port() -> int:
    """Any free one."""
    for port in random.sample(CHOICE, 200):
        if is_free(port):
            return port
    raise port_taken(CHOICE.start, "an embedded server", "MINOOTS_POSTGRES_PORT and MINOOTS_NATS_PORT")


def settle_port(place: Place, name: str, asked: int | None, what: str, setting: str) -> int:
    """The port that was asked for, else last time's, else a free one, which is remembered in the data folder."""
    if asked is not None:
        if not is_free(asked):
            raise port_taken(asked, what, setting)
        return asked
    memory = place.home / f"{name}.port"
    with explained(memory):
        last = memory.read_text().strip() if memory.exists() else ""
        if last.isdecimal() and 0 < int(last) < 65536 and is_free(int(last)):
            return int(last)
        port = free_port()
        place.write(memory.name, f"{port}\n")
        return port
