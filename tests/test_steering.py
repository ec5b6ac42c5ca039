"""What people ask of a run while it goes on: obeyed soon, journaled once, in force after a resume."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from adrs_ray.config import RunConfig, override
from adrs_ray.errors import RunError
from adrs_ray.generator import GenerationRequest
from adrs_ray.ledger import Ledger
from adrs_ray.local import LocalHost
from adrs_ray.runner import IslandLoop
from adrs_ray.search import RunResult
from adrs_ray.storage.journal import Event, EventKind
from adrs_ray.storage.memory import MemoryJournal
from adrs_ray.storage.runfolder import RunFolder, post_command
from tests.doubles import SEED, LiteralEvaluator, LiteralModel, asking, parts_for
from tests.searching import candidates, configured, folder_for, hurry, kinds, settled, start, start_and_cut


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    hurry(monkeypatch)


class Running:
    """A run that goes on beside the test."""

    def __init__(
        self, path: Path, config: RunConfig, model: LiteralModel | None = None, delay_s: float = 0.004
    ) -> None:
        self.config = config
        self.folder: RunFolder = folder_for(path, config)
        self.journal = MemoryJournal()
        self.model = model or LiteralModel()
        self.evaluator = LiteralEvaluator(delay_s=delay_s)
        self.run: asyncio.Task[RunResult] | None = None

    def begin(self) -> None:
        self.run = asyncio.create_task(start(self.folder, self.journal, self.config, self.model, self.evaluator))

    async def events(self) -> list[Event]:
        return await self.journal.read()

    async def ended(self, count: int) -> None:
        """Wait for so many candidates in a terminal state."""
        await self.until(lambda events: len(settled(events)) >= count)

    async def until(self, holds: Callable[[list[Event]], bool]) -> None:
        async def wait() -> None:
            while not holds(await self.events()):
                assert self.run is not None
                if self.run.done():
                    self.run.result()
                    assert holds(await self.events())
                    return
                await asyncio.sleep(0.005)

        await asyncio.wait_for(wait(), 20)

    async def progress(self, island: int, count: int) -> None:
        """Wait until an island has ended so many more candidates."""
        seq = (await self.events())[-1].seq
        await self.until(
            lambda events: len([e for e in settled(events) if e.seq > seq and e.island == island]) >= count
        )

    async def post(self, kind: str, **body: object) -> Event:
        """Give a command and wait until it is journaled."""
        name = post_command(self.folder, kind, body)
        return await self.taken_in(name)

    async def taken_in(self, name: str) -> Event:
        await self.until(lambda events: any(e.id == f"command:{name}" for e in events))
        (event,) = [e for e in await self.events() if e.id == f"command:{name}"]
        return event

    async def result(self) -> RunResult:
        assert self.run is not None
        return await self.run

    async def kill(self) -> None:
        assert self.run is not None
        self.run.cancel()
        await asyncio.gather(self.run, return_exceptions=True)

    async def again(self, **changes: object) -> RunResult:
        """The next start of the run, from its journal to its end."""
        self.journal = self.journal.take_over()
        config = override(self.config, {key.replace("__", "."): value for key, value in changes.items()})
        return await start(self.folder, self.journal, config, self.model, self.evaluator)


def drive(running: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(running(), 40))  # type: ignore[arg-type]


def paid_running(tmp_path: Path, **changes: object) -> Running:
    config = override(
        asking(configured(budget__max_candidates=60)), {k.replace("__", "."): v for k, v in changes.items()}
    )
    return Running(tmp_path, config, LiteralModel(paid=True, delay_s=0.002))


def prompts(requests: list[GenerationRequest], island: int) -> list[str]:
    """The prompts of an island's candidates, in the order they were sent."""
    mine = [r for r in requests if r.candidate.startswith(f"{island}-") and "note" not in r.candidate]
    return ["\n".join(m.content for m in r.messages) for r in mine]


def test_a_hint_reaches_the_prompts_of_the_islands_it_is_for_and_survives_a_resume(tmp_path):
    async def main() -> None:
        run = paid_running(tmp_path, islands__count=2)
        run.begin()
        await run.ended(6)
        await run.post("hint", text="try PURPLE", island=1)
        await run.post("hint", text="try ORANGE", island=None)
        await run.ended(40)
        await run.kill()
        before = len(run.model.requests)
        first, second = prompts(run.model.requests, 0), prompts(run.model.requests, 1)
        assert not any("PURPLE" in prompt for prompt in first)
        assert "PURPLE" in second[-1]
        assert "PURPLE" not in second[0]
        assert "ORANGE" in first[-1]
        assert "ORANGE" in second[-1]
        await run.again()
        later = run.model.requests[before:]
        assert all("ORANGE" in prompt for prompt in prompts(later, 0)[4:])
        assert all("PURPLE" in prompt and "ORANGE" in prompt for prompt in prompts(later, 1)[4:])
        assert len(candidates(await run.events())) == 60
        assert len(kinds(await run.events(), EventKind.COMMAND)) == 2

    drive(main)


def made(events: list[Event], after: int) -> list[Event]:
    return [e for e in kinds(events, EventKind.GENERATED, EventKind.PROPOSED) if e.seq > after]


def test_a_banned_candidate_is_no_parent_and_no_champion_any_more(tmp_path):
    async def main() -> None:
        run = Running(tmp_path, configured(budget__max_candidates=120, islands__count=2))
        run.begin()
        await run.ended(40)
        best = max(kinds(await run.events(), EventKind.ADMITTED), key=lambda e: e.body["score"])
        assert best.candidate is not None
        await run.post("ban", candidate=best.candidate)
        await run.ended(60)
        seq = (await run.events())[-1].seq
        await run.ended(80)
        await run.kill()
        taken_over = (await run.events())[-1].seq
        result = await run.again()
        events = await run.events()
        assert not any(best.candidate in e.body["parents"] for e in made(events, seq) if e.seq <= taken_over)
        assert not any(best.candidate in e.body["parents"] for e in made(events, taken_over))
        assert result.champion is not None
        assert result.champion.candidate != best.candidate
        assert best.candidate not in {leader.candidate for leader in result.status.leaders}
        assert len(candidates(events)) == 120
        assert run.folder.best_program.read_text() == result.champion_source

    drive(main)


def test_banning_everything_there_is_ends_no_run(tmp_path):
    async def main() -> None:
        run = Running(tmp_path, configured(budget__max_candidates=80), delay_s=0.01)
        run.begin()
        await run.ended(1)
        for _ in range(4):
            for event in kinds(await run.events(), EventKind.ADMITTED):
                await run.post("ban", candidate=event.candidate)
        await run.ended(30)
        await run.kill()
        result = await run.again()
        assert len(candidates(await run.events())) == 80
        banned = {e.body["body"]["candidate"] for e in kinds(await run.events(), EventKind.COMMAND)}
        assert "seed-0" in banned
        assert result.champion is None or result.champion.candidate not in banned

    drive(main)


def test_a_pinned_candidate_is_drawn_often(tmp_path):
    async def main() -> None:
        run = Running(tmp_path, configured(budget__max_candidates=120, selector__archive="topk"))
        run.begin()
        await run.ended(20)
        await run.post("pin", candidate="seed-0")
        seq = (await run.events())[-1].seq
        await run.result()
        events = await run.events()
        before = [e for e in settled(events) if e.seq <= seq and e.island >= 0]
        after = [e for e in settled(events) if e.seq > seq][4:24]
        share = sum("seed-0" in e.body["parents"] for e in after) / len(after)
        assert share > 0.2
        assert share > sum("seed-0" in e.body["parents"] for e in before[5:]) / max(1, len(before[5:]))

    drive(main)


@pytest.mark.parametrize(
    ("value", "kind"), [(5000, EventKind.ADMITTED), (59, EventKind.REJECTED), (1, EventKind.ADMITTED)]
)
def test_an_injected_program_is_measured_counted_and_given_to_all(tmp_path, value, kind):
    async def main() -> None:
        run = Running(tmp_path, configured(budget__max_candidates=60, islands__count=2))
        run.begin()
        await run.ended(15)
        await run.post("inject", source=SEED.replace("VALUE = 1", f"VALUE = {value}"))
        await run.result()
        events = await run.events()
        assert len(candidates(events)) == 60
        (injected,) = [e for e in settled(events) if str(e.candidate).startswith("inject-")]
        assert injected.kind is kind
        assert injected.body["arm"] == ["person", "injected"]
        children = [e for e in made(events, injected.seq) if injected.candidate in e.body["parents"]]
        if value == 5000:
            assert {e.island for e in children} == {0, 1}
        elif kind is EventKind.REJECTED:
            assert not children

    drive(main)


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("at", range(6, 16))
def test_an_injection_cut_off_anywhere_is_measured_once(tmp_path, at, recorded):
    config = configured(budget__max_candidates=12)
    folder = folder_for(tmp_path, config)
    post_command(folder, "inject", {"source": SEED.replace("VALUE = 1", "VALUE = 500")})

    async def main() -> None:
        journal = await start_and_cut(folder, at, recorded, config)
        later = journal.take_over()
        await start(folder, later, config)
        events = await later.read()
        assert len(candidates(events)) == 12
        assert len([e for e in settled(events) if str(e.candidate).startswith("inject-")]) == 1
        assert len(kinds(events, EventKind.COMMAND)) == 1

    asyncio.run(main())


def test_the_budget_goes_up_and_down_and_limits_go_away(tmp_path):
    async def main() -> None:
        run = Running(tmp_path, configured(budget__max_candidates=40, budget__max_wall_s=3600.0, islands__count=2))
        run.begin()
        await run.ended(10)
        await run.post("budget", values={"max_candidates": 70, "max_wall_s": None})
        result = await run.result()
        assert len(candidates(await run.events())) == 70
        assert "70" in result.reason
        stored = RunFolder.open(run.folder.path).config.budget
        assert (stored.max_candidates, stored.max_wall_s) == (70, None)
        again = await run.again(budget__max_candidates=80, budget__max_wall_s=None)
        assert again.status.candidates == 80

    drive(main)


def test_a_lower_budget_ends_the_run_with_what_is_under_way(tmp_path):
    async def main() -> None:
        run = Running(tmp_path, configured(budget__max_candidates=5000, islands__count=2), delay_s=0.01)
        run.begin()
        await run.ended(10)
        await run.post("budget", values={"max_candidates": 12})
        result = await run.result()
        assert result.finished
        assert 12 <= len(candidates(await run.events())) <= 30

    drive(main)


def test_a_budget_raised_near_the_end_sets_all_islands_to_work_again(tmp_path):
    async def main() -> None:
        run = Running(tmp_path, configured(budget__max_candidates=10, islands__count=3, islands__in_flight=3))

        class Slow(LiteralEvaluator):
            def __init__(self) -> None:
                super().__init__(delay_s=0.002)
                self.gate = asyncio.Event()
                self.last = False

            async def evaluate(self, job):  # type: ignore[no-untyped-def]
                if len(self.jobs) > 7 and not self.last and job.split == "train":
                    self.last = True
                    await self.gate.wait()
                return await super().evaluate(job)

        slow = Slow()
        run.evaluator = slow
        run.begin()
        await run.ended(9)
        await asyncio.sleep(0.1)  # everybody else has found nothing more to do
        await run.post("budget", values={"max_candidates": 60})
        await run.ended(30)
        slow.gate.set()
        result = await run.result()
        assert result.status.candidates == 60
        late = [e.island for e in settled(await run.events())[15:]]
        assert {0, 1, 2} <= set(late)

    drive(main)


@pytest.mark.parametrize("islands", [1, 2])
def test_a_budget_raised_while_an_island_ends_sets_it_to_work_again(tmp_path, islands):
    async def main() -> None:
        config = configured(islands__count=islands)
        folder, journal = folder_for(tmp_path, config), MemoryJournal()
        ending, raised = asyncio.Event(), asyncio.Event()

        def slowly(host: LocalHost) -> None:
            whole = host.run_island

            async def run_island(number: int) -> None:
                await whole(number)
                ending.set()
                await raised.wait()

            host.run_island = run_island  # type: ignore[method-assign]

        run = asyncio.create_task(start(folder, journal, config, hosted=slowly))
        await ending.wait()
        name = post_command(folder, "budget", {"values": {"max_candidates": 30}})
        while f"command:{name}" not in await journal.find([f"command:{name}"]):
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        raised.set()
        await run
        assert len(candidates(await journal.read())) == 30

    drive(main)


def test_an_error_of_a_worker_is_not_lost_when_the_budget_changes_just_then():
    async def fails() -> None:
        raise RunError("the model cannot be asked")

    async def main() -> None:
        config = configured()
        ledger = await Ledger.open(MemoryJournal(), config)
        loop = IslandLoop(0, parts_for(config, ledger))
        loop._workers = [asyncio.create_task(fails())]
        await asyncio.sleep(0)
        body = {"kind": "budget", "body": {"values": {"max_candidates": 30}}}
        with pytest.raises(RunError, match="cannot be asked"):
            await loop._hear(Event("command:1", EventKind.COMMAND, None, -1, body, seq=1, epoch=1))

    drive(main)


def test_paused_islands_begin_nothing_until_they_are_told_to_go_on(tmp_path):
    async def main() -> None:
        run = Running(tmp_path, configured(budget__max_candidates=400, islands__count=2))
        run.begin()
        await run.ended(20)
        await run.post("pause", island=1)
        await run.progress(0, 20)  # meanwhile the other one has heard of it
        seq = (await run.events())[-1].seq
        await run.progress(0, 20)
        assert not [e for e in made(await run.events(), seq) if e.island == 1]
        await run.post("pause", island=None)
        await asyncio.sleep(0.15)
        stopped = len(settled(await run.events()))
        await run.kill()
        run.journal = run.journal.take_over()
        run.begin()
        await asyncio.sleep(0.3)
        assert len(settled(await run.events())) <= stopped + 4  # what was under way
        await run.post("continue", island=0)
        await run.until(lambda events: len(settled(events)) > stopped + 10)
        await run.post("continue", island=None)
        await run.result()
        events = await run.events()
        assert len(candidates(events)) == 400
        assert [e for e in made(events, 0) if e.island == 1][-1].seq > seq

    drive(main)


def test_a_stop_ends_a_paused_run(tmp_path):
    async def main() -> None:
        run = Running(tmp_path, configured(budget__max_candidates=400, islands__count=2))
        run.begin()
        await run.ended(10)
        await run.post("pause", island=None)
        await run.post("stop")
        result = await run.result()
        assert not result.finished

    drive(main)


def test_a_restarted_island_goes_on_from_few_elites(tmp_path):
    async def main() -> None:
        run = Running(tmp_path, configured(budget__max_candidates=300, selector__archive="topk"), delay_s=0.01)
        run.begin()
        await run.ended(40)
        await run.post("restart", island=0)
        await run.ended(60)
        seq = (await run.events())[-1].seq
        await run.kill()
        command = kinds(await run.events(), EventKind.COMMAND)[0]
        await run.again(budget__max_candidates=90)
        events = await run.events()
        old = {e.candidate for e in kinds(events, EventKind.ADMITTED) if e.seq < command.seq - 10}
        parents = {name for e in made(events, seq) for name in e.body["parents"]}
        assert len(parents & old) <= 4

    drive(main)


def test_a_spawned_island_works_and_does_so_after_a_resume(tmp_path):
    async def main() -> None:
        run = Running(tmp_path, configured(budget__max_candidates=300, islands__count=2, islands__migration_interval=5))
        run.begin()
        await run.ended(10)
        command = await run.post("spawn")
        assert command.body["body"]["island"] == 2
        await run.until(lambda events: any(e.island == 2 for e in settled(events)))
        await run.kill()
        before = len([e for e in settled(await run.events()) if e.island == 2])
        second = post_command(run.folder, "spawn", {})
        await run.again(budget__max_candidates=200)
        events = await run.events()
        assert len(candidates(events)) == 200
        assert len([e for e in settled(events) if e.island == 2]) > before
        assert [e for e in settled(events) if e.island == 3]
        assert [e.body["body"]["island"] for e in events if e.id == f"command:{second}"] == [3]
        assert [e for e in kinds(events, EventKind.MIGRATED) if e.island == 2]

    drive(main)


def test_a_retired_island_ends_and_the_others_use_up_the_budget(tmp_path):
    async def main() -> None:
        run = Running(tmp_path, configured(budget__max_candidates=150, islands__count=2))
        run.begin()
        await run.ended(20)
        await run.post("retire", island=0)
        result = await run.result()
        events = await run.events()
        assert len(candidates(events)) == 150
        assert result.finished
        last = max(e.seq for e in settled(events) if e.island == 0)
        assert len([e for e in settled(events) if e.seq > last and e.island == 1]) > 50
        again = await run.again(budget__max_candidates=170)
        assert again.status.candidates == 170
        assert max(e.seq for e in settled(await run.events()) if e.island == 0) == last

    drive(main)


def test_a_run_whose_islands_are_all_retired_ends_and_says_so(tmp_path):
    async def main() -> None:
        run = Running(tmp_path, configured(budget__max_candidates=5000, islands__count=2))
        run.begin()
        await run.ended(20)
        await run.post("pause", island=1)
        await run.post("retire", island=0)
        await run.post("retire", island=1)
        result = await run.result()
        assert "retired" in result.reason
        assert result.finished
        assert result.verdicts
        events = await run.events()
        started = {e.candidate for e in kinds(events, EventKind.GENERATED)}
        assert started <= set(candidates(events))
        post_command(run.folder, "spawn", {})
        again = await run.again(budget__max_candidates=result.status.candidates + 10)
        assert again.status.candidates == result.status.candidates + 10

    drive(main)


def test_a_retired_island_finishes_the_requests_it_has_under_way(tmp_path):
    async def main() -> None:
        run = paid_running(tmp_path, islands__count=2, budget__max_candidates=40)
        run.model.delay_s = 0.01
        run.begin()
        await run.ended(8)
        await run.post("retire", island=0)
        await run.kill()
        await run.again()
        events = await run.events()
        assert len(candidates(events)) == 40
        proposed = {e.candidate for e in kinds(events, EventKind.PROPOSED)}
        assert proposed <= set(candidates(events))

    drive(main)


WRONG: list[tuple[str, dict[str, object], str]] = [
    ("hint", {"text": "x", "island": 7}, "no island 7"),
    ("hint", {"text": "", "island": None}, "text"),
    ("hint", {"island": None}, "text"),
    ("hint", {"text": "x", "isle": 1}, "isle"),
    ("pin", {"candidate": "0-99999"}, "no valid candidate"),
    ("ban", {"candidate": "nobody"}, "no valid candidate"),
    ("ban", {"candidate": 3}, "candidate"),
    ("inject", {"source": "def f(:"}, "no Python"),
    ("inject", {"source": "x = 1\n" * 40_000}, "source"),
    ("inject", {"source": "x = '\ud800'\n"}, "inject"),
    ("budget", {"values": {"max_candidate": 3}}, "max_candidate"),
    ("budget", {"values": {"max_candidates": None}}, "max_candidates"),
    ("budget", {"values": {"max_candidates": 2.5}}, "max_candidates"),
    ("budget", {"values": {"max_candidates": -1}}, "max_candidates"),
    ("budget", {"values": {"max_wall_s": "1e999"}}, "max_wall_s"),
    ("budget", {"values": {}}, "values"),
    ("pause", {"island": 99}, "no island 99"),
    ("pause", {"island": "all"}, "island"),
    ("restart", {}, "island"),
    ("restart", {"island": 10**40}, "no island"),
    ("retire", {"island": None}, "island"),
    ("explode", {}, "unknown command"),
    ("exp\ud800lode\n" * 400, {}, "unknown command"),
]


def test_wrong_commands_are_refused_in_one_line_each_and_the_run_goes_on(tmp_path):
    async def main() -> None:
        run = Running(tmp_path, configured(budget__max_candidates=150))
        run.begin()
        await run.ended(5)
        refused = [(await run.post(kind, **body), said) for kind, body, said in WRONG]
        file = run.folder.commands / "00000000000000000001-infinite.json"
        file.write_text('{"kind": "budget", "body": {"values": {"max_wall_s": 1e999}}}')
        refused.append((await run.taken_in(file.stem), "max_wall_s"))
        for event, said in refused:
            assert event.body["kind"] == "refused"
            why = event.body["body"]["why"]
            assert said in why
            assert "\n" not in why
            assert len(why) < 1000
        result = await run.result()
        assert result.status.candidates == 150
        assert result.finished
        await run.again()

    drive(main)


def test_commands_posted_while_the_run_is_down_are_obeyed_when_it_goes_on(tmp_path):
    async def main() -> None:
        run = Running(tmp_path, configured(budget__max_candidates=20))
        run.begin()
        await run.result()
        post_command(run.folder, "budget", {"values": {"max_candidates": 30}})
        post_command(run.folder, "inject", {"source": SEED.replace("VALUE = 1", "VALUE = 700")})
        result = await run.again()
        assert result.status.candidates == 30
        assert result.champion is not None
        assert result.status.leaders[0].score >= 700
        assert len(kinds(await run.events(), EventKind.COMMAND)) == 2

    drive(main)
