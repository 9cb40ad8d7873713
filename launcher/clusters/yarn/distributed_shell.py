"""Makes the request to YARN: Hadoop's own distributed shell, with an agent in each container.

Its ApplicationMaster's class is on Hadoop's class path on every node, so no jar is sent. Its file
``shellCommands`` names the command that containers run. (It also accepts a script, but renames the
script's file once for each container, and the second time fails.) The command runs our script
(deploy/templates/yarn.sh.j2, or the user's). Script and agents' configurations lie in a directory
that all nodes share. Pure, except that it reads the template.
"""

import os
import re
import shlex
from pathlib import Path
from typing import Any, Dict, Optional

import msgspec

from baryon.ps import UsageError
from baryon.scheduler.agent import agent_argv
from baryon.scheduler.control import Job

from ...flags import Options
from ..submission import job_files, render, split_extra, time_limit
from .resource_manager import Hadoop

__all__ = ["Start", "java_utf", "make_start"]

_MASTER = "org.apache.hadoop.yarn.applications.distributedshell.ApplicationMaster"
_MASTER_MB, _HEAP_MB = 1024, 512
_WORKER_MB = 4096  # without --mem; the distributed shell's own default is 10 MB


class Start(msgspec.Struct, frozen=True):
    """How the agents are started: each container runs ``command``, which runs ``script``.

    ``shell_commands`` is the content of the file with the command. ``fields`` are the fields of the
    request that are known before the submission. The files are ``path`` with their extensions.
    """

    num_hosts: int
    path: str
    configs: str
    script: str
    command: str
    shell_commands: bytes
    fields: Dict[str, Any]
    time_s: Optional[float]

    @property
    def script_path(self) -> str:
        return f"{self.path}.sh"

    @property
    def command_path(self) -> str:
        return f"{self.path}.command"

    @property
    def output(self) -> str:
        return f"{self.path}.out"

    def request(self, application: str, now_s: int) -> Dict[str, Any]:
        """The body of the submission. ``now_s`` is the modification time of `shell_commands`."""
        resource = {
            "resource": Path(self.command_path).as_uri(),
            "type": "FILE",
            "visibility": "APPLICATION",
            "size": len(self.shell_commands),
            "timestamp": now_s * 1000,
        }
        container = {
            "local-resources": {"entry": [{"key": "shellCommands", "value": resource}]},
            **self.fields["am-container-spec"],
        }
        return {"application-id": application, **self.fields, "am-container-spec": container}


def make_start(job: Job, options: Options, hadoop: Hadoop) -> Start:
    """Make everything from the flags. Raises UsageError if an option is wrong."""
    files = job_files(job, options, "yarn")
    if re.search("{{|}}|<LOG_DIR>|<CPS>", files.directory):
        raise UsageError(
            f"{files.directory}: YARN replaces {{{{, }}}} and names in <> in commands; use "
            "--job-dir"
        )
    num_hosts = len({task.host for task in job.tasks})
    path = os.path.splitext(files.script)[0]
    python = options.python or job.python
    agent = agent_argv(python, configs=files.configs, index_from="BARYON_AGENT")
    gpus = (options.gpus_per_worker or 0) * job.hosts[0].slots
    script = render(
        options,
        "yarn.sh.j2",
        job=job,
        num_hosts=num_hosts,
        agent=shlex.join(agent),
        output=shlex.quote(files.output),
        gpus=",".join(map(str, range(gpus))),
    )
    command = _inside_quotes(shlex.join(["/bin/bash", files.script]))
    return Start(
        num_hosts=num_hosts,
        path=path,
        configs=files.configs,
        script=script,
        command=command,
        shell_commands=java_utf(command),
        fields=_fields(job, options, hadoop, num_hosts, gpus),
        time_s=time_limit(options),
    )


def _fields(
    job: Job, options: Options, hadoop: Hadoop, num_hosts: int, gpus: int
) -> Dict[str, Any]:
    classpath = "<CPS>".join(["{{CLASSPATH}}", "./*", *hadoop.classpath])
    fields = {
        "application-name": options.job_name or job.title,
        "application-type": "BARYON",
        "queue": options.queue,
        "app-node-label-expression": options.constraint,
        "am-container-spec": {
            "commands": {"command": _master(job, options, num_hosts, gpus)},
            "environment": {"entry": [{"key": "CLASSPATH", "value": classpath}]},
        },
        "unmanaged-AM": False,
        "max-app-attempts": 1,
        "keep-containers-across-application-attempts": False,
        "resource": {"memory": _MASTER_MB, "vCores": 1},
    }
    return {name: value for name, value in fields.items() if value is not None}


def _master(job: Job, options: Options, num_hosts: int, gpus: int) -> str:
    """The command of the ApplicationMaster."""
    slots = job.hosts[0].slots
    given: Dict[str, object] = {
        "num_containers": num_hosts,
        "container_memory": _megabytes(options.mem) if options.mem else _WORKER_MB * slots,
        "container_vcores": (options.cpus_per_worker or 1) * slots,
        "priority": 0,
    }
    if gpus:
        given["container_resources"] = f"yarn.io/gpu={gpus}"
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    words += split_extra(options)
    java = f"{{{{JAVA_HOME}}}}/bin/java -Xmx{_HEAP_MB}m {_MASTER}"
    logs = "1><LOG_DIR>/AppMaster.stdout 2><LOG_DIR>/AppMaster.stderr"
    return f"{java} {_inside_quotes(shlex.join(words))} {logs}"


def _inside_quotes(command: str) -> str:
    """Escape ``command`` for double quotes, because nodes run bash -c "..."."""
    return re.sub(r'([\\"$`])', r"\\\1", command)


def java_utf(text: str) -> bytes:
    """Encode like Java's DataOutput.writeUTF: two bytes of length, then UTF-8 of UTF-16's units.

    Raises UsageError if the text is too long.
    """
    raw = text.encode("utf-16-be")
    units = (chr(int.from_bytes(raw[i : i + 2], "big")) for i in range(0, len(raw), 2))
    data = "".join(units).encode("utf-8", "surrogatepass")
    if len(data) > 0xFFFF:
        raise UsageError(f"the path of the job directory has {len(data)} bytes; use --job-dir")
    return len(data).to_bytes(2, "big") + data


def _megabytes(text: str) -> int:
    found = re.fullmatch(r"(\d+)([mg]?)i?b?", text.lower())
    if found is None or not int(found[1]):
        raise UsageError(f"--mem {text}: write it as 64G, or as megabytes")
    return int(found[1]) * (1024 if found[2] == "g" else 1)
