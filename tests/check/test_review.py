"""Tests of the review: suspects, decisions that are saved at once, the server, the command."""

import functools
import http.client
import io
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fashion_keras.check.__main__ import main, options
from fashion_keras.check.findings import Finding, Suspect
from fashion_keras.check.review import FILE, Review, suspects_of
from fashion_keras.check.review_server import ReviewServer, serve
from fashion_keras.config import InputError
from fashion_keras.data.review import Decision, read_review, write_review
from tests.builders import encoded, picture

LABELS = ["dress", "hat", "shoes"]
HEAD = "file,action,label\r\n"


def text_of(review: Review) -> str:
    return review.file.read_text(encoding="utf-8-sig").replace("\n", "\r\n")


@pytest.fixture
def review(tmp_path: Path) -> Review:
    """Return a review of three photos, the second of which is on its side."""
    suspects = []
    for number, name in enumerate(("hat/a.png", "hat/ü, b.jpg", "dress/c.png")):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 1 else 1
        picture(number).save(file, exif=exif)
        suspects.append(Suspect(name, name.partition("/")[0], file, ("odd",)))
    suspects[0] = suspects[0]._replace(likelier="shoes", same=("dress/c.png",))
    return Review(suspects, LABELS, tmp_path / "results" / FILE)


def test_each_suspect_is_listed_once_with_all_reasons():
    one, other = (Suspect(name, "hat", Path(name), ("odd",)) for name in ("a", "b"))
    found = [
        Finding("flat", ["a"], [one._replace(reasons=("flat",))]),
        Finding("label errors", ["b"], [other, one._replace(likelier="dress")]),
    ]
    both = one._replace(likelier="dress", reasons=("odd", "flat"))
    assert suspects_of(found) == [other, both]


def test_decisions_are_in_the_file_at_once_and_can_be_undone(review):
    review.decide(1, Decision("drop"))
    assert text_of(review) == HEAD + '"hat/ü, b.jpg",drop,\r\n'
    review.decide(0, Decision("move", "shoes"))
    review.decide(1, Decision("keep"))
    whole = HEAD + 'hat/a.png,move,shoes\r\n"hat/ü, b.jpg",keep,\r\n'
    assert (text_of(review), review.done()) == (whole, 2)
    assert [path.name for path in review.file.parent.iterdir()] == [FILE]
    assert [review.undo() for _ in range(4)] == [1, 0, 1, None]
    assert (text_of(review), review.done()) == (HEAD, 0)


def test_a_review_goes_on_and_keeps_what_is_no_suspect_any_more(review):
    write_review(review.file, {"hat/z.jpg": Decision("drop"), "hat/a.png": Decision("keep")})
    again = Review(review.suspects, LABELS, review.file)
    assert again.done() == 1
    again.decide(2, Decision("drop"))
    assert list(read_review(review.file, LABELS)) == ["hat/z.jpg", "hat/a.png", "dress/c.png"]
    write_review(review.file, {"hat/z.jpg": Decision("move", "sock")})
    with pytest.raises(InputError, match="line 2"):
        Review(review.suspects, LABELS, review.file)


def test_what_cannot_be_written_is_not_decided(review, monkeypatch):
    review.decide(0, Decision("drop"))
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "full")))
    for change in (lambda: review.decide(0, Decision("keep")), review.undo):
        with pytest.raises(OSError, match="full"):
            change()
    monkeypatch.undo()
    assert text_of(review) == HEAD + "hat/a.png,drop,\r\n"
    assert (review.undo(), review.undo()) == (0, None)


@pytest.fixture
def server(review: Review) -> Iterator[ReviewServer]:
    with ReviewServer(review, "python -m tuning.search") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: ReviewServer, place: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    """Return status and content of an answer to a browser that has the page open."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    content = None if body is None else json.dumps(body)
    connection.request("GET" if body is None else "POST", place, content, headers)
    answer = connection.getresponse()
    assert "default-src 'none'" in (answer.getheader("Content-Security-Policy") or "")
    return answer.status, answer.read()


def test_the_page_and_reduced_upright_photos_are_served(server, review):
    start = f"/{server.secret}/"
    for name in ("", "review.js", "review.css", "page.css", "icon.svg"):
        assert ask(server, start + name)[0] == 200
    known = json.loads(ask(server, start + "suspects")[1])
    assert known["suspects"][0] | {"reasons": ["odd"], "same": [2]} == known["suspects"][0]
    assert str(review.suspects[0].path.parent) not in json.dumps(known)
    status, content = ask(server, start + "photo/1")
    with Image.open(io.BytesIO(content)) as image:
        assert (status, image.format, image.size) == (200, "JPEG", (131, 89))
    review.suspects[2].path.unlink()
    assert ask(server, start + "photo/2")[0] == 404
    for place in ("photo/3", "photo/-1", "photo/../suspects", "../pyproject.toml"):
        assert ask(server, start + place)[0] == 404


@pytest.mark.parametrize(
    ("start", "headers"),
    [
        ("/", {}),
        ("/wrong/", {}),
        ("/{}/", {"Host": "evil.example:{}"}),  # A name that leads to 127.0.0.1.
        ("/{}/", {"Origin": "http://evil.example"}),
        ("/{}/", {"Origin": "null"}),
    ],
)
def test_pages_of_others_see_and_change_nothing(start, headers, server, review):
    port = server.server_address[1]
    headers = {name: value.format(port) for name, value in headers.items()}
    start = start.format(server.secret)
    for place, body in (("", None), ("suspects", None), ("photo/0", None), ("undo", {})):
        assert ask(server, start + place, body, **headers)[0] == 403
    decision = {"number": 0, "action": "drop", "label": ""}
    assert ask(server, start + "decide", decision, **headers)[0] == 403
    assert (review.done(), server.server_address[0]) == (0, "127.0.0.1")


@pytest.mark.parametrize(
    ("number", "action", "label"),
    [
        *[(3, "drop", ""), (-1, "drop", ""), ("0", "drop", ""), (0, "burn", ""), (0, ["drop"], "")],
        *[(0, "move", "sock"), (0, "move", "hat"), (0, "keep", "dress"), (0, "move", None)],
    ],
)
def test_what_is_no_decision_is_refused(number, action, label, server, review):
    decision = {"number": number, "action": action, "label": label}
    assert ask(server, f"/{server.secret}/decide", decision)[0] == 400
    assert not review.file.exists()


def test_wrong_requests_are_refused_and_a_full_disk_is_named(server, review, monkeypatch):
    start, drop = f"/{server.secret}/", {"number": 0, "action": "drop", "label": ""}
    assert ask(server, start + "decide", [1])[0] == 400
    assert ask(server, start + "decide", drop | {"more": "x" * 10_000})[0] == 400
    assert ask(server, start + "delete", {})[0] == 404
    full = OSError(28, "No space left on device")
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(full))
    status, content = ask(server, start + "decide", drop)
    assert (status, b"Not saved. The disk is full" in content) == (500, True)


def interrupt(server: ReviewServer) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("browse", "display", "opened"), [(True, ":0", 1), (True, "", 0), (False, ":0", 0)]
)
def test_a_browser_opens_if_there_is_a_display(browse, display, opened, review, monkeypatch):
    calls: list[str] = []
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("webbrowser.open", calls.append)
    monkeypatch.setattr(ReviewServer, "serve_forever", interrupt)
    serve(review, "", browse)
    assert len(calls) == opened


def test_a_folder_after_review_is_refused(capsys, tmp_path):
    for words in (["--review", str(tmp_path)], [str(tmp_path), "--review", "sample"]):
        with pytest.raises(SystemExit, match="2"):
            options().parse_args(words)
        assert f"`{words[words.index('--review') + 1]} --review` opens" in capsys.readouterr().err


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Draw two classes of two photos, one of which is in both."""
    for number, name in enumerate(("hat/1.png", "hat/2.png", "dress/3.png", "dress/4.png")):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        content = encoded(picture(0 if number == 3 else number * 9))
        (tmp_path / "photos" / name).write_bytes(content)
    return tmp_path / "photos"


@pytest.mark.slow
def test_the_command_serves_until_it_is_interrupted_and_its_file_is_honoured(photos, tmp_path):
    words = [sys.executable, "-m", "fashion_keras.check", str(photos), "--review", "--no-browser"]
    words += ["--cache", str(tmp_path / "cache"), "--results", str(tmp_path / "results")]
    # Background jobs ignore it, and so would their children.
    listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    options: Any = {"stdout": subprocess.PIPE, "text": True, "preexec_fn": listen}
    with subprocess.Popen(words, **options) as process:
        assert process.stdout
        line = next(line for line in process.stdout if line.startswith("review: "))
        port, secret = re.findall(r"http://127.0.0.1:(\d+)/([^/]+)/ ", line)[0]
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
        drop = json.dumps({"number": 1, "action": "drop", "label": ""})
        connection.request("POST", f"/{secret}/decide", drop)
        assert connection.getresponse().status == 200
        connection.request("GET", f"/{secret}/suspects")
        assert json.load(connection.getresponse())["labels"] == ["dress", "hat", "other"]
        with pytest.raises(InputError, match="Another process is writing the same review"):
            main(words[3:])
        process.send_signal(signal.SIGINT)
        last = process.stdout.read().splitlines()[-1]
    file = tmp_path / "results" / "check" / FILE
    assert process.returncode == 0
    assert last.startswith("1 of 2 photos reviewed; the others stay as they are")
    assert f"; decisions are in {file}; now run: python -m " in last
    assert f" --review {file} " in last
    assert last.endswith(f" --data {photos}")
    main([str(photos), *words[6:], "--review", str(file)])
    found = json.loads((file.parent / "check.json").read_text())
    assert {one["kind"] for one in found["findings"]} & {"contradiction", "leak"} == set()


def test_decisions_that_cannot_be_used_are_refused_before_photos_are_checked(
    photos, tmp_path, monkeypatch
):
    write_review(tmp_path / "check" / FILE, {"hat/1.png": Decision("move", "sock")})
    monkeypatch.setattr("fashion_keras.check.examine.check_photos", None)  # It would fail.
    with pytest.raises(InputError, match=r"line 2: `label` must be one of dress, hat"):
        main([str(photos), "--review", "--results", str(tmp_path), "--cache", str(tmp_path / "c")])


def test_without_suspects_no_page_opens(photos, tmp_path, capsys):
    (photos / "dress" / "4.png").unlink()
    main([str(photos), "--review", "--results", str(tmp_path / "r"), "--cache", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        "`--features` adds probable label errors and outliers to the review",
        "nothing to review",
    ]
