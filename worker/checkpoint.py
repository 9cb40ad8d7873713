"""Checkpoints of a job, as users import them: MXNet's, the one framework so far."""

from .mxnet.checkpoint import Checkpoint, restore, save

__all__ = ["Checkpoint", "restore", "save"]
