"""Tests of where photos come from: folders, the drawn sample and downloads."""

import hashlib
import io
import socket
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fashion_keras.config import InputError
from fashion_keras.data import scan as source
from fashion_keras.data.scan import download, download_clothing, find_photos, photos_digest

CONTENT = bytes(range(256)) * 8
ADVICE = "Give a folder."


def lay_out(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def found(folder):
    photos = find_photos(str(folder), folder / "cache")
    assert all(photo.path == (folder / photo.name).resolve() for photo in photos)
    return [(photo.split, photo.label, photo.name) for photo in photos]


def zip_of(**files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"top-1/{name.replace('_', '/')}.jpg", content)
    return packed.getvalue()


class Server(ThreadingHTTPServer):
    """Serves `content` at every address and remembers the Range of each request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.honours_range, self.status, self.fine_tune_from = (
            CONTENT,
            True,
            200,
            None,
        )
        self.ranges = []
        self.address = f"http://127.0.0.1:{self.server_port}/photos.zip"


class Handler(BaseHTTPRequestHandler):
    """Answers like a server of files; the tests set how well it does."""

    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self):  # noqa: D102, N802 -- the name that http.server asks for.
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        start = int(asked.split("=")[1].rstrip("-")) if asked and self.server.honours_range else 0
        rest = self.server.content[start:]
        status = self.server.status if self.server.status != 200 or not start else 206
        self.send_response(416 if start and not rest else status)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: self.server.fine_tune_from])

    def log_message(self, format, *args):  # noqa: A002, D102 -- an inherited name.
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def clothing(server, monkeypatch, tmp_path):
    """Serve two photos in place of clothing-dataset-small."""
    server.content = zip_of(train_hat_1=b"a hat", test_shoes_2=b"a shoe")
    names = {"train/hat/1.jpg": b"a hat", "test/shoes/2.jpg": b"a shoe"}
    known = b"".join(name.encode() + hashlib.sha256(names[name]).digest() for name in names)
    monkeypatch.setattr(source, "CLOTHING_ADDRESS", server.address)
    monkeypatch.setattr(source, "CLOTHING_DIGEST", hashlib.sha256(known).hexdigest())
    return server


def test_split_folders_are_listed_by_split_label_and_path(tmp_path):
    names = ["train/shoes/b.jpg", "train/shoes/a.jpg", "train/hat/c.jpg", "validation/hat/d.jpg"]
    assert found(lay_out(tmp_path, *names, "test/shoes/e.png", "readme.txt")) == [
        ("test", "shoes", "test/shoes/e.png"),
        ("train", "hat", "train/hat/c.jpg"),
        ("train", "shoes", "train/shoes/a.jpg"),
        ("train", "shoes", "train/shoes/b.jpg"),
        ("validation", "hat", "validation/hat/d.jpg"),
    ]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_other_names_of_the_validation_folder_are_understood(name, tmp_path):
    lay_out(tmp_path, "Train/hat/a.jpg", "Train/shoes/b.jpg", f"{name}/hat/c.jpg")
    assert found(tmp_path)[-1] == ("validation", "hat", f"{name}/hat/c.jpg")
    assert found(tmp_path)[0] == ("train", "hat", "Train/hat/a.jpg")


def test_class_folders_only_have_no_split(tmp_path):
    lay_out(tmp_path, "shoes/1.jpg", "hat/deeper/2.jpg", "hat/10.jpg")
    assert found(tmp_path) == [
        ("", "hat", "hat/10.jpg"),
        ("", "hat", "hat/deeper/2.jpg"),
        ("", "shoes", "shoes/1.jpg"),
    ]


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    lay_out(tmp_path, "hat/a.jpg", "shoes/b.jpg", ".git/c.jpg", "hat/.DS_Store", "hat/._a.jpg")
    lay_out(tmp_path, "shoes/.thumbs/b.jpg")
    assert [name for _, _, name in found(tmp_path)] == ["hat/a.jpg", "shoes/b.jpg"]


def test_folder_named_like_a_split_without_classes_is_no_split(tmp_path):
    lay_out(tmp_path, "train/hat/a.jpg", "train/shoes/b.jpg", "val/hat/c.jpg", "test/loose.jpg")
    assert {split for split, _, _ in found(tmp_path)} == {"train", "validation"}


def test_missing_folder_tells_what_is_expected(tmp_path):
    with pytest.raises(InputError, match="No folder .*nowhere. Expected `clothing`, `sample`"):
        find_photos(str(tmp_path / "nowhere"), tmp_path)


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(InputError, match=r"photo\.jpg is not a folder. Expected `clothing`"):
        find_photos(str(tmp_path / "photo.jpg"), tmp_path)


def test_folder_of_the_home_directory_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    lay_out(tmp_path, "photos/hat/a.jpg", "photos/shoes/b.jpg")
    assert len(find_photos("~/photos", tmp_path)) == 2


def test_folder_without_class_folders_tells_how_to_sort_photos(tmp_path):
    with pytest.raises(InputError, match="No class folders .* each class's photos into a folder"):
        found(lay_out(tmp_path, "a.jpg"))


def test_single_class_is_refused(tmp_path):
    with pytest.raises(InputError, match="Only one class in .*: hat. A classifier needs at least"):
        found(lay_out(tmp_path, "hat/a.jpg"))


@pytest.mark.parametrize("empty", ["shoes", "hat/../shoes/.hidden"])
def test_empty_class_folder_is_named(empty, tmp_path):
    lay_out(tmp_path, "hat/a.jpg", "skirt/b.jpg")
    (tmp_path / empty).mkdir(parents=True)
    with pytest.raises(InputError, match="folder .*shoes is empty: add photos or remove it"):
        found(tmp_path)


def test_class_that_train_lacks_is_refused(tmp_path):
    lay_out(tmp_path, "train/hat/a.jpg", "train/shoes/b.jpg", "val/hat/c.jpg", "test/sock/d.jpg")
    with pytest.raises(InputError, match="'sock' is in test but not in train: .* or remove .*sock"):
        found(tmp_path)


@pytest.mark.parametrize(
    ("present", "missing"), [("train", "validation"), ("test", "train, validation")]
)
def test_missing_split_is_named(present, missing, tmp_path):
    lay_out(tmp_path, f"{present}/hat/a.jpg", f"{present}/shoes/b.jpg")
    with pytest.raises(InputError, match=f"must hold both train and validation.*: {missing}$"):
        found(tmp_path)


def test_two_folders_for_one_split_are_named(tmp_path):
    lay_out(tmp_path, "train/hat/a.jpg", "val/hat/b.jpg", "validation/hat/c.jpg")
    with pytest.raises(InputError, match="two folders for validation: val and validation"):
        found(tmp_path)


def test_sample_is_drawn_into_the_cache(tmp_path, monkeypatch):
    def draw(folder, seed):
        return lay_out(folder, f"train/hat/{seed}.jpg", "train/shoes/b.jpg", "validation/hat/c.jpg")

    monkeypatch.setattr(source, "draw_sample", draw)
    photos = find_photos("sample", tmp_path, seed=5)
    assert photos[0].path == tmp_path / "sample-5" / "train" / "hat" / "5.jpg"


def test_photos_in_a_cache_given_relatively_have_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path, "sample-1/train/hat/a.jpg", "sample-1/train/shoes/b.jpg")
    lay_out(tmp_path, "sample-1/validation/hat/a.jpg")
    photos = find_photos("sample", source.Path())
    assert all(photo.path.is_absolute() and photo.path.exists() for photo in photos)


def test_whole_download_arrives(server, tmp_path):
    download(server.address, tmp_path / "file", ADVICE)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges == [None]


def test_download_asks_only_for_what_is_missing(server, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT[:500])
    download(server.address, tmp_path / "file", ADVICE)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges == ["bytes=500-"]


def test_server_that_ignores_range_sends_all_again(server, tmp_path):
    server.honours_range = False
    (tmp_path / "file").write_bytes(b"other bytes")
    download(server.address, tmp_path / "file", ADVICE)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_complete_file_is_left_as_it_is(server, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    download(server.address, tmp_path / "file", ADVICE)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_connection_that_ends_early_leaves_a_part_for_the_next_try(server, tmp_path):
    server.fine_tune_from = 700
    with pytest.raises(InputError, match="connection ended after 700 of 2048 bytes. Give a folder"):
        download(server.address, tmp_path / "file", ADVICE)
    assert (tmp_path / "file").read_bytes() == CONTENT[:700]
    server.fine_tune_from = None
    download(server.address, tmp_path / "file", ADVICE)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=700-"]


def test_resumed_download_that_ends_early_counts_the_rest_only(server, tmp_path):
    server.fine_tune_from = 100
    (tmp_path / "file").write_bytes(CONTENT[:48])
    with pytest.raises(InputError, match="ended after 100 of 2000 bytes"):
        download(server.address, tmp_path / "file", ADVICE)
    assert (tmp_path / "file").read_bytes() == CONTENT[:148]


def test_missing_page_is_an_error_with_address_and_advice(server, tmp_path):
    server.status = 404
    expected = f"Cannot download {server.address}: HTTP Error 404: Not Found. Give a folder"
    with pytest.raises(InputError, match=expected):
        download(server.address, tmp_path / "file", ADVICE)
    assert not (tmp_path / "file").exists()


def test_unreachable_server_is_an_error_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/photos.zip"
    start = time.monotonic()
    with pytest.raises(InputError, match=f"Cannot download {address}: .*refused.*. Give a folder"):
        download(address, tmp_path / "file", ADVICE)
    assert time.monotonic() - start < 2


def test_silent_server_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(source, "_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/photos.zip"
        with pytest.raises(InputError, match=f"Cannot download {address}: timed out. Give a"):
            download(address, tmp_path / "file", ADVICE)


def test_clothing_is_unpacked_once(clothing, tmp_path):
    folder = download_clothing(tmp_path / "cache")
    assert (folder / "train" / "hat" / "1.jpg").read_bytes() == b"a hat"
    assert (folder / "test" / "shoes" / "2.jpg").read_bytes() == b"a shoe"
    assert download_clothing(tmp_path / "cache") == folder
    assert [path for path in (tmp_path / "cache").iterdir() if path.name[0] != "."] == [folder]
    assert clothing.ranges == [None]


def test_clothing_with_other_photos_is_refused_and_removed(clothing, tmp_path):
    clothing.content = zip_of(train_hat_1=b"another hat", test_shoes_2=b"a shoe")
    with pytest.raises(InputError, match="is damaged or was changed; it has been removed. Run the"):
        download_clothing(tmp_path)
    assert not list(tmp_path.glob("*.part"))
    assert not [path for path in tmp_path.iterdir() if path.suffix == ""]


@pytest.mark.parametrize("damage", ["fine_tune_from", "no zip", "no files", "data", "flags"])
def test_damaged_archive_is_refused_and_removed(damage, clothing, tmp_path):
    whole = zip_of(train_hat_1=b"a hat" * 100)
    data = 30 + len("top-1/train/hat/1.jpg")  # Behind the header of the first file.
    clothing.content = {
        "fine_tune_from": whole[:-10],
        "no zip": b"<html>Sorry</html>",
        "no files": b"PK\5\6" + bytes(18),
        "data": whole[:data] + b"\xff" + whole[data + 1 :],
        "flags": whole.replace(b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1"),
    }[damage]
    with pytest.raises(InputError, match="part is damaged and has been removed; run the command "):
        download_clothing(tmp_path)
    assert not list(tmp_path.glob("*.part"))


def test_clothing_is_downloaded_again_after_damage(clothing, tmp_path):
    good, clothing.content = clothing.content, b"no zip"
    with pytest.raises(InputError, match="run the command again"):
        download_clothing(tmp_path)
    clothing.content = good
    assert download_clothing(tmp_path).is_dir()


def test_clothing_that_cannot_be_downloaded_names_other_ways(clothing, tmp_path):
    clothing.status = 503
    with pytest.raises(InputError, match="503.* a copy of the photos instead, or try `sample`"):
        download_clothing(tmp_path)


def test_digest_depends_on_names_and_bytes_of_photos_only(tmp_path):
    folder = lay_out(tmp_path, "train/hat/a.jpg", "readme.txt")
    digest = photos_digest(folder)
    expected = b"train/hat/a.jpg" + hashlib.sha256(b"train/hat/a.jpg").digest()
    assert digest == hashlib.sha256(expected).hexdigest()
    lay_out(tmp_path, "licence.txt", "train/.hidden")
    assert photos_digest(folder) == digest
    (folder / "train" / "hat" / "a.jpg").rename(folder / "train" / "hat" / "b.jpg")
    assert photos_digest(folder) != digest


def test_digest_of_the_real_photos_is_the_pinned_one(real_data):
    assert photos_digest(real_data) == source.CLOTHING_DIGEST


def test_split_folders_without_class_folders_are_refused(tmp_path):
    for split in ("train", "validation"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match="train and validation without class folders: put each"):
        find_photos(str(tmp_path), tmp_path)
