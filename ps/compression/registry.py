"""The codecs by the names that scripts give."""

from typing import Any, Dict, List, Mapping, Type

from ..errors import UsageError
from .bits import OneBit, TwoBit
from .casts import BFloat16, Float16
from .codec import GradientCodec
from .sparse import RandomK, TopK

__all__ = ["CODECS", "codec_of"]

CODECS: Dict[str, Type[GradientCodec]] = {
    codec.name: codec for codec in (TwoBit, OneBit, Float16, BFloat16, TopK, RandomK)
}


def codec_of(params: Mapping[str, Any]) -> GradientCodec:
    """The codec for ``{'type': ..., option: value, ...}``; values may be strings.

    Raises UsageError with all that is wrong: no type or an unknown one, unknown options, values
    that are not possible.
    """
    if not isinstance(params, Mapping):
        raise UsageError(f"compression_params is {params!r}; give a dict: {{'type': '2bit'}}")
    given = {str(name): value for name, value in params.items()}
    kind = given.pop("type", None)
    codec = CODECS.get(str(kind))
    if codec is None:
        wrong = "no type" if kind is None else f"the unknown type {kind!r}"
        raise UsageError(f"compression_params has {wrong}; there are {', '.join(CODECS)}")
    options: Dict[str, Any] = {}
    problems: List[str] = []
    for name, value in given.items():
        if name not in codec.OPTIONS:
            problems.append(f"no option {name!r}; it has {', '.join(codec.OPTIONS) or 'none'}")
            continue
        try:
            options[name] = codec.OPTIONS[name].parse(value)
        except ValueError as error:
            problems.append(f"{name} is {value!r}; it must be {error}")
    if problems:
        raise UsageError("compression_params of {}: {}".format(kind, "; ".join(problems)))
    return codec(**options)
