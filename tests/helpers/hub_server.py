"""A local server that implements the part of the Hub's protocol that the real client uses."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """Repositories by name: commits, each with its files, and branches that point at them.

    Attributes:
        requests: method and path of each request.
        private: repositories that only their owner sees.
        messages: what the commits that were sent say, by their name.
        tokens: access tokens of the received requests.
        ranges: bytes that were requested of files, for the requests that asked for less than all.
        broken: whether files are sent with one wrong bit and truncated.
        interruptions: number of coming downloads whose connection is closed in the middle.
        refusal: HTTP status with which every request is refused; 0 for none.
    """

    url: str = ""
    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    branches: dict[str, dict[str, str]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    private: set[str] = field(default_factory=set)
    messages: dict[str, str] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    ranges: list[str] = field(default_factory=list)
    broken: bool = False
    interruptions: int = 0
    refusal: int = 0

    def create(self, repo: str) -> None:
        self.commits.setdefault(repo, {})
        self.branches.setdefault(repo, {})

    def commit(self, repo: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Commit these files on top of the branch's files, and return the commit's name."""
        self.create(repo)
        before = self.commits[repo].get(self.branches[repo].get(branch, ""), {})
        files = before | files
        content = repr(sorted((name, hashlib.sha1(data).hexdigest()) for name, data in files.items()))
        name = hashlib.sha1(f"{content}{len(self.commits[repo])}".encode()).hexdigest()
        self.commits[repo][name] = files
        self.branches[repo][branch] = name
        return name

    def find(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return the commit and the files of a branch or commit."""
        name = self.branches[repo].get(revision, revision)
        return (name, self.commits[repo][name]) if name in self.commits[repo] else None


@contextmanager
def serve():
    """Run a hub on a free port of 127.0.0.1."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self._route("HEAD")

    def do_GET(self) -> None:
        self._route("GET")

    def do_POST(self) -> None:
        self._route("POST")

    def _route(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{method} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.hub.refusal:
            return self._refuse(self.hub.refusal, "", "refused")
        routes = {
            r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)": self._resolve,
            r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)": self._preupload,
            r"/api/models/([^/]+/[^/]+)/commit/([^/]+)": self._commit,
            r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?": self._info,
        }
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        for pattern, answer in routes.items():
            if match := re.fullmatch(pattern, path):
                repo, revision, *rest = match.groups()
                if repo not in self.hub.commits:
                    return self._refuse(404, "RepoNotFound", "Repository Not Found")
                return answer(repo, revision or "main", *rest, body=body, method=method)
        return self._refuse(404, "", f"no route {path}")

    def _resolve(self, repo: str, revision: str, name: str, *, body: bytes, method: str) -> None:
        found = self.hub.find(repo, revision)
        if found is None:
            return self._refuse(404, "RevisionNotFound", "Invalid rev id")
        commit, files = found
        if name not in files:
            return self._refuse(404, "EntryNotFound", "Entry not found", commit)
        data = files[name]
        if method == "GET" and self.hub.broken:
            data = data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
        self._send(200, data, {"ETag": f'"{hashlib.sha256(files[name]).hexdigest()}"', "X-Repo-Commit": commit})

    def _info(self, repo: str, revision: str, *, body: bytes, method: str) -> None:
        found = self.hub.find(repo, revision)
        if found is None:
            return self._refuse(404, "RevisionNotFound", "Invalid rev id")
        siblings = [{"rfilename": name} for name in found[1]]
        return self._json(
            {"id": repo, "sha": found[0], "private": repo in self.hub.private, "tags": [], "siblings": siblings}
        )

    def _create(self, asked: dict) -> None:
        repo = f"{asked.get('organization') or 'tester'}/{asked['name']}"
        if not self.headers.get("Authorization"):
            return self._refuse(401, "", "Invalid username or password.")
        answer = {"url": f"{self.hub.url}/{repo}", "id": repo}
        if repo in self.hub.commits:
            return self._json(answer | {"error": "You already created this model repo"}, 409)
        self.hub.create(repo)
        self.hub.commit(repo, {})
        # Clients before version 1 say private: true, newer ones visibility: private.
        if asked.get("private") or asked.get("visibility") == "private":
            self.hub.private.add(repo)
        return self._json(answer)

    def _preupload(self, repo: str, revision: str, *, body: bytes, method: str) -> None:
        files = [file["path"] for file in json.loads(body)["files"]]
        modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for path in files]
        return self._json({"files": modes})

    def _commit(self, repo: str, revision: str, *, body: bytes, method: str) -> None:
        lines = [json.loads(line) for line in body.splitlines()]
        added = [line["value"] for line in lines if line["key"] == "file"]
        header = next(line["value"] for line in lines if line["key"] == "header")
        name = self.hub.commit(repo, {file["path"]: base64.b64decode(file["content"]) for file in added}, revision)
        self.hub.messages[name] = header["summary"]
        self.hub.tokens.add(self.headers.get("Authorization", "").removeprefix("Bearer "))
        url = f"{self.hub.url}/{repo}/commit/{name}"
        return self._json({"success": True, "commitOid": name, "commitUrl": url, "hookOutput": ""})

    def _json(self, content: dict, status: int = 200) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, message: str, commit: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message, "X-Repo-Commit": commit}
        self._send(status, json.dumps({"error": message}).encode(), {k: v for k, v in headers.items() if v})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        if (wanted := self.headers.get("Range")) and status == 200:
            self.hub.ranges.append(wanted)
            start = int(re.match(r"bytes=(\d+)-", wanted)[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            status, data = 206, data[start:]
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if "ETag" in headers and self.hub.interruptions:
            self.hub.interruptions -= 1
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        self.wfile.write(data)
