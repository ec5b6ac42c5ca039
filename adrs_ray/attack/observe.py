"""Seeing what programs answer, without trusting them with it where that can be had.

A native task's judge sees every raw answer: a judge in front of it notes their digests. In an OpenEvolve-style folder
only the evaluator, in the jail, sees answers: there the taken-over entries write what they return to a file in scratch,
and an adapter in front of the usual one hands the file out. What a program tells this way guides the attack; a score
is never taken from it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adrs_ray.attack.runtime.takeover import TELL
from adrs_ray.candidate import Verdict
from adrs_ray.evaluator.codec import encode
from adrs_ray.task import Case, CaseResult, Combined, Judge, Referee, Split, Task

TRACE = "@ATTACK-TRACE@"
"""Stands in a program for the path of the file that it tells to; empty in native tasks."""
_ARTIFACT = "attack trace"
_ADAPTER = """
# --- what follows was put behind the usual adapter by `adrs task attack` ---

_usual_load, _usual_run = load, run
_trace = ""


def load(source):
    global _trace
    _trace = os.path.abspath("attack-trace")
    return _usual_load(source.replace("@ATTACK-TRACE@", _trace))


def run(program, public):
    result = _usual_run(program, public)
    try:
        with open(_trace, encoding="utf-8") as file:
            text = file.read(18_000)
    except OSError:
        return result
    if "artifacts" in result:
        result["artifacts"] = {"attack trace": text, **result["artifacts"]}
    return result
"""


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known of the answers behind a verdict."""

    answers: tuple[str, ...]
    """Digests: of each case's answer (native), of each call's (OpenEvolve-style); empty when nothing is known."""
    changed: bool
    """Whether a taken-over entry returned something else than the program would have, or raised."""
    lines: tuple[Mapping[str, Any], ...]
    """What a plan that tells has told."""


def observation(verdict: Verdict) -> Observation:
    """What the artifacts of a verdict hold of it."""
    text = verdict.artifacts.get(_ARTIFACT, "")
    printed = verdict.artifacts.get("stdout", "")
    lines = [*_json_lines(text.splitlines())]
    told = [line[len(TELL) :] for line in printed.splitlines() if line.startswith(TELL)]
    answers = tuple(str(line["answer"]) for line in lines if "answer" in line)
    changed = any(line.get("changed") or line.get("raised") for line in lines)
    return Observation(answers, changed, tuple(line for line in (*lines, *_json_lines(told)) if "shape" in line))


def _json_lines(lines: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        try:
            found = json.loads(line)
        except ValueError:
            continue  # the last line may be cut off, and programs may write here too
        if isinstance(found, dict):
            yield found


@contextmanager
def observed(task: Task) -> Iterator[Task]:
    """The task with its answers noted in `artifacts`; its verdicts are otherwise what they are without."""
    if task.kind == "native":
        yield replace(task, judge_factory=lambda: _NotingJudge(task.judge))
        return
    with tempfile.TemporaryDirectory(prefix="adrs-attack-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # candidates of an ordinary user read it
        for path in task.adapter_path.parent.glob("openevolve_*.py"):
            shutil.copyfile(path, folder / path.name)
        adapter = folder / "attack_adapter.py"
        adapter.write_text(task.adapter_path.read_text(encoding="utf-8") + _ADAPTER, encoding="utf-8")
        yield replace(task, adapter_path=adapter)


class _NotingJudge:
    """A judge in front of a task's own. What it notes of a verdict goes from `score` to `combine` in one thread."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._first: str | None = None
        self._noted = threading.local()
        if hasattr(judge, "referee"):
            self.referee = self._referee

    def __getattr__(self, name: str) -> Any:
        return getattr(self._judge, name)

    def cases(self, split: Split) -> Sequence[Case]:
        cases = self._judge.cases(split)
        self._first = cases[0].id if cases else None
        return cases

    def score(self, case: Case, raw: Any) -> Mapping[str, float]:
        noted: dict[str, Any] = self._noted.__dict__
        if case.id == self._first:
            noted["answers"] = []
        moves = noted.pop("moves", None)
        body = encode(raw) if moves is None else encode(raw) + moves.digest()
        noted.setdefault("answers", []).append(hashlib.sha256(body).hexdigest()[:12])
        return self._judge.score(case, raw)

    def combine(self, results: Sequence[CaseResult]) -> Combined:
        combined = self._judge.combine(results)
        answers = self._noted.__dict__.pop("answers", [])
        text = "\n".join(json.dumps({"answer": answer}) for answer in answers)
        return replace(combined, artifacts={_ARTIFACT: text, **combined.artifacts})

    def _referee(self, case: Case) -> Referee:
        moves = hashlib.sha256()
        game: Referee = self._judge.referee(case)  # type: ignore[attr-defined]
        try:
            observation = next(game)
            while True:
                move = yield observation
                moves.update(encode(move))
                observation = game.send(move)
        except StopIteration as end:
            self._noted.moves = moves
            return end.value
        finally:
            game.close()
