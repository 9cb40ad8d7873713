"""Gradient compression: fewer bytes for a slice of a gradient, and what is lost sent later. Pure.

`compression_of` reads what a script gives to `kv.set_gradient_compression` or to
`gluon.Trainer(..., compression_params=...)`: what to compress (setting.py), and a codec:

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

from .bits import OneBit, TwoBit
from .casts import BFloat16, Float16
from .codec import COMPRESSIBLE, GradientCodec
from .encoder import Encoder
from .registry import CODECS, codec_of
from .setting import Compression, Params, compression_of
from .sparse import RandomK, TopK

__all__ = [
    "COMPRESSIBLE",
    "CODECS",
    "BFloat16",
    "Compression",
    "Encoder",
    "Float16",
    "GradientCodec",
    "OneBit",
    "Params",
    "RandomK",
    "TopK",
    "TwoBit",
    "codec_of",
    "compression_of",
]
