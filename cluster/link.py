"""One end of a connection: both sides prove that they know a token, then exchange frames.

A frame is a header (length, call, kind) and a payload. What is sent within one turn of the event loop leaves in one
write. The proofs are HMAC-SHA256 over fresh nonces: the token does not travel, and nothing else is taken before both
are right. Frames are neither encrypted nor signed.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import socket
import struct
from abc import ABC, abstractmethod

LARGEST_FRAME_BYTES = 1 << 30
CONNECT_S = 5.0
"""For the connection and the proofs, on either side."""
SILENCE_S = 10
"""A peer whose host answers nothing, or that reads nothing, for so long is lost."""
CALL, ANSWER, ERROR = 0, 1, 2
"""Kinds of frames."""
MAGIC = b"adrswir1"
NONCE_BYTES = 32
PROOF_BYTES = 32

_HEADER = struct.Struct(">IQB")


def prove(token: bytes, side: bytes, server_nonce: bytes, client_nonce: bytes) -> bytes:
    return hmac.digest(token, side + server_nonce + client_nonce, hashlib.sha256)


class Link(asyncio.Protocol, ABC):
    """One end of a connection: a greeting of fixed lengths, then frames."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.open = False
        """Greeted, and not lost."""
        self._transport: asyncio.Transport | None = None
        self._held = bytearray()
        self._out: list[bytes] = []
        self._too_late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        _notice_silence(transport.get_extra_info("socket"))
        self._too_late = self.loop.call_later(CONNECT_S, self.drop)

    def data_received(self, data: bytes) -> None:
        received: bytes | bytearray = data
        if self._held:
            self._held += data
            received = self._held
        used = 0
        while self._transport is not None:
            step = self._frame(received, used) if self.open else self.greet(received[used:])
            if step == 0:
                break
            used += step
        if self._held:
            del self._held[:used]
        elif used < len(data):
            self._held += data[used:]

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._transport = None
        if self._too_late is not None:
            self._too_late.cancel()

    def drop(self) -> None:
        """Close at once; what was not sent is lost."""
        self.open = False
        if self._transport is not None and not self.loop.is_closed():
            self._transport.abort()
        self._transport = None

    def send(self, call: int, kind: int, payload: bytes) -> None:
        """With whatever else this turn of the event loop sends. The payload must fit a frame."""
        if not self._out:
            self.loop.call_soon(self._flush)
        self._out.append(_HEADER.pack(len(payload), call, kind))
        self._out.append(payload)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None:
            self._transport.write(b"".join(out))

    def _frame(self, received: bytes | bytearray, start: int) -> int:
        """Take one frame from `start` on; how many bytes it had, 0 when it has not wholly come."""
        begin = start + _HEADER.size
        if len(received) < begin:
            return 0
        length, call, kind = _HEADER.unpack_from(received, start)
        if length > LARGEST_FRAME_BYTES:
            self.drop()
            return 0
        if len(received) < begin + length:
            return 0
        self.take(call, kind, received[begin : begin + length])
        return _HEADER.size + int(length)

    def greeted(self) -> None:
        self.open = True
        if self._too_late is not None:
            self._too_late.cancel()

    def write(self, greeting: bytes) -> None:
        if self._transport is not None:
            self._transport.write(greeting)

    @abstractmethod
    def greet(self, received: bytes | bytearray) -> int:
        """Take this side's part of the greeting; how many bytes it had, 0 when it has not wholly come."""

    @abstractmethod
    def take(self, call: int, kind: int, payload: bytes | bytearray) -> None:
        """Take a frame."""


def _notice_silence(sock: socket.socket) -> None:
    """Make the kernel end a connection whose other host is gone, idle or not, within `SILENCE_S`."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENCE_S // 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, SILENCE_S // 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * SILENCE_S)
