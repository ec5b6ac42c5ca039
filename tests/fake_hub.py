"""A server that speaks as the Hugging Face hub does, as far as reading model repositories goes.

The real client library talks to it (HF_ENDPOINT): model information, listing of files, heads and downloads with a
redirect to another path for large files, as the hub sends them to its store.
"""

from __future__ import annotations

import hashlib
import json
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LATER = "89abcdef0123456789abcdef0123456789abcdef"


def safetensors(name: str, count: int) -> bytes:
    """A file with one tensor of `count` bytes."""
    header = json.dumps({name: {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(index % 251 for index in range(count))


def model_files(shards: int = 2, size: int = 5000) -> dict[str, bytes]:
    """A small model as a repository holds it, with what is of no use to an engine beside it."""
    names = [f"model-{n:05d}-of-{shards:05d}.safetensors" for n in range(1, shards + 1)]
    index = {"metadata": {}, "weight_map": {f"layer.{n}": name for n, name in enumerate(names)}}
    return {
        **{name: safetensors(f"layer.{n}", size) for n, name in enumerate(names)},
        "model.safetensors.index.json": json.dumps(index).encode(),
        "config.json": b'{"architectures": ["Tiny"]}',
        "tokenizer.json": b"{}",
        "original/model-00001-of-00001.safetensors": safetensors("again", size),
        "README.md": b"# A model",
        "modeling_tiny.py": b"raise SystemExit",
    }


@dataclass
class FakeHub:
    """What it holds, and what went wrong on purpose."""

    repositories: dict[str, Mapping[str, bytes]]
    commit: str = COMMIT
    gated: frozenset[str] = frozenset()
    token: str | None = None
    """With it gated repositories may be read."""
    cut_off: set[str] = field(default_factory=set)
    """Files of which half is sent, as if that were all."""
    altered: set[str] = field(default_factory=set)
    """Files that come as long as they should, with another byte."""
    claimed: dict[str, int] = field(default_factory=dict)
    """Sizes that the hub tells in place of the real ones."""
    downloads: list[str] = field(default_factory=list)
    """Files that were fetched, in order."""
    url: str = ""


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """Serve until the end of the block; `hub.url` is the endpoint."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._api("/".join(parts[2:4]), parts[4:])
        elif parts[0] == "store":
            self._blob("/".join(parts[1:3]), "/".join(parts[3:]), body)
        elif parts[2:3] == ["resolve"]:
            self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]), body)
        else:
            self._refuse(404, "EntryNotFound")

    def _api(self, repository: str, rest: list[str]) -> None:
        files = self.hub.repositories.get(repository)
        if files is None:
            self._refuse(401, "RepoNotFound")
        elif rest[:1] == ["auth-check"]:
            self._refuse(403, "GatedRepo") if self._closed(repository) else self._json({})
        elif rest[:1] == ["revision"] and rest[1] not in ("main", self.hub.commit):
            self._refuse(404, "RevisionNotFound")
        elif rest[:1] == ["tree"]:
            self._json([{"type": "file", "path": name, **self._facts(name, data)} for name, data in files.items()])
        else:
            siblings = [{"rfilename": name, "blobId": "b", **self._sizes(name, data)} for name, data in files.items()]
            gated = "manual" if repository in self.hub.gated else False
            facts = {"id": repository, "sha": self.hub.commit, "gated": gated, "private": False, "tags": []}
            self._json({**facts, "downloads": 0, "likes": 0, "siblings": siblings})

    def _sizes(self, name: str, data: bytes) -> dict[str, Any]:
        size = self.hub.claimed.get(name, len(data))
        if not name.endswith(".safetensors"):
            return {"size": size}
        digest = hashlib.sha256(data).hexdigest()
        return {"size": size, "lfs": {"sha256": digest, "size": size, "pointerSize": 130}}

    def _facts(self, name: str, data: bytes) -> dict[str, Any]:
        sizes = self._sizes(name, data)
        lfs = sizes.get("lfs")
        told = {} if lfs is None else {"lfs": {"oid": lfs["sha256"], "size": lfs["size"], "pointerSize": 130}}
        return {"oid": hashlib.sha1(data).hexdigest(), "size": sizes["size"], **told}

    def _resolve(self, repository: str, revision: str, name: str, body: bool) -> None:
        data = self.hub.repositories.get(repository, {}).get(name)
        if data is None:
            self._refuse(404, "EntryNotFound")
        elif self._closed(repository):
            self._refuse(403, "GatedRepo")
        elif not name.endswith(".safetensors"):
            self._send(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', **self._told()}, body, name)
        else:
            digest = hashlib.sha256(data).hexdigest()
            told = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data)), **self._told()}
            # Another host, as a store is: within its own host the client follows by itself.
            store = self.hub.url.replace("127.0.0.1", "localhost")
            self._send(302, b"", {"Location": f"{store}/store/{repository}/{name}", **told}, body)

    def _blob(self, repository: str, name: str, body: bool) -> None:
        data = self.hub.repositories[repository][name]
        if name in self.hub.cut_off:
            data = data[: len(data) // 2]
        if name in self.hub.altered:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self._send(200, data, {"ETag": '"of the store"'}, body, name)

    def _told(self) -> dict[str, str]:
        return {"X-Repo-Commit": self.hub.commit}

    def _closed(self, repository: str) -> bool:
        told = self.headers.get("Authorization")
        return repository in self.hub.gated and (self.hub.token is None or told != f"Bearer {self.hub.token}")

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, True)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code}, self.command == "GET")

    def _send(self, status: int, data: bytes, headers: Mapping[str, str], body: bool, name: str | None = None) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)
            if name is not None:
                self.hub.downloads.append(name)
