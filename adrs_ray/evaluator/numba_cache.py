"""numba's cache for programs that have no file: what was compiled in the build step is found again in the cases.

Standard library only, and numba itself once a program wants it: fork servers load this file by its path.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Callable
from typing import Any


def use(folder: str, source: str, is_programs: Callable[[str], bool], writes: bool) -> None:
    """Let functions with `cache=True`, of files of which `is_programs` holds, be kept in `folder` for this very source.

    Without `writes` they are only looked up there: what is not found is compiled and kept nowhere. Nothing happens when
    there is no numba.
    """
    try:
        caching: Any = importlib.import_module("numba.core.caching")
    except ImportError:
        return
    stamp = hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()

    class ProgramsLocator(caching._CacheLocator):  # type: ignore[misc]
        def __init__(self, line: int) -> None:
            self._line = line

        def ensure_cache_path(self) -> None:
            if writes:
                os.makedirs(folder, exist_ok=True)

        def get_cache_path(self) -> str:
            return folder

        def get_source_stamp(self) -> str:
            return stamp

        def get_disambiguator(self) -> str:
            return str(self._line)

        @classmethod
        def from_function(cls, py_func: Any, py_file: str) -> ProgramsLocator | None:
            return cls(py_func.__code__.co_firstlineno) if is_programs(py_file) else None

    implementation = getattr(caching, "CacheImpl", None) or caching._CacheImpl  # before 0.61 the name was private
    implementation._locator_classes.insert(0, ProgramsLocator)
    if not writes:
        caching.FunctionCache.save_overload = lambda self, sig, data: None
