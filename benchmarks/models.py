"""The arrays that a Trainer of a real model pushes, from MXNet's Gluon model zoo.

    python -m benchmarks.models

Shapes come from symbolic inference: no weights are downloaded and no array is allocated.
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import List, NamedTuple, Optional, Sequence, Tuple

MODELS = ("resnet152", "densenet201", "mobilenet0_25")
FP32_NBYTES = 4

# Names that are shorter than, or spelt differently from, the zoo's.
_ZOO_NAMES = {"resnet152": "resnet152_v1", "mobilenet0_25": "mobilenet0.25"}
_IMAGE_SIDES = {"inceptionv3": 299}
_USUAL_IMAGE_SIDE = 224


class Array(NamedTuple):
    name: str
    shape: Tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def trainable_arrays(model: str) -> List[Array]:
    """The parameters of `model` that have a gradient, in the order in which a Trainer numbers them.

    `model` is one of MODELS or any name of `gluon.model_zoo.vision.get_model`, whose ValueError
    for an unknown one passes through. Running statistics (`grad_req == 'null'`) are left out.
    """
    import mxnet as mx  # here, so that a command can offer MODELS without loading MXNet

    zoo_name = _ZOO_NAMES.get(model, model)
    side = _IMAGE_SIDES.get(zoo_name, _USUAL_IMAGE_SIDE)
    net = mx.gluon.model_zoo.vision.get_model(zoo_name)
    output = net(mx.sym.var("data"))
    shapes, _, _ = output.infer_shape(data=(1, 3, side, side))
    shape_of = dict(zip(output.list_arguments(), shapes))
    return [
        Array(name, tuple(shape_of[name]))
        for name, parameter in sorted(net.collect_params().items())
        if parameter.grad_req != "null"
    ]


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    for model in parser.parse_args(argv).models:
        arrays = trainable_arrays(model)
        sizes = [array.size for array in arrays]
        sys.stdout.write(
            f"{model:16} {len(arrays):5} arrays {sum(sizes) * FP32_NBYTES / 1e6:8.1f} MB, "
            f"largest {max(sizes) * FP32_NBYTES / 1e6:.1f} MB\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
