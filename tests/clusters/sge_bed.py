"""A Grid Engine on the hosts of a test bed: its own cell, daemons and queue, made by hand."""

import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path
from typing import Dict, List, Sequence, Union

from deploy import testbed
from deploy.testbed import Host, Testbed
from tests.waiting import wait_until

SLOTS = 2  # of each host
QUEUE = "main.q"
_PROGRAMS = Path("/usr/lib/gridengine")  # Debian's own commands in /usr/bin are wrappers of these
_SHARED = Path("/usr/share/gridengine")
_DAEMONS = ("sge_qmaster", "sge_execd")

_BOOTSTRAP = """\
admin_user none
default_domain none
ignore_fqdn true
spooling_method classic
spooling_lib libspoolc
spooling_params {cell}/common;{root}/qmaster
binary_path /usr/lib/gridengine
qmaster_spool_dir {root}/qmaster
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""
# No kill by additional group: whatever a job's processes have started must end without its help.
_CONFIGURATION = {
    "min_uid": "0",
    "min_gid": "0",
    "load_report_time": "00:00:01",
    "max_unheard": "00:00:15",
    "reporting_params": "accounting=true reporting=false flush_time=00:00:00 joblog=false "
    "sharelog=00:00:00",
    "execd_params": "ENABLE_ADDGRP_KILL=false",
}
_SCHEDULER = {
    "schedule_interval": "0:0:1",
    "flush_submit_sec": "1",
    "flush_finish_sec": "1",
    "job_load_adjustments": "NONE",
    "schedd_job_info": "true",
}
_ENVIRONMENTS = {"smp": "$pe_slots", "mpi": "$round_robin"}  # parallel ones, and how they allot
_NONE = [
    *("load_thresholds", "suspend_thresholds", "ckpt_list", "prolog", "epilog", "starter_method"),
    *("suspend_method", "resume_method", "terminate_method", "owner_list", "user_lists"),
    *("xuser_lists", "subordinate_list", "complex_values", "projects", "xprojects", "calendar"),
]
_LIMITS = ["rt", "cpu", "fsize", "data", "stack", "core", "rss", "vmem"]


def problems() -> List[str]:
    """Why there can be no Grid Engine here."""
    missing = [name for name in (*_DAEMONS, "qsub") if not (_PROGRAMS / name).exists()]
    found = [f"no {' or '.join(missing)} (Debian: gridengine-master -exec -client)"]
    return testbed.problems() + found * bool(missing)


class SgeBed:
    """Runs from the first to the last line of a `with`; its master is on the first host.

    ``env`` leads commands on the hosts to it.
    """

    def __init__(self, bed: Testbed) -> None:
        self.bed = bed
        self.root = bed.directory / "sge"
        self.env = {
            "SGE_ROOT": str(self.root),
            "SGE_CELL": "default",
            "SGE_CLUSTER_NAME": "test",
            "SGE_QMASTER_PORT": "6444",
            "SGE_EXECD_PORT": "6445",
        }
        self._daemons: List[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "SgeBed":
        try:
            self._write_cell()
            names = [host.name for host in self.bed.hosts]
            self._start(self.bed.hosts[0], "sge_qmaster")
            wait_until(lambda: self._call("qconf", "-sh").returncode == 0, "the qmaster", 30.0)
            for name in names:
                self.run("qconf", "-ah", name)
                self.run("qconf", "-as", name)
            self._change_scheduler()
            for host in self.bed.hosts:
                self._start(host, "sge_execd")
            for name, rule in _ENVIRONMENTS.items():
                self.run(
                    "qconf", "-Ap", self._file(f"pe-{name}", _parallel_environment(name, rule))
                )
            self.run("qconf", "-Aq", self._file("queue", _queue(names)))
            self.wait_until_idle()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, *argv: object, code: int = 0) -> str:
        """What a command on the first host says."""
        done = self._call(*argv)
        assert done.returncode == code, f"{argv}: {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def jobs(self) -> List[str]:
        """The numbers of those that have not ended."""
        lines = self.run("qstat", "-u", "*").splitlines()[2:]
        return sorted({line.split()[0] for line in lines})

    def wait_until_idle(self) -> None:
        """Until all hosts are up and have no job."""

        def is_idle() -> bool:
            lines = [line for line in self.run("qstat", "-f").splitlines() if f"{QUEUE}@" in line]
            ready = [line for line in lines if re.search(rf" 0/0/{SLOTS} +[\d.]+ +\S+ *$", line)]
            return len(ready) == len(self.bed.hosts) and not self.jobs()

        wait_until(is_idle, "idle hosts", 60.0)

    def close(self) -> None:
        for daemon in reversed(self._daemons):
            daemon.kill()  # its host's half ends with it
            daemon.wait()
        for host in self.bed.hosts:
            for process in self.bed.processes(host) if host.is_up else ():
                process.kill()
        shutil.rmtree(self.root, ignore_errors=True)

    def _call(self, *argv: object, host: int = 0) -> "subprocess.CompletedProcess[str]":
        words = self.bed.command(self.bed.hosts[host], [str(word) for word in argv])
        env = {**os.environ, **self.env, "PATH": f"{_PROGRAMS}:{os.environ['PATH']}:/usr/sbin"}
        return subprocess.run(
            words, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )

    def _start(self, host: Host, program: str) -> None:
        with open(self.root / f"{program}.{host.name}.out", "wb") as output:
            self._daemons.append(
                self.bed.run(
                    host,
                    [_PROGRAMS / program],
                    env={**os.environ, **self.env, "SGE_ND": "1"},  # in the foreground
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            )

    def _write_cell(self) -> None:
        common = self.root / "default" / "common"
        for directory in (common, self.root / "qmaster" / "job_scripts", self.root / "execd"):
            directory.mkdir(parents=True)
        (self.root / "util").symlink_to(_SHARED / "util")
        for name in ("bin", "lib", "utilbin"):
            (self.root / name).mkdir()
            (self.root / name / "lx-amd64").symlink_to(_PROGRAMS)
        (common / "bootstrap").write_text(_BOOTSTRAP.format(cell=common.parent, root=self.root))
        (common / "act_qmaster").write_text(self.bed.hosts[0].name + "\n")
        for host in self.bed.hosts:  # Grid Engine takes no host whose name is a loopback address
            hosts = host.files / "hosts"
            lines = [line for line in hosts.read_text().splitlines() if "127.0.1.1" not in line]
            hosts.write_text("\n".join(lines) + "\n")
        text = (_SHARED / "default-configuration").read_text()
        values = {**_CONFIGURATION, "execd_spool_dir": f"{self.root}/execd"}
        configuration = self._file("configuration", _changed(text, values))
        spool = ("classic", "libspoolc", f"{common};{self.root}/qmaster", "init")
        self.run(_PROGRAMS / "spoolinit", *spool)
        master = self.bed.hosts[0].name
        for kind, what in (
            ("configuration", configuration),
            ("complexes", _SHARED / "util/resources/centry"),
            ("usersets", _SHARED / "util/resources/usersets"),
            ("managers", "root"),
            ("adminhosts", master),
            ("submithosts", master),
        ):
            self.run(_PROGRAMS / "spooldefaults", kind, what)

    def _change_scheduler(self) -> None:
        text = self.run("qconf", "-ssconf")
        self.run("qconf", "-Msconf", self._file("scheduler", _changed(text, _SCHEDULER)))

    def _file(self, name: str, text: str) -> Path:
        path = self.root / name
        path.write_text(text)
        return path


def _changed(text: str, values: Dict[str, str]) -> str:
    """A configuration, a name and its value a line, with other ``values``."""
    for name, value in values.items():
        text, count = re.subn(rf"(?m)^{name}\s.*", f"{name} {value}", text)
        assert count == 1, name
    return text


def _parallel_environment(name: str, rule: str) -> str:
    return textwrap.dedent(
        f"""\
        pe_name {name}
        slots 999
        user_lists NONE
        xuser_lists NONE
        start_proc_args NONE
        stop_proc_args NONE
        allocation_rule {rule}
        control_slaves TRUE
        job_is_first_task FALSE
        urgency_slots min
        accounting_summary FALSE
        qsort_args NONE
        """
    )


def _queue(names: Sequence[str]) -> str:
    values: Dict[str, Union[str, int]] = {
        "qname": QUEUE,
        "hostlist": " ".join(names),
        "seq_no": 0,
        "nsuspend": 1,
        "suspend_interval": "00:05:00",
        "priority": 0,
        "min_cpu_interval": "00:05:00",
        "processors": "UNDEFINED",
        "qtype": "BATCH INTERACTIVE",
        "pe_list": " ".join(_ENVIRONMENTS),
        "rerun": "FALSE",
        "slots": SLOTS,
        "tmpdir": "/tmp",
        "shell": "/bin/sh",
        "shell_start_mode": "unix_behavior",
        "notify": "00:00:60",
        "initial_state": "default",
    }
    values.update(dict.fromkeys(_NONE, "NONE"))
    values.update({f"{kind}_{name}": "INFINITY" for name in _LIMITS for kind in "sh"})
    return "".join(f"{name} {value}\n" for name, value in values.items())
