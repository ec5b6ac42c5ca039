"""The task cloudcast through the evaluator: hacks fail or change nothing, programs of every style are judged."""

from __future__ import annotations

import asyncio

import pytest

from adrs_ray.candidate import Evaluation, Failure, FailureKind, Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.task import Task, load_task

from .test_cloudcast import DIRECT, PROGRAMS, PUBLIC_STYLE, answering, judged

TASK = load_task("cloudcast")


def forging(statement: str, more: str = "") -> str:
    """Direct sending by a program that changes the adapter's `raw` on its way out."""
    return (
        "import sys, utils\nimport numpy as np\n"
        "module = next(m for m in list(sys.modules.values()) if hasattr(m, '_Reading'))\n"
        "read = module._Reading.read\n"
        "def forged(self, topology):\n"
        "    raw = read(self, topology)\n"
        f"    {statement}\n"
        "    return raw\n"
        f"module._Reading.read = forged\n{more}\n{DIRECT}"
    )


WITHOUT_EFFECT = {
    "forged figures of edges": answering("[[src, dst, {'cost': 0.0, 'throughput': 1e9}]]"),
    "an altered graph": answering(
        "[[src, dst, [G[src][dst].update(cost=-1.0, throughput=1e12), G.graph.update(data_vol=0.0)]]]"
    ),
    "an altered adapter and shim": forging(
        "raw.update(total_cost=0.0, saving=1.0, data=np.zeros((len(raw['edges']), 2)))", "utils._make = None"
    ),
    "a new edge in the graph": answering("[[src, dst, G.add_edge(src, 'aws:free', cost=0.0, throughput=1e9)]]"),
    "forged attributes of the topology": DIRECT.replace(
        "return t", "t.cost = t.total_cost = 0.0; t.num_partitions = 1; t.src = dsts[0]; return t"
    ),
}
"""Each is direct sending and something that shall not count."""

INVALID = {
    "an adapter that drops all destinations but one": forging(
        "raw.update(destinations=raw['destinations'][:1], counts=raw['counts'][:1], "
        "edges=raw['edges'][: raw['counts'].shape[1]])"
    ),
    "an adapter with more regions than there are": forging("raw['regions'] += [str(i) for i in range(20_000)]"),
    "only the first destination": answering("[[src, dst, G[src][dst]]] if dst == dsts[0] else []"),
    "only the first destination named": answering("[[src, dst]]", "t.paths = {dsts[0]: t.paths[dsts[0]]}"),
    "nothing": answering("[]"),
    "no destinations": answering("[[src, dst]]", "t.paths = {}"),
    "a link that is not there": answering("[[src, dst]] + [[dst, dst]]"),
    "a large graph that is not there": answering(
        "[[src, '0'], *([str(i), str(i + 1)] for i in range(4000)), ['4000', dst]] if p == 0 else [[src, dst]]"
    ),
    "a region that is not there": answering("[[src, 'aws:free'], ['aws:free', dst]]"),
    "a path with a gap": answering("[[other, dst]]"),
    "a partition left out": answering("[[src, dst]] if p != 1 else []"),
    "another destination's edges": answering("[[src, dsts[0]]]"),
    "partitions under other keys": answering("[]", "t.paths = {d: {'all': [[src, d]]} for d in dsts}"),
}

OUTPUT = {
    "an adapter that drops all partitions but one": forging("raw['counts'] = raw['counts'][:, :1]"),
    "an adapter that counts more edges than it sends": forging("raw['counts'] *= 10**9"),
    "an adapter with a megabyte of complaint": forging("return {'problem': '\\ud800' + 'x' * 1_000_000}"),
    "no topology": "def search_algorithm(*a): return 0.0",
    "a graph instead": "def search_algorithm(src, dsts, G, n): return G",
    "more edges than the network has": answering("[[src, dst]] * 100_000"),
    "a dict that lies about its items": "class Odd(dict):\n    def items(self): return []\n"
    + answering("[[src, dst]]", "t.paths = Odd(t.paths)"),
}


def verdicts(task: Task, *sources: str, split: str = "train") -> list[Verdict]:
    """Verdicts from one slot."""

    async def judge() -> list[Verdict]:
        evaluator = LocalEvaluator(task, EvaluatorConfig(slots=1))
        try:
            await evaluator.start()
        except UsageError as error:
            pytest.skip(f"no jail on this machine: {error}")
        try:
            return [await evaluator.evaluate(EvaluationJob(f"c{i}", s, split)) for i, s in enumerate(sources)]
        finally:
            await evaluator.close()

    return asyncio.run(judge())


@pytest.fixture(scope="module")
def found() -> dict[str, Verdict]:
    programs = {**WITHOUT_EFFECT, **INVALID, **OUTPUT, **PUBLIC_STYLE, "seed": TASK.seed_source}
    programs["unreadable"] = "def search_algorithm(:"
    programs["no entry"] = "def search(src, dsts, G, num_partitions):\n    return None\n"
    programs["crash"] = answering("[[src, dst, G[src]['aws:free']]]")
    programs["memory"] = answering("[[src, dst]]", "G.graph['more'] = bytearray(4 * 2**30)")
    return dict(zip(programs, verdicts(TASK, *programs.values()), strict=True))


@pytest.mark.parametrize("name", list(WITHOUT_EFFECT))
def test_tampering_changes_no_score(name: str, found: dict[str, Verdict]) -> None:
    verdict = found[name]
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.score == 0.0
    assert verdict.metrics["total_cost"] == verdict.metrics["direct_cost"]


@pytest.mark.parametrize("name", list(INVALID))
def test_what_is_no_broadcast_is_invalid(name: str, found: dict[str, Verdict]) -> None:
    verdict = found[name]
    assert isinstance(verdict, Failure)
    assert verdict.kind is FailureKind.INVALID, verdict


@pytest.mark.parametrize("name", list(OUTPUT))
def test_what_is_no_topology_is_malformed(name: str, found: dict[str, Verdict]) -> None:
    verdict = found[name]
    assert isinstance(verdict, Failure)
    assert verdict.kind is FailureKind.OUTPUT, verdict


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("unreadable", FailureKind.SYNTAX),
        ("no entry", FailureKind.INTERFACE),
        ("crash", FailureKind.CRASH),
        ("memory", FailureKind.MEMORY),
    ],
)
def test_programs_that_do_not_answer(name: str, kind: FailureKind, found: dict[str, Verdict]) -> None:
    verdict = found[name]
    assert isinstance(verdict, Failure)
    assert verdict.kind is kind, verdict


@pytest.mark.parametrize("name", [*PUBLIC_STYLE, "seed"])
def test_scores_are_those_of_this_process(name: str, found: dict[str, Verdict]) -> None:
    verdict = found[name]
    assert isinstance(verdict, Evaluation), verdict
    here = judged(TASK, PUBLIC_STYLE.get(name, TASK.seed_source), "train")
    assert verdict.score == here.score
    assert verdict.trust == "verified"
    assert verdict.metrics["cpu_s"] == sum(case.cpu_s for case in verdict.cases) > 0


def test_the_public_scoring_is_jailed_too() -> None:
    paper = load_task("cloudcast", "paper")
    honest, forged = verdicts(paper, PROGRAMS["dijkstra"], WITHOUT_EFFECT["forged figures of edges"], split="test")
    assert isinstance(honest, Evaluation)
    assert isinstance(forged, Evaluation)
    assert honest.score == judged(paper, PROGRAMS["dijkstra"], "test").score < forged.score
