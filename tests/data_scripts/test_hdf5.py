from __future__ import annotations

import random

import made_h5
import numpy as np
import pytest

from data_scripts import hdf5
from data_scripts.errors import CorruptMember


@pytest.mark.parametrize("data", [made_h5.whole(), made_h5.chunked()], ids=["whole", "chunked"])
def test_arrays_are_what_h5py_wrote(data: bytes) -> None:
    arrays = hdf5.read(data)
    assert set(arrays) == {"data", "label", "mask"}
    np.testing.assert_array_equal(arrays["data"], np.arange(72).reshape(3, 8, 3).astype(np.float32) / 10)
    assert arrays["data"].dtype == np.float32
    assert arrays["label"].tolist() == [0, 9, 14]
    np.testing.assert_array_equal(arrays["mask"], np.where(np.arange(24).reshape(3, 8) % 4 == 0, -1, 5))


@pytest.mark.parametrize("data", [made_h5.whole(), made_h5.chunked()], ids=["whole", "chunked"])
def test_damage_raises_nothing_unexpected(data: bytes) -> None:
    chance = random.Random(0)
    for turn in range(400):
        bad = bytearray(data)
        for _ in range(3):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        try:
            hdf5.read(bytes(bad[: chance.randrange(len(bad))] if turn % 3 == 0 else bad))
        except CorruptMember:
            pass


def test_other_files_are_named() -> None:
    with pytest.raises(CorruptMember, match="is no HDF5 file"):
        hdf5.read(b"<html>")
    newer = bytearray(made_h5.whole())
    newer[8] = 3
    with pytest.raises(CorruptMember, match=r"superblock 3.*libver='earliest'"):
        hdf5.read(bytes(newer))


def test_agrees_with_h5py() -> None:
    h5py = pytest.importorskip("h5py")
    import io

    for options in ({}, {"chunks": (3, 20, 2)}, {"compression": "gzip", "shuffle": True}):
        file = io.BytesIO()
        data = np.random.default_rng(0).normal(size=(50, 64, 3))
        with h5py.File(file, "w") as made:
            made.create_dataset("data", data=data, **options)
        np.testing.assert_array_equal(hdf5.read(file.getvalue())["data"], data)
