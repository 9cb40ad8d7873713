"""MXNet's side of a worker: stores, engine, Trainer, Module. Only this folder imports MXNet."""

from baryon.ps import import_mxnet

import_mxnet()  # outside a job, nothing else fits it to a newer NumPy

from .kvstore import create

__all__ = ["create"]
