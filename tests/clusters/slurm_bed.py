"""A Slurm of several nodes on one machine: its own daemons, on the loopback address."""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Dict, List

import psutil

from tests.waiting import wait_until

GPUS = 2  # of each node, made up
CPUS = 8

_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
GresTypes=gpu
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool.%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
SchedulerParameters=sched_interval=2,bf_interval=1,sched_min_interval=0,batch_sched_delay=0
MpiDefault=none
ReturnToService=2
SlurmctldTimeout=10
SlurmdTimeout=10
InactiveLimit=0
MinJobAge=300
KillWait=5
Waittime=0
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
LaunchParameters=disable_send_gids
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
PartitionName=short Nodes=ALL MaxTime=5 State=UP
PartitionName=urgent Nodes=ALL PriorityTier=10 State=UP
"""


def problems() -> List[str]:
    """Why there can be no Slurm here."""
    missing = [name for name in ("slurmctld", "slurmd", "sbatch") if not _which(name)]
    found = [f"no {' or '.join(missing)} (Debian: slurmctld slurmd slurm-client)"] * bool(missing)
    return found + ["Slurm's daemons need root"] * (os.geteuid() != 0)


class SlurmBed:
    """Runs from the first to the last line of a `with`; ``env`` leads commands to it."""

    def __init__(self, directory: Path, num_nodes: int) -> None:
        self.directory = directory
        self.num_nodes = num_nodes
        self.env = {"SLURM_CONF": str(directory / "slurm.conf")}
        self._daemons: Dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "SlurmBed":
        (self.directory / "state").mkdir(parents=True)
        ports = _free_ports(self.num_nodes + 1)
        host = socket.gethostname().split(".")[0]
        nodes = "\n".join(
            f"NodeName=node{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
            f"CPUs={CPUS} RealMemory=4000 Gres=gpu:{GPUS} State=UNKNOWN"
            for number, port in enumerate(ports[1:], 1)
        )
        text = _CONFIGURATION.format(
            host=host, port=ports[0], directory=self.directory, nodes=nodes
        )
        (self.directory / "slurm.conf").write_text(text)
        for gpu in range(GPUS):
            os.mknod(self.directory / f"gpu{gpu}", 0o600 | 0o020000, os.makedev(1, 3))  # null
        names = f"node[1-{self.num_nodes}]"
        files = f"{self.directory}/gpu[0-{GPUS - 1}]"
        (self.directory / "gres.conf").write_text(f"NodeName={names} Name=gpu File={files}\n")
        try:
            self._start("slurmctld", "slurmctld", "-D")
            for number in range(1, self.num_nodes + 1):
                self._start(f"node{number}", "slurmd", "-D", "-N", f"node{number}")
            self.wait_until_idle()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, *argv: object, code: int = 0) -> str:
        """What one of Slurm's commands says."""
        words = [str(word) for word in argv]
        env = {**os.environ, **self.env}
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, f"{words}: {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def jobs(self) -> List[str]:
        """The numbers of those that have not ended."""
        return self.run("squeue", "-h", "-o", "%A").split()

    def wait_until_idle(self) -> None:
        """Until all nodes are up and have no job."""

        def is_idle() -> bool:
            done = subprocess.run(
                ["sinfo", "-h", "-p", "main", "-t", "idle", "-o", "%D"],
                env={**os.environ, **self.env},
                capture_output=True,
                text=True,
            )
            return done.stdout.strip() == str(self.num_nodes)

        wait_until(is_idle, "idle nodes", 60.0)

    def close(self) -> None:
        children = [
            child
            for daemon in self._daemons.values()
            for child in psutil.Process(daemon.pid).children(recursive=True)
        ]
        for daemon in reversed(list(self._daemons.values())):
            daemon.send_signal(signal.SIGTERM)
        for daemon in self._daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for child in children:
            if child.is_running():
                child.kill()
        self._daemons.clear()
        shutil.rmtree(self.directory)

    def _start(self, name: str, program: str, *argv: str) -> None:
        (self.directory / f"spool.{name}").mkdir()
        with open(self.directory / f"{name}.out", "wb") as output:
            self._daemons[name] = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", _which(program)),
                    *(*argv, "-f", self.env["SLURM_CONF"]),
                ],
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )


def _which(program: str) -> str:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return shutil.which(program, path=path) or ""


def _free_ports(count: int) -> List[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
