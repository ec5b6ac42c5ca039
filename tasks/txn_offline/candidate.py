"""A candidate's text as code and as a module, in the jail.

The folders of other tasks hold links to this file: a folder is loaded by path and cannot import its neighbour.
"""

from __future__ import annotations

import linecache
import sys
from types import CodeType, ModuleType

MODULE = "candidate"
FILE = "<candidate>"


def code_of(source: str) -> CodeType:
    """Compile a candidate; tracebacks show its lines. Raises SyntaxError."""
    linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)
    try:
        return compile(source, FILE, "exec", dont_inherit=True)
    except ValueError as error:  # lone surrogates
        raise SyntaxError(str(error)) from None


def new_module() -> ModuleType:
    """An empty module that stands in `sys.modules` under the candidate's name."""
    module = ModuleType(MODULE)
    module.__file__ = FILE
    sys.modules[MODULE] = module
    return module
