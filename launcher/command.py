"""Reads the workers' command from the words after the flags. Runs nothing.

Words reach the program unchanged, without a shell. Command lines for MXNet's own launcher, which
uses a shell, work as well: a whole command in one string, or variables in front of it. If the
string needs a shell, bash runs it.
"""

import os
import re
import shlex
import shutil
import sys
from importlib.machinery import PathFinder
from types import MappingProxyType
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

__all__ = ["Command", "read_command"]

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_SHELLS_OWN = frozenset("|&;<>()$`*?[]{}~#!\n")  # characters with a meaning for a shell
_OPERATORS = frozenset(["&&", "||", "|", ";", "&", ">", "<"])
_BUILTINS = frozenset(
    ["cd", "source", ".", "export", "set", "unset", "ulimit", "alias", "eval", "exec", "if", "for"]
)
_QUOTED = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
_LOSS = re.compile(r"(?:(?<![^\s;&|()])#.*|[;&|<>]+)\Z")  # a comment, or an operator, at the end
_EXAMPLE = "launch.py -n 2 'cd d && python x.py'"


class Command(NamedTuple):
    """``words`` are the workers' argv. If it ``is_script``, Python runs it. ``env`` are additional
    environment variables."""

    words: Tuple[str, ...] = ()
    is_script: bool = False
    env: Mapping[str, str] = MappingProxyType({})


def read_command(
    words: Sequence[str],
    module: Optional[Sequence[str]],
    is_here: bool,
    is_copied: bool,
    faults: List[str],
) -> Command:
    """The command in ``words``, or after ``-m`` in ``module``.

    ``is_here``: hosts see this machine's files, or copies of them if it ``is_copied``. Otherwise
    the survey asks each host whether it has the command.
    """
    if module is not None:
        if not module:
            faults.append("-m names no module: launch.py -n 2 -m package.module")
        elif is_here:
            _look_for_module(module[0], faults)
        return Command(("-m", *module), is_script=True)
    rest = list(words[1:] if words[:1] == ["--"] else words)
    env: Dict[str, str] = {}
    _take_variables(rest, env)
    if rest and re.search(r"\s", rest[0]) and not _is_path(rest[0], is_here):
        try:
            rest = _of_line(rest[0], rest[1:], env)
        except ValueError as error:
            faults.append(f"the command {rest[0]!r} cannot be read: {error}")
            return Command()
    if not rest:
        faults.append("no command is given: launch.py -n 2 train.py")
        return Command()
    if is_copied and rest[0].startswith(os.getcwd() + "/"):
        rest[0] = os.path.relpath(rest[0])  # the copy has another place
    if is_here:
        _look_for_program(rest[0], is_copied, faults)
    return Command(tuple(rest), rest[0].endswith(".py"), env)


def _take_variables(words: List[str], env: Dict[str, str]) -> None:
    """Move ``NAME=VALUE`` at the beginning of ``words`` to ``env``.

    A value with blanks counts only if a program follows. Otherwise it is a whole quoted line.
    """
    while words and not _is_file(words[0]):
        found = _ASSIGNMENT.fullmatch(words[0])
        is_line = re.search(r"\s", words[0]) and (len(words) == 1 or words[1].startswith("-"))
        if found is None or is_line:
            return
        env[found[1]] = found[2]
        del words[0]


def _of_line(line: str, more: List[str], env: Dict[str, str]) -> List[str]:
    """The words of a whole line, and ``more`` after it. Raises ValueError if a quote is not closed,
    or if the line's end would separate ``more`` from its last command."""
    line = line.rstrip() if more else line
    words, variables = shlex.split(line), dict(env)
    _take_variables(words, variables)
    if words and (words[0] in _BUILTINS or _SHELLS_OWN & set(line)):
        if not more:
            return ["bash", "-c", line]
        loss = _LOSS.search(_QUOTED.sub("_", line))
        if loss is not None:
            lost = f"{shlex.join(more)} would be lost behind {loss[0].strip()!r}"
            raise ValueError(f"{lost}; write all of it into the quotes")
        return ["bash", "-c", f'{line} "$@"', "bash", *more]
    env.update(variables)
    return [*words, *more]


def _look_for_program(program: str, is_copied: bool, faults: List[str]) -> None:
    if program.endswith(".py"):
        if not os.path.isfile(program):
            faults.append(f"the script {program!r} does not exist in {os.getcwd()}")
    elif shutil.which(program) is None and (not is_copied or "/" in program):
        problem = "does not exist"
        if os.path.isfile(program):
            problem = "is not executable (chmod +x it)"
        elif program in _BUILTINS:
            problem = f"is the shell's own; give it the whole line in quotes: {_EXAMPLE}"
        elif re.fullmatch(r"python[0-9.]*", program):
            problem += f"; leave it out, and the script runs under {sys.executable}"
        faults.append(f"the command {program!r} {problem}")


def _look_for_module(name: str, faults: List[str]) -> None:
    """Check that Python would find a module, without importing the packages that contain it."""
    path: List[str] = [os.getcwd(), *sys.path]
    parts = name.split(".")
    while parts:
        full = name[: len(name) - sum(len(part) + 1 for part in parts[1:])]
        spec = PathFinder.find_spec(full, path)
        if spec is None:
            where = f"{os.getcwd()}, nor elsewhere on Python's path"
            hint = f"; write -m {name[:-3]}, or leave -m out" if name.endswith(".py") else ""
            faults.append(f"there is no module {name} in {where}{hint}")
            return
        del parts[0]
        if spec.submodule_search_locations is not None:
            if spec.origin is None:
                return  # a package without __init__.py: its parts may be anywhere on the path
            path = list(spec.submodule_search_locations)
            if not parts:
                name, parts = f"{name}.__main__", ["__main__"]
        elif parts:
            path = []  # a module contains no modules


def _is_path(word: str, is_here: bool) -> bool:
    """Whether a word with blanks in it is a file's name. For other hosts this is a guess."""
    return _is_file(word) or (not is_here and "/" in word and not _is_line(word.split()))


def _is_line(words: Sequence[str]) -> bool:
    """Whether ``words`` look like a program with arguments, not like a path with blanks."""
    first, rest = words[0], words[1:]
    return (
        not rest
        or "/" not in first
        or _ASSIGNMENT.fullmatch(first) is not None
        or os.path.basename(first).startswith("python")
        or shutil.which(os.path.expanduser(first)) is not None
        or any(word.startswith("-") or word in _OPERATORS for word in rest)
        or any(word.endswith(".py") for word in words[:-1])
        or (rest[-1].endswith(".py") and not any("/" in word for word in rest))
    )


def _is_file(word: str) -> bool:
    return os.path.isfile(word)
