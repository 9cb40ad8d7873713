"""The parsers of ``launch.py`` and ``baryon``, and what their ``--help`` says around the flags."""

import argparse
from typing import Any, NoReturn

from baryon import __version__
from baryon.ps import UsageError

from .flag_groups import add_groups
from .habits import remedy_for, translated

__all__ = ["command_parser", "flag_parser"]

_DESCRIPTION = """\
Run a data-parallel MXNet script on many machines. Baryon's parameter servers
keep the workers in step. The script does not change: this job serves its
mx.kv.create('dist_sync').

examples:
  launch.py -n 2 train.py --epochs 10                  two workers, this machine
  launch.py -n 4 -H node1,node2 --workers-per-host 2 train.py         over ssh
  launch.py -n 4 -H hosts --sync-dst-dir '~/job' --fetch 'out/*' train.py
  launch.py -n 8 --launcher slurm --time 4:00:00 train.py      a queue's hosts
  launch.py -n 2 -m package.train                      a module, as python -m
  launch.py -n 2 --dry-run train.py                    show what would run where
  launch.py -n 2 --kvstore dist_sync train.py          for kvstore='device'
"""
_EPILOG = """\
The command is a Python file or any program. All words after it are its
arguments. This interpreter runs a Python file (over ssh: the same path there).
bash runs a whole line in quotes: 'cd d && python x.py'.

The exit code is 0 if every worker succeeded, otherwise that of the first task
that failed (128 + N after signal N). It is 1 if the job itself failed, and 2
if the command line is wrong. SIGUSR1 prints the job's state.
"""
_DOCTOR = """\
Check every host before a job runs, and report each problem with its remedy:
SSH and host keys, versions of Python, MXNet and NumPy, the script and its
directory, ports between hosts, clocks, memory, GPUs, /dev/shm, limits.
Without -H, check this machine. The exit code is 1 if there is any problem.
All flags of launch.py are accepted.

examples:
  baryon doctor                         can jobs run on this machine?
  baryon doctor -H hosts train.py       can this job run on these hosts?
"""
_JOBS = """\
Check hosts before a job (doctor), and look after jobs that launch.py --detach started, from any
shell on the same machine."""


class _Parser(argparse.ArgumentParser):
    """Also knows the flags of other launchers (habits.py)."""

    def _parse_optional(self, arg_string: str) -> Any:
        return super()._parse_optional(translated(arg_string))

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            words = message.partition(": ")[2].split()
            known = (name for action in self._actions for name in action.option_strings)
            remedy = remedy_for(words[0], known)
            message += f"; {remedy}" if remedy else ""
        raise UsageError(f"{message}; see {self.prog} --help")


def command_parser() -> argparse.ArgumentParser:
    """The parser of ``baryon``. flag_parser is that of its ``doctor``."""
    parser = _Parser(prog="baryon", description=_JOBS, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"baryon {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    verbs.add_parser("doctor", help="check this machine, or hosts: baryon doctor -H HOSTS")
    status = verbs.add_parser("status", help="show a detached job, or list all detached jobs")
    logs = verbs.add_parser("logs", help="print the output of a detached job")
    stop = verbs.add_parser("stop", help="end a detached job")
    completion = verbs.add_parser(
        "completion", help="print a shell script that completes launch.py and baryon"
    )
    completion.add_argument("shell", choices=("bash", "zsh"))
    for verb in (status, logs, stop):
        verb.add_argument("job", nargs=None if verb is stop else "?", metavar="JOB")
    logs.add_argument("--task", metavar="TASK", help="print one task's output only, as worker-0")
    logs.add_argument("-f", "--follow", action="store_true", help="continue until the job ends")
    return parser


def flag_parser(is_doctor: bool) -> argparse.ArgumentParser:
    """The parser of ``launch.py``, or of ``baryon doctor``."""
    program, usage = "launch.py", "launch.py -n WORKERS [options] command [its arguments]"
    if is_doctor:
        program = "baryon doctor"
        usage = "baryon doctor [-H HOSTS] [options of launch.py] [command [its arguments]]"
    parser = _Parser(
        prog=program,
        usage=usage,
        description=_DOCTOR if is_doctor else _DESCRIPTION,
        epilog=None if is_doctor else _EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    add_groups(parser)
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser
