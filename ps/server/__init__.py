"""The server's process: it adds up its children's contributions and answers them."""

from .server import Server

__all__ = ["Server"]
