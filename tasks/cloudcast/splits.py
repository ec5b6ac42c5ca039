"""The jobs of each split.

`test` is the five public configurations on the recorded network. `train` and `validation` draw sources, destinations,
volumes, partitions and limits of their own, over the recorded network where it is here and over a generated one else;
no source of a public configuration is drawn. `stress` is always generated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from adrs_ray.task import DataFile, Split, data_file, read_spec

from .network import Network, generate, perturbed, provider, read_profiles, relabelled, thinned
from .steiner import MOST_ENDS, cheapest_tree
from .transfer import Job

PUBLIC = ("intra_aws", "intra_azure", "intra_gcp", "inter_agz", "inter_gaz2")
INGRESS: Mapping[str, float] = {"aws": 10, "gcp": 16, "azure": 16}
EGRESS: Mapping[str, float] = {"aws": 5, "gcp": 7, "azure": 16}
PUBLIC_SOURCES = frozenset({"aws:ap-northeast-1", "azure:australiaeast", "gcp:us-east1-b", "gcp:asia-southeast1-a"})
_NETWORK_SEEDS: Mapping[Split, int] = {"train": 19, "validation": 20, "test": 30, "stress": 40}
_FIRST_DRAW: Mapping[Split, int] = {"train": 10_000, "validation": 20_000, "test": 30_000}


@dataclass(frozen=True, slots=True)
class _Shape:
    """How to draw a job: which providers, how many destinations, and what is asked."""

    source: str
    """Provider of the source."""
    destinations: Mapping[str, int]
    """Number of destinations by provider."""
    data_vol: float = 300.0
    partitions: int = 10
    slow: float = 1.0
    """Factor on all limits."""


_SHAPES: Mapping[Split, Mapping[str, _Shape]] = {
    "train": {
        "aws": _Shape("aws", {"aws": 6}),
        "azure": _Shape("azure", {"azure": 6}),
        "gcp": _Shape("gcp", {"gcp": 5}, data_vol=200.0, partitions=8),
        "mixed": _Shape("gcp", {"aws": 2, "azure": 3, "gcp": 1}),
        "mixed-slow": _Shape("azure", {"aws": 3, "azure": 1, "gcp": 3}, data_vol=500.0, partitions=12, slow=0.5),
    },
    "validation": {
        "aws": _Shape("aws", {"aws": 7}),
        "azure": _Shape("azure", {"azure": 6}, data_vol=150.0),
        "gcp": _Shape("gcp", {"gcp": 6}),
        "mixed": _Shape("gcp", {"aws": 2, "azure": 2, "gcp": 2}),
        "mixed-aws": _Shape("aws", {"aws": 2, "azure": 3, "gcp": 2}, data_vol=400.0, partitions=6),
        "mixed-slow": _Shape("gcp", {"aws": 3, "azure": 2, "gcp": 2}, partitions=14, slow=0.6),
    },
    "test": {
        "aws": _Shape("aws", {"aws": 6}),
        "azure": _Shape("azure", {"azure": 6}),
        "gcp": _Shape("gcp", {"gcp": 6}),
        "mixed-6": _Shape("gcp", {"aws": 2, "azure": 3, "gcp": 1}),
        "mixed-7": _Shape("gcp", {"aws": 3, "azure": 3, "gcp": 1}),
    },
}
"""`test` here is what stands in for the public configurations when they are missing."""


def data_files() -> tuple[DataFile, ...]:
    """The recorded files, as task.yaml lists them."""
    return read_spec(Path(__file__).with_name("task.yaml")).data


def recorded_paths() -> dict[str, Path] | None:
    """Where each recorded file lies, by its name, or None unless all are here. Raises UsageError on a wrong one."""
    paths = {file.file: data_file(file) for file in data_files()}
    return {name: path for name, path in paths.items() if path is not None} if all(paths.values()) else None


def jobs(split: Split, paths: Mapping[str, Path] | None) -> dict[str, Job]:
    """The jobs of a split by case id; `paths` as `recorded_paths()` gives them. Made once per process."""
    if split == "stress":
        return dict(_stress())
    return dict(_jobs(split, None if paths is None else tuple(paths.items())))


@cache
def _jobs(split: Split, recorded: tuple[tuple[str, Path], ...] | None) -> dict[str, Job]:
    if recorded is None:
        return _drawn(split, generate(_NETWORK_SEEDS[split]))
    paths = dict(recorded)
    network = _recorded_network(paths["cloudcast/cost.csv"], paths["cloudcast/throughput.csv"])
    if split != "test":
        return _drawn(split, network)
    return {f"test-{name}": _public(network, paths[f"cloudcast/{name}.json"]) for name in PUBLIC}


@cache
def _recorded_network(cost_csv: Path, throughput_csv: Path) -> Network:
    return read_profiles(cost_csv, throughput_csv)


def every_job() -> dict[str, Job]:
    """All jobs there are, with the recorded network (where it is here) and without."""
    found: dict[str, Job] = {}
    splits: tuple[Split, ...] = ("train", "validation", "test")
    for where, paths in (("generated", None), ("recorded", recorded_paths())):
        if where == "generated" or paths is not None:
            found |= {f"{name} ({where})": job for split in splits for name, job in jobs(split, paths).items()}
    return found | _stress()


def _public(network: Network, path: Path) -> Job:
    config: Any = json.loads(path.read_text(encoding="utf-8"))
    return Job(
        network=network,
        source=config["source_node"],
        destinations=tuple(config["dest_nodes"]),
        data_vol=float(config["data_vol"]),
        partitions=int(config["num_partitions"]),
        ingress_limit=config["ingress_limit"],
        egress_limit=config["egress_limit"],
    )


def _drawn(split: Split, network: Network) -> dict[str, Job]:
    return {
        f"{split}-{name}": _draw(network, _FIRST_DRAW[split] + i, shape)
        for i, (name, shape) in enumerate(_SHAPES[split].items())
    }


WORTHWHILE = 0.7
"""Jobs are drawn again until one tree for all costs at most this share of what direct sending does."""


def _draw(network: Network, seed: int, shape: _Shape) -> Job:
    rng = np.random.default_rng(seed)
    regions = network.by_provider()
    while True:
        source = str(rng.choice([r for r in regions[shape.source] if r not in PUBLIC_SOURCES]))
        destinations = [
            str(region)
            for name, count in shape.destinations.items()
            for region in rng.choice([r for r in regions[name] if r != source], size=count, replace=False)
        ]
        job = Job(
            network=network,
            source=source,
            destinations=tuple(str(d) for d in rng.permutation(destinations)),
            data_vol=shape.data_vol,
            partitions=shape.partitions,
            ingress_limit={name: limit * shape.slow for name, limit in INGRESS.items()},
            egress_limit={name: limit * shape.slow for name, limit in EGRESS.items()},
        )
        if _is_worthwhile(job):
            return job


def _is_worthwhile(job: Job) -> bool:
    """A job in which little can be saved would say little about a program, and much about the third digit."""
    ends = job.ends[:MOST_ENDS]
    source = job.index[job.source]
    price = job.matrices[0]
    tree_price, _ = cheapest_tree(np.where(np.isnan(price), np.inf, price), source, ends.tolist())
    return tree_price <= WORTHWHILE * float(price[source, ends].sum())


@cache
def _stress() -> dict[str, Job]:
    seed = _NETWORK_SEEDS["stress"]
    small = {"aws": 12, "azure": 12, "gcp": 12}
    base = generate(seed)
    mixed = _Shape("gcp", {"aws": 2, "azure": 3, "gcp": 1})
    sparse_job = _draw(base, seed + 3, mixed)
    direct_links = [(sparse_job.source, destination) for destination in sparse_job.destinations]
    return {
        "stress-perturbed": _draw(perturbed(base, seed + 1, 0.4, 0.8), seed + 1, mixed),
        "stress-relabelled": _draw(relabelled(base, seed + 2), seed + 2, mixed),
        "stress-sparse": replace(sparse_job, network=thinned(base, seed + 3, 0.25, direct_links)),
        "stress-traps": _draw(_with_dead_bargains(base, seed + 4), seed + 4, mixed),
        "stress-broad": _draw(generate(seed + 5, small), seed + 5, _Shape("aws", {"aws": 6, "azure": 7, "gcp": 7})),
        "stress-large": _draw(
            generate(seed + 6, {"aws": 40, "azure": 36, "gcp": 44}), seed + 6, _Shape("gcp", {"aws": 2, "gcp": 3})
        ),
        "stress-whole": _draw(base, seed + 7, _Shape("aws", {"aws": 4, "gcp": 1}, data_vol=1000.0, partitions=1)),
        "stress-fine": _draw(base, seed + 8, _Shape("azure", {"gcp": 4}, data_vol=20.0, partitions=64, slow=0.1)),
    }


def _with_dead_bargains(network: Network, seed: int) -> Network:
    """A twelfth of the links, between providers, cost next to nothing and hardly move."""
    rng = np.random.default_rng(seed)
    between = np.array([provider(network.regions[a]) != provider(network.regions[b]) for a, b in network.links])
    chosen = between & (rng.random(len(network.links)) < 1 / 6)
    return Network(
        network.regions,
        network.links,
        np.where(chosen, 0.005, network.cost),
        np.where(chosen, 0.02, network.throughput),
    )
