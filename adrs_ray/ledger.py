"""The journal's owner: records events, counts what they say, grants candidates.

One per run: in the process of `adrs run --local`, or inside the journal actor on Ray. Everything it knows beyond the
journal is a view that is rebuilt by reading the journal again.
"""

from __future__ import annotations

import asyncio
import bisect
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from adrs_ray import __version__
from adrs_ray.budget import Purse, Spending
from adrs_ray.candidate import Evaluation, Usage, Verdict
from adrs_ray.commands import rebudgeted
from adrs_ray.config import RunConfig
from adrs_ray.fidelity import Growth
from adrs_ray.island import SEED_ISLAND
from adrs_ray.stage_pairs import champion_growth
from adrs_ray.storage.events import measurement_of
from adrs_ray.storage.journal import SETTLED, Event, EventKind, Journal
from adrs_ray.storage.mirror import MirroredJournal
from adrs_ray.storage.views import RunView
from adrs_ray.supervision.history import Best, RequestResult

LEADERS = 100
"""Best train candidates kept at hand (the largest `finish.top_k`)."""
BESTS = 40
REQUESTS = 200
_UNUSABLE = frozenset({"generation", "syntax", "interface"})
"""Failures that are the model's rather than the idea's."""


@dataclass(frozen=True, slots=True)
class Leader:
    """One of the best candidates on train; `source` is a text ref."""

    candidate: str
    score: float
    metrics: Mapping[str, float]
    source: str
    island: int
    operator: str


@dataclass(frozen=True, slots=True)
class IslandStatus:
    candidates: int = 0
    best: float | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """What one model's requests have cost so far."""

    requests: int = 0
    usage: Usage = field(default_factory=Usage)
    lost: int = 0
    open: int = 0
    """Under way; for a mailbox: waiting for somebody."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A snapshot of a run; its size does not grow with the number of candidates."""

    candidates: int
    """In a terminal state."""
    max_candidates: int
    failures: Mapping[str, int]
    islands: Mapping[int, IslandStatus]
    leaders: tuple[Leader, ...]
    """Best first, at most `LEADERS`."""
    judged: Mapping[str, Mapping[str, Verdict]]
    """Verdicts on validation and test by candidate or baseline, artifacts left out."""
    since_best: int
    reexecuted: int
    """Evaluations started more than once (worker losses, resumes): the extra starts."""
    resumes: int
    commands: frozenset[str] = frozenset()
    """Ids of commands already obeyed."""
    models: Mapping[str, ModelStatus] = field(default_factory=dict)
    exhausted: str | None = None
    """Why no further request to a model can be paid for."""
    findings: tuple[str, ...] = ()
    """What detectors found last, latest first, in words."""
    evaluating: int = 0
    """Programs acknowledged and without a verdict."""
    journal_lag_s: float | None = None
    """Seconds from the last append to its acknowledgement; None before the first."""
    mirror_lag_s: float | None = None
    """Age of the oldest acknowledged event that the mirror does not have; None without a mirror."""
    mirror_error: str = ""
    """Why the mirror did not take the last upload."""


@dataclass(frozen=True, slots=True)
class RunPast:
    """What run-wide detectors look at beside the status."""

    bests: tuple[Best, ...]
    """The last `BESTS` successive bests on train, latest last."""
    requests: tuple[RequestResult, ...]
    """The last `REQUESTS` decisions of models, latest last."""
    growth: tuple[str, Growth] | None = None
    """Of the best candidate of a staged task: does what its cheap stage promises too much grow along its ancestors?"""


class Ledger:
    """A journal with its counts and its purse."""

    def __init__(self, journal: Journal, config: RunConfig) -> None:
        self._journal = journal
        self._config = config
        self._view = RunView()
        self._leaders: list[Leader] = []
        self._judged: dict[str, dict[str, Verdict]] = {}
        self._purse = Purse(config.budget.max_candidates)
        self._spending = Spending(config.budget)
        self._exhausted: str | None = None
        self._lag_s: float | None = None
        self._paused: set[int] = set()
        self._results: deque[RequestResult] = deque(maxlen=REQUESTS)
        self._granting = asyncio.Lock()
        self._requests: set[str] = set()
        """Grants given in this epoch, so that one whose answer was lost is not given twice."""

    @classmethod
    async def open(cls, journal: Journal, config: RunConfig) -> Ledger:
        """A ledger that has read everything the journal holds."""
        ledger = cls(journal, config)
        ledger._apply(await journal.read())
        return ledger

    @property
    def epoch(self) -> int:
        return self._journal.epoch

    async def start_epoch(self) -> None:
        """Record that this writer has taken the run over."""
        body = {"host": socket.gethostname(), "pid": os.getpid(), "version": __version__}
        event = Event(f"run_started:{self.epoch}", EventKind.RUN_STARTED, None, SEED_ISLAND, body)
        await self.append([event], self.epoch)

    async def append(self, batch: Sequence[Event], epoch: int) -> list[Event]:
        """As `Journal.append`; counts what is new."""
        begun = time.monotonic()
        recorded = await self._journal.append(batch, epoch)
        self._lag_s = time.monotonic() - begun
        self._apply(recorded)
        return recorded

    async def read(
        self,
        after_seq: int = 0,
        kinds: Iterable[EventKind] | None = None,
        island: int | None = None,
        limit: int | None = None,
    ) -> list[Event]:
        return await self._journal.read(after_seq, kinds, island, limit)

    async def find(self, ids: Sequence[str]) -> dict[str, Event]:
        return await self._journal.find(ids)

    async def texts(self, refs: Sequence[str]) -> dict[str, str]:
        return await self._journal.texts(refs)

    async def request(self, batch: Sequence[Event], epoch: int) -> list[Event] | None:
        """Append a batch that ends with REQUESTED if its worst cost fits the budget; None when it does not (now).

        None is final once `RunStatus.exhausted` says so: nothing is under way that could cost less than reserved.
        """
        wanted = batch[-1].body
        worst, request = Usage(**wanted["worst"]), wanted["request"]
        fits = self._spending.refusal(worst) is None
        recorded = not fits and batch[-1].id in await self._journal.find([batch[-1].id])
        # Meanwhile what was under way may have come in.
        refusal = None if recorded else self._spending.refusal(worst)
        if refusal is not None:
            self._exhausted = None if self._spending.open_requests else refusal
            return None
        self._spending.reserve(request, worst)
        return await self.append(batch, epoch)

    async def grant(self, island: int, want: int, request: str) -> int:
        """Permission for up to `want` candidates; the same `request` asked again gets the same answer.

        Grants get smaller as the budget runs out, so that no island sits on the last ones.
        """
        async with self._granting:
            fair = max(1, self._purse.remaining // (2 * self._config.islands.count))
            event = Event(
                f"grant:{request}", EventKind.GRANT, None, island, {"count": self._purse.offer(min(want, fair))}
            )
            if event.body["count"] == 0 and request not in self._requests:
                return 0
            (recorded,) = await self.append([event], self.epoch)
            return int(recorded.body["count"])

    async def give_back(self, island: int, count: int, request: str) -> None:
        """`count` granted candidates will not be tried by an island; asked again the same `request` changes nothing."""
        event = Event(f"give_back:{request}", EventKind.GRANT, None, island, {"count": -count})
        await self.append([event], self.epoch)

    async def reopen(self, island: int, pending: int, request: str) -> None:
        """An island starts: what it was granted before lapses, `pending` candidates are under way."""
        event = Event(f"reopen:{request}", EventKind.GRANT, None, island, {"reopened": pending})
        await self.append([event], self.epoch)

    async def close_purse(self) -> None:
        self._purse.close()

    async def status(self) -> RunStatus:
        view = self._view
        mirror = self._journal.lag() if isinstance(self._journal, MirroredJournal) else None
        islands = {
            number: IslandStatus(
                island.terminal, None if island.best is None else island.best.score, number in self._paused
            )
            for number, island in view.islands.items()
        }
        return RunStatus(
            candidates=view.terminal,
            max_candidates=self._purse.limit,
            failures={kind.value: count for kind, count in view.failures.items()},
            islands=islands,
            leaders=tuple(self._leaders),
            judged={name: dict(verdicts) for name, verdicts in self._judged.items()},
            since_best=view.since_best,
            reexecuted=view.reexecuted,
            resumes=view.resumes,
            commands=frozenset(view.commands),
            models=self._models(),
            exhausted=self._exhausted,
            findings=tuple(f"{e.body['detector']}: {e.body['evidence']}" for e in reversed(view.findings[-3:])),
            evaluating=len(view.pending),
            journal_lag_s=self._lag_s,
            mirror_lag_s=None if mirror is None else mirror.seconds,
            mirror_error="" if mirror is None else mirror.error or "",
        )

    def _models(self) -> dict[str, ModelStatus]:
        waiting = Counter(event.body["model"] for event in self._view.open_requests.values())
        view = self._view
        return {
            name: ModelStatus(view.requests[name], view.usage.get(name, Usage()), view.lost[name], waiting[name])
            for name in sorted({*view.usage, *waiting})
        }

    async def past(self) -> RunPast:
        bests = []
        for step in self._view.improvements[-BESTS:]:
            verdict = self._judged.get(step.best.candidate, {}).get("validation")
            validation = verdict.score if isinstance(verdict, Evaluation) else None
            best = step.best
            bests.append(Best(best.candidate, best.score, best.metrics, validation, verdict is not None))
        return RunPast(tuple(bests), tuple(self._results), champion_growth(self._view))

    async def close(self) -> str | None:
        """Close the journal; a line that says what its mirror still lacks, if it does."""
        journal = self._journal
        await journal.close()
        if not isinstance(journal, MirroredJournal) or not (lag := journal.lag()).events:
            return None
        return f"the mirror lacks the last {lag.events} events, which the journal holds ({lag.error or 'no time left'})"

    def _apply(self, recorded: Sequence[Event]) -> None:
        """Count events in the order of the journal, each once: appends are acknowledged in that order."""
        for event in sorted(recorded, key=lambda event: event.seq):
            if event.seq <= self._view.seq:
                continue
            self._view.apply(event)
            self._account(event)
            if event.kind in SETTLED and event.body["arm"][0] not in ("mutate", "person"):
                failure = event.body.get("failure")
                ok = failure not in _UNUSABLE
                self._results.append(RequestResult(event.body["arm"][0], ok, "" if ok else event.body["detail"]))
            if event.kind is EventKind.ADMITTED:
                self._lead(event)
            elif event.kind is EventKind.MEASURED and event.body["split"] != "train" and event.candidate is not None:
                verdict = measurement_of(event).verdict
                self._judged.setdefault(event.candidate, {})[event.body["split"]] = verdict
            elif event.kind is EventKind.REQUESTED:
                self._spending.reserve(event.body["request"], Usage(**event.body["worst"]))
            elif event.kind in (EventKind.COMPLETED, EventKind.LOST):
                self._spending.settle(event.body["request"], Usage(**event.body["usage"]))
            elif event.kind is EventKind.COMMAND:
                self._obey(event)

    def _obey(self, event: Event) -> None:
        """What a command changes of the counts; islands obey for themselves."""
        kind, body = event.body["kind"], event.body["body"]
        if kind == "budget" and event.epoch == self.epoch:
            # Of earlier starts it stands in the config, unless `adrs resume` has changed it since.
            self._config = rebudgeted(self._config, body["values"])
            self._purse.set_limit(self._config.budget.max_candidates)
            self._spending.set_budget(self._config.budget)
            self._exhausted = None
        elif kind == "ban":
            # Who was pushed off the list by the banned one is found in the view.
            self._leaders = [
                Leader(a.candidate, a.score, a.metrics, a.source, a.island, a.operator) for a in self._view.top(LEADERS)
            ]
        elif kind in ("pause", "continue"):
            everybody = {*range(self._config.islands.count), *(n for n in self._view.islands if n >= 0)}
            chosen = everybody if body["island"] is None else {body["island"]}
            self._paused = self._paused | chosen if kind == "pause" else self._paused - chosen

    def _under_way(self) -> Counter[int]:
        """Candidates per island that were acknowledged and not settled: islands come up one after the other, and what
        the later ones have to finish must not be granted to the first."""
        return Counter(pending.island for pending in self._view.pending.values()) + Counter(
            self._view.undecided.values()
        )

    def _lead(self, event: Event) -> None:
        assert event.candidate is not None
        body, score = event.body, event.body["score"]
        if event.candidate in self._view.banned:
            return
        if len(self._leaders) == LEADERS and score <= self._leaders[-1].score:
            return
        leader = Leader(event.candidate, score, body["metrics"], body["source"], event.island, body["operator"])
        bisect.insort_right(self._leaders, leader, key=lambda leader: -leader.score)
        del self._leaders[LEADERS:]

    def _account(self, event: Event) -> None:
        """The purse is a view, too: a journal process that restarts knows what it had granted."""
        if event.kind in SETTLED:
            self._purse.settle(event.island)
        elif event.kind is EventKind.RUN_STARTED:
            self._purse.lapse(self._under_way())
            self._requests.clear()
        elif event.kind is EventKind.GRANT and "reopened" in event.body:
            self._purse.reopen(event.island, event.body["reopened"])
        elif event.kind is EventKind.GRANT:
            self._purse.grant(event.island, event.body["count"])
            self._requests.add(event.id.removeprefix("grant:"))
