"""The task spot_multi in this process: golden values, public programs, splits, scores, the recorded file."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from adrs_ray.private_import import import_private
from adrs_ray.task import (
    SPLITS,
    Case,
    CaseResult,
    Combined,
    InvalidOutput,
    MalformedOutput,
    UsageError,
    data_file,
    load_task,
    repository_root,
)

from .literal_spot_multi import ADAPTER, FOLDER, drive, judged

TASK = load_task("spot_multi")
JUDGE: ModuleType = import_private(FOLDER, "judge")
PAPER: ModuleType = import_private(FOLDER, "paper")

needs_recorded = pytest.mark.skipif(
    TASK.split_note("test") is not None,
    reason="needs spot_multi.json.gz: set ADRS_DATA_DIR or run `adrs data pull spot_multi`",
)

GENERATED = {
    "train": "b22b240750b6e63e",
    "validation": "9ba5c5019d8bc877",
    "test_stand_in": "f3eca2bb931d7266",
    "stress": "865362bf319bb41d",
}
"""Digests of the generated splits."""

HEAD = """
from sky_spot.strategies.strategy import MultiRegionStrategy
from sky_spot.utils import ClusterType
"""

ROTATES = (
    HEAD
    + """
class Rotates(MultiRegionStrategy):
    def _step(self, last_cluster_type, has_spot):
        self.env.switch_region(self.env.tick % self.env.get_num_regions())
        return ClusterType.ON_DEMAND
"""
)

REPRICES = """
        if sum(self.task_done_time) >= self.task_duration:
            offers = [(p, r) for r, p in enumerate(self.env.get_all_regions_spot_prices()) if p is not None]
            if offers:
                self.env.switch_region(min(offers)[1])
            return ClusterType.NONE
"""

LOOKS_AROUND = """
        here = self.env.get_current_region()
        for region in range(self.env.get_num_regions()):
            self.env.switch_region(region)
            self.env.get_spot_price()
        self.env.switch_region(here)
"""

PUBLIC_STYLES = {
    "from_args": """
import argparse
import logging
import typing

from sky_spot.strategies.strategy import MultiRegionStrategy
from sky_spot.utils import ClusterType

if typing.TYPE_CHECKING:
    from sky_spot import env
    from sky_spot import task

logger = logging.getLogger(__name__)


class EvolvedMultiRegionStrategy(MultiRegionStrategy):
    NAME = "evolved"

    def __init__(self, args):
        super().__init__(args)
        assert abs(args.restart_overhead_hours - 0.2) < 1e-12
        self.region_cache = {}

    def reset(self, env: "env.Env", task: "task.Task"):
        super().reset(env, task)
        self.region_cache.clear()

    def _step(self, last_cluster_type: ClusterType, has_spot: bool) -> ClusterType:
        from sky_spot.utils import ClusterType as Lazy

        assert Lazy is ClusterType and last_cluster_type in ClusterType
        remaining = self.task_duration - sum(self.task_done_time)
        if remaining <= 1e-3:
            return ClusterType.NONE
        if has_spot:
            return ClusterType.SPOT
        for region, price in enumerate(self.env.get_all_regions_spot_prices()):
            if price is not None:
                self.env.switch_region(region)
                return ClusterType.SPOT
        return ClusterType.ON_DEMAND

    @classmethod
    def _from_args(cls, parser):
        group = parser.add_argument_group("EvolvedMultiRegionStrategy")
        group.add_argument("--margin", type=float, default=0.5)
        args, _ = parser.parse_known_args()
        assert args.margin == 0.5
        return cls(args)
""",
    "bare": """
from sky_spot.strategies.strategy import MultiRegionStrategy
from sky_spot.utils import ClusterType

class Base(MultiRegionStrategy):
    pass

class Bare(Base):
    def __init__(self):
        self.left = []

    def reset(self, env, task):
        self.env, self.task_duration, self.deadline = env, task.task_duration, task.deadline
        self.task_done_time = []

    def _step(self, last, has_spot):
        available = self.env.get_all_regions_spot_availability()
        if has_spot or not any(available):
            return ClusterType.SPOT if has_spot else ClusterType.ON_DEMAND
        self.env.switch_region(available.index(True))
        return ClusterType.SPOT
""",
    "own options": HEAD
    + """
class OwnOptions(MultiRegionStrategy):
    def __init__(self, threshold=1):
        super().__init__()
        self.threshold = threshold + 0

    def _step(self, last_cluster_type, has_spot):
        available = self.env.get_all_regions_spot_available()
        if not has_spot and sum(available) >= self.threshold:
            self.env.switch_region(available.index(True))
        return ClusterType.SPOT if any(available) else ClusterType.ON_DEMAND
""",
    "modules": """
import sky_spot.strategies.strategy as strategy
from sky_spot import utils

class Modules(strategy.MultiRegionStrategy):
    NAME = "modules"

    def _step(self, last_cluster_type, has_spot):
        env = self.env
        seen = [env.spot_available(region) for region in range(env.num_regions)]
        assert seen == [price is not None for price in env.get_all_regions_spot_price()]
        assert has_spot == seen[env.current_region] == (env.get_price()[utils.ClusterType.SPOT] is not None)
        assert env.elapsed_seconds == env.tick * env.gap_seconds and len(self.task_done_time) == env.tick + 1
        if not has_spot and True in seen:
            env.switch_region(seen.index(True))
            has_spot = True
        return utils.ClusterType.SPOT if has_spot else utils.ClusterType.ON_DEMAND
""",
}


def baseline(name: str) -> str:
    return TASK.baselines()[name].read_text()


def public(id: str) -> Case:
    found: Case = next(case for case in PAPER.cases("test") if case.id == id)
    return found


@needs_recorded
@pytest.mark.parametrize(
    ("run", "program", "cost", "finish", "spot", "on_demand", "last", "honest"),
    [
        ("2_zones_same_region/0", "public_initial", 143.23740166666835, 957, 161, 795, 1, 143.23740166666835),
        ("2_zones_same_region/0", "stay_on_demand", 149.9531962500019, 918, 27, 891, 0, 149.9531962500019),
        ("2_zones_same_region/0", "cheapest", 146.81043000000176, 960, 18, 878, 1, 146.81043000000176),
        ("2_zones_same_region/0", "first_region_with_spot", 143.3086200000017, 957, 162, 795, 1, 143.3086200000017),
        ("2_regions_east_west/3", "stay_wait", 44.255250000000174, 890, 890, 0, 0, 44.255250000000174),
        ("2_regions_east_west/3", "public_initial", 44.255250000000174, 890, 890, 0, 0, 44.255250000000174),
        ("2_regions_east_west/5", "public_initial", 83.88607500000057, 961, 607, 324, 1, 83.88607500000057),
        ("2_regions_east_west/5", "first_region_with_spot", 65.40495000000031, 949, 792, 157, 0, 65.40495000000031),
        ("3_regions_diverse/1", "public_initial", 45.89617500000025, 939, 923, 0, 1, 47.10751500000068),
        ("3_regions_diverse/1", "cheapest", 46.09507500000026, 930, 927, 0, 1, 46.246763333333696),
        ("3_zones_same_region/4", "first_region_with_spot", 88.39752999999999, 960, 763, 197, 2, 89.86626458333284),
        ("5_regions_high_diversity/2", "public_initial", 134.4895500000016, 958, 208, 749, 2, 137.6318233333351),
        ("all_9_regions/1", "public_initial", 46.999160000000856, 921, 912, 0, 0, 49.38307291666723),
        ("all_9_regions/1", "rotates", 147.51750000000177, 890, 0, 890, 8, 147.51750000000177),
    ],
)
def test_public_runs_have_the_recorded_costs(
    run: str, program: str, cost: float, finish: int, spot: int, on_demand: int, last: int, honest: float
) -> None:
    ledger = drive(PAPER, ROTATES if program == "rotates" else baseline(program), public(run))
    assert ledger.cost == pytest.approx(cost, rel=1e-12)
    assert ledger.honest_cost == pytest.approx(honest, rel=1e-12)
    counts = (ledger.finish_tick, ledger.spot_ticks, ledger.on_demand_ticks, ledger.last_zone)
    assert counts == (finish, spot, on_demand, last)


@needs_recorded
def test_the_public_score_of_the_public_initial_program() -> None:
    result = judged(PAPER, baseline("public_initial"), "test")
    assert result.score == pytest.approx(-88.37793479456109, abs=1e-9)
    means = [round(result.metrics[f"cost_scenario_{i}"], 4) for i in range(1, 7)]
    assert means == [128.4184, 56.5825, 64.2502, 122.8436, 110.1828, 47.9901]
    assert (result.metrics["late_runs"], result.metrics["leaderboard_coverage"]) == (4, 100)
    assert result.metrics["leaderboard_formula"] == pytest.approx(100 * (146.88 + result.score) / (146.88 - 46.7088))


@needs_recorded
def test_repricing_at_the_end_gains_publicly_and_nothing_here() -> None:
    source = baseline("first_region_with_spot")
    reprices = source.replace("        if has_spot:\n", REPRICES + "        if has_spot:\n", 1)
    honest, gained = judged(PAPER, source, "test").score, judged(PAPER, reprices, "test").score
    assert [honest, gained] == pytest.approx([-75.32087882523221, -74.54466590277833])
    for case in JUDGE.cases("test")[1::8]:
        assert drive(JUDGE, reprices, case) == drive(JUDGE, source, case)


@needs_recorded
def test_the_sound_scores_on_the_public_runs() -> None:
    result = judged(JUDGE, baseline("public_initial"), "test")
    assert result.score == pytest.approx(0.3817141826)
    assert result.metrics["score_bound"] == pytest.approx(0.540344, abs=1e-6)
    assert (result.metrics["late_runs"], result.metrics["leaderboard_coverage"]) == (0, 100)


def test_teleporting_is_free_publicly_and_paid_for_here() -> None:
    sound, paper = JUDGE.cases("test")[-1], PAPER.cases("test")[-1]
    zones = len(sound.hidden.scenario.market.zones)
    assert drive(PAPER, ROTATES, paper).finish_tick == paper.hidden.scenario.job.on_demand_ticks
    ledger = drive(JUDGE, ROTATES, sound)
    assert zones > 2
    assert ledger.moves == ledger.asked_ticks - 1
    assert ledger.cost > 1.02 * JUDGE.references(sound.hidden.scenario).on_demand


def test_looking_around_costs_nothing() -> None:
    case = JUDGE.cases("train")[-1]
    source = baseline("first_region_with_spot")
    curious = source.replace("        if has_spot:\n", LOOKS_AROUND + "        if has_spot:\n", 1)
    assert curious != source
    assert drive(JUDGE, curious, case) == drive(JUDGE, source, case)


@pytest.mark.parametrize("style", PUBLIC_STYLES)
def test_programs_in_the_public_style_run_unchanged(style: str) -> None:
    for case in JUDGE.cases("train")[::4]:
        assert drive(JUDGE, PUBLIC_STYLES[style], case) == drive(JUDGE, baseline("first_region_with_spot"), case)


def test_seeds_and_baselines_stand_in_their_order() -> None:
    assert TASK.spec.trivial is not None
    assert TASK.spec.best_human is not None
    order = [TASK.spec.trivial, "weak", "medium", "strong", TASK.spec.best_human]
    train = {name: judged(JUDGE, path.read_text(), "train") for name, path in TASK.programs().items()}
    validation = [judged(JUDGE, TASK.programs()[name].read_text(), "validation").score for name in order]
    ranked = [train[name].score for name in order]
    assert ranked == sorted(ranked)
    assert validation == sorted(validation)
    assert ranked[-1] == max(result.score for result in train.values()) < train["weak"].metrics["score_bound"]
    assert ranked[2] == pytest.approx(train["public_initial"].score)
    assert (FOLDER / "seed.py").resolve() == (FOLDER / "seeds" / "medium.py").resolve()


@pytest.mark.parametrize("split", ["train", "stress"])
def test_no_program_is_better_than_the_bound_in_any_run(split: str) -> None:
    for name in ("expected_spell", "first_region_with_spot", "stay_wait"):
        for case in JUDGE.cases(split):
            ledger = drive(JUDGE, baseline(name), case)
            assert ledger.cost >= JUDGE.references(case.hidden.scenario).bound, (name, case.id)


def test_metrics_are_those_of_task_yaml() -> None:
    result = judged(JUDGE, TASK.seed_source, "train")
    assert set(result.metrics) == set(TASK.spec.metrics)
    assert TASK.spec.headline in result.metrics
    costs = [result.metrics[f"cost_scenario_{i}"] for i in range(1, 7)]
    assert result.metrics["mean_cost"] == pytest.approx(sum(costs) / 6)
    assert result.metrics["gap_closed"] == result.score / result.metrics["score_bound"]
    assert all(case.id in result.artifacts["cases"] for case in JUDGE.cases("train"))


def test_the_score_averages_runs_then_scenarios() -> None:
    def result(id: str, cost: float) -> CaseResult:
        return CaseResult(id, {**blank, "cost": cost}, 0.25, 0.5)

    case = JUDGE.cases("train")[0]
    blank = JUDGE.score(case, vars(drive(JUDGE, baseline("always_on_demand"), case))) | {"on_demand_cost": 100.0}
    combined: Combined = JUDGE.combine([result("a/0", 100.0), result("a/1", 60.0), result("b/0", 20.0)])
    assert combined.score == pytest.approx(1 - (0.8 + 0.2) / 2)
    assert combined.metrics["cpu_s"] == 0.75


def test_the_leaderboard_formula_is_clipped_at_both_ends() -> None:
    assert [JUDGE.leaderboard_formula(usd_h) for usd_h in (3.5, 3.06, 0.9731, 0.5)] == [0, 0, 100, 100]
    assert JUDGE.leaderboard_formula((146.88 + 46.7088) / 2 / 48) == pytest.approx(50)


def test_a_late_run_and_a_forged_ledger_are_refused() -> None:
    case = JUDGE.cases("train")[0]
    ledger = drive(JUDGE, TASK.seed_source, case)
    ledger.finish_tick = case.hidden.scenario.job.deadline_ticks + 1
    with pytest.raises(InvalidOutput, match=r"done 6\.5 minutes late"):
        JUDGE.score(case, vars(ledger))
    for raw in ({"profit": 1.0}, None, [0.0], "cost"):
        for judge in (JUDGE, PAPER):
            with pytest.raises(MalformedOutput, match="expected the ledger of a run, got"):
                judge.score(case, raw)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "no class that derives from MultiRegionStrategy"),
        (HEAD, "no class that derives from MultiRegionStrategy"),
        (HEAD + "class A(MultiRegionStrategy):\n    pass\n", r"A does not define _step\(self"),
    ],
)
def test_a_program_without_strategy_says_so(source: str, message: str) -> None:
    with pytest.raises(ADAPTER.InterfaceError, match=message):
        ADAPTER.load(source)


@pytest.mark.parametrize("answer", ["None", "'SPOT'", "True", "1", "[ClusterType.SPOT]", "__import__('numpy').nan"])
def test_answers_that_are_no_kind_of_instance_are_malformed(answer: str) -> None:
    source = HEAD + f"class A(MultiRegionStrategy):\n    def _step(self, last, has_spot):\n        return {answer}\n"
    with pytest.raises(MalformedOutput, match="_step returned"):
        drive(JUDGE, source, JUDGE.cases("train")[0])


def test_regions_that_do_not_exist() -> None:
    source = HEAD + "class A(MultiRegionStrategy):\n    def _step(self, last, has_spot):\n        "
    with pytest.raises(ValueError, match=r"there is no region 2: they are 0\.\.1"):
        drive(JUDGE, source + "self.env.switch_region(2)\n", JUDGE.cases("train")[0])
    with pytest.raises(InvalidOutput, match="zone 2 does not exist"):
        drive(JUDGE, source + "self.env._zone = 2; return ClusterType.SPOT\n", JUDGE.cases("train")[0])


def test_splits_are_apart_and_alike_every_time() -> None:
    cases = {split: JUDGE.cases(split) for split in SPLITS}
    assert [len(cases[split]) for split in SPLITS] == [12, 24, 34, 6]
    for split in SPLITS:
        assert [(c.id, c.seed, c.public) for c in cases[split]] == [
            (c.id, c.seed, c.public) for c in JUDGE.cases(split)
        ]
        assert len({c.id.rpartition("/")[0] for c in cases[split]}) == 6
    every = [case for split in SPLITS for case in cases[split]]
    assert len({case.public for case in every}) == len({case.seed for case in every}) == len(every)


def test_generated_markets_have_not_changed() -> None:
    """Scores of different machines and releases are comparable only on equal markets."""
    splits = import_private(FOLDER, "splits")
    found = {
        name: hashlib.sha256("".join(run.digest() for run in getattr(splits, name)()).encode()).hexdigest()[:16]
        for name in GENERATED
    }
    assert found == GENERATED


def test_the_relabelled_run_is_worth_what_its_model_is() -> None:
    splits = import_private(FOLDER, "splits")
    model, relabelled = splits.train()[8], splits.stress()[1]
    one, other = JUDGE.references(model), JUDGE.references(relabelled)
    assert set(model.market.zones).isdisjoint(relabelled.market.zones)
    assert (other.bound, other.best_zone) == (pytest.approx(one.bound), pytest.approx(one.best_zone))


@pytest.fixture
def without_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("ADRS_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "adrs-ray" / "data"


def test_without_the_recorded_file_the_test_split_is_generated_and_says_so(without_data: Path) -> None:
    for judge in (JUDGE, PAPER):
        assert "generated" in judge.split_note("test")
        assert len(judge.cases("test")) == 34
        assert not any(case.hidden.recorded for case in judge.cases("test"))
    assert JUDGE.split_note("train") is None


def test_generated_runs_under_public_rules_end_where_their_markets_do(without_data: Path) -> None:
    case = PAPER.cases("test")[0]
    job, market = case.hidden.scenario.job, case.hidden.scenario.market
    finish = [drive(PAPER, baseline(name), case).finish_tick for name in ("stay_wait", "cheapest")]
    assert job.deadline_ticks == market.ticks <= max(finish) <= market.ticks + 1


def test_a_wrong_recorded_file_is_refused(without_data: Path) -> None:
    without_data.mkdir(parents=True)
    (without_data / "spot_multi.json.gz").write_bytes(b"")
    with pytest.raises(UsageError, match="is not the expected file: sha256"):
        JUDGE.cases("test")


def test_public_scoring_is_for_the_test_split_only() -> None:
    with pytest.raises(UsageError, match="use --split test with --scoring paper, not train"):
        PAPER.cases("train")


def archive(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def window(start: str, unavailable: str, prices: list[float]) -> bytes:
    trace: dict[str, Any] = {
        "metadata": {"gap_seconds": 195, "start_time": start},
        "data": [int(flag) for flag in unavailable],
        "prices": prices,
    }
    return json.dumps(trace).encode()


def test_convert_reads_the_archive_and_only_what_it_needs() -> None:
    convert = import_private(FOLDER, "convert")
    zones = sorted({zone for _, names, _ in convert.SCENARIOS for zone in names})
    folder = "real/data/converted_multi_region_aligned"
    prices = [1.0] * 1000 + [1.5] * 107
    good = window("2023-02-15T00:00:00", "01" * 553 + "0", prices)
    members = {f"{folder}/{zone}_v100_1/{index}.json": good for zone in zones for index in range(9)}
    members |= {f"{folder}/eu-1a_v100_1/0.json": b"no JSON", "README": b""}
    found = json.loads(gzip.decompress(convert.convert("spot_multi.json.gz", archive(members))))
    assert sorted(found["traces"]) == [f"{zone}_v100_1" for zone in zones]
    assert found["traces"]["us-east-1a_v100_1"]["7"] == {
        "start_time": "2023-02-15T00:00:00",
        "unavailable": "01" * 553 + "0",
        "spot_price_rle": [[1.0, 1000], [1.5, 107]],
        "billed_spot_price": 1.0,
    }
    assert "8" not in found["traces"]["us-east-1a_v100_1"]
    first = f"{folder}/us-east-1a_v100_1/3.json"
    for bad, message in [
        (b"{}", "us-east-1a_v100_1/3 lacks 'metadata'"),
        (window("x", "01", [1.0, 1.0]), "is not 1107 gaps of 195 s"),
    ]:
        with pytest.raises(ValueError, match=message):
            convert.convert("spot_multi.json.gz", archive(members | {first: bad}))
    del members[first]
    with pytest.raises(ValueError, match=r"no converted_multi_region_aligned/us-east-1a_v100_1/3\.json"):
        convert.convert("spot_multi.json.gz", archive(members))
    with pytest.raises(ValueError, match="is no archive"):
        convert.convert("spot_multi.json.gz", b"no archive")


@needs_recorded
def test_convert_gives_the_bytes_of_the_recorded_file() -> None:
    path = data_file(TASK.spec.data[0])
    assert path is not None
    recorded = json.loads(gzip.decompress(path.read_bytes()))
    members = {
        f"data/converted_multi_region_aligned/{zone}/{index}.json": window(
            trace["start_time"],
            trace["unavailable"],
            [price for price, count in trace["spot_price_rle"] for _ in range(count)],
        )
        for zone, traces in recorded["traces"].items()
        for index, trace in traces.items()
    }
    made = import_private(FOLDER, "convert").convert("spot_multi.json.gz", archive(members))
    assert gzip.decompress(made) == gzip.decompress(path.read_bytes())


def test_the_untrusted_side_imports_neither_the_judge_nor_the_system() -> None:
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(repository_root() / 'adrs_ray')!r})\n"
        "from pathlib import Path\n"
        "from private_import import import_private\n"
        f"import_private(Path({str(FOLDER)!r}), 'adapter')\n"
        "parts = ('judge', 'splits', 'rules', 'market', 'recorded')\n"
        "print([m for m in sys.modules if m.endswith(parts) or m.startswith('adrs_ray')])\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_readme_has_a_place_for_the_standings() -> None:
    readme = (FOLDER / "README.md").read_text()
    assert readme.count("<!-- standings -->") == readme.count("<!-- /standings -->") == 1
    assert set(TASK.hints()) == set(TASK.seeds()) == {"weak", "medium", "strong"}
