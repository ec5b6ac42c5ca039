"""Which token goes to which process under a placement: what all-to-all and experts of one layer need, as indices.

A token is sent once to every process that holds a slot of its, however many of its experts lie there (as DeepEP does),
its outputs are summed there by gate, and one row comes back. Pure numpy; done off the clock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .communication import Ints, equal_before


@dataclass(frozen=True, slots=True)
class ExchangePlan:
    """One process's part in one layer. Tokens are in equal blocks by process; a block's tokens are its rows."""

    send_rows: Ints
    """[sum of send_splits]: own rows, by process that they go to, in order."""
    send_splits: tuple[int, ...]
    """Rows to every process, itself included."""
    receive_splits: tuple[int, ...]
    """Rows from every process, itself included."""
    pair_rows: Ints
    """[N]: the received row of every (token, slot) pair of this process, by slot."""
    pair_gates: NDArray[np.float32]
    """[N]: the weight of the pair in its token's sum."""
    slot_tokens: Ints
    """[slots of this process]: pairs of each; N in sum."""


def deal_evenly(choices: NDArray[np.integer], phy2log: Ints, experts: int) -> Ints:
    """The slot [T, k] that serves each choice [T, k] under one layer's placement [P].

    Successive choices of an expert, in the order of tokens, go to its copies in turn, so that the tokens of two copies
    differ by at most one. ValueError when an expert that is chosen has no slot.
    """
    flat = choices.astype(np.int64).ravel()
    copies = np.bincount(phy2log, minlength=experts)
    if flat.size and not copies[flat].all():
        raise ValueError(f"expert {int(flat[copies[flat] == 0][0])} has no slot, expected at least one")
    by_expert = np.argsort(phy2log, kind="stable")
    first = np.cumsum(copies) - copies
    slots: Ints = by_expert[first[flat] + equal_before(flat, experts) % copies[flat]]
    return slots.reshape(choices.shape)


def plan_exchange(
    slots: Ints, gates: NDArray[np.float32], index: int, world: int, slots_per_process: int
) -> ExchangePlan:
    """The plan of process `index` for one layer, from the slot and the gate of every choice, both [T, k].

    ValueError when T is no multiple of `world`.
    """
    tokens = len(slots)
    if tokens % world:
        raise ValueError(f"{tokens} tokens are no multiple of {world} processes")
    block = tokens // world
    process = slots // slots_per_process
    needed = np.zeros((tokens, world), dtype=np.bool_)
    np.put_along_axis(needed, process, True, axis=1)
    rows = needed.reshape(world, block, world)
    splits = rows.sum(axis=1)
    token, choice = np.nonzero(process == index)
    local = slots[token, choice] - index * slots_per_process
    by_slot = np.argsort(local, kind="stable")
    token, choice = token[by_slot], choice[by_slot]
    return ExchangePlan(
        send_rows=np.nonzero(rows[index].T)[1],
        send_splits=tuple(splits[index].tolist()),
        receive_splits=tuple(splits[:, index].tolist()),
        pair_rows=(np.cumsum(needed[:, index]) - 1)[token],
        pair_gates=gates[token, choice].astype(np.float32),
        slot_tokens=np.bincount(local, minlength=slots_per_process),
    )
