"""Entry of the processes that run candidates: `python -s -P -B bootstrap.py probe|serve|confined ...`.

Makes the few standard-library modules of the evaluator importable by path, under the names they have in our package
but without running its `__init__`: the interpreter may be another one, without our package and its dependencies.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType


def _shell(name: str, folder: str) -> None:
    module = ModuleType(name)
    module.__path__ = [folder]
    sys.modules[name] = module


def main() -> None:
    """Run the probe, the fork server, or one program in the jail."""
    evaluator = os.path.dirname(os.path.abspath(__file__))
    _shell("adrs_ray", os.path.dirname(evaluator))
    _shell("adrs_ray.evaluator", evaluator)
    module = {"probe": "interpreter", "serve": "forkserver", "confined": "confined", "supervise": "supervisor"}[
        sys.argv[1]
    ]
    importlib.import_module(f"adrs_ray.evaluator.{module}").main(sys.argv[2:])


if __name__ == "__main__":
    main()
