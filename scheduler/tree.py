"""The tree of a job's servers, whose leaves are its workers. Pure.

The roots are the *owners*: servers without parents, each of which owns a part of the parameters.
Every other server, and every worker, reports to the parents that its task names: all owners, or one
server below them. So placement decides the depth (`place` in control/job.py), not code.
"""

from typing import Dict, List, Sequence, Tuple

from .control import Task

__all__ = ["Tree"]


class Tree:
    def __init__(self, tasks: Sequence[Task]) -> None:
        servers = {task.rank: task for task in tasks if task.role == "server"}
        self.owners = [task for task in servers.values() if not task.parents]
        self._parents: Dict[str, List[Task]] = {}
        self._children: Dict[str, List[Task]] = {server.slug: [] for server in servers.values()}
        self._workers = [task for task in tasks if task.role == "worker"]
        self._below: Dict[str, Tuple[int, ...]] = {}
        for task in tasks:
            parents = [servers[rank] for rank in task.parents]
            if task.role == "worker" and not parents:
                parents = self.owners
            self._parents[task.slug] = parents
            for parent in parents:
                self._children[parent.slug].append(task)
        for children in self._children.values():
            children.sort(key=lambda child: self.workers_below(child)[0])

    def parents(self, task: Task) -> List[Task]:
        """The servers to which a task reports; none for an owner."""
        return self._parents[task.slug]

    def children(self, server: Task) -> List[Task]:
        """The tasks that report to a server, in the order in which it sums their gradients."""
        return self._children[server.slug]

    def guests(self, server: Task) -> List[Task]:
        """The workers that are not children of an owner but may connect to it; else none.

        They connect for what is not summed on the way: asynchronous stores, optimizer states.
        """
        if server.parents:
            return []
        children = {child.slug for child in self.children(server)}
        return [worker for worker in self._workers if worker.slug not in children]

    def height(self, task: Task) -> int:
        """The number of levels of tasks below this one; 0 for a worker."""
        if task.role == "worker":
            return 0
        return 1 + max(map(self.height, self._children[task.slug]), default=0)

    def workers_below(self, task: Task) -> Tuple[int, ...]:
        """The ranks of the workers whose gradients a task sends, in ascending order."""
        if task.role == "worker":
            return (task.rank,)
        if task.slug not in self._below:
            children = self._children[task.slug]
            ranks = sorted(rank for child in children for rank in self.workers_below(child))
            self._below[task.slug] = tuple(ranks)
        return self._below[task.slug]
