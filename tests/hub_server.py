"""A server on this machine that speaks the Hugging Face Hub's protocol, as far as downloads need it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["COMMIT", "hub_server"]

#: The commit that every revision names.
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub_server(root: Path) -> Iterator[str]:
    """Serve `root/<models|datasets>/<owner>/<name>/`. Gives the address, for `HF_ENDPOINT`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"root": root}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    root: Path
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[0] == "api":
            self._describe(*parts[1:])
        else:
            self._send_file(parts)

    do_HEAD = do_GET  # noqa: N815 -- http.server looks for this name

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        self._send_json([each for each in self._files(*parts[1:4]) if each["path"] in wanted])

    def _describe(self, kind: str = "", owner: str = "", name: str = "", what: str = "", *rest: str) -> None:
        """A repository at some revision, or its files below a folder."""
        root = self.root / kind / owner / name
        folder = root.joinpath(*rest[1:])
        if not root.is_dir():
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif not folder.is_dir():
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        elif what == "tree":
            inside = [path for path in sorted(folder.iterdir()) if path.is_dir()]
            folders = [{"type": "directory", "path": str(path.relative_to(root)), "oid": COMMIT} for path in inside]
            files = [each for each in self._files(kind, owner, name) if (root / str(each["path"])).parent == folder]
            self._send_json([*folders, *files])
        else:
            siblings = [{"rfilename": each["path"]} for each in self._files(kind, owner, name)]
            self._send_json(
                {"id": f"{owner}/{name}", "sha": COMMIT, "private": False, "tags": [], "siblings": siblings}
            )

    def _files(self, kind: str, owner: str, name: str) -> list[dict[str, object]]:
        folder = self.root / kind / owner / name
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return [
            {"type": "file", "path": str(path.relative_to(folder)), "size": path.stat().st_size, "oid": _digest(path)}
            for path in paths
        ]

    def _send_file(self, parts: list[str]) -> None:
        """`<owner>/<name>/resolve/<revision>/<path>`, after `datasets/` for data."""
        kind, (owner, name, _, _, *path) = ("datasets", parts[1:]) if parts[0] == "datasets" else ("models", parts)
        file = self.root.joinpath(kind, owner, name, *path)
        if not file.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        self._send(200, file.read_bytes(), {"ETag": f'"{_digest(file)}"', "X-Repo-Commit": COMMIT})

    def _send_json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for header in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(*header)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


def _digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
