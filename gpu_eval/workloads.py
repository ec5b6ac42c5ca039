"""Generated expert loads: how many tokens a router sends to each expert, window after window.

    log p[t,l,e] = sigma_l (sqrt(1 - d) a[t,l,e] + sqrt(d) sum_k pi_k(t) D[k,l,e]) + const
    counts[t,l,:] ~ Multinomial(tokens, p[t,l,:])

with sigma_l = sigma exp(spread z_l); a an AR(1) process of unit variance, correlation rho from window to window;
D[k] the profiles of 6 traffic domains, standard normal; pi the mix of domains, softmax(2 w) scaled to unit length, w a
walk 0.95 w + 0.3 n per domain whose entries are permuted with probability 0.05 a window: traffic moves to another
domain. Layers are independent: checkpoints number their experts in any order.

What is fitted: the skew. `adrs` gives a slot balance of 0.66 after greedy replication of 256 experts in 288 slots with
groups kept on 4 nodes (the paper: 0.66). `steady` meets table 1 of TensorRT-LLM's blog 4 (DeepSeek-R1 on 32 GPUs:
imbalance and deviation of ranks and experts, before EPLB and after) within 14 %; `trt` has the same sigma. With
affinity 0.8, the 500 hottest (layer, expert) pairs of two domains of `trt` overlap by 0.14 (Jaccard); an atlas of
GLM-5.2's routing shows 0.13 to 0.17 between topics. tests/gpu_eval/published_loads.py prints, the tests check these.
What is assumed: everything about time (rho, domains and their share, shifts), `heavy` and `decode` as a whole, and the
independence of layers. No public series of loads was at hand; recorded snapshots say nothing of drift. So gains on the
next window hold for this process; record your own traffic (docs/load_traces.md) before believing them, and never put
results on recorded and on generated loads in one column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Seed = int | Sequence[int]
Loads = NDArray[np.float64]

_PROFILES, _DRIFT, _WALK, _COUNTS, _TOKENS = range(5)
_CHUNK_CELLS = 1 << 21


@dataclass(frozen=True, slots=True)
class Regime:
    """One kind of traffic. Fields with a default are common to all five."""

    name: str
    sigma: float
    """Spread of log popularity."""
    rho: float
    """Correlation of the part that belongs to no domain, from one window to the next."""
    domain_share: float
    """Share d of the log variance that follows the mix of domains."""
    tokens: int
    """Routed tokens (token-expert pairs) per layer and window."""
    sigma_spread: float = 0.25
    """Spread of log sigma over layers."""
    domains: int = 6
    walk_keep: float = 0.95
    walk_step: float = 0.3
    shift_probability: float = 0.05
    """Of a domain shift, per window."""
    affinity: float = 0.8
    """How strongly a token prefers its own domain's experts, in log units per standard deviation of a profile."""


REGIMES: dict[str, Regime] = {
    regime.name: regime
    for regime in (
        Regime("adrs", 0.27, 0.985, 0.2, 4_000_000),
        Regime("steady", 0.95, 0.995, 0.0, 4_000_000),
        Regime("trt", 0.95, 0.985, 0.35, 4_000_000),
        Regime("heavy", 1.3, 0.95, 0.6, 2_000_000),
        Regime("decode", 0.95, 0.985, 0.35, 60_000),
    )
}
"""The paper's skew; one kind of traffic; mixed traffic; one tenant with fast shifts; few tokens a window."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadTrace:
    """Loads of a series of windows, or of one snapshot."""

    name: str
    source: Literal["generated", "recorded"]
    """Never to be mixed in one column of results."""
    samples: NDArray[np.int64]
    """int64 [windows, S, L, E]: tokens per expert in each of the S samples of a window."""
    kind: Literal["series", "snapshot"] = "series"
    """A snapshot is one window that says nothing of drift."""

    def __post_init__(self) -> None:
        if self.samples.ndim != 4 or self.samples.dtype != np.int64 or 0 in self.samples.shape:
            raise ValueError(
                f"{self.name}: samples are {self.samples.dtype} {list(self.samples.shape)}, "
                "expected int64 [windows, samples, layers, experts]"
            )
        if self.kind == "snapshot" and len(self.samples) != 1:
            raise ValueError(f"{self.name}: a snapshot has one window, not {len(self.samples)}")

    @property
    def counts(self) -> NDArray[np.int64]:
        """int64 [windows, L, E]: tokens per expert in each window."""
        return np.asarray(self.samples.sum(axis=1), np.int64)

    @property
    def windows(self) -> int:
        return int(self.samples.shape[0])

    @property
    def layers(self) -> int:
        return int(self.samples.shape[2])

    @property
    def experts(self) -> int:
        return int(self.samples.shape[3])


@dataclass(frozen=True, slots=True, eq=False)
class Popularity:
    """What the router of each layer prefers, window by window."""

    p: Loads
    """[windows, L, E], rows sum to 1."""
    mix: Loads
    """[windows, K]: share of tokens per domain, the squares of pi; rows sum to 1."""
    profiles: Loads
    """[K, L, E]: D."""


def regime_named(name: str) -> Regime:
    """A regime by its name. Raises ValueError that lists the names."""
    if name not in REGIMES:
        raise ValueError(f"no regime {name!r}, expected one of {', '.join(REGIMES)}")
    return REGIMES[name]


def popularity(regime: Regime, layers: int, experts: int, windows: int, seed: Seed) -> Popularity:
    """The process without its sampling noise. More windows of the same seed continue the fewer."""
    for name, value in (("layers", layers), ("experts", experts), ("windows", windows)):
        _at_least_one(name, value)
    rng = _stream(seed, _PROFILES)
    sigma = regime.sigma * np.exp(regime.sigma_spread * rng.standard_normal(layers))[:, None]
    profiles = rng.standard_normal((regime.domains, layers, experts))
    pi = _domain_mix(regime, windows, _stream(seed, _WALK))
    rng = _stream(seed, _DRIFT)
    own = rng.standard_normal((layers, experts))
    p = np.empty((windows, layers, experts))
    for window in range(windows):
        if window:
            own = regime.rho * own + np.sqrt(1 - regime.rho**2) * rng.standard_normal((layers, experts))
        shared = np.tensordot(pi[window], profiles, axes=1)
        share = regime.domain_share
        p[window] = np.exp(sigma * (np.sqrt(1 - share) * own + np.sqrt(share) * shared))
    p /= p.sum(axis=2, keepdims=True)
    return Popularity(p=p, mix=pi**2, profiles=profiles)


def generate(
    regime: Regime, layers: int, experts: int, windows: int, seed: Seed, samples: int = 1, tokens: int | None = None
) -> LoadTrace:
    """Loads of `windows` windows; equal arguments give equal loads, and more windows continue fewer.

    The samples of a window share its popularity and its tokens (sizes differ by one at most), so that their sum is
    Multinomial(tokens, p) whatever their number. `tokens` per layer and window replaces the regime's own.
    """
    tokens = regime.tokens if tokens is None else tokens
    _at_least_one("samples", samples)
    _at_least_one("tokens", tokens)
    p = popularity(regime, layers, experts, windows, seed).p
    sizes = np.full(samples, tokens // samples)
    sizes[: tokens % samples] += 1
    counts = np.stack(
        [
            _stream(seed, _COUNTS, window).multinomial(sizes[:, None], p[window], size=(samples, layers))
            for window in range(windows)
        ]
    )
    return LoadTrace(regime.name, "generated", counts.astype(np.int64, copy=False))


def token_choices(
    regime: Regime,
    experts: int,
    tokens: int,
    top_k: int,
    seed: Seed,
    layers: int = 1,
    layer: int = 0,
    window: int = 0,
) -> NDArray[np.int16]:
    """Experts of single tokens in one layer and window of `generate(regime, layers, experts, ..., seed)`.

    int16 [tokens, top_k], distinct in a row, the first choice first; see `choices`.
    """
    if not 0 <= layer < layers or window < 0:
        raise ValueError(f"layer {layer} of {layers}, window {window}: no such layer or window")
    return choices(popularity(regime, layers, experts, window + 1, seed), regime, layer, window, tokens, top_k, seed)


def choices(
    popularity: Popularity, regime: Regime, layer: int, window: int, tokens: int, top_k: int, seed: Seed
) -> NDArray[np.int16]:
    """Experts of single tokens, int16 [tokens, top_k], distinct in a row, the first choice first.

    Each token has a domain, drawn by `popularity.mix`, and prefers its experts: experts of one domain meet in tokens
    more often than chance (`domain_preferences`), while over all domains an expert has probability `p`. A token draws
    top_k experts without replacement by Gumbel top-k (Kool et al., 2019).

    Relation to `generate`: the first choice of a token is distributed as one draw of its multinomial. A count over all
    choices has mean tokens x P(expert among the top_k), which is top_k x p where top_k x p is small; for hot experts
    it is less, and never more than one per token, as in a real router, while the multinomial knows no such limit.
    """
    experts = popularity.p.shape[2]
    _at_least_one("tokens", tokens)
    if not 1 <= top_k <= experts:
        raise ValueError(f"top_k is {top_k}, expected 1 to {experts}, the number of experts")
    if experts > np.iinfo(np.int16).max:
        raise ValueError(f"{experts} experts do not fit int16")
    rng = _stream(seed, _TOKENS, layer, window)
    mix = popularity.mix[window]
    given_domain = domain_preferences(popularity, regime, layer, window)
    # The smallest of exponentials over p is the largest of Gumbels plus log p.
    inverse = (1 / np.maximum(given_domain, np.finfo(np.float32).tiny)).astype(np.float32)
    domains = rng.choice(len(mix), size=tokens, p=mix)
    chosen = np.empty((tokens, top_k), np.int16)
    step = max(1, _CHUNK_CELLS // experts)
    for start in range(0, tokens, step):
        rows = domains[start : start + step]
        arrival = rng.standard_exponential((len(rows), experts), dtype=np.float32) * inverse[rows]
        first = np.argpartition(arrival, top_k - 1, axis=1)[:, :top_k]
        order = np.take_along_axis(arrival, first, axis=1).argsort(axis=1)
        chosen[start : start + step] = np.take_along_axis(first, order, axis=1)
    return chosen


def domain_preferences(popularity: Popularity, regime: Regime, layer: int, window: int) -> Loads:
    """P(expert | domain), [K, E], with sum_k mix_k P(e | k) = p_e: Sinkhorn scaling of p_e exp(affinity D_ke)."""
    p, mix = popularity.p[window, layer], popularity.mix[window]
    preference = regime.affinity * popularity.profiles[:, layer]
    joint = mix[:, None] * p * np.exp(preference - preference.max())
    for _ in range(1000):
        joint *= p / joint.sum(axis=0)
        rows = joint.sum(axis=1)
        if np.abs(rows / mix - 1).max() < 1e-9:
            break
        joint *= (mix / rows)[:, None]
    return np.asarray(joint / joint.sum(axis=1, keepdims=True), np.float64)


def _domain_mix(regime: Regime, windows: int, rng: np.random.Generator) -> Loads:
    """pi [windows, K], rows of unit length. The walk starts in its stationary distribution."""
    walk = rng.standard_normal(regime.domains) * regime.walk_step / np.sqrt(1 - regime.walk_keep**2)
    pi = np.empty((windows, regime.domains))
    for window in range(windows):
        if window:
            walk = regime.walk_keep * walk + regime.walk_step * rng.standard_normal(regime.domains)
            if rng.random() < regime.shift_probability:
                walk = rng.permutation(walk)
        weights = np.exp(2 * (walk - walk.max()))
        pi[window] = weights / np.linalg.norm(weights)
    return pi


def _stream(seed: Seed, *key: int) -> np.random.Generator:
    """An own stream for each part of the process, so that drawing more of one changes no other."""
    entropy = seed if isinstance(seed, int) else list(seed)
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=key))


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} is {value}, expected at least 1")
