"""The arrays that a Trainer of a real model pushes, from MXNet's Gluon model zoo.

    python -m benchmarks.models

Shapes come from symbolic inference: no weights are downloaded and no array is allocated.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

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


class Layer(NamedTuple):
    name: str
    keys: List[int]  # of its arrays among `trainable_arrays`
    macs: int  # multiplications and additions of one image's forward pass


def trainable_arrays(model: str) -> List[Array]:
    """The parameters of `model` that have a gradient, in the order in which a Trainer numbers them.

    `model` is one of MODELS or any name of `gluon.model_zoo.vision.get_model`, whose ValueError
    for an unknown one passes through. Running statistics (`grad_req == 'null'`) are left out.
    "5000x1000" stands for 5000 arrays of 1000 elements each.
    """
    made_up = re.fullmatch(r"([0-9]+)x([0-9]+)", model)
    if made_up is not None:
        count, size = map(int, made_up.groups())
        return [Array(f"array{number}", (size,)) for number in range(count)]
    net, output, side = _build(model)
    shapes, _, _ = output.infer_shape(data=(1, 3, side, side))
    shape_of = dict(zip(output.list_arguments(), shapes))
    return [Array(name, tuple(shape_of[name])) for name in _trainable_names(net)]


def layers(model: str) -> List[Layer]:
    """The convolutions and dense layers of `model`, in the order in which a forward pass runs.

    Arrays of other operators (batch normalisation) count with the layer before them.
    """
    net, output, side = _build(model)
    internals = output.get_internals()
    _, shapes, _ = internals.infer_shape(data=(1, 3, side, side))
    shape_of = dict(zip(internals.list_outputs(), shapes))
    keys = {name: key for key, name in enumerate(_trainable_names(net))}
    nodes = json.loads(output.tojson())["nodes"]
    found: List[Layer] = []
    for node in nodes:
        inputs = [nodes[number]["name"] for number, *_ in node["inputs"]]
        if node["op"] in ("Convolution", "FullyConnected"):
            weight = next(name for name in inputs if name.endswith("weight"))
            places = math.prod(shape_of[f"{node['name']}_output"][2:])  # 1 for a dense layer
            found.append(Layer(node["name"], [], math.prod(shape_of[weight]) * places))
        if found:
            found[-1].keys.extend(keys[name] for name in inputs if name in keys)
    return found


def _build(model: str) -> Tuple[Any, Any, int]:
    """The network, its symbol, and the side of the images that it is for."""
    import mxnet as mx  # here, so that a command can offer MODELS without loading MXNet

    zoo_name = _ZOO_NAMES.get(model, model)
    net = mx.gluon.model_zoo.vision.get_model(zoo_name)
    return net, net(mx.sym.var("data")), _IMAGE_SIDES.get(zoo_name, _USUAL_IMAGE_SIDE)


def _trainable_names(net: Any) -> List[str]:
    parameters = sorted(net.collect_params().items())
    return [name for name, parameter in parameters if parameter.grad_req != "null"]


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
