"""The agent's process, one on each host: it starts, watches and stops the tasks there."""

from .agent import main
from .command import agent_argv, config_name

__all__ = ["agent_argv", "config_name", "main"]
