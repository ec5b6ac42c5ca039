"""What can be said of a task's cases without running a program: plain, kept apart, the same wherever they are made."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from adrs_ray.evaluator.codec import UnencodableError, encode
from adrs_ray.task import Case, Split, Task, repository_root

HELD_APART: tuple[Split, ...] = ("train", "validation", "test")
REMAKE_TIMEOUT_S = 600.0

Cases = Mapping[Split, Sequence[Case]]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two splits that hold the same inputs; `example` names one as `id = id`."""

    splits: tuple[Split, Split]
    count: int
    example: str


def problem_of_cases(cases: Sequence[object]) -> str | None:
    """The first thing wrong with the cases of a split, as the end of a sentence, or None."""
    if not cases:
        return "is empty"
    seen: set[str] = set()
    for case in cases:
        if not isinstance(case, Case):
            return f"holds a {type(case).__name__}, expected adrs_ray.task.Case"
        if not isinstance(case.id, str):
            return f"has the id {case.id!r}, expected a text"
        if case.id in seen:
            return f"has the id {case.id!r} twice"
        seen.add(case.id)
        if type(case.seed) is not int:
            return f"case {case.id}: seed is {case.seed!r}, expected an int"
        try:
            content_digest(case.public)
        except UnencodableError as error:
            return f"case {case.id}: public: {error}"
    return None


def overlaps(cases: Cases) -> list[Overlap]:
    """Pairs of train, validation and test that share inputs: equal in content, whatever their ids and seeds."""
    inputs = {split: {_input_digest(case): case.id for case in cases.get(split, ())} for split in HELD_APART}
    found = []
    for one, other in combinations(HELD_APART, 2):
        shared = sorted(inputs[one].keys() & inputs[other].keys(), key=lambda digest: inputs[one][digest])
        if shared:
            example = f"{inputs[one][shared[0]]} = {inputs[other][shared[0]]}"
            found.append(Overlap((one, other), len(shared), example))
    return found


def case_digests(cases: Cases) -> dict[str, list[str]]:
    """For each split one digest per case, over id, seed, public and, where it is plain data, hidden."""
    return {
        split: [content_digest([case.id, case.seed]) + _input_digest(case) for case in cases[split]] for split in cases
    }


def make_cases(task: Task) -> dict[Split, list[Case]]:
    """The cases of all splits of the task, made anew."""
    return {split: list(task.judge.cases(split)) for split in task.spec.splits}


def remade_differently(task: Task, cases: Cases, stage: str = "") -> str | None:
    """What changes when the cases of a stage ('': the last one) are made again, here and in another process, or None.

    Evaluators on several machines each make them, so all must come to the same. The other process has another seed
    for the hashes of texts, lest the order of a set pass unseen.
    """
    first = case_digests(cases)
    changed = _first_difference(first, case_digests(make_cases(task.in_stage(stage))))
    if changed:
        return f"cases({changed!r}) differ from one call to the next"
    script = (
        "import json, sys; from adrs_ray import case_checks, task; "
        "alone = task.load_task(sys.argv[1]).in_stage(sys.argv[2]); "
        "digests = case_checks.case_digests(case_checks.make_cases(alone)); "
        "print(); print(json.dumps(digests))"
    )
    path = os.pathsep.join(filter(None, [str(repository_root()), os.environ.get("PYTHONPATH")]))
    hash_seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, str(task.folder), stage],
            capture_output=True,
            text=True,
            timeout=REMAKE_TIMEOUT_S,
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": hash_seed},
            check=True,
        )
    except subprocess.TimeoutExpired:
        return f"cases take more than {REMAKE_TIMEOUT_S:g} s"
    except subprocess.CalledProcessError as error:
        last = (str(error.stderr).strip().splitlines() or ["no message"])[-1]
        return f"cases cannot be made in another process: {last}"
    changed = _first_difference(first, json.loads(done.stdout.splitlines()[-1]))
    return f"cases({changed!r}) differ from one process to the next" if changed else None


def _first_difference(one: Mapping[str, list[str]], other: Mapping[str, list[str]]) -> str | None:
    return next((split for split in one if one[split] != other.get(split)), None)


def _input_digest(case: Case) -> str:
    """Equal for cases that are the same problem; hidden data that is not plain is left out."""
    try:
        return content_digest([case.public, case.hidden])
    except UnencodableError:
        return content_digest([case.public])


def content_digest(value: Any) -> str:
    """A digest of a value in the form in which it travels to a candidate; UnencodableError when it cannot travel."""
    return hashlib.sha256(encode(value)).hexdigest()[:32]
