"""The ledger over the wire, without Ray: the journal's contract, and what becomes of calls while its actor is away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RuntimeEnvSetupError

from adrs_ray.config import RunConfig, override
from adrs_ray.errors import RunError
from adrs_ray.storage.journal import Event, EventKind
from adrs_ray.storage.runfolder import RunFolder
from adrs_ray.storage.sqlite import SqliteJournal
from cluster import ledger as ledger_module
from cluster.ledger import SERVED, LedgerService, RayLedger
from cluster.wire import Address, WireServer
from tests.storage.conftest import make_event
from tests.storage.test_journal_contract import *  # noqa: F403


class Served:
    """A service and its server on an event loop of their own, in the place of an actor."""

    def __init__(self, path: Path, epoch: int, config: RunConfig) -> None:
        self._path = path
        self._epoch = epoch
        self._config = config
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.asked = 0
        self.address: Address | None = None
        self.loss: Exception = ActorDiedError()
        self.start()

    @property
    def endpoint(self) -> Served:
        return self

    async def remote(self) -> Address:
        """As `actor.endpoint.remote()`."""
        self.asked += 1
        if self.address is None:
            raise self.loss
        return self.address

    def start(self) -> None:
        self.service = LedgerService(self._path, self._epoch, self._config)
        self._server = WireServer(self.service, SERVED)
        self.address = self.wait(self._server.start("127.0.0.1"))

    def lose(self) -> None:
        """As a killed actor: connections drop, what it knew is gone."""
        self.address = None
        self.wait(self._server.close())
        self.wait(self.service.close())

    def wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        self.lose()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class WireWriters:
    """A service per writer, each on an epoch of its own."""

    def __init__(self, path: Path, config: RunConfig) -> None:
        self._path = path
        self._config = config
        self.served: list[Served] = []
        self.first = self.successor()

    def successor(self) -> RayLedger:
        journal = SqliteJournal.open(self._path, fence=True)
        asyncio.run(journal.close())
        self.served.append(Served(self._path, journal.epoch, self._config))
        return RayLedger(self.served[-1], journal.epoch)

    def close(self) -> None:
        for served in self.served:
            served.close()


@pytest.fixture(params=["plain", "mirrored"])
def writers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WireWriters]:
    mirror = {"mirror.url": str(tmp_path / "mirror"), "mirror.lag_s": 0.05} if request.param == "mirrored" else {}
    made = WireWriters(tmp_path / "journal.db", override(RunConfig(), mirror))
    yield made
    made.close()


@pytest.fixture
def event() -> Callable[..., Event]:
    return make_event


@pytest.fixture
def run() -> Any:
    return asyncio.run


def test_appends_that_wait_for_a_call_share_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writers = WireWriters(tmp_path / "journal.db", RunConfig())
    calls: list[int] = []
    append_all = RayLedger._append_all

    async def counted(self: RayLedger, appends: list[Any]) -> Any:
        calls.append(len(appends))
        return await append_all(self, appends)

    monkeypatch.setattr(RayLedger, "_append_all", counted)

    async def main() -> list[list[Event]]:
        ledger = writers.first
        first = asyncio.ensure_future(ledger.append([make_event(0)], ledger.epoch))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        more = [ledger.append([make_event(n), make_event(n, 1)], ledger.epoch) for n in range(1, 30)]
        return [await first, *await asyncio.gather(*more)]

    recorded = asyncio.run(main())
    writers.close()
    assert calls == [1, 29]
    assert [[e.id for e in batch] for batch in recorded[1:]] == [
        [make_event(n).id, make_event(n, 1).id] for n in range(1, 30)
    ]


@pytest.mark.parametrize("loss", [ActorDiedError(), OutOfMemoryError("95%"), RuntimeEnvSetupError("no disk")])
def test_a_lost_actor_is_waited_for_and_nothing_is_recorded_twice(tmp_path: Path, loss: Exception) -> None:
    writers = WireWriters(tmp_path / "journal.db", RunConfig())
    (served,) = writers.served
    served.loss = loss

    async def main() -> tuple[list[Event], list[Event], list[Event]]:
        ledger = writers.first
        before = await ledger.append([make_event(0)], ledger.epoch)
        await asyncio.to_thread(served.lose)
        again = asyncio.ensure_future(ledger.append([make_event(0), make_event(1)], ledger.epoch))
        asked = served.asked
        while served.asked < asked + 2:
            await asyncio.sleep(0.01)
        assert not again.done()
        await asyncio.to_thread(served.start)
        return before, await again, await ledger.read()

    before, again, read = asyncio.run(main())
    writers.close()
    assert again[0] == before[0]
    assert read == again


def test_an_actor_that_stays_away_ends_the_run_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "RETRY_FOR_S", 0.3)
    writers = WireWriters(tmp_path / "journal.db", RunConfig())
    writers.served[0].lose()
    with pytest.raises(RunError, match="the journal's actor is lost: ") as error:
        asyncio.run(writers.first.status())
    assert "\n" not in str(error.value)
    assert writers.served[0].asked > 1
    writers.served[0].start()
    writers.close()


def test_the_status_says_how_far_the_mirror_is_behind(tmp_path: Path) -> None:
    mirror = {"mirror.url": str(tmp_path / "mirror"), "mirror.ack": "mirror"}
    for values, lag in (({}, None), (mirror, 0.0)):
        config = override(RunConfig(), values)
        folder = RunFolder.create(tmp_path / f"run{lag}", config, "tiny", False)
        writers = WireWriters(folder.journal, config)

        async def main(ledger: RayLedger) -> Any:
            await ledger.append([make_event(0)], ledger.epoch)
            return await ledger.status()

        status = asyncio.run(main(writers.first))
        writers.close()
        assert (status.mirror_lag_s, status.mirror_error) == (lag, "")
    assert (tmp_path / "mirror" / "run.yaml").read_bytes() == folder.run_yaml.read_bytes()


def test_a_journal_that_cannot_be_opened_is_the_error_of_the_call(tmp_path: Path) -> None:
    served = Served(tmp_path / "journal.db", 1, RunConfig())
    with pytest.raises(RunError, match="does not exist"):
        asyncio.run(RayLedger(served, 1).read(kinds=[EventKind.GRANT]))
    served.address = None
    served.wait(served._server.close())
    served._loop.call_soon_threadsafe(served._loop.stop)
    served._thread.join()
