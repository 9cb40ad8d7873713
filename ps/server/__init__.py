"""The server's process: it adds up what its children send, and answers them."""

from .server import Server

__all__ = ["Server"]
