"""A server's process."""

from .process import main

__all__ = ["main"]
