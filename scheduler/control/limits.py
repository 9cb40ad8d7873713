"""Limits that the kernel sets for a process of a job."""

import resource

__all__ = ["raise_descriptor_limit"]


def raise_descriptor_limit() -> int:
    """Raise this process's limit of open files as far as it may; returns the limit before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft
