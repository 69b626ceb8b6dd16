"""The web server of ``serve`` and the studio: uvicorn, and an end to clients that never complete a request."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

_PATIENCE_S = 30.0
_LEAST_BYTES = 30_000  # within that time: 1 KB/s, slower than any network that a browser works on


class LimitedProtocol(H11Protocol):
    """Closes a connection whose client owes a request, or its body, and sends less than 1 KB/s of it.

    uvicorn waits for ever: a thousand such connections would leave a server no open file for anybody else. What the
    server owes has no limit here: a client may wait for an answer as long as it likes.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to watch the client."""
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the watch."""
        self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what the client sends."""
        self._num_received += len(data)
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Start the client's time again: what it owes begins now, however close the end of the old time is."""
        self._timer.cancel()
        self._watch()
        super().on_response_complete()

    def _watch(self) -> None:
        self._num_received = 0
        self._timer = self.loop.call_later(_PATIENCE_S, self._check)

    def _check(self) -> None:
        owes = self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not self.flow.read_paused
        if owes and self._num_received < _LEAST_BYTES:
            self.transport.close()
        else:
            self._watch()


def web_server(application: Any, grace_s: int) -> uvicorn.Server:
    """Return a server of an ASGI application that prints nothing; ``grace_s`` is for answers when it is stopped."""
    config = uvicorn.Config(
        application,
        http=LimitedProtocol,
        log_level="critical",  # the application reports its defects; answers cut by the end of the server are none
        access_log=False,  # the first address of a browser holds the studio's token
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=grace_s,
    )
    return uvicorn.Server(config)


def run_until_signal(application: Any, listener: socket.socket, grace_s: int) -> None:
    """Answer requests until a signal, which uvicorn passes on once it has shut down.

    Raises:
        KeyboardInterrupt: it was Ctrl-C.
    """
    web_server(application, grace_s).run(sockets=[listener])
