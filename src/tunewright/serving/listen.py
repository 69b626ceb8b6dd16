"""The server's port and token: the loopback may be open, any other address needs a token."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Any

from tunewright.errors import UserError

TOKEN = "TUNEWRIGHT_SERVE_TOKEN"
_MIN_TOKEN_LENGTH = 16


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def token_for(host: str) -> str:
    """Return the token that requests need; empty where the loopback is open to all users of this machine.

    Raises:
        UserError: the address is open to others and there is no token, or the token is too short.
    """
    token = os.environ.get(TOKEN, "").strip()
    hint = f'set one: export {TOKEN}="$(openssl rand -hex 16)"'
    if token and len(token) < _MIN_TOKEN_LENGTH:
        raise UserError(
            f"{TOKEN} is too short", f"it has {len(token)} of at least {_MIN_TOKEN_LENGTH} characters", hint
        )
    if not token and not is_loopback(host):
        raise UserError(
            f"no token protects {host}", f"other machines can reach this address, and {TOKEN} is not set", hint
        )
    return token


def take_port(host: str, port: int) -> socket.socket:
    """Return a socket that holds the port but does not listen yet, so that no client connects before the check.

    Two sockets that share a port can both be bound to it as long as neither listens: this one does not share it. Only
    where ended connections of an earlier server still use the port it must, and another server may listen first.

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


def start_listening(listener: socket.socket) -> None:
    """Let clients connect.

    Raises:
        UserError: another server listens there already.
    """
    try:
        # Connections inherit the option, so that ended ones do not keep the next server from the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.listen(128)
    except OSError as error:
        host, port = listener.getsockname()[:2]
        raise _cannot_listen(host, port, error) from error


def _bound(new: socket.socket, address: Any, *, shared: bool) -> socket.socket:
    try:
        new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, shared)
        new.bind(address)
    except BaseException:
        new.close()
        raise
    return new


def _cannot_listen(host: str, port: int, error: Exception) -> UserError:
    cause = getattr(error, "strerror", None) or str(error)
    return UserError(f"cannot listen on {host} port {port}", cause, "use another port: --port 8081")


def url_of(listener: socket.socket) -> str:
    """Return the address for clients."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
