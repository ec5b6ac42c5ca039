"""Import the modules of a task folder under a private package name.

No module name that a user chose (`judge`, `tasks`, `cluster`) then shadows ours, or is shadowed by it. Only the
standard library is used, as fork servers under other interpreters load this file by its path.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def private_package(folder: Path) -> str:
    """The name of a folder's package: a function of its path, the same in every process, as numba's cache needs."""
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:10]
    return f"_adrs_task_{folder.name}_{digest}"


def import_private(folder: Path, module: str) -> ModuleType:
    """Import `<folder>/<module>.py`; it may import its siblings relatively (`from .kernel import f`)."""
    package = private_package(folder)
    if package not in sys.modules:
        spec = importlib.util.spec_from_loader(package, loader=None, is_package=True)
        assert spec is not None
        root = importlib.util.module_from_spec(spec)
        root.__path__ = [str(folder)]
        sys.modules[package] = root
    return importlib.import_module(f"{package}.{module}")
