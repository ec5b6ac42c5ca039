"""The untrusted side: calls the program once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def run(program: Any, public: Mapping[str, Any]) -> Any:
    return program.f(public["x"])
