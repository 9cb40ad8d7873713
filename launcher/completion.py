"""Completion of ``launch.py`` and ``baryon`` in bash and zsh: ``baryon completion bash``.

shtab makes a script of the parsers once, so TAB starts no Python (argcomplete would, 0.4 s each
time) and launch.py starts as fast as without completion. The names of detached jobs are file names,
which the shell lists by itself.
"""

import argparse
from typing import Any, Dict

import shtab

from .parsers import command_parser, flag_parser

__all__ = ["script"]

_FILES = ("hostfile", "topology", "ssh_config", "template", "command")
_DIRECTORIES = ("log_dir", "job_dir")
_JOBS = {"bash": "_baryon_jobs", "zsh": "_baryon_jobs"}
# The folder is as in records.py. (shtab takes a dictionary, which its annotation forgets: Any.)
_PREAMBLE: Any = {
    "bash": """\
_baryon_jobs() {
  local path
  for path in "${XDG_STATE_HOME:-$HOME/.local/state}"/baryon/jobs/*.json; do
    [ -e "$path" ] || continue
    path=${path##*/}
    compgen -W "${path%.json}" -- "$1"
  done
}
""",
    "zsh": """\
_baryon_jobs() {
  compadd -- "${XDG_STATE_HOME:-$HOME/.local/state}"/baryon/jobs/*.json(N:t:r)
}
""",
}


def script(shell: str) -> str:
    """The text that ``shell`` sources, for both commands."""
    parsers = command_parser(), flag_parser(is_doctor=False)
    verbs = next(a for a in parsers[0]._actions if isinstance(a, argparse._SubParsersAction))
    verbs.choices["doctor"] = flag_parser(is_doctor=True)
    for parser in (*parsers, *verbs.choices.values()):
        _mark(parser)
    return "\n".join(shtab.complete(parser, shell, preamble=_PREAMBLE) for parser in parsers)


def _mark(parser: argparse.ArgumentParser) -> None:
    """Tell shtab what each argument's values are; it knows choices by itself."""
    kinds: Dict[str, object] = {
        **dict.fromkeys(_FILES, shtab.FILE),
        **dict.fromkeys(_DIRECTORIES, shtab.DIRECTORY),
        "job": _JOBS,
    }
    for action in parser._actions:
        if action.dest in kinds:
            if action.help == argparse.SUPPRESS:
                action.help = ""  # or shtab leaves it out
            action.complete = kinds[action.dest]  # type: ignore[attr-defined]
