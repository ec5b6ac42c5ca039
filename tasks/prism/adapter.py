"""The untrusted side: gives a candidate the models of each problem and hands out which model it put on which GPU.

A program defines `compute_model_placement(gpu_num, models) -> {gpu_id: [models]}`, as publicly. A model in the answer
counts as the one that it is, or, for a copy, the one whose name it bears; whatever else was done to it is not read
here: the judge knows every figure. Only for `paper` scoring (`public["believe"]`) the figures that the answer's objects
bear are handed out too, and a problem on which the program fails is reported and passed over, as publicly.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from .model import Model
from .shims import evaluator

ENTRY = "compute_model_placement"

sys.modules.setdefault("evaluator", evaluator)


def run(program: ModuleType, public: Mapping[str, Any]) -> dict[str, Any]:
    """The candidate's placements of `public["problems"]`, mappings of `gpu_num` and `models` (size, rate, slo).

    Gives {"answers": [...]}: per problem {"gpus": [id, ...], "models": [[index, ...], ...]} in the order of the answer,
    with a text in place of whatever is no GPU id, no list or no model, for the judge to refuse. With `believe` there is
    also "figures", [size, rate, slo] per object, and {"error": text} for a problem that failed. Raises what the
    candidate raises, otherwise.
    """
    place = getattr(program, ENTRY)
    return {"answers": [_answer(place, problem, bool(public["believe"])) for problem in public["problems"]]}


def _answer(place: Any, problem: Mapping[str, Any], believe: bool) -> dict[str, Any] | str:
    gpu_num = int(problem["gpu_num"])
    given = [
        Model(f"model_{k}", int(size), int(rate), int(slo), k % gpu_num)
        for k, (size, rate, slo) in enumerate(problem["models"])
    ]
    by_identity = {id(model): k for k, model in enumerate(given)}
    by_name = {model.model_name: k for k, model in enumerate(given)}
    if not believe:
        answer = place(gpu_num, list(given))
        return _plain(answer, by_identity, by_name)
    try:
        answer = place(gpu_num, list(given))
        figures = [[_figures(model) for model in members] for members in answer.values()]
    except Exception as error:  # publicly a problem on which the program fails is left out of the mean
        return {"error": _describe(error)}
    return {"figures": figures}


def _plain(answer: Any, by_identity: Mapping[int, int], by_name: Mapping[str, int]) -> dict[str, Any] | str:
    if not isinstance(answer, Mapping):
        return f"{ENTRY} returned {_describe(answer)}, expected a dict of GPU id -> list of models"
    models: list[list[int | str] | str] = []
    for members in answer.values():
        if isinstance(members, Iterable) and not isinstance(members, str | bytes | Mapping):
            models.append([_index(model, by_identity, by_name) for model in members])
        else:
            models.append(_describe(members))
    return {"gpus": [_gpu(key) for key in answer], "models": models}


def _gpu(key: Any) -> int | str:
    plain = key.item() if isinstance(key, np.integer) else key
    return plain if type(plain) is int else _describe(key)


def _index(model: Any, by_identity: Mapping[int, int], by_name: Mapping[str, int]) -> int | str:
    if id(model) in by_identity:
        return by_identity[id(model)]
    name = getattr(model, "model_name", None)
    found = by_name.get(name) if isinstance(name, str) else None
    return _describe(model) if found is None else found


def _figures(model: Any) -> Sequence[float]:
    figures = [float(model.model_size), float(model.req_rate), float(model.slo)]
    if not all(map(math.isfinite, figures)):
        raise ValueError(f"{figures} of {_describe(model)} are no finite numbers")
    return figures


def _describe(value: Any) -> str:
    return f"{type(value).__name__} {repr(value)[:80]}"
