"""Frames between the worker and a candidate's process, over a stream socket.

A frame: 4 bytes length of the body (big endian), 16 bytes nonce, body. The worker draws the nonce of a child and the
child learns it from the first frame: bytes that a program writes to the descriptor without knowing it are a forgery.

Standard library only: fork servers load this file by its path.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import Any

NONCE_BYTES = 16
_HEADER_BYTES = 4 + NONCE_BYTES
_MESSAGE_BYTES = 1 << 16


class ForgedFrameError(Exception):
    """A frame without the nonce."""


class OversizedFrameError(Exception):
    """A frame longer than agreed."""


def frame(nonce: bytes, body: bytes) -> bytes:
    """The bytes of a frame."""
    return b"".join((len(body).to_bytes(4, "big"), nonce, body))


class FrameParser:
    """Cuts what arrives into bodies of at most `limit` bytes.

    It keeps what it is fed until a whole body is there: the caller asks for a body after each chunk, and stops
    feeding once an error is raised.
    """

    def __init__(self, nonce: bytes, limit: int) -> None:
        self._nonce = nonce
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> None:
        self._buffer += data

    def whole(self, data: memoryview) -> bytes | None:
        """The body if `data` is exactly one frame and nothing lies before it; else None, and nothing is kept."""
        if self._buffer or len(data) < _HEADER_BYTES or data[4:_HEADER_BYTES] != self._nonce:
            return None
        length = int.from_bytes(data[:4], "big")
        return bytes(data[_HEADER_BYTES:]) if length == len(data) - _HEADER_BYTES <= self._limit else None

    def next_body(self) -> bytes | None:
        """The next whole body, None when more bytes are needed. Raises ForgedFrameError, OversizedFrameError."""
        buffer = self._buffer
        if len(buffer) < _HEADER_BYTES:
            return None
        if buffer[4:_HEADER_BYTES] != self._nonce:
            raise ForgedFrameError("a frame without the nonce")
        length = int.from_bytes(buffer[:4], "big")
        if length > self._limit:
            raise OversizedFrameError(f"{length} bytes, more than {self._limit}")
        end = _HEADER_BYTES + length
        if len(buffer) < end:
            return None
        body = bytes(buffer[_HEADER_BYTES:end])
        del buffer[:end]
        return body

    @property
    def empty(self) -> bool:
        """Whether nothing lies between frames."""
        return not self._buffer


class FrameReceiver:
    """Receives frames, blocking, one system call for a small one. For the candidate's side."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._room = memoryview(bytearray(_MESSAGE_BYTES))
        self._buffer = bytearray()

    def receive(self) -> tuple[bytes, bytes] | None:
        """(nonce, body) of the next frame; None at the end of the stream."""
        if not self._buffer:
            got = self._channel.recv_into(self._room)
            if got > _HEADER_BYTES and int.from_bytes(self._room[:4], "big") == got - _HEADER_BYTES:
                return bytes(self._room[4:_HEADER_BYTES]), bytes(self._room[_HEADER_BYTES:got])
            if not got:
                return None
            self._buffer += self._room[:got]
        if not self._fill(_HEADER_BYTES):
            return None
        end = _HEADER_BYTES + int.from_bytes(self._buffer[:4], "big")
        if not self._fill(end):
            return None
        nonce, body = bytes(self._buffer[4:_HEADER_BYTES]), bytes(self._buffer[_HEADER_BYTES:end])
        del self._buffer[:end]
        return nonce, body

    def _fill(self, size: int) -> bool:
        while len(self._buffer) < size:
            got = self._channel.recv_into(self._room)
            if not got:
                return False
            self._buffer += self._room[:got]
        return True


def send_message(sock: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """A small JSON message with descriptors, over a SEQPACKET socket between trusted processes."""
    socket.send_fds(sock, [json.dumps(message).encode()], list(fds))


def receive_message(sock: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and its descriptors (close-on-exec), None at the end."""
    data, fds, _flags, _address = socket.recv_fds(sock, _MESSAGE_BYTES, 8, socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None
    message: dict[str, Any] = json.loads(data)
    return message, fds
