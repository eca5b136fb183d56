"""JSON lines over a socket pair: how the simulator's processes speak to each other."""

from __future__ import annotations

import json
import select
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

__all__ = ["Channel", "ChannelClosedError"]

Message = dict[str, Any]


class ChannelClosedError(ConnectionError):
    """The process at the other end is gone."""


class Channel:
    """One end of a stream socket; blocking sends, buffered reads."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = b""
        self.closed = False

    def fileno(self) -> int:
        """The descriptor, for select."""
        return self._sock.fileno()

    def send(self, message: Message) -> None:
        """Send one message; raises ChannelClosedError when nobody reads any more."""
        try:
            self._sock.sendall(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        except OSError as error:
            self.closed = True
            raise ChannelClosedError(str(error)) from None

    def receive(self) -> list[Message]:
        """All whole messages that one read brings (maybe none); raises ChannelClosedError at the end."""
        try:
            data = self._sock.recv(1 << 18)
        except BlockingIOError:
            return []
        except OSError as error:
            self.closed = True
            raise ChannelClosedError(str(error)) from None
        if not data:
            self.closed = True
            raise ChannelClosedError("end of stream")
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def wait(self, timeout_s: float | None) -> bool:
        """Whether something can be read within the time."""
        return bool(select.select([self._sock], [], [], timeout_s)[0])

    def close(self) -> None:
        """Close this end."""
        self.closed = True
        self._sock.close()
