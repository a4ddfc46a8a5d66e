"""A hub on this machine: what huggingface_hub asks of one to download and to push."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """Repositories' files by "owner/name/file"; what is pushed appears there as well."""
    files: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:  # http.server's name
            asked = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path)
            name = f"{asked[1]}/{asked[2]}" if asked else ""
            if name in files:
                body = files[name]
                tag = hashlib.sha256(body).hexdigest()
                self.answer(200, body, ETag=f'"{tag}"', X_Repo_Commit=COMMIT)
            elif any(held.startswith(f"{asked[1]}/") for held in files) if asked else False:
                self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            else:
                self.answer(404, X_Error_Code="RepoNotFound")

        do_HEAD = do_GET  # noqa: N815

        def do_POST(self) -> None:
            given = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            host = f"http://127.0.0.1:{self.server.server_port}"
            if self.path == "/api/repos/create":
                asked = json.loads(given)
                if asked.get("organization") == "closed":
                    self.answer(403, b'{"error": "not yours"}')
                    return
                name = f"{asked.get('organization', 'me')}/{asked['name']}"
                told: dict[str, object] = {"url": f"{host}/{name}", "id": name}
            elif self.path.startswith("/api/validate-yaml"):
                told = {"errors": [], "warnings": []}
            elif "/preupload/" in self.path:
                told = {
                    "files": [
                        {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for one in json.loads(given)["files"]
                    ]
                }
            else:
                name = re.match(r"/api/models/([^/]+/[^/]+)/commit/", self.path)[1]
                for line in given.splitlines():
                    said = json.loads(line)
                    if said["key"] == "file":
                        value = said["value"]
                        files[f"{name}/{value['path']}"] = base64.b64decode(value["content"])
                told = {
                    "commitUrl": f"{host}/{name}/commit/{COMMIT}", "commitOid": COMMIT,
                    "success": True,
                }  # fmt: skip
            self.answer(200, json.dumps(told).encode(), Content_Type="application/json")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    try:
        yield files
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
