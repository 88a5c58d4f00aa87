"""The page of the review, for this computer only: its address holds a secret."""

import contextlib
import io
import json
import os
import re
import secrets
import socketserver
import sys
import webbrowser
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from PIL import Image

from fashion_keras.artifacts import disk_problem
from fashion_keras.check.review import Review
from fashion_keras.data.photo import PhotoError, read_photo
from fashion_keras.data.review import Decision

_STATIC = Path(__file__).parent / "static"
_OF_SERVICE = Path(__file__).parents[1] / "serve" / "static"
_FILES = {
    "": (_STATIC / "review.html", "text/html; charset=utf-8"),
    "review.js": (_STATIC / "review.js", "text/javascript; charset=utf-8"),
    "review.css": (_STATIC / "review.css", "text/css; charset=utf-8"),
    "page.css": (_OF_SERVICE / "page.css", "text/css; charset=utf-8"),
    "icon.svg": (_OF_SERVICE / "icon.svg", "image/svg+xml"),
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_SIDE, _MOST_BYTES = 800, 10_000  # Of a photo that is shown, in pixels; of a request.


class ReviewServer(socketserver.ThreadingTCPServer):
    """Serves the page on 127.0.0.1, on a port that the system chooses.

    Args:
        review: What is decided.
        command: Shown when all is decided.
    """

    daemon_threads = True  # Browsers keep connections open that they may need.

    def __init__(self, review: Review, command: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.review, self.command, self.secret = review, command, secrets.token_urlsafe(16)
        self.hosts = [f"{name}:{self.server_address[1]}" for name in ("127.0.0.1", "localhost")]
        self.address = f"http://{self.hosts[0]}/{self.secret}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over connections that the browser ends."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Any  # A `ReviewServer`.
    timeout = 30

    def do_GET(self) -> None:
        """Answer with a file of the page, the suspects, or a photo by its place."""
        place, review = self._place(), self.server.review
        photo = re.fullmatch(r"photo/(\d{1,9})", place or "")
        if place in _FILES:
            file, kind = _FILES[place]
            self._send(200, file.read_bytes(), kind)
        elif place == "suspects":
            self._send_json(200, review.as_json() | {"command": self.server.command})
        elif photo and int(photo[1]) < len(review.suspects):
            self._send_photo(review.suspects[int(photo[1])].path)
        elif place is not None:
            self._send_json(404, {"reason": "no such page"})

    def do_POST(self) -> None:
        """Decide, or undo the last decision; answer with the place of the photo."""
        place, review = self._place(), self.server.review
        if place is None:
            return
        try:
            values = self._json()
            if place == "undo":
                self._send_json(200, {"number": review.undo()})
            elif place == "decide":
                number, action, label = (values[name] for name in ("number", "action", "label"))
                review.decide(number, Decision(action, label))
                self._send_json(200, {"number": number})
            else:
                self._send_json(404, {"reason": "no such page"})
        except (ValueError, LookupError, TypeError) as error:
            self._send_json(400, {"reason": f"not understood: {error}"})
        except OSError as error:
            self._send_json(500, {"reason": f"Not saved. {disk_problem(error) or error}"})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing: what happens is on the page."""

    def _place(self) -> str | None:
        """Return the path below the page's address; answer and return None for other pages.

        A page of another site can send requests here, even under a name of its own (DNS rebinding),
        but it knows neither the secret nor can it change the headers `Host` and `Origin`.
        """
        secret, _, place = self.path.removeprefix("/").partition("/")
        hosts, origin = self.server.hosts, self.headers.get("Origin")
        known = secrets.compare_digest(secret.encode(), self.server.secret.encode())
        ours = origin is None or origin.removeprefix("http://") in hosts
        if known and ours and self.headers.get("Host") in hosts:
            return place
        self._send_json(403, {"reason": "Open the address that the command has printed."})
        return None

    def _json(self) -> Any:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 <= length <= _MOST_BYTES:
            raise ValueError(f"{length} bytes")
        return json.loads(self.rfile.read(length))

    def _send_photo(self, file: Path) -> None:
        try:
            image = Image.fromarray(read_photo(file).pixels)
        except PhotoError as error:
            self._send_json(404, {"reason": str(error)})
            return
        image.thumbnail((_SIDE, _SIDE), reducing_gap=2.0)
        packed = io.BytesIO()
        image.save(packed, "JPEG", quality=85)
        self._send(200, packed.getvalue(), "image/jpeg")

    def _send_json(self, status: int, values: dict) -> None:
        self._send(status, json.dumps(values).encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in (_HEADERS | {"Content-Type": kind}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def serve(review: Review, command: str, browse: bool) -> None:
    """Show the review in a browser until Ctrl+C or SIGTERM; `browse` opens the browser."""
    with ReviewServer(review, command) as server, contextlib.suppress(KeyboardInterrupt):
        print(f"review: {server.address} (on this computer only; Ctrl+C ends it)", flush=True)
        # Without a display a browser for terminals would take over this one.
        display = sys.platform in ("win32", "darwin") or any(
            os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
        )
        if browse and display:
            webbrowser.open(server.address)
        server.serve_forever()
    review.lock.acquire()  # What is being written is written to the end; nothing comes after it.
