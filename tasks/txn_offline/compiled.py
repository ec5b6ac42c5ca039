"""Kernels compiled when their module is imported, so that a process forked later compiles nothing.

The folders of other tasks hold links to this file: a folder is loaded by path and cannot import its neighbour.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile now, for one signature, with a cache file of its own per name of the package.

    What numba caches can only be loaded where a module of the same name can be imported; under another name (a task
    folder that was moved) it would raise ModuleNotFoundError. Where no cache can be written it raises RuntimeError:
    then every process compiles for itself.
    """

    def compile_now(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__qualname__ = f"{function.__name__}.{function.__module__}"
        try:
            kernel: Callable[..., Any] = njit(signature, cache=True)(function)
        except RuntimeError:
            kernel = njit(signature)(function)
        return kernel

    return compile_now
