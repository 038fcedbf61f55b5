"""Untrusted .npz files: whatever the bytes, the result is arrays or a readable reason."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mvretrieval.npz_file import read_arrays, stored_arrays

ARRAYS = {"names": np.array(list("abcd")), "vectors": np.random.default_rng(0).random((4, 3))}


def test_only_the_named_arrays_are_read(tmp_path: Path) -> None:
    file = tmp_path / "f.npz"
    np.savez(file, things=np.array([{}]), **ARRAYS)  # type: ignore[arg-type]
    names, vectors = read_arrays(file, ["names", "vectors"])
    assert names.tolist() == list("abcd") and np.array_equal(vectors, ARRAYS["vectors"])
    for name, message in (
        ("vector", "no array 'vector': did you mean 'vectors'? the file has names, things, vectors"),
        ("things", "array 'things' contains neither text nor numbers"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            read_arrays(file, ["names", name])


def test_other_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.eye(2))
    (tmp_path / "text.npz").write_text("names")
    (tmp_path / "nothing.npz").write_bytes(b"")
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError, match=r"^not an \.npz file$"):
            read_arrays(path, ["names"])
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("names", "no array")
    with pytest.raises(ValueError, match="'names' is not an array"):
        read_arrays(tmp_path / "other.zip", ["names"])
    with pytest.raises(ValueError, match="No such file"):
        read_arrays(tmp_path / "nowhere.npz", ["names"])
    with pytest.raises(ValueError, match="directory"):
        read_arrays(tmp_path, ["names"])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_any_damaged_byte_is_reported_or_harmless(tmp_path: Path, save: object) -> None:
    file = tmp_path / "f.npz"
    save(file, **ARRAYS)  # type: ignore[operator]
    whole = file.read_bytes()
    reasons = set()
    for offset in range(len(whole)):
        for changed in (whole[:offset] + bytes([whole[offset] ^ 0xFF]) + whole[offset + 1 :], whole[:offset]):
            file.write_bytes(changed)
            try:
                read_arrays(file, ["names", "vectors"])
            except ValueError as error:
                assert "pickle" not in str(error)
                reasons.add(" ".join(str(error).split()[:3]))
    assert {"array 'vectors' is", "not an .npz", "damaged file: Bad"} <= reasons


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_parts_of_an_array_are_right_or_the_damage_is_reported(tmp_path: Path, save: object) -> None:
    file = tmp_path / "f.npz"
    save(file, **ARRAYS, columns=np.asfortranarray(ARRAYS["vectors"]), things=np.array([{}]))  # type: ignore[operator]
    arrays = stored_arrays(file)
    assert arrays["vectors"].shape == arrays["columns"].shape == (4, 3) and arrays["things"].dtype.hasobject
    for name in ("vectors", "columns"):
        parts = list(arrays[name].parts(3))
        assert [len(part) for part in parts] == [3, 1] and np.array_equal(np.concatenate(parts), ARRAYS["vectors"])
    with pytest.raises(ValueError, match="neither text nor numbers"):
        next(arrays["things"].parts(3))
    save(file, **ARRAYS)  # type: ignore[operator]
    whole = file.read_bytes()
    reported = 0
    for offset in range(len(whole)):
        for changed in (whole[:offset] + bytes([whole[offset] ^ 0xFF]) + whole[offset + 1 :], whole[:offset]):
            file.write_bytes(changed)
            try:
                found = stored_arrays(file)
                if "vectors" in found:
                    assert np.array_equal(np.concatenate(list(found["vectors"].parts(3))), ARRAYS["vectors"])
            except ValueError as error:
                assert "pickle" not in str(error)
                reported += 1
    assert reported > len(whole)
