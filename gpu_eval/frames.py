"""Messages between a trusted process and one that is not: length-prefixed JSON and npy arrays over a stream socket.

A frame is one byte (`J` or `A`), eight bytes of length, big-endian, and that many bytes: UTF-8 JSON, or an array in
numpy's npy format. Nothing is ever unpickled; lengths are checked before anything is read, types and extents before
anything is made of them.
"""

from __future__ import annotations

import io
import json
import math
import socket
import struct
import time
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

HEADER = struct.Struct("!cQ")
MOST_JSON = 64 * 1024
NPY_HEADER = 1024
"""Bytes that the header of an array may have beside its values."""
KINDS = "iuf"


class FrameError(ValueError):
    """What came is no message; one line."""


class Ended(FrameError):
    """The other side closed the connection."""


class Channel:
    """One end of the connection. `within(seconds)` sets by when what follows must be done; TimeoutError after that."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._deadline: float | None = None

    def within(self, seconds: float | None) -> None:
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode()
        self._send(HEADER.pack(b"J", len(data)) + data)

    def send_array(self, array: NDArray[Any]) -> None:
        """Only numbers; what is not contiguous is copied."""
        array = np.asarray(array, order="C")
        head = io.BytesIO()
        npy.write_array_header_1_0(head, npy.header_data_from_array_1_0(array))
        self._send(HEADER.pack(b"A", head.tell() + array.nbytes) + head.getvalue())
        self._send(array.reshape(-1).view(np.uint8).data)

    def receive(self) -> dict[str, Any]:
        data = self._frame(b"J", MOST_JSON)
        try:
            message = json.loads(bytes(data))
        except (ValueError, RecursionError):
            raise FrameError("expected JSON, found something else") from None
        if not isinstance(message, dict):
            raise FrameError(f"expected a JSON object, found {type(message).__name__}")
        return message

    def receive_bytes(self, most: int) -> bytearray:
        """An array's frame as it came, for `parse_array`; `most` bounds the bytes of its values."""
        return self._frame(b"A", most + NPY_HEADER)

    def close(self) -> None:
        self._socket.close()

    def _frame(self, kind: bytes, most: int) -> bytearray:
        found, length = HEADER.unpack(self._read(HEADER.size))
        if found != kind:
            raise FrameError(f"expected a frame {kind.decode()}, found {found!r}")
        if length > most:
            raise FrameError(f"a frame of {length} bytes, expected at most {most}")
        return self._read(length)

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        view, filled = memoryview(data), 0
        while filled < size:
            self._arm()
            try:
                got = self._socket.recv_into(view[filled:])
            except ConnectionError:
                got = 0
            if not got:
                raise Ended(f"the connection ended after {filled} of {size} bytes")
            filled += got
        return data

    def _send(self, data: bytes | memoryview) -> None:
        self._arm()
        try:
            self._socket.sendall(data)
        except ConnectionError:
            raise Ended("the connection ended while sending") from None

    def _arm(self) -> None:
        if self._deadline is None:
            self._socket.settimeout(None)
            return
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)


def parse_array(data: bytearray) -> NDArray[Any]:
    """The array of a frame, in the frame's own memory. Raises FrameError for anything but plain little numbers."""
    stream = io.BytesIO(data)
    try:
        if npy.read_magic(stream) != (1, 0):
            raise ValueError
        shape, fortran, dtype = npy.read_array_header_1_0(stream, max_header_size=NPY_HEADER)
    except Exception:
        # numpy evaluates the header as a literal, which raises whatever Python's parser raises.
        raise FrameError("expected an array in npy format, found something else") from None
    if dtype.kind not in KINDS or dtype.hasobject or fortran:
        raise FrameError(f"expected numbers in C order, found {dtype.str}{' in Fortran order' if fortran else ''}")
    held = len(data) - stream.tell()
    if len(shape) > 8 or any(extent < 0 for extent in shape) or math.prod(shape) * dtype.itemsize != held:
        raise FrameError(f"an array said to be {shape} of {dtype.str} came with {held} bytes")
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)
