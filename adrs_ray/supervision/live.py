"""What a person sees while a run goes on: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from adrs_ray.candidate import Evaluation
from adrs_ray.config import BudgetConfig
from adrs_ray.ledger import ModelStatus, RunStatus

PLAIN_INTERVAL_S = 5.0
RATE_WINDOW_S = 20.0


class StatusView:
    """Receives a `RunStatus` a few times a second; `show` is cheap when nothing has to be printed."""

    def __init__(self, console: Console, budget: BudgetConfig, live: Live | None) -> None:
        self._console = console
        self._budget = budget
        self._live = live
        self._started = time.monotonic()
        self._recent: deque[tuple[float, int]] = deque()
        self._printed_at = 0.0
        self._printed: tuple[str | None, int] | None = None

    def show(self, status: RunStatus) -> None:
        """Update the panel, or print a line when there is a new best or a few seconds have passed."""
        now = time.monotonic()
        self._recent.append((now, status.candidates))
        while now - self._recent[0][0] > RATE_WINDOW_S:
            self._recent.popleft()
        if self._live is not None:
            self._live.update(self._panel(status))
            return
        best = status.leaders[0].candidate if status.leaders else None
        state = (best, status.candidates)
        new_best = self._printed is None or self._printed[0] != best
        if state != self._printed and (new_best or now - self._printed_at >= PLAIN_INTERVAL_S):
            self._printed_at, self._printed = now, state
            self._console.print(self._line(status), highlight=False, soft_wrap=True)

    def _rate(self) -> float:
        (then, before), (now, after) = self._recent[0], self._recent[-1]
        return (after - before) / (now - then) if now > then else 0.0

    def _line(self, status: RunStatus) -> str:
        failures = " ".join(f"{kind} {count}" for kind, count in sorted(status.failures.items())) or "none"
        models = "".join(f", {name}: {model_line(model)}" for name, model in status.models.items())
        return (
            f"{status.candidates}/{status.max_candidates} candidates, {self._rate():.1f}/s, {_best_text(status)}, "
            f"failures: {failures}{models}"
        )

    def _panel(self, status: RunStatus) -> Group:
        elapsed = time.monotonic() - self._started
        left = [f"{status.max_candidates - status.candidates} candidates"]
        if self._budget.max_wall_s is not None:
            left.append(f"{max(0.0, self._budget.max_wall_s - elapsed):.0f} s")
        if self._budget.patience is not None:
            left.append(f"patience {self._budget.patience - status.since_best}")
        facts = Table.grid(padding=(0, 2))
        facts.add_row("best", _best_text(status))
        facts.add_row("done", f"{status.candidates} of {status.max_candidates}, {self._rate():.1f}/s, {elapsed:.0f} s")
        facts.add_row("left", ", ".join(left))
        failures = ", ".join(f"{kind} {count}" for kind, count in sorted(status.failures.items()))
        facts.add_row("failures", failures or "none")
        if status.reexecuted:
            facts.add_row("re-executed", f"{status.reexecuted} attempts")
        for name, model in status.models.items():
            facts.add_row(f"model {name}", model_line(model))
        for finding in status.findings:
            facts.add_row("found", finding)
        islands = Table("island", "candidates", "best on train")
        for number, island in sorted(status.islands.items()):
            best = "-" if island.best is None else f"{island.best:.6g}"
            name = "seeds" if number < 0 else f"{number} (paused)" if island.paused else str(number)
            islands.add_row(name, str(island.candidates), best)
        return Group(facts, islands, Text("Ctrl-C drains and keeps everything; a second one stops at once."))


def model_line(model: ModelStatus) -> str:
    """Requests, tokens and cost of a model, in words."""
    usage = model.usage
    parts = [f"{model.requests} requests"]
    if model.open:
        parts.append(f"{model.open} open")
    if model.lost:
        parts.append(f"{model.lost} lost")
    if usage.tokens:
        cached = f" ({usage.tokens_cached} cached)" if usage.tokens_cached else ""
        parts.append(f"{usage.tokens_in} tokens in{cached}, {usage.tokens_out} out")
    if usage.usd:
        parts.append(f"{usage.usd:.4f} USD")
    if usage.gpu_s:
        parts.append(f"{usage.gpu_s:.0f} GPU-s")
    return ", ".join(parts)


def _best_text(status: RunStatus) -> str:
    if not status.leaders:
        return "no valid candidate yet"
    best = status.leaders[0]
    verdict = status.judged.get(best.candidate, {}).get("validation")
    if verdict is None:
        validation = "not judged yet"
    else:
        validation = f"{verdict.score:.6g}" if isinstance(verdict, Evaluation) else f"failed: {verdict.kind.value}"
    return f"{best.candidate} train {best.score:.6g} validation {validation}"


@contextmanager
def status_view(budget: BudgetConfig, stream: TextIO) -> Iterator[StatusView]:
    """A view on `stream`: live if it is a terminal, else lines."""
    console = Console(file=stream, markup=False, emoji=False)
    if not console.is_terminal:
        yield StatusView(console, budget, None)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield StatusView(console, budget, live)
