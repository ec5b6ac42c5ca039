"""Who lives on an island: its archive with the programs of its elites, what is nearly a duplicate, who is banned. Pure.

Programs of elites that have left are forgotten, so that memory does not grow with the run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np

from adrs_ray.generator.screening import NearDuplicates
from adrs_ray.lineage import MOST_BROKEN
from adrs_ray.selector import Archive, Elite, Placement
from adrs_ray.selector.parents import choose_inspirations

SPARE = 8
"""The best that were ever told are kept at hand."""
KEPT_AT_RESTART = 3
"""Elites that a restarted island goes on with: its best and those most different from it."""


class Population:
    """An archive and everything that has to keep up with it."""

    def __init__(self, archive: Archive, near: NearDuplicates | None) -> None:
        """`near`: what new programs are compared with, None where nobody asks."""
        self.archive = archive
        self._near = near
        self._programs: dict[str, str] = {}
        """By text ref."""
        self._spare: list[Elite] = []
        """The best that were ever told, best first: they come back when a ban empties the archive."""
        self._banned: set[str] = set()

    def __iter__(self) -> Iterator[Elite]:
        return iter(self.archive)

    def __len__(self) -> int:
        return len(self.archive)

    @property
    def best(self) -> Elite | None:
        return self.archive.best()

    def program(self, ref: str) -> str:
        """The program behind a text ref of an elite, or of one that was kept for repair."""
        return self._programs[ref]

    def text_of(self, candidate: str) -> str:
        """The program of an elite; '' of everybody else."""
        source = next((elite.source for elite in self.archive if elite.candidate == candidate), "")
        return self._programs.get(source, "")

    def nearest(self, source: str) -> tuple[str, float] | None:
        """The elite that a program nearly repeats, and how similar it is."""
        return None if self._near is None else self._near.nearest(source)

    def add(self, elite: Elite, source: str | None, also_needed: Collection[str]) -> Placement:
        """Offer a candidate; its program may follow by `supply`. `also_needed`: text refs not to be forgotten."""
        if elite.candidate in self.archive or elite.candidate in self._banned:
            return Placement(elite.candidate in self.archive)
        for other in self._banned:
            self._remove(other)  # one may have been left for want of any other parent
        placement = self.archive.add(elite)
        others = [kept for kept in self._spare if kept.candidate != elite.candidate]
        self._spare = sorted([*others, elite], key=lambda kept: -kept.score)[:SPARE]
        if source is not None and (placement.kept or elite in self._spare):
            self._programs[elite.source] = source
        if source is not None and placement.kept and self._near is not None:
            self._near.add(elite.candidate, source)
        if self._near is not None:
            for replaced in placement.replaced:
                self._near.forget(replaced)
        self._forget(also_needed)
        return placement

    def ban(self, candidate: str) -> None:
        """It is no elite any more; where nobody else is left the best others come back, where there are none it stays
        a parent until there is another."""
        self._banned.add(candidate)
        self._spare = [elite for elite in self._spare if elite.candidate != candidate]
        if any(elite.candidate != candidate for elite in self.archive):
            self._remove(candidate)
        elif self._spare:
            self._remove(candidate)
            for elite in self._spare[:KEPT_AT_RESTART]:
                self.archive.add(elite)
                if self._near is not None and elite.source in self._programs:
                    self._near.add(elite.candidate, self._programs[elite.source])

    def restart(self, rng: np.random.Generator) -> None:
        """Go on with the best elite and the ones most different from it; the others leave the archive."""
        best = self.best
        if best is None:
            return
        others = choose_inspirations(list(self.archive), best, KEPT_AT_RESTART - 1, rng)
        kept = {best.candidate, *(elite.candidate for elite in others)}
        for elite in list(self.archive):
            if elite.candidate not in kept:
                self._remove(elite.candidate)

    def missing(self, also_needed: Collection[str]) -> list[str]:
        """Text refs of programs that have not been supplied yet."""
        return sorted(self._needed(also_needed) - self._programs.keys())

    def supply(self, texts: Mapping[str, str], also_needed: Collection[str]) -> None:
        """The programs behind text refs."""
        self._programs.update(texts)
        if self._near is not None:
            for elite in self.archive:
                if elite.source in texts:
                    self._near.add(elite.candidate, texts[elite.source])
        self._forget(also_needed)

    def _needed(self, also_needed: Collection[str]) -> set[str]:
        return {kept.source for kept in (*self.archive, *self._spare)}.union(also_needed)

    def _forget(self, also_needed: Collection[str]) -> None:
        """Programs that nobody can be made from any more, once they are many."""
        if len(self._programs) > 2 * len(self.archive) + SPARE + MOST_BROKEN:
            alive = self._needed(also_needed)
            self._programs = {ref: text for ref, text in self._programs.items() if ref in alive}

    def _remove(self, candidate: str) -> None:
        self.archive.remove(candidate)
        if self._near is not None:
            self._near.forget(candidate)
