"""What a store compresses, and by which codec: a script's `compression_params`, checked."""

from typing import Any, Dict, List, Mapping, NamedTuple, Tuple, Union

import numpy as np

from ..errors import UsageError
from ..plan import Key, Slice
from .codec import COMPRESSIBLE, GradientCodec
from .options import Option, a_flag, a_size
from .registry import codec_of

__all__ = ["Compression", "Params", "compression_of"]

Params = Dict[str, Union[bool, int, float, str]]

# Below 16 KiB of float32 a message of its own costs as much time as the bytes that it saves.
_MIN_SIZE = Option(4096, a_size)
_ANSWERS = Option(True, a_flag)
_DTYPES = frozenset(np.dtype(name) for name in COMPRESSIBLE)


class Compression(NamedTuple):
    """``min_size``: keys of fewer elements stay exact; ``answers``: those of servers are
    compressed, too."""

    codec: GradientCodec
    min_size: int
    answers: bool

    @property
    def params(self) -> Params:
        """What `compression_of` makes an equal one of; every option is there."""
        codec = self.codec
        options: Params = {name: getattr(codec, name) for name in codec.OPTIONS}
        return {"type": codec.name, **options, "min_size": self.min_size, "answers": self.answers}

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.params.items())

    def has_part_of(self, key: Key) -> bool:
        """Whether a slice of the key may be compressed."""
        return key.size >= self.min_size and key.dtype in _DTYPES

    def takes(self, slice_: Slice) -> bool:
        """Whether a slice is compressed where its bytes travel."""
        if not self.has_part_of(slice_.key):
            return False
        return self.codec.nbytes(slice_.stop - slice_.start, slice_.key.dtype) < slice_.nbytes


def compression_of(params: Mapping[str, Any], is_async: bool = False) -> Compression:
    """The compression for ``{'type': ..., option: value, ...}``; values may be strings.

    Besides the codec's own options there are ``min_size`` (4096) and ``answers`` (True, but for
    2bit, whose definition in MXNet leaves the values exact, and for asynchronous stores, whose
    values are not the same for all). Raises UsageError with all that is wrong.
    """
    problems: List[str] = []
    given = dict(params) if isinstance(params, Mapping) else params
    ours: Dict[str, Any] = {}
    if isinstance(given, dict):
        exact = is_async or given.get("type") == "2bit"
        for name, option in (("min_size", _MIN_SIZE), ("answers", _ANSWERS)):
            default = False if name == "answers" and exact else option.default
            ours[name], problem = _parsed(option, name, given.pop(name, default))
            problems += problem
    if is_async and ours.get("answers"):
        problems.append("answers are not compressed by asynchronous stores; leave that out")
    try:
        codec = codec_of(given)
    except UsageError as error:
        problems.insert(0, str(error))
    if problems:
        prefix = "" if problems[0].startswith("compression_params") else "compression_params: "
        raise UsageError(prefix + "; ".join(problems))
    return Compression(codec, ours["min_size"], ours["answers"])


def _parsed(option: Option, name: str, value: Any) -> Tuple[Any, List[str]]:
    try:
        return option.parse(value), []
    except ValueError as error:
        return None, [f"{name} is {value!r}; it must be {error}"]
