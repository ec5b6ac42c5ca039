"""The wall time of a served trace in plain loops, from the statement of the task and a program's `config` alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod
from typing import Any

Placed = list[list[int]]
Split = list[list[float]]
Decided = tuple[Placed | None, Split | None, float]


def equal(placement: Placed) -> Split:
    """Copies share equally."""
    return [[1 / row.count(expert) for expert in row] for row in placement]


class Cluster:
    """What `config` says."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.c = config
        self.G, self.N = config["gpus"], config["nodes"]
        self.D = self.G // self.N
        self.per_gpu = config["slots"] // self.G

    def experts(self, n: Sequence[float]) -> float:
        c = self.c
        read, computed = sum(min(x, 1.0) for x in n), sum(ceil(x / c["tile"]) for x in n)
        busy: float = c["launch_s"] + c["token_s"] * sum(n) + max(c["active_s"] * read, c["tile_s"] * computed)
        return busy

    def layer(self, row: list[int], split: list[float], tokens: Sequence[int]) -> float:
        """Seconds of a layer, dispatch and combine included."""
        c, G, N, D = self.c, self.G, self.N, self.D
        q = c["tokens_per_gpu"] * G
        on_gpu: list[dict[int, float]] = [{} for _ in range(G)]
        on_node: list[dict[int, float]] = [{} for _ in range(N)]
        slots: list[list[float]] = [[] for _ in range(G)]
        for slot, expert in enumerate(row):
            gpu = slot // self.per_gpu
            n = split[slot] * int(tokens[expert])
            slots[gpu].append(n)
            for held in (on_gpu[gpu], on_node[gpu // D]):
                held[expert] = held.get(expert, 0.0) + n
        t, u = (
            [q * (1 - prod(1 - min(1.0, n / q) for n in held.values())) for held in all_] for all_ in (on_gpu, on_node)
        )
        slowest = 0.0
        for gpu in range(G):
            node = gpu // D
            mates = sum(t[node * D : (node + 1) * D]) - t[gpu]
            nv = max(t[gpu] * (1 - 1 / D), mates / D) / (1e9 * c["nvlink_gb_s"])
            ib = max(u[node] * (1 - 1 / N), (sum(u) - u[node]) / N) / D / (1e9 * c["ib_gb_s"])
            exchange = 0.0 if G == 1 else 2 * c["exchange_s"]
            exchange += (3 * c["hidden"] + 4 * ceil(c["hidden"] / 128)) * max(nv, ib)
            slowest = max(slowest, self.experts(slots[gpu]) + exchange)
        return slowest

    def copying(self, old: list[int], new: list[int]) -> float:
        """Seconds of copying one layer."""
        holders: dict[int, set[int]] = {}
        lacked: set[tuple[int, int]] = set()
        for slot, expert in enumerate(old):
            holders.setdefault(expert, set()).add(slot // self.per_gpu)
        for slot, expert in enumerate(new):
            if slot // self.per_gpu not in holders[expert]:
                lacked.add((expert, slot // self.per_gpu))
        sent = {near: [0] * self.G for near in (True, False)}
        got = {near: [0] * self.G for near in (True, False)}
        for expert, gpu in sorted(lacked, key=lambda fetch: (len(holders[fetch[0]]) > 1, *fetch)):
            mates = [holder for holder in sorted(holders[expert]) if holder // self.D == gpu // self.D]
            near = bool(mates)
            source = min(mates or sorted(holders[expert]), key=lambda holder: sent[near][holder])
            sent[near][source] += 1
            got[near][gpu] += 1
        if not lacked:
            return 0.0
        rates = {True: self.c["nvlink_gb_s"], False: self.c["ib_gb_s"]}
        busiest = max(max(sent[near] + got[near]) / rates[near] for near in rates)
        return float(self.c["exchange_s"] + busiest * self.c["bytes_per_expert"] / 1e9)


def steps(config: dict[str, Any], tokens: Sequence[Any], initial: Placed, decisions: Sequence[Decided]) -> list[float]:
    """Seconds of every step. `tokens` are those of each window, [S, L, E]; a decision comes before each."""
    cluster = Cluster(config)
    row, split = [list(each) for each in initial], equal(initial)
    waiting: list[tuple[float, Placed, Split]] = []
    queue: list[int] = []
    """Layers that are still to be copied, the first one under way."""
    target, target_split, left_s = row, split, 0.0
    now = free = 0.0
    made = []
    for window, (placement, shares, seconds) in zip(tokens, decisions, strict=True):
        free = max(now, free) + seconds
        if placement is not None:
            waiting.append((free, placement, equal(placement) if shares is None else shares))
        for step in range(config["window_steps"]):
            while waiting and waiting[0][0] <= now:
                _, target, target_split = waiting.pop(0)
                copies = [cluster.copying(row[layer], target[layer]) for layer in range(len(row))]
                queue = [layer for layer, copy_s in enumerate(copies) if copy_s > 0]
                left_s = copies[queue[0]] if queue else 0.0
                for layer in set(range(len(row))) - set(queue):
                    row[layer], split[layer] = target[layer], target_split[layer]
            drawn = window[step * len(window) // config["window_steps"]]
            step_s = sum(cluster.layer(row[layer], split[layer], drawn[layer]) for layer in range(len(row)))
            room_s = config["stall_cap"] * step_s / (1 - config["overlap"])
            copied_s = 0.0
            while queue and room_s - copied_s >= left_s - 1e-15:
                copied_s += left_s
                layer = queue.pop(0)
                # In force from the next step on: this one's seconds are told already.
                before = row[layer]
                row[layer], split[layer] = target[layer], target_split[layer]
                assert before != row[layer]
                left_s = cluster.copying(row[queue[0]], target[queue[0]]) if queue else 0.0
            if queue:
                left_s -= room_s - copied_s
                copied_s = room_s
            made.append(step_s + (1 - config["overlap"]) * copied_s)
            now += made[-1]
    return made
