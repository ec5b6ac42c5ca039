"""Recorded loads from files. What is read is checked: a foreign or hostile file is a ValueError of one line.

    .npz            each array one trace: [L, E] one window, [windows, L, E], or [windows, samples, L, E]
    .json           {"load_history": [{"logical_expert_load": [L][E], ...}, ...], ...}: the `expert-load.json` of the
                    public ADRS evaluator, which adds up 100 entries to a window; so does this reader unless told
                    otherwise. Or {"logical_count": [L][E] or [steps][L][E], ...}: SGLang's dump as JSON
    .jsonl          one {"logical_expert_load": [L][E], ...} a line, each a window unless told otherwise: what the hook
                    for vLLM in docs/load_traces.md writes. vLLM's own log gives balancedness, no loads
    .pt             SGLang's recorder in mode `stat`: a dict with "logical_count", a tensor [L, E] or [steps, L, E]; all
                    steps are samples of one window unless told otherwise. Read with `weights_only`
    a folder        of such `.pt` or `logical_count` files in the order of their names, one window each

Other keys are passed over. Loads are whole numbers from 0, in integers or floats, in a trace 2^53 at most together; L
and E never change within a trace. Layers without any load in a trace are dense ones and left out. One window alone is a
snapshot: it says nothing of drift. Files are at most MAX_BYTES (MAX_JSON_BYTES as text), traces MAX_CELLS numbers.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .shapes import Shape
from .workloads import LoadTrace

MAX_BYTES = 1 << 30
MAX_JSON_BYTES = 1 << 28
MAX_CELLS = 1 << 27
MAX_MEMBERS = 10_000
"""Arrays in a `.npz`, members of a `.pt`, files in a folder."""
MAX_LOAD = 1 << 53
HISTORY_WINDOW = 100
"""Entries of a `load_history` that the public evaluator adds up."""

Counts = NDArray[np.int64]
T = TypeVar("T")


def load_recorded(path: str | Path, entries_per_window: int | None = None) -> list[LoadTrace]:
    """The traces in a file or folder, named after it or its arrays; see above for what is accepted.

    `entries_per_window` steps, entries or lines make a window and become its samples; an incomplete last window is
    dropped. Only for formats that hold such.
    """
    path = Path(path)
    try:
        if not path.is_dir() and path.suffix != ".npz":
            steps, usual = _steps(path)
            return [_trace(path.stem, _by_window(steps, usual if entries_per_window is None else entries_per_window))]
        if entries_per_window is not None:
            raise ValueError("holds windows, entries_per_window does not apply")
        return [_trace(path.name, _folder(path))] if path.is_dir() else _npz(path)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or 'cannot be read'}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def fitted(shapes: Sequence[Shape], trace: LoadTrace, path: Path) -> list[Shape]:
    """Those of `shapes` with as many experts as `trace`, read from `path`, and with its layers. ValueError for none."""
    fitting = [replace(shape, layers=trace.layers) for shape in shapes if shape.experts == trace.experts]
    if not fitting:
        known = ", ".join(sorted({str(shape.experts) for shape in shapes}, key=int))
        raise ValueError(f"{path}: {trace.name} has {trace.experts} experts, the shapes asked for {known}")
    return fitting


def save_recorded(path: str | Path, traces: Sequence[LoadTrace]) -> None:
    """Write recorded traces to one compressed `.npz` that `load_recorded` reads back, samples and all."""
    arrays = {trace.name: trace.samples for trace in traces if trace.source == "recorded"}
    if not arrays or len(arrays) < len(traces):
        raise ValueError(f"{path}: expected recorded traces of different names to save, at least one")
    if Path(path).suffix != ".npz":
        raise ValueError(f"{path}: expected a name that ends in .npz")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, samples in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, samples, allow_pickle=False)


def _steps(path: Path) -> tuple[Counts, int]:
    """Loads [steps, L, E] of a file of steps, and how many of them make a window by default."""
    if path.suffix == ".pt":
        counts = _sglang(_torch_dict(path))
        return counts, len(counts)
    if path.suffix == ".jsonl":
        lines = [line for line in _text(path).split("\n") if line.strip()]
        return _entries([_json(line, f"line {number + 1}") for number, line in enumerate(lines)], "line"), 1
    if path.suffix != ".json":
        raise ValueError("unknown kind of file, expected .npz, .json, .jsonl, .pt or a folder of .pt")
    data = _json(_text(path), "the file")
    if isinstance(data, dict) and "load_history" in data:
        return _entries(data["load_history"], "load_history entry"), HISTORY_WINDOW
    counts = _sglang(data)
    return counts, len(counts)


def _entries(entries: object, what: str) -> Counts:
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"expected at least one {what}")
    arrays: list[Counts] = []
    for number, entry in enumerate(entries):
        load = entry.get("logical_expert_load") if isinstance(entry, dict) else None
        if not isinstance(load, list):
            raise ValueError(f"{what} {number + 1} has no list logical_expert_load")
        counts = _counts(load, f"{what} {number + 1}")
        if counts.ndim != 2:
            raise ValueError(f"{what} {number + 1} is {list(counts.shape)}, expected [layers, experts]")
        if arrays and counts.shape != arrays[0].shape:
            raise ValueError(f"{what} {number + 1} is {list(counts.shape)}, expected {list(arrays[0].shape)}")
        arrays.append(counts)
    if len(arrays) * arrays[0].size > MAX_CELLS:
        raise ValueError(f"has more than {MAX_CELLS} numbers")
    return np.stack(arrays)


def _sglang(data: object) -> Counts:
    """[steps, L, E] of SGLang's dump."""
    if not isinstance(data, dict) or "logical_count" not in data:
        raise ValueError("has neither logical_count nor load_history at its top")
    counts = _counts(data["logical_count"], "logical_count")
    if counts.ndim not in (2, 3):
        raise ValueError(
            f"logical_count is {list(counts.shape)}, expected [layers, experts] or [steps, layers, experts]"
        )
    return counts.reshape(-1, *counts.shape[-2:])


def _folder(path: Path) -> Counts:
    """[windows, 1, L, E] of a folder of dumps; a dump may have any number of steps."""
    files = sorted(file for file in path.iterdir() if file.suffix in (".pt", ".json"))
    if not 0 < len(files) <= MAX_MEMBERS:
        raise ValueError(f"has {len(files)} files in .pt or .json, expected 1 to {MAX_MEMBERS}")
    windows: list[Counts] = []
    for file in files:
        try:
            counts = _sglang(_torch_dict(file) if file.suffix == ".pt" else _json(_text(file), "the file"))
        except ValueError as error:
            raise ValueError(f"{file.name}: {error}") from None
        windows.append(counts.sum(axis=0))
        if windows[-1].shape != windows[0].shape:
            raise ValueError(f"{file.name} is {list(windows[-1].shape)}, expected {list(windows[0].shape)}")
        if len(windows) * windows[0].size > MAX_CELLS:
            raise ValueError(f"more than {MAX_CELLS} numbers")
    return np.stack(windows)[:, None]


def _npz(path: Path) -> list[LoadTrace]:
    traces: list[LoadTrace] = []
    _check_size(path, MAX_BYTES)
    with _parsed(lambda: zipfile.ZipFile(path), "an .npz file") as archive:
        _check_archive(archive)
        for name in archive.namelist():
            array = _parsed(partial(_npy, archive, name), f"an array of numbers: {_plain(name)}")
            counts = _counts(array, _plain(name))
            if not 2 <= counts.ndim <= 4:
                raise ValueError(f"{_plain(name)} is {list(counts.shape)}, expected [layers, experts] or windows of it")
            if counts.ndim < 4:
                counts = counts.reshape(-1, 1, *counts.shape[-2:])
            traces.append(_trace(name.removesuffix(".npy"), counts))
    if not traces:
        raise ValueError("has no array")
    return traces


def _npy(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """One array. Its header is believed only after the size was checked, so that it cannot ask for more memory."""
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[
            version
        ]
        shape, fortran, dtype = read_header(member)
        if dtype.kind not in "iuf" or any(length < 0 for length in shape):
            raise TypeError
        data = np.frombuffer(member.read(), dtype)
        return data.reshape(shape, order="F" if fortran else "C")


def _torch_dict(path: Path) -> dict[str, NDArray[Any]]:
    """`logical_count` of a `.pt` file as numpy, without running anything that the file says."""
    try:
        import torch
    except ImportError:
        raise ValueError("reading .pt needs torch") from None
    _check_size(path, MAX_BYTES)
    with _parsed(lambda: zipfile.ZipFile(path), "a file of torch.save") as archive:
        _check_archive(archive)
    data = _parsed(lambda: torch.load(path, map_location="cpu", weights_only=True), "a file of plain tensors")
    count: Any = data.get("logical_count") if isinstance(data, dict) else None
    if type(count) is not torch.Tensor or count.is_complex():
        raise ValueError("has no tensor of counts logical_count at its top")
    if count.numel() > MAX_CELLS:
        raise ValueError(f"more than {MAX_CELLS} numbers")
    dtype = torch.float64 if count.is_floating_point() else torch.int64
    return {"logical_count": _parsed(lambda: count.detach().to("cpu", dtype).numpy(), "a plain tensor: logical_count")}


def _check_archive(archive: zipfile.ZipFile) -> None:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS or sum(member.file_size for member in members) > MAX_BYTES:
        raise ValueError(f"has more than {MAX_MEMBERS} members or {MAX_BYTES} bytes")


def _check_size(path: Path, limit: int) -> None:
    if not path.is_file():
        raise ValueError("no such file")
    if path.stat().st_size > limit:
        raise ValueError(f"has {path.stat().st_size} bytes, at most {limit} are read")


def _text(path: Path) -> str:
    _check_size(path, MAX_JSON_BYTES)
    return _parsed(lambda: path.read_text("utf-8"), "UTF-8 text")


def _json(text: str, what: str) -> Any:
    return _parsed(lambda: json.loads(text), f"JSON: {what}")


def _parsed(parse: Callable[[], T], what: str) -> T:
    """`parse()`; what it raises is the file's doing, and decoders of foreign bytes raise nearly anything."""
    try:
        return parse()
    except Exception as error:
        raise ValueError(f"not {what} ({type(error).__name__})") from None


def _counts(value: object, what: str) -> Counts:
    """Whole numbers from 0, together MAX_LOAD at most, as int64."""
    array = _parsed(lambda: np.asarray(value), f"a regular array of numbers: {what}")
    if array.dtype.kind not in "iuf" or not 0 < array.size <= MAX_CELLS:
        raise ValueError(f"not an array of 1 to {MAX_CELLS} numbers: {what}")
    if not (array.min() >= 0 and array.sum(dtype=np.float64) <= MAX_LOAD):
        raise ValueError(f"{what} has loads below 0 or, together, above 2^53")
    counts = array.astype(np.int64)
    if array.dtype.kind == "f" and (counts != array).any():
        raise ValueError(f"{what} has loads that are no whole numbers")
    return counts


def _by_window(steps: Counts, per_window: int) -> Counts:
    """[windows, per_window, L, E]."""
    windows = len(steps) // per_window if per_window > 0 else 0
    if not windows:
        raise ValueError(f"{len(steps)} steps or entries fill no window of {per_window}; give entries_per_window")
    return steps[: windows * per_window].reshape(windows, per_window, *steps.shape[1:])


def _trace(name: str, samples: Counts) -> LoadTrace:
    if samples.sum(dtype=np.float64) > MAX_LOAD:
        raise ValueError(f"{_plain(name)} has loads that are, together, above 2^53")
    loaded = samples.any(axis=(0, 1, 3))
    if not loaded.any():
        raise ValueError(f"{_plain(name)} has no load at all")
    kept = samples if loaded.all() else samples[:, :, loaded]
    return LoadTrace(_plain(name), "recorded", kept, "series" if len(kept) > 1 else "snapshot")


def _plain(name: str) -> str:
    """A name from a file, fit for a terminal and a page."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", name)[:80]
