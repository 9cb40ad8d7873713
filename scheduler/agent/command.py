"""The command that starts an agent."""

from pathlib import Path
from typing import List, Optional

import baryon

__all__ = ["agent_argv", "config_name", "python_argv"]

_PACKAGE = Path(baryon.__file__).parent


def agent_argv(
    python: str, home: Optional[str] = "", configs: str = "", index_from: str = ""
) -> List[str]:
    """The command that starts an agent of this version, installed on its host or not.

    ``home`` is the folder on that host that holds the package baryon: by default the one that holds
    it here, or None if the package is installed there.

    With ``configs``, a directory, the agent does not use its standard input. It reads its
    `AgentConfig` from a file there, and removes the file if it may. The file's name is
    `config_name` of the number in its environment variable ``index_from``.
    """
    home = str(_PACKAGE.parent) if home == "" else home
    argv = python_argv(python, "baryon.scheduler.agent", home)
    return [*argv, configs, index_from] if configs else argv


def config_name(index: int) -> str:
    """The name of the file with the `AgentConfig` of agent ``index``."""
    return f"agent-{index}.json"


def python_argv(python: str, module: str, home: Optional[str]) -> List[str]:
    """The command that runs ``main()`` of one of our modules.

    ``sys.path`` begins with ``home`` instead of the working directory, whose files could hide
    modules of the standard library.
    """
    run = f"from {module} import main; sys.exit(main())"
    path = [] if home is None else [home]
    return [python, "-c", f"import sys; sys.path[:1] = {path!r}; {run}"]
