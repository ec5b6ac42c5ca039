"""What an answer is worth before any evaluation: it is read, screened, compared with what the island has seen. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from adrs_ray import program
from adrs_ray.candidate import Candidate, Completion, Failure, FailureKind, Refused
from adrs_ray.generator import GenerationRequest
from adrs_ray.generator.answers import Unreadable, note_of, program_of
from adrs_ray.generator.screening import screen
from adrs_ray.prompt import TaskBrief
from adrs_ray.proposal import Proposal


class Screener:
    """Of one island."""

    def __init__(
        self, island: int, brief: TaskBrief, fuzzy: float, nearest: Callable[[str], tuple[str, float] | None]
    ) -> None:
        """`fuzzy`: as generator.fuzzy_edits. `nearest`: the elite that a program nearly repeats, and its similarity."""
        self._island = island
        self._brief = brief
        self._fuzzy = fuzzy
        self._nearest = nearest
        self._seen: dict[str, str] = {}
        """Fingerprint -> the candidate that had it first."""

    def know(self, fingerprint: str, candidate: str) -> None:
        """A program of this island's past, or a migrant."""
        self._seen.setdefault(fingerprint, candidate)

    def screen(self, proposal: Proposal, request: GenerationRequest, completion: Completion) -> Candidate | Refused:
        """What a completion is worth before any evaluation: a candidate, or why it is none.

        A candidate is from then on known: the same program again is a duplicate.
        """
        text = program_of(request, completion, self._fuzzy)
        if isinstance(text, Unreadable):
            return self.refused(proposal, completion, Failure(FailureKind.GENERATION, text.reason), None)
        problem = self._problem(request, text)
        if problem is not None:
            failure, repeats = problem
            return replace(self.refused(proposal, completion, failure, text), repeats=repeats)
        fingerprint = program.fingerprint(text)
        self._seen[fingerprint] = proposal.candidate
        return Candidate(
            id=proposal.candidate,
            island=self._island,
            decision=proposal.decision,
            operator=completion.operator,
            parents=proposal.parents,
            source=text,
            fingerprint=fingerprint,
            arm=proposal.arm,
            note=note_of(completion) if request.form != "program" else completion.operator,
        )

    def _problem(self, request: GenerationRequest, text: str) -> tuple[Failure, str] | None:
        """Why a program is not worth an evaluation, and the candidate that it repeats, if that is why."""
        if request.model != "mutate":
            # What the model-free generator gives keeps the interface by construction.
            failure = screen(text, self._brief, request.parents[0] if request.parents else None)
            if failure is not None:
                return failure, ""
        try:
            fingerprint = program.fingerprint(text)
        except SyntaxError as error:
            where = "" if error.lineno is None else f"line {error.lineno}: "
            return Failure(FailureKind.SYNTAX, f"{where}{error.msg}"), ""
        first = self._seen.get(fingerprint)
        if first is not None:
            return Failure(FailureKind.DUPLICATE, f"the same program as {first}"), first
        near = None if request.model == "mutate" else self._nearest(text)
        if near is not None:
            name, similarity = near
            detail = f"nearly the same program as {name} (similarity {similarity:.4f})"
            return Failure(FailureKind.DUPLICATE, detail), name
        return None

    def refused(self, proposal: Proposal, completion: Completion, failure: Failure, source: str | None) -> Refused:
        """A decision that leads to no evaluation, and why."""
        return Refused(
            id=proposal.candidate,
            island=self._island,
            decision=proposal.decision,
            operator=completion.operator,
            parents=proposal.parents,
            failure=failure,
            source=source,
            arm=proposal.arm,
            note=note_of(completion) if proposal.arm[0] != "mutate" else completion.operator,
        )
