"""Arrays of files that others wrote: whatever the bytes are, arrays come of them or a reason in words."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mvretrieval.npz_file import read_arrays

ARRAYS = {"names": np.array(list("abcd")), "vectors": np.random.default_rng(0).random((4, 3))}


def test_only_the_arrays_that_are_asked_for_are_read(tmp_path: Path) -> None:
    file = tmp_path / "f.npz"
    np.savez(file, things=np.array([{}]), **ARRAYS)
    names, vectors = read_arrays(file, ["names", "vectors"])
    assert names.tolist() == list("abcd") and np.array_equal(vectors, ARRAYS["vectors"])
    for wanted, said in (
        ("vector", "it has no 'vector': did you mean 'vectors'? it holds names, things, vectors"),
        ("things", "its 'things' holds neither text nor numbers"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
            read_arrays(file, ["names", wanted])


def test_files_that_are_none(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.eye(2))
    (tmp_path / "text.npz").write_text("names")
    (tmp_path / "nothing.npz").write_bytes(b"")
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError, match=r"^it is no \.npz file$"):
            read_arrays(path, ["names"])
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("names", "no array")
    with pytest.raises(ValueError, match="its 'names' is no array"):
        read_arrays(tmp_path / "other.zip", ["names"])
    with pytest.raises(ValueError, match="No such file"):
        read_arrays(tmp_path / "nowhere.npz", ["names"])
    with pytest.raises(ValueError, match="directory"):
        read_arrays(tmp_path, ["names"])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_byte_anywhere_is_told_or_does_no_harm(tmp_path: Path, save: object) -> None:
    file = tmp_path / "f.npz"
    save(file, **ARRAYS)  # type: ignore[operator]
    whole = file.read_bytes()
    reasons = set()
    for place in range(len(whole)):
        for changed in (whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :], whole[:place]):
            file.write_bytes(changed)
            try:
                read_arrays(file, ["names", "vectors"])
            except ValueError as error:
                assert "pickle" not in str(error)
                reasons.add(" ".join(str(error).split()[:4]))
    assert {"its 'vectors' is damaged:", "it is no .npz", "it is damaged: Bad"} <= reasons
