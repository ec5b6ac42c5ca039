"""Copies of experts to GPUs: copies to hot experts one by one, then copies to slots in turn."""

import torch


# EVOLVE-BLOCK-START
def rebalance_experts(weight, num_replicas, num_groups, num_nodes, num_gpus):
    layers, num_experts = weight.shape
    assert num_replicas % num_gpus == 0
    assert num_gpus % num_nodes == 0
    assert num_experts % num_groups == 0
    assert num_replicas >= num_experts
    device = weight.device
    weight = weight.cpu().double()
    nodes = num_nodes if num_groups % num_nodes == 0 else 1
    experts_per_node = num_experts // nodes  # groups in order: the first ones on the first node
    slots_per_node = num_replicas // nodes
    gpus_per_node = num_gpus // nodes

    physical_to_logical = torch.zeros(layers, num_replicas, dtype=torch.int64)
    expert_count = torch.ones(layers, num_experts, dtype=torch.int64)
    slots_of = [[[] for _ in range(num_experts)] for _ in range(layers)]
    for layer in range(layers):
        for node in range(nodes):
            first = node * experts_per_node
            load = weight[layer, first : first + experts_per_node].tolist()
            copies = [1] * experts_per_node
            for _ in range(slots_per_node - experts_per_node):
                hottest = max(range(experts_per_node), key=lambda e: load[e] / copies[e])
                copies[hottest] += 1
            items = [e for e in range(experts_per_node) for _ in range(copies[e])]
            for rank, expert in enumerate(items):  # dealt to the GPUs of the node in turn
                gpu, place = rank % gpus_per_node, rank // gpus_per_node
                slot = node * slots_per_node + gpu * (num_replicas // num_gpus) + place
                physical_to_logical[layer, slot] = first + expert
                slots_of[layer][first + expert].append(slot)
            expert_count[layer, first : first + experts_per_node] = torch.tensor(copies)
    most = int(expert_count.max())
    logical_to_physical = torch.tensor([[slots + [-1] * (most - len(slots)) for slots in row] for row in slots_of])
    return physical_to_logical.to(device), logical_to_physical.to(device), expert_count.to(device)


# EVOLVE-BLOCK-END
