"""One chain through the destinations in the given order; each gets its data over the part of the chain before it."""

from broadcast import BroadCastTopology


def search_algorithm(src, dsts, G, num_partitions):
    topology = BroadCastTopology(src, dsts, num_partitions)
    edges, last = [], src
    for dst in dsts:
        if not G.has_edge(last, dst):  # start again at the source
            edges, last = [], src
        edges = [*edges, [last, dst, G[last][dst]]]
        last = dst
        for partition in range(num_partitions):
            topology.set_dst_partition_paths(dst, partition, list(edges))
    return topology
