"""The task spot_single in this process: forms of programs, what they are told, splits, seeds, metrics, conversion."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adrs_ray.private_import import import_private
from adrs_ray.task import SPLITS, CaseResult, MalformedOutput, UsageError, load_task, repository_root

from .test_spot_single_rules import ADAPTER, BASELINES, NEVER, PUBLIC, SOUND, judged, play

CONVERT = import_private(SOUND.folder, "convert")
SUMMARY = import_private(SOUND.folder, "summary")
FIRST = SOUND.judge.cases("train")[0]

GENERATED_TRACES = {
    "train": "1f0015eedf85ed27",
    "validation": "c282496b94b285d8",
    "stress": "9f7ebd14730e1129",
}
"""Digests of the generated splits."""

TYPED_PUBLIC_STYLE = '''
"""As the public starting point is laid out: options, reset, registration by NAME."""
import argparse
import logging
import math
import typing

from sky_spot.strategies.strategy import Strategy
from sky_spot.utils import ClusterType

if typing.TYPE_CHECKING:
    from sky_spot import env, task

logger = logging.getLogger(__name__)


class Evolved(Strategy):
    NAME = "evolved"

    def __init__(self, args):
        super().__init__(args)
        self.reserve = args.reserve_overheads

    def reset(self, env: "env.Env", task: "task.Task"):
        super().reset(env, task)
        logger.debug("%s %s", env.gap_seconds, self.task_duration)

    def _step(self, last_cluster_type: ClusterType, has_spot: bool) -> ClusterType:
        env = self.env
        rest = self.task_duration - sum(self.task_done_time)
        if rest <= 1e-3:
            return ClusterType.NONE
        left = math.floor((self.deadline - env.elapsed_seconds) / env.gap_seconds) * env.gap_seconds
        need = math.ceil((rest + self.reserve * self.restart_overhead) / env.gap_seconds) * env.gap_seconds
        if need >= left:
            keep = last_cluster_type == ClusterType.SPOT and self.remaining_restart_overhead < 1e-3 and has_spot
            return ClusterType.SPOT if keep else ClusterType.ON_DEMAND
        return ClusterType.SPOT if has_spot else ClusterType.NONE

    @classmethod
    def _from_args(cls, parser: "argparse.ArgumentParser"):
        group = parser.add_argument_group("Evolved")
        group.add_argument("--reserve-overheads", type=float, default=2.0)
        args, _ = parser.parse_known_args()
        return cls(args)
'''

PACKAGE_IMPORT_STYLE = """
import sky_spot.strategies.strategy as strategy_lib
from sky_spot import strategies, utils

assert strategies.Strategy is strategy_lib.Strategy


class Base(strategy_lib.Strategy):
    NAME = "base"

    def wanted(self, has_spot):
        return utils.ClusterType.SPOT if has_spot else utils.ClusterType.NONE


class Waits(Base):
    NAME = "waits"

    def _step(self, last_cluster_type, has_spot):
        if sum(self.task_done_time) >= self.task.task_duration:
            return utils.ClusterType.NONE
        return self.wanted(has_spot)
"""

PLAIN_STYLE = """
from sky_spot.utils import ClusterType


class Waits:
    def _step(self, last_cluster_type, has_spot):
        if sum(self.task_done_time) >= self.task_duration:
            return ClusterType.NONE
        return ClusterType.SPOT if has_spot else ClusterType.NONE
"""

OWN_OPTIONS_STYLE = (
    PACKAGE_IMPORT_STYLE
    + """
    def __init__(self, patience=3):
        super().__init__()
        self.patience = patience + 1
"""
)

PLAIN_OPTIONS_STYLE = (
    PLAIN_STYLE
    + """
    def __init__(self, patience=3):
        self.patience = patience + 1
"""
)

FUNCTION_STYLE = PLAIN_STYLE.replace("class Waits:\n    def _step(self,", "if True:\n    def _step(self,")


@pytest.mark.parametrize(
    "source", [PACKAGE_IMPORT_STYLE, OWN_OPTIONS_STYLE, PLAIN_STYLE, PLAIN_OPTIONS_STYLE, FUNCTION_STYLE]
)
@pytest.mark.parametrize("task", [SOUND, PUBLIC], ids=["sound", "paper"])
def test_programs_of_every_form_run_as_the_baseline_does(source: str, task: Any) -> None:
    assert play(task, source, FIRST).tolist() == play(task, BASELINES["spot_else_wait"], FIRST).tolist()


COUNTS_ITS_STEPS = """
from sky_spot.strategies.strategy import Strategy
from sky_spot.utils import ClusterType


class Counting(Strategy):
    NAME = "counting"

    def _step(self, last_cluster_type, has_spot):
        gaps_left = (self.deadline - self.env.elapsed_seconds) // self.env.gap_seconds
        rest = self.task_duration - sum(self.task_done_time)
        if -(-(rest + self.restart_overhead) // self.env.gap_seconds) >= gaps_left:
            raise RuntimeError("asked about what the guarantee decides")
        return ClusterType.SPOT if has_spot else ClusterType.NONE
"""


def test_what_the_guarantee_decides_is_asked_of_nobody() -> None:
    """The answers would not count, and three quarters of the rounds of some traces are such."""
    for case in SOUND.judge.cases("train")[:4]:
        asked = play(SOUND, COUNTS_ITS_STEPS, case)
        assert asked.tolist() == play(SOUND, BASELINES["spot_else_wait"], case).tolist()
    with pytest.raises(RuntimeError, match="the guarantee decides"):
        play(PUBLIC, COUNTS_ITS_STEPS, FIRST)


def test_a_program_laid_out_as_the_public_one_runs_unchanged() -> None:
    for case in SOUND.judge.cases("train")[:2]:
        metrics = SOUND.judge.score(case, play(SOUND, TYPED_PUBLIC_STYLE, case))
        assert 0 < metrics["saved"] < 1


@pytest.mark.parametrize("source", ["x = 1", "class Policy:\n    def step(self):\n        pass\n", "_step = 3"])
def test_a_program_without_strategy_says_so(source: str) -> None:
    with pytest.raises(ADAPTER.InterfaceError, match=r"_step\(self, last_cluster_type, has_spot\)"):
        ADAPTER.load(source)


def test_a_syntax_error_comes_from_load() -> None:
    with pytest.raises(SyntaxError):
        ADAPTER.load("class S(:")


def test_what_a_strategy_is_told() -> None:
    """Recorded by a strategy that takes turns; each run sees its own job, and no run sees beyond the tick."""
    source = """
from sky_spot.strategies.strategy import Strategy
from sky_spot.utils import ClusterType

told = []

class Watches(Strategy):
    def _step(self, last, has_spot):
        if self.deadline == 52 * 3600 and self.restart_overhead == 720:
            env = self.env
            told.append((env.tick, env.elapsed_seconds, env.gap_seconds, last.name, env.cluster_type.name, has_spot,
                         self.task_done_time[-1], self.remaining_restart_overhead, len(self.task_done_time)))
        return ClusterType.SPOT if has_spot else ClusterType.NONE
"""
    program = ADAPTER.load(source)
    told = sys.modules["candidate"].told
    runs = len(FIRST.public["deadlines"])
    assert ADAPTER.act(program, FIRST.public) == runs

    def tick(number: int, has_spot: int, last: int, now: int, overhead_s: float, work_s: float) -> list[int]:
        row = [number, has_spot, 1, last, now, overhead_s, work_s]
        answer = ADAPTER.act(program, np.array([row] * runs, np.float64))
        assert (answer.dtype, answer.shape) == (np.uint8, (runs,))
        return answer.tolist()  # type: ignore[no-any-return]

    assert tick(0, 1, 0, 0, 0, 0) == [1] * runs
    assert tick(1, 1, 1, 1, 120, 0) == [1] * runs
    assert tick(2, 0, 1, 0, 0, 480) == [0] * runs
    assert told == [
        (0, 0.0, 600.0, "NONE", "NONE", True, 0.0, 0.0, 1),
        (1, 600.0, 600.0, "SPOT", "SPOT", True, 0.0, 120.0, 2),
        (2, 1200.0, 600.0, "SPOT", "NONE", False, 480.0, 0.0, 3),
    ]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("None", "tick 0: _step returned NoneType None, expected a ClusterType"),
        ("'SPOT'", "tick 0: _step returned str 'SPOT', expected a ClusterType"),
        ("1", "tick 0: _step returned int 1, expected a ClusterType"),
    ],
)
def test_answers_that_are_no_cluster_type_are_malformed(answer: str, message: str) -> None:
    with pytest.raises(MalformedOutput, match=message):
        play(SOUND, NEVER.replace("ClusterType.NONE", answer), FIRST)


@pytest.mark.parametrize(
    "answer",
    [None, 3, [1] * 9, np.ones(8, np.uint8), np.ones(9), np.ones((9, 1), np.uint8), np.full(9, 3, np.uint8), {"a": 1}],
)
def test_answers_that_no_adapter_gives_are_malformed(answer: Any) -> None:
    game = SOUND.referee(FIRST)  # type: ignore[misc]
    next(game)
    game.send(9)
    with pytest.raises(MalformedOutput):
        game.send(answer)


@pytest.mark.parametrize("answer", ["9", True, 8, None, 9.0, [0] * 1000, np.full(9, 9)])
def test_a_first_answer_that_nobody_reads_cannot_be_large(answer: Any) -> None:
    game = SOUND.referee(FIRST)  # type: ignore[misc]
    next(game)
    with pytest.raises(MalformedOutput, match="expected the number of runs, 9"):
        game.send(answer)


@pytest.mark.parametrize("raw", [None, 1.0, [], {"cost": 0}, np.zeros((9, 2)), np.zeros((9, 10), np.int64)])
def test_states_that_no_referee_gives_are_malformed(raw: Any) -> None:
    with pytest.raises(MalformedOutput):
        SOUND.judge.score(FIRST, raw)


def test_no_decision_is_asked_for_when_the_work_is_done() -> None:
    source = NEVER.replace("    return", "    assert sum(state.task_done_time) < state.task_duration\n    return")
    assert SOUND.judge.score(FIRST, play(SOUND, source, FIRST))["late_runs"] == 0
    with pytest.raises(AssertionError):
        play(PUBLIC, source, FIRST)


def test_seeds_stand_between_the_trivial_and_the_best_human_program() -> None:
    order = ["on_demand", "weak", "medium", "strong", "uniform_progress"]
    programs = {name: path.read_text() for name, path in SOUND.programs().items()}
    rows = json.loads((SOUND.folder / "standings.json").read_text())["rows"]
    measured = {r["program"]: r["score"] for r in rows if (r["split"], r["scoring"]) == ("validation", "sound")}
    assert judged(SOUND, programs["medium"], "validation").score == measured["medium"]
    scores_by_split = {
        "train": [judged(SOUND, programs[name], "train").score for name in order],
        "validation": [measured[name] for name in order],
    }
    for split, scores in scores_by_split.items():
        assert scores == sorted(scores), split
        assert len({round(score, 3) for score in scores}) == len(order)
    assert scores_by_split["train"][-1] + 0.05 < judged(SOUND, programs["medium"], "train").metrics["score_bound"]
    assert (SOUND.spec.trivial, SOUND.spec.best_human) == (order[0], order[-1])
    assert (SOUND.folder / "seed.py").resolve() == SOUND.seeds()["medium"]


def test_metrics_are_those_that_task_yaml_names() -> None:
    greedy = BASELINES["greedy"]
    sound = judged(SOUND, greedy, "train")
    assert set(sound.metrics) | {"paper_combined"} == set(SOUND.spec.metrics)
    assert SOUND.spec.headline in sound.metrics
    assert sound.score == sound.metrics["saved"] <= sound.metrics["score_bound"]
    cases = SOUND.judge.cases("train")
    assert all(case.id in sound.artifacts["cases"] for case in cases)
    results = [CaseResult(c.id, PUBLIC.judge.score(c, play(PUBLIC, greedy, c)), 0.25, 0.5) for c in cases]
    public = PUBLIC.judge.combine(results)
    assert set(public.metrics) == set(SOUND.spec.metrics)
    assert public.score == public.metrics["paper_combined"] <= public.metrics["score_bound"]


def test_means_are_over_runs_and_the_leaderboard_counts_its_own() -> None:
    def result(name: str, cost: float, runs: float, **more: float) -> CaseResult:
        metrics = {**SOUND.judge.score(FIRST, play(SOUND, NEVER, FIRST)), "runs": runs, "dollars": cost * runs, **more}
        metrics = {key: value for key, value in metrics.items() if not key.startswith("cost_d")}
        return CaseResult(name, metrics | {f"cost_d{i}_o1": cost for i in range(int(runs))}, 0.25, 0.5)

    both = SUMMARY.metrics([result("a", 100.0, 1, changeovers=1.0), result("b", 50.0, 3, changeovers=5.0)])
    assert both["mean_cost"] == 62.5
    assert both["cost_std"] == pytest.approx(np.std([100, 50, 50, 50]))
    assert both["changeovers"] == 4.0
    assert both["leaderboard_coverage"] == 0.0
    assert both["leaderboard_formula"] == pytest.approx(100 * (146.88 - 62.5) / (146.88 - 46.7088))
    known = SUMMARY.leaderboard([result("c", 0.0, 9, leaderboard_runs=180, leaderboard_cost=180 * 46.0)], 100.0)
    assert known == {"leaderboard_formula": 100.0, "leaderboard_coverage": pytest.approx(100 / 6)}


def test_splits_are_the_same_every_time_and_share_no_trace() -> None:
    splits = import_private(SOUND.folder, "splits")
    digests = {
        split: [hashlib.sha256(t.available.tobytes()).hexdigest() for t in splits.traces(split)] for split in SPLITS
    }
    assert digests == {
        split: [hashlib.sha256(t.available.tobytes()).hexdigest() for t in splits.traces(split)] for split in SPLITS
    }
    apart = [set(digests[split]) for split in ("train", "validation", "test", "stress")]
    assert sum(map(len, apart)) == len(set().union(*apart))
    for split in GENERATED_TRACES:
        cases = SOUND.judge.cases(split)  # type: ignore[arg-type]
        assert len({case.id for case in cases}) == len({case.seed for case in cases}) == len(cases)


def test_generated_traces_have_not_changed() -> None:
    """Scores of different machines and releases are comparable only on equal traces."""
    found = {}
    for split in GENERATED_TRACES:
        cases = SOUND.judge.cases(split)  # type: ignore[arg-type]
        content = b"".join(case.hidden["available"].tobytes() + case.public["deadlines"].tobytes() for case in cases)
        found[split] = hashlib.sha256(content).hexdigest()[:16]
    assert found == GENERATED_TRACES


@pytest.fixture
def without_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("ADRS_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "adrs-ray" / "data"


def test_without_the_recorded_file_the_test_split_is_generated_and_says_so(without_data: Path) -> None:
    assert "adrs data pull spot_single" in (SOUND.split_note("test") or "")
    assert "generated" in (PUBLIC.split_note("test") or "")
    assert SOUND.split_note("train") is None
    cases = SOUND.judge.cases("test")
    assert len(cases) == 24
    assert not any(case.hidden["leaderboard"].any() for case in cases)


def test_a_wrong_recorded_file_is_refused(without_data: Path) -> None:
    without_data.mkdir(parents=True)
    (without_data / "spot_single.json.gz").write_text("{}")
    with pytest.raises(UsageError, match="is not the expected file: sha256"):
        SOUND.judge.cases("test")


def test_paper_scoring_is_for_the_test_split() -> None:
    with pytest.raises(UsageError, match="split `test`; train has none"):
        load_task("spot_single", "paper").judge.cases("train")


def archive(gaps: int = 554, metadata: dict[str, Any] | None = None, traces: int = 40) -> bytes:
    """A public archive made by hand, with files of another overhead and another kind in it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for environment in CONVERT.ENVIRONMENTS:
            for trace in range(traces):
                data = [(trace + gap) % 3 % 2 for gap in range(gaps)]
                content = {"metadata": {"start_tick": trace} if metadata is None else metadata, "data": data}
                for overhead in ("0.02", "0.20"):
                    folder = f"real/ddl=search+task=48+overhead={overhead}/real/{environment}/traces/random_start"
                    member = tarfile.TarInfo(f"{folder}/{trace}.json")
                    body = json.dumps(content).encode() if overhead == "0.02" else b"not read"
                    member.size = len(body)
                    tar.addfile(member, io.BytesIO(body))
    return packed.getvalue()


def test_the_public_archive_is_converted(tmp_path: Path) -> None:
    packed = CONVERT.convert("spot_single.json.gz", archive())
    assert packed == CONVERT.convert("spot_single.json.gz", archive())
    content = json.loads(gzip.decompress(packed))
    found = content["environments"]["us-west-2b_v100_1"]
    names = sorted(f"{i}.json" for i in range(40))
    assert [f"{trace['trace_id']}.json" for trace in found] == [names[round(j * 39 / 29)] for j in range(30)]
    assert found[1]["end_tick"] - found[1]["start_tick"] == len(found[1]["unavailable"]) == 554
    (tmp_path / "spot_single.json.gz").write_bytes(packed)
    traces = import_private(SOUND.folder, "traces").recorded(tmp_path / "spot_single.json.gz")
    assert len(traces) == 120
    assert traces[0].available[:6].tolist() == [True, False, True, True, False, True]


def test_conversion_recreates_the_recorded_file_from_its_content() -> None:
    """Not the way there, which needs the archive, but the last step: the same content gives the same bytes."""
    if SOUND.split_note("test"):
        pytest.skip("needs spot_single.json.gz: set ADRS_DATA_DIR or run `adrs data pull spot_single`")
    from adrs_ray.task import data_file

    path = data_file(SOUND.spec.data[0])
    assert path is not None
    content = json.loads(gzip.decompress(path.read_bytes()))
    assert CONVERT.packed(content["environments"]) == path.read_bytes()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"nothing", "no tar archive"),
        (archive(traces=29), "us-west-2a_k80_1: 29 traces, expected at least 30"),
        (archive(gaps=500), "expected `data` with 554 zeros and ones"),
        (archive(metadata={}), "metadata holds none of start_tick"),
    ],
    ids=["no archive", "few traces", "short", "no start"],
)
def test_archives_that_are_refused(raw: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CONVERT.convert("spot_single.json.gz", raw)


def test_the_untrusted_side_imports_neither_the_judge_nor_the_system() -> None:
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(repository_root() / 'adrs_ray')!r})\n"
        "from pathlib import Path\n"
        "from private_import import import_private\n"
        f"adapter = import_private(Path({str(SOUND.folder)!r}), 'adapter')\n"
        "own = ('judge', 'paper', 'game', 'kernel', 'traces', 'splits', 'policies', 'optimum')\n"
        "print([m for m in sys.modules if m.rpartition('.')[2] in own and '_adrs_task' in m or 'adrs_ray' in m])\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
