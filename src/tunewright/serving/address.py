"""Where the server listens and who may ask: loopback for all, any other address for those with the token."""

from __future__ import annotations

import ipaddress
import os
import socket

from tunewright.errors import UserError

TOKEN = "TUNEWRIGHT_SERVE_TOKEN"
_SHORTEST_TOKEN = 16


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def token_for(host: str) -> str:
    """Return the token that requests must bring; empty where the loopback is open to all who are on this machine.

    Raises:
        UserError: the address is open to others and there is no token, or the token is too short.
    """
    token = os.environ.get(TOKEN, "")
    hint = f'set one: export {TOKEN}="$(openssl rand -hex 16)"'
    if token and len(token) < _SHORTEST_TOKEN:
        raise UserError(f"{TOKEN} is too short", f"it has {len(token)} of at least {_SHORTEST_TOKEN} characters", hint)
    if not token and not is_loopback(host):
        raise UserError(f"no token protects {host}", f"others reach this address, and {TOKEN} is not set", hint)
    return token


def take_port(host: str, port: int) -> socket.socket:
    """Return a socket that holds the port but does not listen yet: nobody connects before the model is proven.

    Raises:
        UserError: the port is in use, or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(family, kind, protocol)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
    except (OSError, OverflowError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot listen on {host} port {port}", cause, "take another: --port 8081") from error
    return taken


def url_of(taken: socket.socket) -> str:
    """Return the address that a client is given."""
    host, port = taken.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
