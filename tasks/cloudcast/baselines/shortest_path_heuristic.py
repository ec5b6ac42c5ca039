"""Steiner tree grown by shortest paths, for all partitions: the destination nearest to the tree joins next.

Takahashi and Matsuyama, "An approximate solution for the Steiner problem in graphs" (1980), on directed prices.
"""

from itertools import pairwise

import networkx as nx
from broadcast import BroadCastTopology


def search_algorithm(src, dsts, G, num_partitions):
    path_to = {src: [src]}
    waiting = set(dsts)
    while waiting:
        distance, paths = nx.multi_source_dijkstra(G, set(path_to), weight="cost")
        dst = min(sorted(waiting), key=distance.__getitem__)
        path = paths[dst]
        for i in range(1, len(path)):
            path_to.setdefault(path[i], [*path_to[path[i - 1]], path[i]])
        waiting.discard(dst)
    topology = BroadCastTopology(src, dsts, num_partitions)
    for dst in dsts:
        for a, b in pairwise(path_to[dst]):
            for partition in range(num_partitions):
                topology.append_dst_partition_path(dst, partition, [a, b, G[a][b]])
    return topology
