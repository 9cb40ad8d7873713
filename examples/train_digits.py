"""Train a small convolutional network on handwritten digits, on many devices and many machines.

Alone, on every GPU of this machine or on its CPU:

    python examples/train_digits.py

As a job of two workers with two devices each, on this machine or on the hosts of a file:

    launch.py -n 2 -s 2 --launcher local --devices 2 examples/train_digits.py
    launch.py -n 2 -s 2 --workers-per-host 2 --devices 2 examples/train_digits.py --epochs 50

On MNIST. Every host needs its four idx files (gzipped or not) in the folder that you name:

    python examples/train_digits.py --dataset mnist --data-dir data/mnist --epochs 3

By default the script trains on the 1797 images in digits.npz beside this file (README.md has the
source), so it downloads nothing. It writes the trained network to output/digits-symbol.json and
output/digits-0000.params; --export changes that.

How workers share the work: all shuffle the training set in the same way, by --seed and the epoch,
and cut it into equal parts, one for each worker. So all make the same number of steps, which
dist_sync requires. Images that do not fill a batch on every worker are left out of that epoch. Each
worker splits its batch over its devices, so a step uses batch size x workers images.
"""

import argparse
import gzip
import os
import sys
import time
import warnings
import zlib

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon import nn

from baryon.worker import devices

IN_JOB = os.environ.get("DMLC_ROLE") == "worker"
ON_TERMINAL = sys.stdout.isatty() or os.environ.get("BARYON_TERMINAL") == "1"


def parse_args():
    p = argparse.ArgumentParser(description="Train a small CNN on handwritten digits.")
    p.add_argument("--dataset", choices=["digits", "mnist"], default="digits")
    p.add_argument("--data-dir", default="data/mnist", help="the folder of MNIST's four files")
    p.add_argument("--epochs", type=int, default=30)
    p.add_argument("--batch-size", type=int, default=64, help="images a step, per worker")
    p.add_argument("--lr", type=float, default=0.1)
    p.add_argument(
        "--kvstore",
        default="dist_sync" if IN_JOB else "device",
        help="default: dist_sync in a job, device alone",
    )
    p.add_argument(
        "--update-on-kvstore",
        choices=["yes", "no"],
        help="where the optimizer runs; default: as MXNet chooses",
    )
    p.add_argument(
        "--compression",
        type=compression_params,
        metavar="TYPE[,OPTION=VALUE]",
        help="of gradients between hosts: 2bit,threshold=2; 1bit; fp16; bf16; topk,ratio=0.05",
    )
    p.add_argument("--seed", type=int, default=42)
    p.add_argument(
        "--export",
        default="output/digits",
        metavar="PREFIX",
        help="rank 0 writes PREFIX-symbol.json and PREFIX-0000.params",
    )
    return p.parse_args()


def compression_params(text):
    kind, *options = text.split(",")
    return {"type": kind, **dict(option.split("=") for option in options)}


def load_digits():
    """8x8 images of 17 shades, converted to MNIST's form: 28x28 bytes, bright on dark."""
    with np.load(os.path.join(os.path.dirname(os.path.abspath(__file__)), "digits.npz")) as raw:
        images, labels = raw["images"], raw["labels"]
    images = (images * 15).repeat(3, axis=1).repeat(3, axis=2)
    images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    order = np.random.RandomState(0).permutation(len(images))  # the split is independent of --seed
    test, train = order[:360], order[360:]
    return images[train], labels[train], images[test], labels[test]


def read_idx(folder, name, shape):
    """One of MNIST's files as an array of bytes; if shape[0] is None, the file gives it."""
    path = os.path.join(os.path.abspath(folder), name)
    path = path if os.path.exists(path) else path + ".gz"
    try:
        with (gzip.open if path.endswith(".gz") else open)(path, "rb") as f:
            blob = f.read()
    except FileNotFoundError:
        sys.exit(
            f"train_digits.py: {name} (or {name}.gz) is not in {os.path.abspath(folder)}; "
            "put MNIST's four files there, on every host, or name their folder in --data-dir"
        )
    except (OSError, EOFError, zlib.error) as e:
        sys.exit(f"train_digits.py: cannot read {path}: {e}; fetch that file again")
    dims = (shape[0] or int.from_bytes(blob[4:8], "big"), *shape[1:])
    header = bytes([0, 0, 8, len(dims)]) + np.array(dims, ">u4").tobytes()  # 8: unsigned bytes
    if not blob.startswith(header) or len(blob) != len(header) + np.prod(dims):
        sys.exit(f"train_digits.py: {path} is damaged, or not MNIST's {name}; fetch it again")
    return np.frombuffer(blob, np.uint8, offset=len(header)).reshape(dims)


def load_mnist(folder):
    data = []
    for part in ("train", "t10k"):
        data.append(read_idx(folder, f"{part}-images-idx3-ubyte", (None, 28, 28)))
        data.append(read_idx(folder, f"{part}-labels-idx1-ubyte", (len(data[-1]),)))
    return data


def to_input(images):
    return images[:, None].astype(np.float32) / 255  # N, channel, height, width


def build_net():
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(20, kernel_size=5, activation="relu"),
        nn.MaxPool2D(2, 2),
        nn.Conv2D(50, kernel_size=5, activation="relu"),
        nn.MaxPool2D(2, 2),
        nn.Dense(500, activation="relu"),
        nn.Dense(10),
    )
    return net


def count_correct(net, images, labels, ctxs, batch_size=128):
    """How many images the network classifies correctly; devices take batches in turn."""
    answers = []  # read after all batches are queued, so that the devices work in parallel
    for i, start in enumerate(range(0, len(images), batch_size)):
        x = mx.nd.array(to_input(images[start : start + batch_size]), ctx=ctxs[i % len(ctxs)])
        answers.append(net(x).argmax(axis=1))
    return int((np.concatenate([a.asnumpy() for a in answers] or [[]]) == labels).sum())


def sum_over_workers(store, values):
    """A store without an optimizer keeps the sum of what all workers push."""
    store.push("sum", mx.nd.array(values))
    out = mx.nd.zeros(len(values))
    store.pull("sum", out=out)
    return out.asnumpy()


def show_progress(epoch, step, steps, width=20):
    """A bar, drawn when it grows; launch.py, too, shows lines that end in \\r in place."""
    done = width * step // steps
    if ON_TERMINAL and done > width * (step - 1) // steps:
        print(f"Epoch {epoch} [{'#' * done:.<{width}}] {step}/{steps}", end="\r", flush=True)


def main():
    args = parse_args()
    images, labels, test_images, test_labels = (
        load_mnist(args.data_dir) if args.dataset == "mnist" else load_digits()
    )
    ctxs = devices()
    kv = mx.kv.create(args.kvstore)
    # Sums need their own store: the Trainer's would treat them as gradients.
    sums = mx.kv.create("dist_sync" if "dist" in args.kvstore else "local")
    sums.init("sum", mx.nd.zeros(5))
    share = len(images) // kv.num_workers
    steps = share // args.batch_size
    if steps == 0 or args.batch_size < len(ctxs):
        sys.exit(
            f"train_digits.py: --batch-size {args.batch_size} does not fit {share} images "
            f"and {len(ctxs)} device(s) per worker"
        )

    mx.random.seed(args.seed)  # the same first weights everywhere (the store sends rank 0's anyway)
    net = build_net()
    net.initialize(mx.init.Xavier(), ctx=ctxs)
    net.hybridize()
    loss_fn = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(
        net.collect_params(),
        "sgd",
        {"learning_rate": args.lr},
        kvstore=kv,
        compression_params=args.compression,
        update_on_kvstore={"yes": True, "no": False}.get(args.update_on_kvstore),
    )
    tests = slice(kv.rank, None, kv.num_workers)  # this worker's part; parts may differ by one
    began = time.monotonic()
    for epoch in range(1, args.epochs + 1):
        order = np.random.RandomState([args.seed, epoch]).permutation(len(images))
        order = order[kv.rank * share : (kv.rank + 1) * share]
        loss_sum = correct = 0
        for step in range(steps):
            rows = order[step * args.batch_size : (step + 1) * args.batch_size]
            xs = gluon.utils.split_and_load(to_input(images[rows]), ctxs, even_split=False)
            ys = gluon.utils.split_and_load(labels[rows], ctxs, even_split=False)
            with autograd.record():
                outs = [net(x) for x in xs]
                losses = [loss_fn(out, y) for out, y in zip(outs, ys)]
            autograd.backward(losses)
            trainer.step(args.batch_size * kv.num_workers)  # gradients are summed over all workers
            # Reading these waits for the forward pass; backward pass and store go on meanwhile.
            loss_sum += sum(loss.sum().asscalar() for loss in losses)
            correct += sum((out.argmax(axis=1) == y).sum().asscalar() for out, y in zip(outs, ys))
            if kv.rank == 0:
                show_progress(epoch, step + 1, steps)
        test_correct = count_correct(net, test_images[tests], test_labels[tests], ctxs)
        counts = [loss_sum, correct, steps * args.batch_size, test_correct, len(test_labels[tests])]
        loss_sum, correct, seen, test_correct, tested = sum_over_workers(sums, counts)
        if kv.rank == 0:
            print(
                f"Epoch {epoch}. Loss: {loss_sum / seen:.3f}, Train_acc {correct / seen:.3f}, "
                f"Test_acc {test_correct / tested:.3f}",
                flush=True,
            )

    if kv.rank == 0:
        seconds = time.monotonic() - began
        print(f"Trained on {kv.num_workers} worker(s) x {len(ctxs)} device(s) in {seconds:.1f} s")
        os.makedirs(os.path.dirname(os.path.abspath(args.export)), exist_ok=True)
        net.export(args.export)
        files = f"{args.export}-symbol.json", f"{args.export}-0000.params"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MXNet cannot know the input's dtype yet
            again = gluon.SymbolBlock.imports(files[0], ["data"], files[1], ctx=ctxs)
        accuracy = count_correct(again, test_images, test_labels, ctxs) / len(test_labels)
        print(f"Exported {files[0]} and {files[1]}; reloaded, Test_acc {accuracy:.3f}", flush=True)


if __name__ == "__main__":
    main()
