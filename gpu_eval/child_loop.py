"""What runs in the process of a program: requests from the parent, one after the other, until it goes.

A request is a JSON object with `do` (`gpu_eval.frames`); its reply is a JSON object and the arrays that follow it.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeAlias

from numpy.typing import NDArray

from gpu_eval.frames import Channel

Reply: TypeAlias = tuple[dict[str, Any], Sequence[NDArray[Any]]]
Request: TypeAlias = Callable[[dict[str, Any]], Reply]


def take_connection() -> Channel:
    """The socket on standard input; the program finds an empty standard input in its place."""
    connection = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return Channel(connection)


def serve(channel: Channel, requests: Mapping[str, Request]) -> None:
    """Answer until the parent goes. What a request raises is its answer: one line, and the process lives."""
    try:
        while True:
            request = channel.receive()
            try:
                answer, arrays = requests[request["do"]](request)
            except BaseException as error:  # SystemExit, too; a traceback would be the program's text, not ours
                text = (str(error).splitlines() or [""])[0][:300]
                channel.send({"error": f"{type(error).__name__}: {text}" if text else type(error).__name__})
                continue
            channel.send(answer)
            for array in arrays:
                channel.send_array(array)
    except ValueError:
        return  # the parent has gone


def load_program(path: str) -> ModuleType:
    """Execute a file as the module `candidate_program`."""
    spec = importlib.util.spec_from_file_location("candidate_program", path)
    if spec is None or spec.loader is None:
        raise ValueError("its source is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
