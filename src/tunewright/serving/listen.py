"""Where the server listens and who may ask: loopback for all, any other address for those with the token."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Any

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
    token = os.environ.get(TOKEN, "").strip()
    hint = f'set one: export {TOKEN}="$(openssl rand -hex 16)"'
    if token and len(token) < _SHORTEST_TOKEN:
        raise UserError(f"{TOKEN} is too short", f"it has {len(token)} of at least {_SHORTEST_TOKEN} characters", hint)
    if not token and not is_loopback(host):
        raise UserError(f"no token protects {host}", f"others reach this address, and {TOKEN} is not set", hint)
    return token


def take_port(host: str, port: int) -> socket.socket:
    """Return a socket that holds the port but does not listen yet: nobody connects before the model is proven.

    Two sockets that may share a port can both be bound to it as long as neither listens: this one does not share. Only
    where an earlier server's ended connections still bear the port does it have to, and may be outrun until it listens.

    Raises:
        UserError: the port is in use, or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        try:
            return _bound(socket.socket(family, kind, protocol), address, shared=False)
        except OSError:
            return _bound(socket.socket(family, kind, protocol), address, shared=True)
    except (OSError, OverflowError) as error:
        raise _cannot_listen(host, port, error) from error


def open_door(taken: socket.socket) -> None:
    """Let clients connect from here on.

    Raises:
        UserError: another server has begun to listen there.
    """
    try:
        # Connections inherit it, so that those that have ended do not keep the next server from the port.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.listen(128)
    except OSError as error:
        host, port = taken.getsockname()[:2]
        raise _cannot_listen(host, port, error) from error


def _bound(made: socket.socket, address: Any, *, shared: bool) -> socket.socket:
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, shared)
        made.bind(address)
    except BaseException:
        made.close()
        raise
    return made


def _cannot_listen(host: str, port: int, error: Exception) -> UserError:
    cause = getattr(error, "strerror", None) or str(error)
    return UserError(f"cannot listen on {host} port {port}", cause, "take another: --port 8081")


def url_of(taken: socket.socket) -> str:
    """Return the address that a client is given."""
    host, port = taken.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
