"""Who look on at a job: the terminal and the log files."""

from .console import Console, complain, terminal_sizes
from .screen import label_width

__all__ = ["Console", "complain", "label_width", "terminal_sizes"]
