"""A Ray cluster whose machines are all this one."""

from __future__ import annotations

STORE = 80 * 2**20
"""Bytes of shared memory for each machine: the least that Ray takes, nearly."""


class Machines:
    """A head without processors, and machines with one each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address = self._cluster.address
        self.nodes: list = []

    def have(self, number: int) -> None:
        while len(self.nodes) < number:
            self.nodes.append(self._cluster.add_node(num_cpus=1, object_store_memory=STORE))

    def lose_one(self) -> str:
        """Kill a machine's processes; Ray's id of it."""
        node = self.nodes.pop()
        self._cluster.remove_node(node, allow_graceful=False)
        return node.node_id

    def close(self) -> None:
        self._cluster.shutdown()
