from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from error_codes import raises_code
from fake_archives import damage, write_folder, write_tar, write_zip

from data_scripts.archives import open_source, read_text, unzipped
from data_scripts.errors import CorruptMember, DataError

FILES = {"set/b.off": b"bbb", "set/a.off": b"aaaa", "set/deep/c.txt": b""}
MAKERS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda tmp: write_folder(tmp / "folder", FILES),
    "zip": lambda tmp: write_zip(tmp / "set.zip", FILES),
    "tar": lambda tmp: write_tar(tmp / "set.tar", FILES, "w"),
    "tar.gz": lambda tmp: write_tar(tmp / "set.tar.gz", FILES),
    "tar.xz": lambda tmp: write_tar(tmp / "set.tar.xz", FILES, "w:xz"),
    "zip without its suffix": lambda tmp: write_zip(tmp / "set", FILES),
    "folder with a tar": lambda tmp: write_tar(write_folder(tmp / "f", {"read.me": b""}) / "set.tgz", FILES).parent,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_all_kinds_have_the_same_content(tmp_path: Path, kind: str) -> None:
    source = open_source(MAKERS[kind](tmp_path))
    names = set(source.sizes) - {"read.me"}
    assert names == set(FILES)
    assert {name: source.sizes[name] for name in names} == {name: len(data) for name, data in FILES.items()}
    assert {name: source.read(name) for name in source.in_order(names)} == FILES


def test_a_file_hides_the_archive_that_it_was_unpacked_from(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "f", {"set/a.off": b"unpacked"})
    write_zip(folder / "set.zip", FILES)
    source = open_source(folder)
    assert source.read("set/a.off") == b"unpacked"
    assert source.read("set/b.off") == b"bbb"
    assert source.local("set/a.off") == folder / "set/a.off"
    assert source.local("set/b.off") is None
    assert sorted(source.in_order(FILES)) == sorted(FILES)


@pytest.mark.parametrize("name", ["../evil.off", "/etc/evil.off", "a/../../evil.off", "C:/evil.off", "..\\evil.off"])
def test_names_that_point_outside_are_refused(tmp_path: Path, name: str) -> None:
    tar = write_tar(tmp_path / "set.tar", {"a.off": b"a", name: b"evil"}, "w")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(name, b"evil")
    for path in (tar, tmp_path / "set.zip"):
        with raises_code(DataError, "outside_path", name):
            open_source(path)


def test_links_and_devices_of_a_tar_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo(f"link{kind!r}.off")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("./a.off")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"a"))
    assert dict(open_source(path).sizes) == {"a.off": 1}


def test_a_damaged_member_is_an_error_and_the_others_are_read(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.zip", {"a.off": b"first content", "b.off": b"second content"})
    damage(path, b"first content")
    source = open_source(path)
    with raises_code(CorruptMember, "corrupt_file", "set.zip"):
        source.read("a.off")
    assert source.read("b.off") == b"second content"


@pytest.mark.parametrize(
    ("kind", "mode"), [("set.zip", ""), ("set.tar", "w"), ("set.tar.gz", "w:gz"), ("set.tar.xz", "w:xz")]
)
def test_a_truncated_archive_is_an_error(tmp_path: Path, kind: str, mode: str) -> None:
    files = {f"{i}.off": os.urandom(5000) for i in range(5)}
    path = write_tar(tmp_path / kind, files, mode) if mode else write_zip(tmp_path / kind, files)
    path.write_bytes(path.read_bytes()[:12000])
    with raises_code(DataError, "damaged_archive", kind):
        open_source(path)


def test_other_files_are_errors(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<html>not found</html>")
    with raises_code(DataError, "not_an_archive", "page.html"):
        open_source(tmp_path / "page.html")
    with raises_code(DataError, "no_source", "nothing.zip"):
        open_source(tmp_path / "nothing.zip")


@pytest.mark.parametrize("size", [1 << 62, 1 << 70])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_tar_with_impossible_lengths_is_damaged(tmp_path: Path, kind: bytes, size: int) -> None:
    info = tarfile.TarInfo("a.off")
    info.type, info.size = kind, size
    (tmp_path / "set.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with raises_code(DataError, "damaged_archive", "set.tar"):
        open_source(tmp_path / "set.tar")


def test_damaged_compression_and_other_encodings_are_errors(tmp_path: Path) -> None:
    whole = gzip.compress(b"content " * 50)
    assert unzipped(whole) == b"content " * 50 and unzipped(b"plain") == b"plain"
    for place in range(2, len(whole)):
        try:
            unzipped(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        except CorruptMember as error:
            assert error.code == "bad_compression"
    source = open_source(
        write_folder(tmp_path / "f", {"good.txt": "\ufeffSofá".encode(), "bad.txt": "Sofá".encode("latin-1")})
    )
    assert read_text(source, "good.txt") == "Sofá"
    with raises_code(CorruptMember, "not_utf8", "bad.txt"):
        read_text(source, "bad.txt")
    (tmp_path / "f/good.txt").unlink()
    with raises_code(CorruptMember, "corrupt_file", "good.txt"):
        read_text(source, "good.txt")


def test_links_to_folders_are_followed_once_with_real_names_first(tmp_path: Path) -> None:
    elsewhere = write_folder(tmp_path / "elsewhere", {"b.off": b"b", "deep/c.off": b"c"})
    folder = write_folder(tmp_path / "f", {"set/a.off": b"a"})
    (folder / "linked").symlink_to(elsewhere)
    (folder / "again").symlink_to(folder / "set")  # before `set` by name, and the same folder
    (folder / "set/loop").symlink_to(folder)
    (elsewhere / "back").symlink_to(folder)
    (folder / "gone").symlink_to(tmp_path / "missing")
    source = open_source(folder)
    assert {name: source.read(name) for name in source.sizes} == {
        "set/a.off": b"a",
        "linked/b.off": b"b",
        "linked/deep/c.off": b"c",
    }
