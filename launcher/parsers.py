"""The parsers of ``launch.py`` and ``baryon``, and what their ``--help`` says around the flags."""

import argparse
from typing import Any, NoReturn

from baryon import __version__
from baryon.ps import UsageError

from .flag_groups import add_groups
from .habits import remedy_for, translated

__all__ = ["command_parser", "flag_parser"]

_DESCRIPTION = """\
Run a data-parallel MXNet script on many machines, its parameters kept in step
by Baryon's own servers. The script does not change: mx.kv.create('dist_sync')
is served by this job.

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
The command may be a Python file, run by this interpreter (over ssh: the same
path there), or any program with its arguments; all that follows it belongs to
it. A whole line in quotes works, too: 'cd d && python x.py', which bash runs.

The exit code is 0 if every worker ended well, otherwise that of the first task
to fail (128 + N if signal N ended it), 1 if the job itself failed, 2 for a
wrong command line. SIGUSR1 prints the job's state.
"""
_DOCTOR = """\
Look at every host of a job before it runs, and name every problem with its
remedy: SSH and host keys, versions of Python, MXNet and NumPy, the script and
its directory, ports between hosts, clocks, memory, GPUs, /dev/shm, limits.
Without -H, look at this machine. The exit code is 1 if there is any problem.
It takes launch.py's own flags.

examples:
  baryon doctor                         can jobs run on this machine?
  baryon doctor -H hosts train.py       can this one run on these hosts?
"""
_JOBS = """\
Looks after jobs: those to come (doctor), and those that launch.py --detach has started, from any
shell of the machine that it was called on."""


class _Parser(argparse.ArgumentParser):
    """Knows the flags of other launchers, too (habits.py)."""

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
    """Of the words after ``baryon``, other than ``doctor``'s."""
    parser = _Parser(prog="baryon", description=_JOBS, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"baryon {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    verbs.add_parser("doctor", help="look at this machine, or at hosts: baryon doctor -H HOSTS")
    status = verbs.add_parser("status", help="how a detached job is, or which there are")
    logs = verbs.add_parser("logs", help="what a detached job has written")
    stop = verbs.add_parser("stop", help="end a detached job")
    completion = verbs.add_parser(
        "completion", help="print a script by which a shell completes launch.py and baryon"
    )
    completion.add_argument("shell", choices=("bash", "zsh"))
    for verb in (status, logs, stop):
        verb.add_argument("job", nargs=None if verb is stop else "?", metavar="JOB")
    logs.add_argument("--task", metavar="TASK", help="of one task only, as worker-0")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the job's end")
    return parser


def flag_parser(is_doctor: bool) -> argparse.ArgumentParser:
    """Of ``launch.py``'s own words, or those after ``baryon doctor``."""
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
