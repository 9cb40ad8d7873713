"""A checkpoint's file: other tools read it, old ones are read, and damaged ones are refused."""

import hashlib
import struct
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from baryon.ps import UsageError
from baryon.worker.checkpoint_file import Contents, read, write
from baryon.worker.values import encode

WEIGHTS = {
    "dense0_weight": np.arange(6, dtype="float32").reshape(2, 3),
    "half": np.array([1.5, -0.0, np.nan], "float16"),
    "double": np.array(2.5, "float64"),
    "bytes": np.array([1, 255], "uint8"),
    "whole": np.array([-1], "int64"),
    "small": np.array([-1, 2], "int8"),
    "none": np.zeros((0, 4), "float32"),
    "turned": np.arange(6, dtype="float32").reshape(2, 3).T,
}
VALUES = {"workers": [{"position": {"epoch": 3}, "seed": 7}], "extra": (1, np.ones(2))}
CONTENTS = Contents(12, 1, WEIGHTS, b"\x80\x04states", VALUES)


def assert_same(found: Contents, expected: Contents) -> None:
    assert (found.step, found.num_workers) == (expected.step, expected.num_workers)
    assert found.states == expected.states
    assert encode(found.values) == encode(expected.values)
    assert set(found.weights) == set(expected.weights)
    for name, array in expected.weights.items():
        assert found.weights[name].dtype == array.dtype
        assert found.weights[name].shape == array.shape
        assert found.weights[name].tobytes() == array.tobytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run.ckpt"
    write(str(path), CONTENTS)
    return path


def test_what_is_written_is_read(path: Path) -> None:
    assert_same(read(str(path)), CONTENTS)
    assert [file.name for file in path.parent.iterdir()] == ["run.ckpt"]


def test_the_file_has_the_mode_of_any_new_file(path: Path) -> None:
    beside = path.with_name("beside")
    beside.touch()
    assert path.stat().st_mode == beside.stat().st_mode


def test_a_folder_that_is_missing_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write(str(tmp_path / "nowhere" / "run.ckpt"), CONTENTS)


def test_other_tools_find_each_weight_under_its_name(path: Path) -> None:
    found = load_file(path)
    for name, array in WEIGHTS.items():
        np.testing.assert_array_equal(found.pop(name), array)
    assert set(found) == {"baryon.optimizer_states", "baryon.values"}


def test_a_changed_byte_is_refused_wherever_it_is(path: Path) -> None:
    data = path.read_bytes()
    for place in {*range(0, len(data), 7), *range(9), len(data) - 1}:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(UsageError, match=r"is damaged or cut off|is no checkpoint"):
            read(str(path))


@pytest.mark.parametrize("nbytes", [0, 1, 8, 9, 100, -1000, -200, -1])
def test_a_file_that_is_cut_off_is_refused(path: Path, nbytes: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:nbytes])
    with pytest.raises(UsageError, match="is damaged or cut off" if nbytes < 0 else "checkpoint"):
        read(str(path))


def test_other_files_are_no_checkpoints(path: Path) -> None:
    for data in (b"PK" + bytes(5000), b"", b"text\n"):
        path.write_bytes(data)
        with pytest.raises(UsageError, match="is no checkpoint"):
            read(str(path))
    save_file({"w": np.ones(2)}, path)
    with pytest.raises(UsageError, match="is no checkpoint"):
        read(str(path))
    with pytest.raises(FileNotFoundError):
        read(f"{path}.missing")


def test_a_newer_version_is_refused_with_the_remedy(path: Path) -> None:
    header = '{"version":3,"step":1,"num_workers":1,"digest":""}'
    save_file({"w": np.ones(2)}, path, {"baryon": header})
    with pytest.raises(UsageError, match="version 3, and this Baryon reads up to version 2"):
        read(str(path))


def test_a_write_that_fails_leaves_the_old_file(path: Path) -> None:
    bad = CONTENTS._replace(weights={"w": np.array(["text"])}, step=13)
    with pytest.raises(Exception):  # noqa: B017 - whatever safetensors raises
        write(str(path), bad)
    with pytest.raises(UsageError, match=r"named baryon\.values; rename it"):
        write(str(path), CONTENTS._replace(weights={"baryon.values": np.ones(1)}))
    assert_same(read(str(path)), CONTENTS)
    assert [file.name for file in path.parent.iterdir()] == ["run.ckpt"]


def version_1() -> bytes:
    """As Baryon wrote it before safetensors."""
    weights = {"w": np.arange(6, dtype="float32").reshape(2, 3), "b": np.zeros(0, "float16")}
    plain = encode(VALUES)
    listed = [(name, array.dtype.name, array.shape) for name, array in weights.items()]
    header = msgspec.msgpack.encode(
        {"step": 5, "num_workers": 1, "weights": listed, "states_nbytes": 6,
         "plain_nbytes": len(plain)}
    )  # fmt: skip
    arrays = b"".join(array.tobytes() for array in weights.values())
    data = b"baryon checkpoint 1\n" + struct.pack("<Q", len(header)) + header + arrays
    data += b"states" + plain
    return data + hashlib.blake2b(data, digest_size=32).digest()


def test_the_first_version_is_still_read(path: Path) -> None:
    path.write_bytes(version_1())
    weights = {"w": np.arange(6, dtype="float32").reshape(2, 3), "b": np.zeros(0, "float16")}
    assert_same(read(str(path)), Contents(5, 1, weights, b"states", VALUES))


def test_a_damaged_file_of_the_first_version_is_refused(path: Path) -> None:
    data = version_1()
    for damaged in (data[:-1], data[:30], data[:60] + b"x" + data[61:], data + b"x"):
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match="is damaged or cut off"):
            read(str(path))
