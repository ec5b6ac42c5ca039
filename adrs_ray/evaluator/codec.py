"""Values between the worker and a candidate: JSON and plain arrays, never pickles.

What travels: None, booleans, integers of up to 64 bits, floats (NaN and infinities included), strings, lists, tuples
(they become lists), dicts, and numpy arrays and scalars of booleans, integers and floats. Both sides check: the
sender so that a mistake is named, the receiver because the sender may be hostile.

Encoded: 4 bytes length of the JSON text (big endian), the text, then the bytes of the arrays in order. A small array
alone, which is what interactive tasks send thousands of times, has a form without JSON (`encode_array`).
Standard library only; numpy is used when it is there. Fork servers load this file by its path.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import Any

DTYPES = frozenset({"|b1", "|i1", "|u1", *(f"<{kind}{size}" for kind in "iu" for size in (2, 4, 8)),
                    "<f2", "<f4", "<f8"})  # fmt: skip
MAX_DEPTH = 64
MAX_VALUES = 1_000_000
"""Values outside of arrays: parsed, each takes up to about 100 bytes and 3 microseconds."""
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
_ARRAY, _PAIRS = "__array__", "__pairs__"


class UnencodableError(ValueError):
    """The value cannot travel; the message says what it holds."""


class MalformedError(ValueError):
    """The bytes are no encoded value."""


def encode(value: Any, limit: int | None = None) -> bytes:
    """Bytes of a value. Raises UnencodableError, with a `limit` also for more bytes or more than MAX_VALUES values."""
    blobs: list[bytes] = []
    try:
        text = json.dumps(_plain(value, blobs, 0), separators=(",", ":")).encode("ascii")
    except RecursionError:
        raise UnencodableError("the value is nested too deeply") from None
    size = 4 + len(text) + sum(map(len, blobs))
    if limit is not None and size > limit:
        raise UnencodableError(f"the value takes {size} bytes, more than {limit}")
    if limit is not None and _values(text) > MAX_VALUES:
        raise UnencodableError(f"more than {MAX_VALUES} values outside of arrays")
    return b"".join((len(text).to_bytes(4, "big"), text, *blobs))


_ALONE = b"\xff\xff\xff\xff"
"""In place of the length of a text that long."""
_CODES = {dtype: bytes([code]) for code, dtype in enumerate(sorted(DTYPES))}
_DTYPES_BY_CODE = sorted(DTYPES)
_ALONE_VALUES = 1 << 16


def encode_array(value: Any) -> bytes | None:
    """A small array by itself: marker, dtype, number of axes, their lengths (4 bytes each), its bytes.

    None for what is no such array: `encode` takes everything.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray:
        return None
    key = (value.dtype.str, value.shape)
    head = _heads.get(key)
    if head is None:
        head = _head(*key)
        if head is None:
            return None
        _remember(_heads, key, head)
    return head + bytes(value.tobytes())


def is_array(data: bytes) -> bool:
    """Whether the bytes are those of `encode_array`."""
    return data[:4] == _ALONE


def decode_array(data: bytes) -> Any:
    """The array that `encode_array` took. Raises MalformedError, and nothing else whatever the bytes are."""
    import numpy

    start = 6 + 4 * data[5] if len(data) > 5 else 6
    form = _forms.get(data[:start])
    if form is None:
        form = _form(data, start)
        _remember(_forms, data[:start], form)
    dtype, shape, count, size = form
    if len(data) != start + size:
        raise MalformedError("an array is cut off")
    array = numpy.frombuffer(data, dtype, count, start).reshape(shape)
    return numpy.array(array != 0) if dtype == "|u1" and data[4] == _BOOL else array.copy()


_BOOL = _CODES["|b1"][0]
_heads: dict[tuple[str, tuple[int, ...]], bytes] = {}
_forms: dict[bytes, tuple[str, tuple[int, ...], int, int]] = {}
_FORMS_KEPT = 64


def _remember(kept: dict[Any, Any], key: Any, value: Any) -> None:
    """The forms of arrays recur from round to round; a sender of ever new ones gains nothing."""
    if len(kept) >= _FORMS_KEPT:
        kept.clear()
    kept[key] = value


def _head(dtype: str, shape: tuple[int, ...]) -> bytes | None:
    code = _CODES.get(dtype)
    if code is None or len(shape) > 4 or not 0 < math.prod(shape) <= _ALONE_VALUES:
        return None
    return b"".join((_ALONE, code, bytes((len(shape),)), *(n.to_bytes(4, "big") for n in shape)))


def _form(data: bytes, start: int) -> tuple[str, tuple[int, ...], int, int]:
    """dtype (that of bytes for booleans, as a forged one may hold any byte), shape, number of values, bytes of them."""
    if len(data) < start or data[4] >= len(_DTYPES_BY_CODE) or data[5] > 4:
        raise MalformedError("an array is malformed")
    dtype = _DTYPES_BY_CODE[data[4]]
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(6, start, 4))
    count = math.prod(shape)
    if not 0 < count <= _ALONE_VALUES:
        raise MalformedError("an array has an impossible shape")
    return ("|u1" if dtype == "|b1" else dtype), shape, count, count * int(dtype[2:])


def _plain(value: Any, blobs: list[bytes], depth: int) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is str or kind is float:
        return value
    if kind is int:
        if not _INT_MIN <= value <= _INT_MAX:
            raise UnencodableError("an integer has more than 64 bits")
        return value
    if depth > MAX_DEPTH:
        raise UnencodableError(f"the value is nested more than {MAX_DEPTH} deep")
    if isinstance(value, list | tuple):
        return [_plain(item, blobs, depth + 1) for item in value]
    if isinstance(value, dict):
        return _plain_dict(value, blobs, depth)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            return _plain_array(numpy, value, blobs)
        if isinstance(value, numpy.generic):
            return _plain(_plain_scalar(value), blobs, depth)
    for base in (bool, int, float, str):  # subclasses, such as IntEnum
        if isinstance(value, base):
            return _plain(base(value), blobs, depth)
    raise UnencodableError(f"a {kind.__name__} cannot be given back: use numbers, strings, lists, dicts or arrays")


def _plain_dict(value: dict[Any, Any], blobs: list[bytes], depth: int) -> Any:
    if all(type(key) is str for key in value) and not value.keys() & {_ARRAY, _PAIRS}:
        return {key: _plain(item, blobs, depth + 1) for key, item in value.items()}
    pairs = []
    for key, item in value.items():
        plain = _plain(key, blobs, depth + 1)
        if isinstance(plain, list | dict):
            raise UnencodableError(f"a dict has a key of type {type(key).__name__}: use strings or numbers")
        pairs.append([plain, _plain(item, blobs, depth + 1)])
    return {_PAIRS: pairs}


def _plain_scalar(value: Any) -> Any:
    plain = value.item()
    if type(plain) not in (bool, int, float, str):
        raise UnencodableError(f"a numpy scalar of type {value.dtype} cannot be given back")
    return plain


def _plain_array(numpy: Any, value: Any, blobs: list[bytes]) -> Any:
    array = numpy.ascontiguousarray(value)
    dtype = array.dtype.newbyteorder("<")
    if dtype.str not in DTYPES:
        raise UnencodableError(f"an array of type {array.dtype} cannot be given back: use bool, int, uint or float")
    if _impossible(value.shape):
        raise UnencodableError(f"an empty array of shape {value.shape} cannot be given back")
    blobs.append(array.astype(dtype, copy=False).tobytes())
    return {_ARRAY: [dtype.str, list(value.shape)]}


def _values(text: bytes) -> int:
    """At least as many as there are values in a JSON text."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _impossible(shape: Sequence[int]) -> bool:
    """Whether an array is empty and yet as long as memory: in bytes it costs nothing, to walk through it costs all."""
    return 0 in shape and math.prod(n for n in shape if n) > MAX_VALUES


def decode(data: bytes | bytearray | memoryview, max_values: int | None = MAX_VALUES) -> Any:
    """The value. Raises MalformedError, and nothing else whatever the bytes are. `max_values` None: any number."""
    view = memoryview(data)
    end = 4 + int.from_bytes(view[:4], "big")
    if len(view) < 4 or end > len(view):
        raise MalformedError("the text is cut off")
    text = bytes(view[4:end])
    if max_values is not None and _values(text) > max_values:
        raise MalformedError(f"more than {max_values} values outside of arrays")
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"no JSON: {error}") from None
    reader = _Reader(view[end:])
    value = reader.restore(plain, 0)
    if len(reader.rest):
        raise MalformedError("bytes after the last array")
    return value


class _Reader:
    def __init__(self, rest: memoryview) -> None:
        self.rest = rest

    def restore(self, plain: Any, depth: int) -> Any:
        kind = type(plain)
        if kind is int and not _INT_MIN <= plain <= _INT_MAX:
            raise MalformedError("an integer has more than 64 bits")
        if kind is not list and kind is not dict:
            return plain
        if depth > MAX_DEPTH + 3:
            raise MalformedError(f"nested more than {MAX_DEPTH} deep")
        if kind is list:
            return [self.restore(item, depth + 1) for item in plain]
        if _ARRAY in plain:
            return self._array(plain)
        if _PAIRS in plain:
            return self._dict(plain, depth)
        return {key: self.restore(item, depth + 1) for key, item in plain.items()}

    def _dict(self, plain: dict[str, Any], depth: int) -> dict[Any, Any]:
        pairs = plain[_PAIRS]
        if len(plain) != 1 or not isinstance(pairs, list):
            raise MalformedError("a dict is malformed")
        restored: dict[Any, Any] = {}
        for pair in pairs:
            if not isinstance(pair, list) or len(pair) != 2 or isinstance(pair[0], list | dict):
                raise MalformedError("a dict is malformed")
            restored[pair[0]] = self.restore(pair[1], depth + 1)
        return restored

    def _array(self, plain: dict[str, Any]) -> Any:
        import numpy

        head = plain[_ARRAY]
        if len(plain) != 1 or not isinstance(head, list) or len(head) != 2:
            raise MalformedError("an array is malformed")
        dtype, shape = head
        if not isinstance(dtype, str) or dtype not in DTYPES or not isinstance(shape, list) or len(shape) > 32:
            raise MalformedError("an array is malformed")
        if not all(type(n) is int and 0 <= n < 2**40 for n in shape) or _impossible(shape):
            raise MalformedError("an array has an impossible shape")
        size = math.prod(shape) * int(dtype[2:])
        if size > len(self.rest):
            raise MalformedError("an array is cut off")
        raw, self.rest = self.rest[:size], self.rest[size:]
        try:
            if dtype == "|b1":
                return numpy.array(
                    numpy.frombuffer(raw, "|u1").reshape(shape) != 0
                )  # a forged boolean may hold any byte
            return numpy.frombuffer(raw, dtype).reshape(shape).copy()
        except ValueError:
            raise MalformedError("an array has an impossible shape") from None
