"""A job as plain, frozen data that travels as JSON. Pure.

The launcher makes a `Job` from flags, host file and environment. The scheduler, its agents and the
tasks only read it. `place` decides which task runs on which host.
"""

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import msgspec

from baryon.ps import UsageError

__all__ = ["KVSTORE_TYPES", "Group", "Host", "Job", "Task", "place"]

KVSTORE_TYPES = (
    *("dist", "dist_sync", "dist_device_sync", "dist_sync_device"),
    *("dist_async", "dist_device_async", "dist_async_device"),
    *("dist_ssp", "dist_device_ssp", "dist_ssp_device"),
)
"""The kinds of kvstore that we serve: MXNet's, and those of bounded staleness."""


class Host(msgspec.Struct, frozen=True):
    """A machine of the job.

    ``name`` is for messages. Up to ``slots`` workers run on it, and get its ``gpus`` in rank order;
    if these are empty, all of them see all GPUs. Other hosts reach it at ``address``; if that is
    empty, its agent finds it out. If it ``is_allotted``, a cluster manager chooses the machine when
    the job runs, and its agent reports the machine's name and the GPUs that the job has there.
    """

    name: str
    slots: int = 1
    gpus: Tuple[str, ...] = ()
    address: str = ""
    is_allotted: bool = False


class Task(msgspec.Struct, frozen=True):
    """One process of the job: ``role`` is "worker" or "server", ``rank`` counts within it.

    ``parents`` are the ranks of the servers to which it reports. A server without parents is an
    owner; a worker without parents reports to all owners.
    """

    role: str
    rank: int
    host: int
    local_rank: int
    parents: Tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The name in messages: ``worker 1``."""
        return f"{self.role} {self.rank}"

    @property
    def slug(self) -> str:
        """The name for files and peers: ``worker-1``."""
        return f"{self.role}-{self.rank}"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One run of ``launch.py``.

    Command: ``command`` is the workers' argv. If it ``is_script`` (a script, or ``-m`` and a
    module), each host's own Python runs it. A ``cwd`` that is relative or begins with ~ is below
    the home directory of each host. ``env`` goes to all tasks, ``env_worker`` and ``env_server`` to
    one role.

    Limits: ``timeout_s`` for a task to wait for another that is alive, ``start_s`` for an agent or
    a server to start, ``silence_s`` for the silence of a task or agent, and ``grace_s`` for tasks
    that were told to end.

    Output: an ``is_quiet`` job says nothing while all goes well. If it ``is_terminal``, the output
    is shown on a terminal of ``columns`` and ``rows``, which are else 0.

    Data: hosts reach each other by ``interfaces``, if not by the usual ones. If the job
    ``shares_memory``, tasks of one host exchange gradients and values through memory; it
    ``encrypts_data`` on the network. In a ``dist_ssp`` store a worker may be ``staleness`` rounds
    ahead of the slowest.
    """

    id: str
    command: Tuple[str, ...]
    is_script: bool = False
    cwd: str
    hosts: Tuple[Host, ...]
    tasks: Tuple[Task, ...]
    python: str
    log_dir: str
    launcher: str = "local"
    devices: int = 1
    kvstore: Optional[str] = None
    port: int = 0
    interfaces: Tuple[str, ...] = ()
    env: Dict[str, str] = msgspec.field(default_factory=dict)
    env_worker: Dict[str, str] = msgspec.field(default_factory=dict)
    env_server: Dict[str, str] = msgspec.field(default_factory=dict)
    timeout_s: float = 1800.0
    start_s: float = 60.0
    silence_s: float = 20.0
    grace_s: float = 5.0
    is_quiet: bool = False
    is_terminal: bool = False
    columns: int = 0
    rows: int = 0
    shares_memory: bool = True
    encrypts_data: bool = True
    staleness: int = 3

    @property
    def title(self) -> str:
        """The name of the script, program or module, for lists of jobs."""
        return self.command[self.command[0] == "-m"].rpartition("/")[2]

    def of_role(self, role: str) -> List[Task]:
        return [task for task in self.tasks if task.role == role]

    @property
    def num_workers(self) -> int:
        return len(self.of_role("worker"))

    @property
    def num_servers(self) -> int:
        """The number of owners: servers without parents."""
        return sum(not task.parents for task in self.of_role("server"))


class Group(NamedTuple):
    """Hosts that are near each other, by number; ``parent`` is the group that contains this one.

    The workers of a group are those of its hosts and of the groups in it.
    """

    name: str
    hosts: Tuple[int, ...]
    parent: Optional[int] = None


def place(
    hosts: Tuple[Host, ...],
    num_workers: int,
    num_servers: Optional[int],
    shares_memory: bool = True,
    groups: Sequence[Group] = (),
) -> Tuple[Task, ...]:
    """Workers fill each host's slots in host order; owners are spread evenly over these hosts.

    Without ``num_servers``, each host that has a worker gets one owner. If there are several hosts,
    a host with several workers also gets a level-1 server. Its workers report to that server, which
    sums their gradients in shared memory, so the network carries one worker's bytes for each host.
    On a single host the owners do that themselves. Each of the ``groups`` that has workers gets a
    server on its first host, to which its hosts and groups report.

    Raises UsageError if the hosts have too few slots.
    """
    slots = sum(host.slots for host in hosts)
    if num_workers > slots:
        raise UsageError(
            f"{num_workers} workers do not fit into the {slots} slots of {len(hosts)} hosts; "
            "name more hosts, give them more slots, or raise --workers-per-host"
        )
    local_ranks = [(host, local) for host, h in enumerate(hosts) for local in range(h.slots)]
    places = local_ranks[:num_workers]
    used = places[-1][0] + 1
    count = used if num_servers is None else num_servers
    servers = [Task("server", rank, rank % used, rank // used) for rank in range(count)]
    above = _place_groups(groups, used, servers)
    level1: Dict[int, Task] = {}
    if shares_memory and used > 1:
        for host in sorted({host for host, local in places if local > 0}):
            parents = above.get(host, tuple(range(count)))
            level1[host] = _server(servers, host, parents)
    workers = []
    for rank, (host, local) in enumerate(places):
        parents = (level1[host].rank,) if host in level1 else above.get(host, ())
        workers.append(Task("worker", rank, host, local, parents))
    return (*servers, *workers)


def _place_groups(
    groups: Sequence[Group], used: int, servers: List[Task]
) -> Dict[int, Tuple[int, ...]]:
    """Add the groups' servers to ``servers``; returns the parents of each host's tasks."""
    owners = tuple(range(len(servers)))
    inside = [{host for host in group.hosts if host < used} for group in groups]
    for number in range(len(groups)):
        parent = groups[number].parent
        while parent is not None:
            inside[parent] |= inside[number]
            parent = groups[parent].parent
    ranks: Dict[int, int] = {}

    def rank_of(number: int) -> int:
        if number not in ranks:
            parent = groups[number].parent
            parents = owners if parent is None else (rank_of(parent),)
            ranks[number] = _server(servers, min(inside[number]), parents).rank
        return ranks[number]

    return {
        host: (rank_of(number),)
        for number, group in enumerate(groups)
        for host in group.hosts
        if host < used
    }


def _server(servers: List[Task], host: int, parents: Tuple[int, ...]) -> Task:
    """Add a server that reports to others."""
    local_rank = sum(task.host == host for task in servers)
    server = Task("server", len(servers), host, local_rank, parents)
    servers.append(server)
    return server
