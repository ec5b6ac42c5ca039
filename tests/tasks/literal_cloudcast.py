"""The rules of tasks/cloudcast written out link by link, slow and plain: kept for comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Link = tuple[str, str]
Paths = Mapping[str, Sequence[Sequence[Link]]]
"""For each destination and partition the links listed."""


def arrives(links: Sequence[Link], source: str, destination: str) -> bool:
    """Whether a path over `links` leads from source to destination."""
    seen, waiting = {source}, [source]
    while waiting:
        here = waiting.pop()
        for a, b in links:
            if a == here and b not in seen:
                seen.add(b)
                waiting.append(b)
    return destination in seen


def cost_and_time(
    paths: Paths,
    cost: Mapping[Link, float],
    throughput: Mapping[Link, float],
    gb_per_partition: float,
    ingress: Mapping[str, float],
    egress: Mapping[str, float],
) -> tuple[float, float]:
    """USD and seconds; limits in Gbit/s by region, all machines of it together."""
    carried: dict[Link, set[int]] = {}
    for partitions in paths.values():
        for number, links in enumerate(partitions):
            for link in links:
                carried.setdefault(link, set()).add(number)
    flow = {link: throughput[link] for link in carried}
    for region in {region for link in carried for region in link}:
        leaving = [link for link in carried if link[0] == region]
        arriving = [link for link in carried if link[1] == region]
        for links, limit in ((leaving, egress[region]), (arriving, ingress[region])):
            if sum(throughput[link] for link in links) > limit:
                for link in links:
                    flow[link] = min(flow[link], limit / len(links))
    seconds = max(len(numbers) * gb_per_partition * 8 / flow[link] for link, numbers in carried.items())
    regions = {region for link in carried for region in link}
    sending = sum(len(numbers) * gb_per_partition * cost[link] for link, numbers in carried.items())
    return sending + len(regions) * 2 * 0.54 / 3600 * seconds, seconds


def within_limits(links: Sequence[Link], flow: Mapping[Link, float], limit: Mapping[str, float], end: int) -> bool:
    """Whether the flows of links that share their end 0 or 1 keep within its limit."""
    total: dict[str, float] = {}
    for link in links:
        total[link[end]] = total.get(link[end], 0.0) + flow[link]
    return all(value <= limit[region] * (1 + 1e-12) for region, value in total.items())
