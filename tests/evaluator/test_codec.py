"""Values between worker and candidate: what travels comes back equal, and no bytes make the reader fall over."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.evaluator.codec import (
    DTYPES,
    MAX_DEPTH,
    MAX_VALUES,
    MalformedError,
    UnencodableError,
    decode,
    decode_array,
    encode,
    encode_array,
    is_array,
)

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=8)
)
KEYS = st.text(max_size=4) | st.integers(-5, 5) | st.sampled_from(["__array__", "__pairs__"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


@given(VALUES)
def test_plain_values_come_back_equal(value: Any) -> None:
    assert decode(encode(value)) == value


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_arrays_come_back_equal(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
    back = decode(encode({"a": [array, array[::-1] if shape else array]}))["a"]
    assert back[0].dtype == array.dtype
    np.testing.assert_array_equal(back[0], array)
    np.testing.assert_array_equal(back[1], array[::-1] if shape else array)
    back[0][...] = 1  # writable


def test_what_is_not_plain_becomes_plain_or_is_refused() -> None:
    assert decode(encode((1, (2, 3)))) == [1, [2, 3]]
    assert decode(encode(np.float64(0.5))) == 0.5
    assert decode(encode(np.array([1, 2], dtype=">i4"))).tolist() == [1, 2]
    assert math.isnan(decode(encode(float("nan"))))
    for value in (object(), {1, 2}, b"bytes", 1j, 2**64, np.array([object()]), np.array(["text"]), {(1, 2): 3}):
        with pytest.raises(UnencodableError):
            encode(value)


def test_depth_and_size_are_bounded() -> None:
    deep: list[Any] = []
    for _ in range(MAX_DEPTH + 2):
        deep = [deep]
    with pytest.raises(UnencodableError, match="deep"):
        encode(deep)
    with pytest.raises(UnencodableError, match="more than 100"):
        encode("x" * 200, limit=100)
    many = [0] * (MAX_VALUES + 2)
    with pytest.raises(UnencodableError, match="values outside of arrays"):
        encode(many, limit=10**9)
    with pytest.raises(UnencodableError, match="empty array"):
        encode(np.zeros((2**30, 0)))
    assert decode(encode(many), max_values=None) == many  # what the worker itself sends is not bounded
    for text in ("[" * 100_000 + "]" * 100_000, "[" * 200 + "]" * 200, "1" * 5000, str(2**64), "[" + "0," * 4_000_000):
        with pytest.raises(MalformedError):
            decode(len(text).to_bytes(4, "big") + text.encode())


def _with_header(head: Any, blob: bytes = b"") -> bytes:
    text = json.dumps(head).encode()
    return len(text).to_bytes(4, "big") + text + blob


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0",
        b"\xff\xff\xff\xff{}",
        b"\0\0\0\2{}more",
        _with_header({"__array__": ["|O", [1]]}, bytes(8)),
        _with_header({"__array__": ["<f8", [2]]}, bytes(8)),
        _with_header({"__array__": ["<f8", [-1]]}, bytes(8)),
        _with_header({"__array__": ["<f8", [2**62, 4]]}, bytes(8)),
        _with_header({"__array__": ["<f8", [0, 2**39, 2**39]]}),
        _with_header({"__array__": ["<f8", [2**39, 0]]}),
        _with_header({"__array__": ["<f8", [1] * 40]}, bytes(8)),
        _with_header({"__array__": ["<f8", [True]]}, bytes(8)),
        _with_header({"__array__": [["<f8"], [1]]}, bytes(8)),
        _with_header({"__array__": ["<f8", [1]], "more": 1}, bytes(8)),
        _with_header({"__pairs__": [[[], 1]]}),
        _with_header({"__pairs__": [[1]]}),
        _with_header({"__pairs__": 3}),
    ],
)
def test_forged_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        decode(data)


@given(st.binary(max_size=64))
def test_any_bytes_give_a_value_or_malformed(data: bytes) -> None:
    for attempt in (data, len(data).to_bytes(4, "big") + data):
        try:
            decode(attempt)
        except MalformedError:
            pass


def test_a_forged_boolean_is_a_boolean() -> None:
    assert decode(_with_header({"__array__": ["|b1", [2]]}, b"\x07\x00")).tobytes() == b"\x01\x00"


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_an_array_alone_comes_back_equal(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
    data = encode_array(array)
    assert data is not None
    assert is_array(data)
    back = decode_array(data)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)
    back[...] = 1  # writable


@pytest.mark.parametrize(
    "value", [None, 1.5, [1], np.float64(2.0), np.zeros(0), np.zeros(1 << 17), np.zeros((1,) * 5), np.array(["text"])]
)
def test_what_is_no_small_array_takes_the_other_way(value: Any) -> None:
    assert encode_array(value) is None
    assert not is_array(encode([1, 2]))


@given(st.binary(max_size=64))
def test_no_bytes_make_the_reader_of_arrays_fall_over(data: bytes) -> None:
    try:
        decode_array(b"\xff\xff\xff\xff" + data)
    except MalformedError:
        pass


def test_integers_of_more_than_64_bits_are_refused() -> None:
    for digits in ("18446744073709551616", "-9223372036854775809", "9" * 5000):
        text = f'{{"ok":[{digits}]}}'.encode()
        with pytest.raises(MalformedError):
            decode(len(text).to_bytes(4, "big") + text)
