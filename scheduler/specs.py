"""Makes what each task is started with: argv, environment and credentials. Pure."""

from typing import Dict, Iterable, Sequence, Tuple

import msgspec

from baryon.ps import Child, KeyPair, token_of

from .control import Credentials, Job, Parent, Task, label_width
from .control.messages import AgentHello, StartTasks, TaskSpec
from .tree import Tree

__all__ = ["start_tasks"]

_MIN_COLUMNS = 10
_LEVEL_S = 2.0  # a server waits longer than its children, whose errors are more exact


def start_tasks(
    job: Job, tree: Tree, host: int, hello: AgentHello, scheduler_key: str, keys: Dict[str, KeyPair]
) -> StartTasks:
    """The processes of the host whose agent said ``hello``; ``keys``: of all tasks, by slug."""
    specs = []
    here = [task for task in job.tasks if task.host == host]
    members = {task.slug: n if job.shares_memory else 0 for n, task in enumerate(here, 1)}
    gpus = hello.gpus if job.hosts[host].is_allotted else job.hosts[host].gpus
    for task in here:
        is_worker = task.role == "worker"
        credentials = Credentials(
            job=job.id,
            slug=task.slug,
            rank=task.rank,
            local_rank=task.local_rank,
            host_rank=host,
            num_local_workers=sum(t.role == "worker" for t in here),
            num_workers=job.num_workers,
            num_owners=len(tree.owners),
            address=hello.address,
            endpoint=hello.endpoint,
            scheduler_key=scheduler_key,
            public_key=keys[task.slug].public,
            secret_key=keys[task.slug].secret,
            timeout_s=job.timeout_s + _LEVEL_S * max(0, tree.height(task) - 1),
            silence_s=job.silence_s,
            kvstore=job.kvstore,
            member=members[task.slug],
            encrypts_data=job.encrypts_data,
            parents=_parents(job, tree.parents(task), host),
            owners=_parents(job, tree.owners, host) if is_worker else (),
            children=() if is_worker else _children(tree, tree.children(task), keys, members),
            guests=() if is_worker else _children(tree, tree.guests(task), keys, members),
            staleness=job.staleness,
        )
        specs.append(
            TaskSpec(
                slug=task.slug,
                runner=_runner(job) if is_worker else "server",
                argv=job.command if is_worker else (),
                cwd=job.cwd,
                env=(
                    worker_env(job, tree, task, gpus)
                    if is_worker
                    else {**job.env, **job.env_server}
                ),
                credentials=msgspec.json.encode(credentials),
            )
        )
    return StartTasks(tuple(specs))


def _parents(job: Job, servers: Iterable[Task], host: int) -> Tuple[Parent, ...]:
    return tuple(
        Parent(server.rank, job.shares_memory and server.host == host) for server in servers
    )


def _children(
    tree: Tree, tasks: Iterable[Task], keys: Dict[str, KeyPair], members: Dict[str, int]
) -> Tuple[Child, ...]:
    """The children of a server; ``members`` numbers the tasks that share its host's memory."""
    return tuple(
        Child(
            keys[task.slug].public,
            task.name,
            tree.workers_below(task),
            token_of(keys[task.slug].secret),
            task.role == "worker",
            members.get(task.slug, 0),
        )
        for task in tasks
    )


def worker_env(job: Job, tree: Tree, task: Task, gpus: Sequence[str] = ()) -> Dict[str, str]:
    """The environment of a worker, without what its host adds.

    ``gpus`` are those of its host; workers get them in rank order, as long as there are enough.
    Scripts read some DMLC_* variables of MXNet's own launcher, so they are set. Those that would
    start MXNet's own store (DMLC_PS_ROOT_URI, ...) are left out on purpose.
    """
    env = {
        "PYTHONUNBUFFERED": "1",  # without it, a worker's output appears when it ends
        "DMLC_ROLE": "worker",
        "DMLC_NUM_WORKER": str(job.num_workers),
        "DMLC_NUM_SERVER": str(len(tree.owners)),
        "DMLC_WORKER_ID": str(task.rank),
        "BARYON_LOCAL_RANK": str(task.local_rank),
        "BARYON_DEVICES": str(job.devices),
    }
    first = task.local_rank * job.devices
    mine = gpus[first : first + job.devices]
    if len(mine) == job.devices:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
        env["BARYON_FIRST_GPU"] = "0"  # in CUDA_VISIBLE_DEVICES
    if job.is_terminal:
        env["BARYON_TERMINAL"] = "1"  # lines that end in a carriage return are shown in place
    if job.columns:
        # Progress bars that do not write to a terminal read these; tqdm has a name of its own.
        columns = max(_MIN_COLUMNS, job.columns - label_width(task.name for task in job.tasks))
        env["COLUMNS"] = env["TQDM_NCOLS"] = str(columns)
        env["LINES"] = str(job.rows)
    return {**env, **job.env, **job.env_worker}


def _runner(job: Job) -> str:
    return "python" if job.is_script else "program"
