"""A checkpoint as one file in the safetensors format, so that other tools can read the weights.

Each weight is a tensor under its own name. Two more tensors of bytes, `_STATES` and `_VALUES`, hold
the optimizer's states in the framework's own format and the workers' values (values.py). The file's
metadata has a JSON header under "baryon", with a BLAKE2b digest of all else. A file is complete or
refused: `write` replaces the old file at once, and `read` returns nothing of a damaged one.

Files of version 1, which only Baryon could read, are still read: `_MAGIC_1`, the length of a
MessagePack header (8 bytes, little-endian), the header, what it lists one after the other, and a
digest of all before it.
"""

import hashlib
import struct
from typing import Any, Dict, List, NamedTuple, Tuple

import msgspec
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from baryon.ps import UsageError

from .files import replacing
from .values import decode, encode

__all__ = ["Contents", "read", "write"]

_STATES, _VALUES = "baryon.optimizer_states", "baryon.values"
_DIGEST_NBYTES = 32
_MAGIC_1 = b"baryon checkpoint 1\n"
_LENGTH_1 = struct.Struct("<Q")


class Contents(NamedTuple):
    """``weights`` by name; ``states`` of the optimizer; ``values`` are plain data (values.py)."""

    step: int
    num_workers: int
    weights: Dict[str, np.ndarray]
    states: bytes
    values: Any


class _Header(msgspec.Struct, frozen=True):
    version: int
    step: int
    num_workers: int
    digest: str = ""


class _Header1(msgspec.Struct, frozen=True):
    step: int
    num_workers: int
    weights: List[Tuple[str, str, Tuple[int, ...]]]  # name, dtype, shape
    states_nbytes: int
    plain_nbytes: int


def write(path: str, contents: Contents) -> None:
    """Write a checkpoint to ``path``, which is the old file or the new one at any time."""
    taken = {_STATES, _VALUES} & set(contents.weights)
    if taken:
        raise UsageError(f"a checkpoint cannot hold a parameter named {taken.pop()}; rename it")
    weights = contents.weights.items()
    tensors = {
        # safetensors writes the memory that it finds, whatever the strides are.
        **{name: np.asarray(array, order="C") for name, array in weights},
        _STATES: np.frombuffer(contents.states, np.uint8),
        _VALUES: np.frombuffer(encode(contents.values), np.uint8),
    }
    header = _Header(2, contents.step, contents.num_workers)
    header = msgspec.structs.replace(header, digest=_digest(header, tensors))
    data = save(tensors, {"baryon": msgspec.json.encode(header).decode()})
    # Not save_file: its file is for its owner alone, it hides the errno of an OSError, and a
    # process that is killed leaves a file of a random name behind.
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)


def read(path: str) -> Contents:
    """The checkpoint at ``path``; its arrays may be read-only.

    Raises OSError if the file cannot be read, and UsageError if it is damaged or no checkpoint.
    """
    with open(path, "rb") as file:
        beginning = file.read(len(_MAGIC_1))
        if beginning == _MAGIC_1:
            return _read_1(path, beginning + file.read())
    try:
        header, tensors = _tensors_of(path)
    except (SafetensorError, msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
        if beginning[8:9] != b"{":
            raise _no_checkpoint(path) from None
        raise _damaged(path) from error
    if header.digest != _digest(msgspec.structs.replace(header, digest=""), tensors):
        raise _damaged(path)
    states, values = tensors.pop(_STATES).tobytes(), tensors.pop(_VALUES).tobytes()
    return Contents(header.step, header.num_workers, tensors, states, decode(values))


def _tensors_of(path: str) -> Tuple[_Header, Dict[str, np.ndarray]]:
    with safe_open(path, framework="np") as file:
        metadata = file.metadata() or {}
        if "baryon" not in metadata:
            raise _no_checkpoint(path)
        header = msgspec.json.decode(metadata["baryon"], type=_Header)
        if header.version > 2:
            raise UsageError(
                f"{path} is a checkpoint of version {header.version}, and this Baryon reads up to "
                "version 2; install the Baryon that wrote it, or a newer one"
            )
        return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _digest(header: _Header, tensors: Dict[str, np.ndarray]) -> str:
    digest = hashlib.blake2b(msgspec.json.encode(header), digest_size=_DIGEST_NBYTES)
    for name, array in sorted(tensors.items()):
        digest.update(msgspec.json.encode((name, array.dtype.str, array.shape)))
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _no_checkpoint(path: str) -> UsageError:
    return UsageError(f"{path} is no checkpoint; checkpoint.save writes them")


def _damaged(path: str) -> UsageError:
    return UsageError(f"{path} is damaged or cut off; go on from an older checkpoint")


def _read_1(path: str, data: bytes) -> Contents:
    body = memoryview(data)[:-_DIGEST_NBYTES]
    if hashlib.blake2b(body, digest_size=_DIGEST_NBYTES).digest() != data[-_DIGEST_NBYTES:]:
        raise _damaged(path)
    at = len(_MAGIC_1) + _LENGTH_1.size
    (nbytes,) = _LENGTH_1.unpack(body[len(_MAGIC_1) : at])
    header = msgspec.msgpack.decode(body[at : at + nbytes], type=_Header1)
    at += nbytes
    weights = {}
    for name, dtype, shape in header.weights:
        count = int(np.prod(shape, dtype=np.int64))
        weights[name] = np.frombuffer(body, dtype, count, at).reshape(shape)
        at += weights[name].nbytes
    states = bytes(body[at : at + header.states_nbytes])
    values = decode(bytes(body[at + header.states_nbytes :][: header.plain_nbytes]))
    return Contents(header.step, header.num_workers, weights, states, values)
