"""Gradient compression: fewer bytes for a slice of a gradient, and what is lost sent later. Pure.

`codec_of` makes a codec of what a script gives to `kv.set_gradient_compression` or to
`gluon.Trainer(..., compression_params=...)`:

========  =================  =====================================================================
type      options            sent of 4 bytes of float32
========  =================  =====================================================================
2bit      threshold 0.5      0.25: plus or minus the threshold, or 0 (MXNet's, bit for bit)
1bit                         0.125: the sign; one magnitude for all values of a slice
fp16                         2: rounded
bf16                         2: rounded, less exactly, with the range of float32
topk      ratio 0.01         0.08: the largest values and where they are
randomk   ratio 0.01 seed 0  0.04: values at random places
========  =================  =====================================================================

All of them feed back their error: what a round did not send is in the residual and is added to the
gradient of the next, so that over the rounds nothing is lost. A NaN or an infinity is seen by the
receiver in the round in which it appears, as NaN or infinity, and does not stay in the residual:
a step that is skipped for it (mixed precision) costs no more than that step.
"""

from typing import Any, Dict, List, Mapping, Type

from ..errors import UsageError
from .bits import OneBit, TwoBit
from .casts import BFloat16, Float16
from .codec import COMPRESSIBLE, GradientCodec
from .sparse import RandomK, TopK

__all__ = [
    "COMPRESSIBLE",
    "CODECS",
    "BFloat16",
    "Float16",
    "GradientCodec",
    "OneBit",
    "RandomK",
    "TopK",
    "TwoBit",
    "codec_of",
]

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
