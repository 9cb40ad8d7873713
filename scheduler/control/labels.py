"""The label before each line of a task, where the output of several tasks is shown together. Pure.

The console writes it. A worker's progress bars are told of a terminal that is narrower by as much.
"""

from typing import Iterable

__all__ = ["LABEL_BORDER", "label_width"]

LABEL_BORDER = " | "


def label_width(names: Iterable[str]) -> int:
    """The columns that labels take if the tasks have these names; all labels are equally wide."""
    return max(map(len, names)) + len(LABEL_BORDER)
