"""Programs that every island gets: the task's seed, warm starts, seeds made to differ in kind, injected programs.

They are candidates of island -1. Each is a decision like any other: journaled before it is evaluated, counted, taken
up where a crash left it. The seeding phase follows LEVI: seeds that must differ, one after another by the strong model,
then variants of each by the small one; without a model they are mutated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from adrs_ray import program
from adrs_ray.candidate import Candidate, Completion, Failure, FailureKind, Refused
from adrs_ray.errors import RunError, UsageError
from adrs_ray.generation import Generation, LeftOpenError, NoBudgetError, Produced
from adrs_ray.generator import Form, GenerationRequest
from adrs_ray.island import SEED_ISLAND, Island
from adrs_ray.measuring import measure
from adrs_ray.order import Order, last_steps
from adrs_ray.outcome import Standing
from adrs_ray.prompt import ShownProgram
from adrs_ray.prompter import Prompter
from adrs_ray.proposal import FORMS, Proposal
from adrs_ray.restoring import retaken
from adrs_ray.runner import IslandParts
from adrs_ray.selector.arms import MUTATE, small_model, strong_model
from adrs_ray.steering import absorb
from adrs_ray.storage.events import candidate_of, generated_event, screened_out_event
from adrs_ray.storage.journal import SETTLED, Event, EventKind, settled_id, text_ref

TRIES_OF_MODEL = 2
"""Candidates that one seed of the seeding phase may cost, by a model that was told the others."""
TRIES_OF_MUTATION = 5
"""The same by blind mutation, half of whose programs crash."""
STEPS_OF_MUTATION = 6
"""Mutations one after another that make a mutated seed differ."""


_Proposer: TypeAlias = Callable[[str, int], Proposal]
"""From a candidate's name and decision number to the decision."""


@dataclass(frozen=True, slots=True)
class Seed:
    """A program to start from, and where it came from: `seed`, or a run or file named by --warm-start."""

    source: str
    origin: str


class Planting:
    """Island -1 of a run."""

    def __init__(self, parts: IslandParts, task: str, draining: asyncio.Event) -> None:
        self._parts = parts
        self._task = task
        self._ledger = parts.ledger
        self._config = parts.config
        self._draining = draining
        self._order = Order(parts.scripts.get(SEED_ISLAND))
        self._island = Island(SEED_ISLAND, parts.config, parts.brief)
        self._prompter = Prompter(parts.brief, parts.config, parts.ledger)
        self._generation = Generation(
            self._island, parts.config, parts.models, parts.ledger, self._prompter, self._order, draining
        )
        self._shown: dict[str, ShownProgram] = {}
        """Valid programs so far, in the order they were planted."""

    async def settle(self, seeds: Sequence[Seed]) -> None:
        """Journal the programs to start from, once, and measure those that have no terminal state yet.

        Raises RunError in one line when none of them is valid.
        """
        planted = await self._ledger.read(kinds=[EventKind.GENERATED], island=SEED_ISLAND)
        if not planted:
            first = seeds or [Seed(self._parts.brief.seed_source, "seed")]
            batch = [generated_event(c, c.operator, 1) for c in seed_candidates(first)]
            planted = await self._ledger.append(batch, self._ledger.epoch)
        settled = {event.candidate: event for event in await self._ledger.read(kinds=SETTLED, island=SEED_ISLAND)}
        waiting = [event for event in planted if event.candidate not in settled]
        await self._ledger.reopen(SEED_ISLAND, len(waiting), f"seeds:{self._ledger.epoch}")
        texts = await self._ledger.texts([event.body["source"] for event in planted])
        measured = await asyncio.gather(
            *(self._measure(candidate_of(e, texts[e.body["source"]]), self._ledger.epoch - e.epoch) for e in waiting)
        )
        settled |= {event.candidate: event for event in measured}
        for event in planted:
            self._island.note(str(event.candidate), event.body["fingerprint"], event.body["decision"])
        ended = sorted(settled.values(), key=lambda event: event.seq)
        await asyncio.gather(*(self._absorb(event, texts.get(event.body["source"] or "")) for event in ended))
        if not self._shown:
            body = settled["seed-0"].body
            case = "" if body["case"] is None else f" (case {body['case']})"
            raise RunError(f"the seed of {self._task} fails on train: {body['failure']}: {body['detail']}{case}")

    async def grow(self) -> None:
        """The seeding phase, as far as the journal does not have it: seeds that differ, then variants of each."""
        await self._grow_all()
        event = last_steps(f"seeds:{self._ledger.epoch}", SEED_ISLAND, self._order)
        await self._ledger.append([event], self._ledger.epoch)

    async def _grow_all(self) -> None:
        seeding = self._config.seeding
        tries = TRIES_OF_MODEL if strong_model(self._config) else TRIES_OF_MUTATION
        grown = ["seed-0"] if "seed-0" in self._shown else []
        for number in range(1, seeding.seeds + 1):
            for attempt in range(tries):
                name = f"seed-d{number}.{attempt}"
                if not await self._grow(name, 100 * number + attempt, self._different):
                    return
                if name in self._shown:
                    grown.append(name)
                    break
        variants = [
            self._grow(f"{parent}-v{n}", 10_000 + 100 * position + n, self._variant(parent))
            for position, parent in enumerate(grown)
            for n in range(seeding.variants)
        ]
        await asyncio.gather(*variants)

    async def inject(self, command: str, source: str) -> str | None:
        """Measure a program that a person gave; islands hear of it when it is valid. Why not, in words, else None."""
        name = f"inject-{command.rsplit('-', 1)[-1]}"
        if await self._ledger.find([settled_id(name)]):
            return None
        if not await self._granted(name):
            return "no candidate is left in the budget"
        number = len(self._shown)
        fingerprint = program.fingerprint(source)
        arm = ("person", "injected")
        candidate = Candidate(name, SEED_ISLAND, number, "injected", (), source, fingerprint, arm)
        (recorded,) = await self._ledger.append([generated_event(candidate, "person", 1)], self._ledger.epoch)
        settled = await self._measure(candidate, self._ledger.epoch - recorded.epoch)
        await self._absorb(settled, source)
        return None

    async def _grow(self, name: str, decision: int, propose: _Proposer) -> bool:
        """One more candidate, unless the journal has it; False when nothing more is to be begun."""
        if name in self._shown or settled_id(name) in await self._ledger.find([settled_id(name)]):
            return True
        if self._draining.is_set() or self._order.holds(f"s{name}") is False or not await self._granted(name):
            return False
        try:
            produced = await self._produced(name, decision, propose)
        except (NoBudgetError, LeftOpenError):
            return False
        if isinstance(produced.result, Refused):
            await self._order.turn(f"d{name}")
            event = screened_out_event(produced.result, Standing(ops=self._order.taken()))
            await self._ledger.append([event], self._ledger.epoch)
            return True
        event = generated_event(produced.result, produced.completion.model, produced.draws, produced.completion.detail)
        (recorded,) = await self._ledger.append([event], self._ledger.epoch)
        ref: str = recorded.body["source"]
        source = produced.result.source
        if ref != text_ref(source):
            source = (await self._ledger.texts([ref]))[ref]
        await self._absorb(await self._measure(candidate_of(recorded, source), 0), source)
        return True

    async def _produced(self, name: str, decision: int, propose: _Proposer) -> Produced:
        history = await self._history(name)
        proposed = next((e for e in history if e.kind is EventKind.PROPOSED), None)
        if proposed is not None:
            texts = await self._ledger.texts(proposed.body["sources"])
            return await self._generation.produce(retaken(proposed, texts, self._config), history)
        proposal = propose(name, decision)
        if proposal.arm == MUTATE:
            return await self._mutated(proposal)
        if proposal.operator == "seed_different":
            request = self._prompter.seed_request(proposal.request, list(self._shown.values()))
            proposal = replace(proposal, request=request)
        return await self._generation.produce(proposal)

    async def _history(self, name: str) -> list[Event]:
        kinds = [EventKind.PROPOSED, EventKind.REQUESTED, EventKind.COMPLETED, EventKind.LOST]
        return [e for e in await self._ledger.read(kinds=kinds, island=SEED_ISLAND) if e.candidate == name]

    def _different(self, name: str, decision: int) -> Proposal:
        model = strong_model(self._config)
        arm = MUTATE if model is None else (model, "seed_different")
        return self._proposal(name, decision, arm, "seed-0" if "seed-0" in self._shown else next(iter(self._shown)))

    def _variant(self, parent: str) -> _Proposer:
        def propose(name: str, decision: int) -> Proposal:
            model = small_model(self._config)
            return self._proposal(name, decision, MUTATE if model is None else (model, "diff"), parent)

        return propose

    def _proposal(self, name: str, decision: int, arm: tuple[str, str], parent: str) -> Proposal:
        source = self._shown[parent].source
        form: Form = "program" if arm == MUTATE else FORMS.get(arm[1], "rewrite")
        request = GenerationRequest(
            candidate=name,
            operator=arm[1],
            parents=(source,),
            rng_key=(self._config.seed, 1_000_000, decision),
            id=f"{name}/0",
            model=arm[0],
            form=form,
        )
        return Proposal(name, decision, arm, arm[1], (parent,), (text_ref(source),), request)

    async def _mutated(self, proposal: Proposal) -> Produced:
        """A program several mutations away from its parent; a seed differs from all others in more than constants."""
        seed = "-v" not in proposal.candidate
        shown = self._shown.values() if seed else ()
        shapes: dict[str | None, str] = {program.shape(other.source): other.candidate for other in shown}
        draws = self._parts.models["mutate"].redraws + 1
        for draw in range(draws):
            made = await self._mutation(proposal, draw, STEPS_OF_MUTATION if seed else 1)
            like = shapes.get(_shape(made))
            if like is None:
                break
        await self._order.turn(f"s{proposal.candidate}")
        result = self._island.screen(proposal, proposal.request, made)
        if isinstance(result, Candidate) and like is not None:
            failure = Failure(FailureKind.DUPLICATE, f"but for constants the same program as {like}")
            result = self._island.refused(proposal, made, failure, made.text)
        return Produced(result, made, draw + 1)

    async def _mutation(self, proposal: Proposal, draw: int, steps: int) -> Completion:
        model = self._parts.models["mutate"]
        source, names = proposal.request.parents[0], []
        for step in range(draw * steps, (draw + 1) * steps):
            request = replace(proposal.request, parents=(source,), rng_key=(*proposal.request.rng_key, step))
            completion = await model.complete(request)
            if completion.text is not None:
                source = completion.text
                names.append(completion.operator.removeprefix("mutate:"))
        return Completion(source, "mutate", f"mutate:{'+'.join(names)}")

    async def _granted(self, name: str) -> bool:
        return await self._ledger.grant(SEED_ISLAND, 1, f"{name}:{self._ledger.epoch}") > 0

    async def _measure(self, candidate: Candidate, lost: int) -> Event:
        parts = self._parts
        return await measure(candidate, parts.evaluator, parts.ledger, self._island, lost, self._order, parts.brief)

    async def _absorb(self, settled: Event, source: str | None) -> None:
        await self._order.turn(f"t{settled.candidate}")
        absorb(self._island, settled, source)
        if settled.kind is EventKind.ADMITTED and source is not None:
            body, name = settled.body, str(settled.candidate)
            self._shown[name] = ShownProgram(name, source, body["score"], body["metrics"], note=body["note"])


def _shape(made: Completion) -> str | None:
    try:
        return program.shape(made.text or "")
    except SyntaxError:
        return None


def seed_candidates(seeds: Sequence[Seed]) -> list[Candidate]:
    """Candidates `seed-0`, `seed-1`, ...: programs that are the same as an earlier one are left out.

    Raises UsageError, one line, for a program that cannot be evolved.
    """
    found: dict[str, Candidate] = {}
    for seed in seeds:
        try:
            fingerprint = program.fingerprint(seed.source)
            program.evolve_blocks(seed.source)
        except SyntaxError as error:
            where = "" if error.lineno is None else f"line {error.lineno}: "
            raise UsageError(f"{seed.origin} is no Python program: {where}{error.msg}") from None
        except ValueError as error:
            raise UsageError(f"{seed.origin}: {error}") from None
        if fingerprint not in found:
            number = len(found)
            found[fingerprint] = Candidate(
                f"seed-{number}",
                SEED_ISLAND,
                number,
                seed.origin,
                (),
                seed.source,
                fingerprint,
                arm=("person", "seed"),
            )
    return list(found.values())
