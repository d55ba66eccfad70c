"""A Ray cluster of several machines, on this one."""

import json
from typing import Any

import ray
import ray.util
from ray.cluster_utils import Cluster

from audiomixer.service.cluster.nodes import CONFIG


def retire_all(address: str) -> None:
    """Ends the workers of all services of a cluster."""
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False, logging_level="warning")
    for actor in ray.util.list_named_actors(all_namespaces=True):
        ray.kill(ray.get_actor(actor["name"], namespace=actor["namespace"]), no_restart=True)


class Machines:
    """A head on which nothing is mixed, and nodes that have a worker each."""

    def __init__(self, count: int) -> None:
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "object_store_memory": 80 << 20,
                "_system_config": json.loads(CONFIG),
                "include_dashboard": False,
            },
        )
        self._nodes: list[Any] = []
        for _ in range(count):
            self.add()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, workers: int = 1) -> None:
        """One more, with so many workers."""
        node = self._cluster.add_node(
            num_cpus=1, object_store_memory=80 << 20, resources={"audiomixer": workers}, wait=True
        )
        self._nodes.append(node)

    def node(self, name: str) -> Any:
        """The machine that a worker of this name is on."""
        return next(node for node in self._nodes if name.startswith(node.node_id[:12]))

    def kill(self, name: str) -> None:
        """The machine of that worker dies."""
        node = self.node(name)
        self._nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        ray.shutdown()
        self._cluster.shutdown()
