"""The process of a server."""

from .process import main

__all__ = ["main"]
