"""A task under other names and another story, so that recall can be told from discovery.

`isomorphic.yaml` in a task's folder tells the same problem anew: statement, seed and the names that programs use. A
model writes programs in these names; the evaluator swaps them back at its door, judges as ever, and swaps the words of
what it found. The swap takes every old name to its new one and every new name to its old one, so it is its own inverse
on any text whatever: no program is lost or made ambiguous by it.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from pydantic import BaseModel, ConfigDict, Field, field_validator

from adrs_ray.candidate import Failure, Verdict
from adrs_ray.errors import UsageError
from adrs_ray.program import evolve_blocks, fingerprint
from adrs_ray.task import Metric, Task, read_program
from adrs_ray.task_spec import read_yaml_model, register_for_messages

FILE = "isomorphic.yaml"

_PREFIX = re.compile(r"[rbfuRBFU]{1,2}")
_TOKEN = re.compile(
    r"""(?P<comment>\#[^\r\n]*+)"""
    r"""|(?P<string>(?P<prefix>[rbfuRBFU]{0,2})"""
    r"""(?P<body>\"{3}(?:[^"\\]|\\.|"(?!""))*+\"{3}|'{3}(?:[^'\\]|\\.|'(?!''))*+'{3}"""
    r"""|"(?!"")(?:[^"\\\r\n]|\\(?:\r\n|.))*+"|'(?!'')(?:[^'\\\r\n]|\\(?:\r\n|.))*+'))"""
    r"""|(?P<word>\w++)"""
    r"""|(?P<stray>["'])"""
    r"""|[^\w#"']++""",
    re.DOTALL,
)
_FIELD = re.compile(r"""'[^'{}\\\r\n]*+'|"[^"{}\\\r\n]*+"|\w++|\{\{|\}\}|[{}]|[^\w{}"']++|.""", re.DOTALL)
_WORD = re.compile(r"\w+")
_WORD_BEGINS = r"(?-i:(?<![A-Za-z])|(?=[A-Z]))"
"""Behind what is no letter, or at a capital: `isinstance` holds no instance, `my_instances` and `MyInstance` do."""


@dataclass(frozen=True)
class Swap:
    """Exchanges identifiers in program texts; `names` maps both ways."""

    names: Mapping[str, str]

    def program(self, source: str) -> str:
        """The program with its names exchanged: identifiers, and strings that are exactly one of them.

        Comments and all other strings stay, but for the expressions inside f-strings. Of a text with a string that
        does not end, every word counts. Its own inverse on every text; linear time.
        """
        parts: list[str] = []
        for token in _TOKEN.finditer(source):
            if token["stray"]:
                return self.text(source)
            if token["word"]:
                parts.append(self.names.get(token[0], token[0]))
            elif token["string"]:
                parts.append(token["prefix"] + self._string(token["prefix"].lower(), token["body"]))
            else:
                parts.append(token[0])
        return "".join(parts)

    def text(self, text: str) -> str:
        """Any text with every word that is one of the names exchanged."""
        return _WORD.sub(lambda word: self.names.get(word[0], word[0]), text)

    def _string(self, prefix: str, body: str) -> str:
        width = 3 if len(body) >= 6 and body[:3] in ('"""', "'''") else 1
        quote, content = body[:width], body[width:-width]
        if "f" in prefix:
            content = "".join(self._formatted(content))
        elif "b" not in prefix:
            content = self.names.get(content, content)
        return quote + content + quote

    def _formatted(self, content: str) -> Iterator[str]:
        """An f-string's content; only what stands in braces is exchanged."""
        depth = 0
        for token in _FIELD.finditer(content):
            text = token[0]
            if text[0] in "{}":
                depth = _depth_after(text, depth)
            elif depth and text[0] in "\"'" and len(text) > 1:
                text = text[0] + self.names.get(text[1:-1], text[1:-1]) + text[0]
            elif depth:
                text = self.names.get(text, text)
            yield text


def _depth_after(braces: str, depth: int) -> int:
    """Nesting of replacement fields behind one or two braces; outside of all, two of a kind are one character."""
    if depth == 0 and braces in ("{{", "}}"):
        return 0
    for brace in braces:
        depth = max(0, depth + (1 if brace == "{" else -1))
    return depth


@register_for_messages
class IsomorphicSpec(BaseModel):
    """`isomorphic.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="what models are told that the task is called")
    summary: str
    statement: str = Field(description="the whole problem in another story: the same rules, limits and numbers")
    rename: dict[str, str] = Field(min_length=1, description="names that programs use: native name -> new name")
    metrics: dict[str, str] = Field(description="the metrics that models are told, with their new descriptions")
    secret_words: dict[str, str] = Field(
        description="words that give the story away -> what stands for them in what the evaluator says"
    )
    seed: str = Field(description="the medium seed in the new names, with comments of the new story")

    @field_validator("rename")
    @classmethod
    def _bijection(cls, rename: dict[str, str]) -> dict[str, str]:
        both = [*rename, *rename.values()]
        for name in both:
            if not name.isidentifier() or not name.isascii() or keyword.iskeyword(name) or hasattr(builtins, name):
                raise ValueError(f"{name!r} is no identifier of ASCII letters that Python leaves free")
            if _PREFIX.fullmatch(name):
                raise ValueError(f"{name!r} may be read as the prefix of a string")
        twice = sorted({name for name in both if both.count(name) > 1})
        if twice:
            raise ValueError(f"{twice[0]!r} stands in it twice: every name is either native or new, and once")
        return rename


@dataclass(frozen=True)
class Disguise:
    """What a disguised task knows of the one behind it."""

    native: Task
    swap: Swap
    native_names: frozenset[str]
    secret_words: Mapping[str, str]
    _pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        longest_first = sorted(self.secret_words, key=len, reverse=True)
        words = "|".join(map(re.escape, longest_first)) or r"(?!)"
        pattern = f"{_WORD_BEGINS}(?:{words})"
        object.__setattr__(self, "_pattern", re.compile(pattern, re.IGNORECASE))

    def text(self, native: str) -> str:
        """What the evaluator said, in the words of the new story."""
        return self._pattern.sub(lambda word: self._stand_in(word[0]), self.swap.text(native))

    def _stand_in(self, word: str) -> str:
        new = self.secret_words.get(word) or next(
            new for old, new in self.secret_words.items() if old.lower() == word.lower()
        )
        return new[:1].upper() + new[1:] if word[:1].isupper() else new


def read_isomorphic(task: Task) -> IsomorphicSpec:
    """The task's isomorphic.yaml. Raises UsageError, one line, when there is none or it does not fit the task."""
    if task.kind != "native":
        raise UsageError(f"{task.folder} is an OpenEvolve-style folder: only tasks with a task.yaml can be isomorphic")
    if task.spec.files:
        raise UsageError(
            f"task {task.name} is a program of several files: only tasks with one seed.py can be isomorphic"
        )
    path = task.folder / FILE
    if not path.is_file():
        raise UsageError(f"task {task.name} has no {FILE}, which tells it in another story (docs/tasks.md)")
    spec = read_yaml_model(path, IsomorphicSpec, "a mapping with `statement`, `rename` and `seed`")
    for name in spec.metrics:
        if name not in task.spec.metrics:
            raise UsageError(f"{path}: metrics.{name} is not declared in task.yaml")
    case_metric = task.spec.case_metric
    if case_metric is not None and case_metric not in spec.metrics:
        raise UsageError(f"{path}: metrics lacks {case_metric}, the case_metric of task.yaml")
    try:
        blocks = evolve_blocks(spec.seed)
        same = fingerprint(_swap(spec).program(spec.seed)) == fingerprint(read_program(task.folder / "seed.py"))
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{path}: seed: {' '.join(str(error).split())}") from None
    if not same:
        raise UsageError(f"{path}: seed is another program than seed.py once its names are swapped back")
    if len(blocks) != len(evolve_blocks(read_program(task.folder / "seed.py"))):
        raise UsageError(f"{path}: seed has other evolve blocks than seed.py")
    return spec


def disguised(task: Task) -> Task:
    """The task as models are told it in an isomorphic run: spec and seed in the new names, no hints.

    `Task.native` is the one behind it, whose names judges, verdicts and baselines keep. Raises UsageError, one line,
    when the task has no isomorphic.yaml, that file does not fit it, or it starts from another seed than the medium one.
    """
    if task.disguise is not None:
        return task
    told = read_isomorphic(task)
    if task.seed_source != read_program(task.folder / "seed.py"):
        raise UsageError(f"task {task.name}: an isomorphic run starts from the medium seed: leave `start` at medium")
    swap = _swap(told)
    spec = task.spec.model_copy(
        update={
            "name": told.name,
            "summary": told.summary,
            "statement": told.statement,
            "entry": tuple(swap.text(name) for name in task.spec.entry),
            "banned_imports": tuple(swap.text(name) for name in task.spec.banned_imports),
            "metrics": {
                name: Metric(unit=native.unit, direction=native.direction, description=told.metrics[name])
                for name, native in task.spec.metrics.items()
                if name in told.metrics
            },
        }
    )
    disguise = Disguise(task, swap, frozenset(told.rename), told.secret_words)
    return replace(task, spec=spec, seed_source=told.seed, disguise=disguise)


def given_away(task: Task) -> tuple[str, ...]:
    """Native names and secret words that a disguised task still tells a model, sorted. Empty for a good disguise."""
    disguise = task.disguise
    if disguise is None:
        return ()
    spec = task.spec
    described = [f"{name} {metric.description}" for name, metric in spec.metrics.items()]
    stages = [stage.name.replace("_", " ") for stage in spec.stages]  # a candidate that is held back is told of them
    told = "\n".join([spec.name, spec.summary, spec.statement, task.seed_source, *spec.entry, *described, *stages])
    names = disguise.native_names.intersection(_WORD.findall(told))
    return tuple(sorted(names | {word for word in disguise.secret_words if word.lower() in told.lower()}))


def retold(task: Task, verdict: Verdict) -> Verdict:
    """A verdict of the evaluator in the words that models are told: details, artifacts and the names of cases.

    Metrics keep their names. The same verdict for a task without disguise.
    """
    if task.disguise is None:
        return verdict
    artifacts = {name: task.disguise_text(text) for name, text in verdict.artifacts.items()}
    if isinstance(verdict, Failure):
        case = None if verdict.case is None else task.disguise_text(verdict.case)
        return replace(verdict, detail=task.disguise_text(verdict.detail), case=case, artifacts=artifacts)
    cases = tuple(replace(case, case=task.disguise_text(case.case)) for case in verdict.cases)
    return replace(verdict, cases=cases, artifacts=artifacts)


def _swap(spec: IsomorphicSpec) -> Swap:
    return Swap({**spec.rename, **{new: old for old, new in spec.rename.items()}})
