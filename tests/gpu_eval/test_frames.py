"""Messages arrive as they were sent, and nothing else is taken for one."""

import io
import pickle
import socket
import struct
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gpu_eval.frames import HEADER, Channel, Ended, FrameError, parse_array


def ends() -> tuple[Channel, socket.socket]:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    channel.within(5)
    return channel, theirs


def npy(array: Any, **options: Any) -> bytearray:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return bytearray(stream.getvalue())


@given(
    arrays.arrays(
        st.sampled_from([np.int8, np.int32, np.int64, np.uint16, np.float32, np.float64]),
        arrays.array_shapes(min_dims=0, min_side=0, max_side=5),
    )
)
def test_arrays_arrive_as_they_were(array: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Channel(ours).send_array(array)
        found = parse_array(Channel(theirs).receive_bytes(array.nbytes))
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()
    assert found.flags.writeable


def test_large_arrays_and_odd_strides_arrive() -> None:
    ours, theirs = socket.socketpair()
    array = np.arange(2_000_000).reshape(1000, 2000).T[::3]
    sender = threading.Thread(target=lambda: Channel(ours).send_array(array))
    sender.start()
    found = parse_array(Channel(theirs).receive_bytes(array.nbytes))
    sender.join()
    assert np.array_equal(found, array)


def test_objects_of_json_arrive_and_nothing_else() -> None:
    channel, theirs = ends()
    Channel(theirs).send({"do": "load", "numbers": [1, 2.5]})
    assert channel.receive() == {"do": "load", "numbers": [1, 2.5]}
    for data in (b"[1]", b"{", b"\xff", b"[" * 60000, b"1" * 60000):
        theirs.sendall(HEADER.pack(b"J", len(data)) + data)
        with pytest.raises(FrameError, match="expected"):
            channel.receive()


def test_lengths_are_checked_before_anything_is_read() -> None:
    for kind, receive in (("J", Channel.receive), ("A", lambda channel: channel.receive_bytes(100))):
        channel, theirs = ends()
        theirs.sendall(HEADER.pack(kind.encode(), 1 << 60))
        with pytest.raises(FrameError, match="at most"):
            receive(channel)


def test_another_kind_of_frame_is_refused() -> None:
    channel, theirs = ends()
    Channel(theirs).send_array(np.arange(3))
    with pytest.raises(FrameError, match="expected a frame J"):
        channel.receive()


def test_a_torn_frame_is_an_end() -> None:
    for data in (b"", b"J", HEADER.pack(b"J", 10) + b"{"):
        channel, theirs = ends()
        theirs.sendall(data)
        theirs.close()
        with pytest.raises(Ended):
            channel.receive()


def test_who_is_silent_is_not_waited_for() -> None:
    channel, theirs = ends()
    channel.within(0.05)
    with pytest.raises(TimeoutError):
        channel.receive()
    theirs.sendall(b"J")
    with pytest.raises(TimeoutError):
        channel.receive()


def header(text: str) -> bytearray:
    data = text.encode()
    return bytearray(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(data)) + data)


@pytest.mark.parametrize(
    "data",
    [
        bytearray(),
        bytearray(b"no array"),
        bytearray(pickle.dumps([1])),
        npy(np.array([object()], dtype=object), allow_pickle=True),
        npy(np.array(["text"])),
        npy(np.array([1 + 2j])),
        npy(np.array([(1, 2)], dtype=[("a", "i4"), ("b", "i4")])),
        npy(np.asfortranarray(np.ones((2, 3)))),
        npy(np.arange(3))[:-1],
        npy(np.arange(3)) + b"0",
        header("{'descr': '<i8', 'fortran_order': False, 'shape': (1152921504606846976, 16)}\n"),
        header("{'descr': '<i8', 'fortran_order': False, 'shape': (-1, -0)}\n"),
        header("{'descr': '<i8', 'fortran_order': False, 'shape': " + "(" * 300 + "}\n"),
        header("__import__('os').getpid()\n"),
        header("{'descr': '|V0', 'fortran_order': False, 'shape': (5,)}\n"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(data: bytearray) -> None:
    with pytest.raises(FrameError) as raised:
        parse_array(data)
    assert "\n" not in str(raised.value)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for start in (b"", b"\x93NUMPY\x01\x00"):
        with pytest.raises(FrameError):
            parse_array(bytearray(start + data))
