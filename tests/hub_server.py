"""A loopback server that speaks what the clients of the Hub say to it, and fails on demand.

    with serving_hub() as hub:
        hub.environment(home)    # of a fresh process whose clients talk to it: they read HF_ENDPOINT on import

Large files travel by LFS (in parts above `part_size`), to an address that wants no token, and are read by a redirect
to another host, as from the Hub. Everything is in memory. Written from what huggingface_hub 2.4, transformers 5.23 and
datasets 5.2 send and expect. Of Xet it knows how uploads begin; what was stored there it cannot read, so that clients
have it off unless `connect_xet` turns it on.
"""

import contextlib
import fnmatch
import hashlib
import http.server
import io
import json
import re
import socket
import struct
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import yaml
from hub_repositories import Refusal, Repository

OWNER, STRANGER = "mia", "otto"
TOKEN, OTHER_TOKEN = f"hf_{'OwnerToken' * 3}1234", f"hf_{'OtherToken' * 3}1234"
XET_TOKEN = "of-an-hour"
_USERS = {TOKEN: OWNER, OTHER_TOKEN: STRANGER}
_KINDS = {"models": "model", "": "model", "datasets": "dataset"}
_LARGE = (".safetensors", ".parquet", ".bin", ".png", ".npz")


class _Cut(Exception):
    """The network is gone."""


@dataclass
class _Failure:
    """What becomes of requests: refused; or, without a status, obeyed and then left without an answer."""

    method: str
    path: str
    status: int | None
    message: str
    headers: Mapping[str, str]
    times: int

    def strikes(self, method: str, path: str) -> bool:
        hit = self.times > 0 and method == self.method and re.search(self.path, path) is not None
        self.times -= hit
        return hit


class HubServer(http.server.ThreadingHTTPServer):
    """The Hub at `url`, with two users, `OWNER` and `STRANGER`, who have `TOKEN` and `OTHER_TOKEN`.

    Attributes:
        repositories: By kind ("model" or "dataset") and id.
        requests: Method and path of each, in order.
        received: Bytes that clients have sent.
        cut_after: The network goes when so many bytes were received, until this is None again.
        part_size: Larger files are uploaded in parts of so many bytes.
        room: Bytes of large files that a repository may hold.
        xet: Address of the storage that clients with Xet upload large files to.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[tuple[str, str]] = []
        self.failures: list[_Failure] = []
        self.received = 0
        self.cut_after: int | None = None
        self.part_size, self.room, self.xet = 2**20, 2**40, ""
        self.parts: dict[tuple[str, int], bytes] = {}
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fail(self, method: str, path: str, status: int | None, message: str = "", times: int = 1, **headers: str):
        """Let the next requests of a method whose path matches fail; `retry_after="7"` becomes a header.

        Without a status they are obeyed, but the answer is lost.
        """
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.failures.append(_Failure(method, path, status, message, headers, times))

    def environment(self, home: Path, token: str | None = TOKEN) -> dict[str, str]:
        """The environment of a fresh process that talks to this Hub and keeps its cache in a folder."""
        quiet = dict.fromkeys(("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS"), "1")
        variables = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
        return quiet | variables | ({"HF_TOKEN": token} if token else {})

    def receive(self, connection: socket.socket, buffer: memoryview) -> int:
        """Read from a client; nothing that comes after the network goes arrives."""
        self._left()
        number = connection.recv_into(buffer)
        with self.lock:
            # The moment may have been named while this waited.
            number = min(number, self._left()) if number else 0
            self.received += number
        return number

    def _left(self) -> int:
        """Bytes that still arrive; raises when there are none."""
        left = sys.maxsize if self.cut_after is None else self.cut_after - self.received
        if left <= 0:
            raise _Cut
        return left

    def handle_error(self, request, client_address):
        # Clients may leave in the middle of an answer.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Received(io.RawIOBase):
    """What a client sends, as a file."""

    def __init__(self, server: HubServer, connection: socket.socket):
        self._server, self._connection = server, connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        return self._server.receive(self._connection, memoryview(buffer))


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rfile = io.BufferedReader(_Received(self.server, self.connection))

    def handle(self):
        with contextlib.suppress(_Cut):
            return super().handle()
        self._drop()

    def _drop(self):
        # With this option closing sends a reset, as when a machine goes away.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def _obey(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        address = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(address.query))
        with self.server.lock:
            self.server.requests.append((self.command, address.path))
            failure = next((each for each in self.server.failures if each.strikes(self.command, address.path)), None)
            try:
                if failure and failure.status:
                    raise Refusal(failure.status, failure.message, headers=failure.headers)
                answer = self._answer(address.path, body)
            except Refusal as refusal:
                answer = refusal.status, refusal.headers, json.dumps({"error": str(refusal)}).encode()
        if failure and not failure.status:
            self._drop()
        else:
            self._send(*answer)

    do_GET = do_HEAD = do_POST = do_PUT = _obey

    def _answer(self, path: str, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        for methods, pattern, function in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in methods.split():
                words = {name: urllib.parse.unquote(word or "") for name, word in match.groupdict().items()}
                answer = function(self, body, **words)
                return answer if isinstance(answer, tuple) else (200, {}, json.dumps(answer).encode())
        raise Refusal(404, f"Cannot {self.command} {path}")

    def _send(self, status: int, headers: Mapping[str, str], content: bytes):
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if status == 200 else None
        if span:
            start, end = int(span[1]), min(int(span[2] or len(content)), len(content) - 1)
            headers = {**headers, "Content-Range": f"bytes {start}-{end}/{len(content)}"}
            status, content = 206, content[start : end + 1]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), "Accept-Ranges": "bytes", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else content)

    def log_message(self, *_):
        pass

    # Who asks, and for what.

    def _user(self) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in _USERS:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return _USERS.get(token)

    def _require_user(self) -> str:
        user = self._user()
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        return user

    def _repository(self, kind: str, repo: str, write: bool = False) -> Repository:
        user, found = self._user(), self.server.repositories.get((_KINDS[kind], repo))
        owned = user == repo.partition("/")[0]
        if found is None or (found.private and not owned):
            # Without a token the Hub does not say whether there is one.
            raise Refusal(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and not owned:
            raise Refusal(403 if user else 401, f"Forbidden: you may not write to {repo}")
        return found

    def _who_am_i(self, body: bytes) -> dict:
        return {"type": "user", "name": self._require_user(), "orgs": []}

    def _create(self, body: bytes):
        wanted, user = json.loads(body), self._require_user()
        kind, repo = wanted.get("type", "model"), f"{wanted['organization'] or user}/{wanted['name']}"
        if not repo.startswith(f"{user}/"):
            raise Refusal(403, f"You don't have the rights to create a {kind} under this namespace")
        url = f"{self.server.url}/{'datasets/' if kind == 'dataset' else ''}{repo}"
        if (kind, repo) in self.server.repositories:
            return 409, {}, json.dumps({"error": f"You already created this {kind} repo", "url": url}).encode()
        self.server.repositories[kind, repo] = Repository(private=wanted.get("visibility") == "private")
        return {"url": url, "name": repo}

    def _validate_card(self, body: bytes):
        card = re.match(r"---\n(.*?)\n---\n", json.loads(body)["content"], flags=re.DOTALL)
        try:
            valid = card is None or isinstance(yaml.safe_load(card[1]), dict)
        except yaml.YAMLError:
            valid = False
        errors = [] if valid else [{"message": "the metadata is no YAML"}]
        warnings = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
        return 200 if valid else 400, {}, json.dumps({"errors": errors, "warnings": warnings}).encode()

    # What is in a repository.

    def _info(self, body: bytes, kind: str, repo: str, revision: str) -> dict:
        found = self._repository(kind, repo)
        commit = found.at(revision or "main")
        siblings = [{"rfilename": path, "size": len(blob.content)} for path, blob in sorted(commit.files.items())]
        counts = {"tags": [], "downloads": 0, "likes": 0}
        return {"id": repo, "sha": commit.oid, "private": found.private, "siblings": siblings, **counts}

    def _refs(self, body: bytes, kind: str, repo: str) -> dict:
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": history[-1]}
            for name, history in self._repository(kind, repo).branches.items()
        ]
        return {"branches": branches, "converts": [], "tags": []}

    def _tree(self, body: bytes, kind: str, repo: str, revision: str, path: str) -> list[dict]:
        entries = self._repository(kind, repo).at(revision).entries()
        if path and path not in entries:
            raise Refusal(404, f"{path} does not exist on {revision}", "EntryNotFound")
        above = f"{path}/" if path else ""
        deep = self.query.get("recursive", "").lower() in ("true", "1")
        inside = {name.removeprefix(above): entry for name, entry in entries.items() if name.startswith(above)}
        return [entry for name, entry in inside.items() if deep or "/" not in name]

    def _paths(self, body: bytes, kind: str, repo: str, revision: str) -> list[dict]:
        entries = self._repository(kind, repo).at(revision).entries()
        wanted = urllib.parse.parse_qs(body.decode()).get("paths", [])
        return [entries[path.rstrip("/")] for path in wanted if path.rstrip("/") in entries]

    def _resolve(self, body: bytes, kind: str, repo: str, revision: str, path: str):
        commit = self._repository(kind, repo).at(revision)
        headers = {"X-Repo-Commit": commit.oid}
        if path not in commit.files:
            raise Refusal(404, "Entry not found", "EntryNotFound", headers)
        blob = commit.files[path]
        if not blob.large:
            return 200, headers | {"ETag": f'"{blob.oid}"', "Content-Type": "text/plain"}, blob.content
        # Another name of this machine: to clients it is not the Hub, and gets no token.
        place = f"http://localhost:{self.server.server_address[1]}{_storage(kind, repo, blob.sha256)}"
        linked = {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.content)), "Location": place}
        return 302, headers | linked, b""

    # How files come.

    def _branch(self, body: bytes, kind: str, repo: str, branch: str) -> dict:
        found = self._repository(kind, repo, write=True)
        if branch in found.branches:
            raise Refusal(409, "Reference already exists")
        found.branches[branch] = [found.at(json.loads(body).get("startingPoint", "main")).oid]
        return {}

    def _preupload(self, body: bytes, kind: str, repo: str, revision: str) -> dict:
        there, files, wanted = self._repository(kind, repo, write=True).at(revision).files, [], json.loads(body)
        hosted = there[".gitignore"].content.decode() if ".gitignore" in there else ""
        patterns = wanted.get("gitIgnore", hosted).split("\n")
        for asked in wanted["files"]:
            known = there.get(asked["path"])
            mode = "lfs" if asked["path"].endswith(_LARGE) or asked["size"] > 10 * 2**20 else "regular"
            ignored = any(fnmatch.fnmatchcase(asked["path"], pattern) for pattern in patterns)
            files.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": ignored})
            if known:
                files[-1]["oid"] = known.sha256 if known.large else known.oid
        return {"files": files}

    def _xet_token(self, body: bytes, kind: str, repo: str, revision: str) -> dict:
        self._repository(kind, repo, write=True)
        return {"casUrl": self.server.xet, "exp": int(time.time()) + 3600, "accessToken": XET_TOKEN}

    def _batch(self, body: bytes, kind: str, repo: str) -> dict:
        found = self._repository(kind, repo, write=True)
        free, objects = self.server.room - sum(map(len, found.stored.values())), []
        for asked in json.loads(body)["objects"]:
            objects.append({"oid": asked["oid"], "size": asked["size"]})
            if asked["oid"] in found.stored:
                continue
            free -= asked["size"]
            if free < 0:
                objects[-1]["error"] = {"code": 507, "message": "You have exceeded your storage limit"}
            else:
                objects[-1]["actions"] = self._actions(_storage(kind, repo, asked["oid"]), asked["size"])
        return {"transfer": "basic", "objects": objects}

    def _actions(self, path: str, size: int) -> dict:
        place, part_size = f"{self.server.url}{path}", self.server.part_size
        verify = {"href": f"{place}/verify"}
        if size <= part_size:
            return {"upload": {"href": place}, "verify": verify}
        parts = {str(part): f"{place}/{part}" for part in range(1, -(-size // part_size) + 1)}
        return {
            "upload": {"href": f"{place}/complete", "header": {"chunk_size": str(part_size), **parts}},
            "verify": verify,
        }

    def _store(self, body: bytes, kind: str, repo: str, oid: str, part: str = ""):
        self._require_no_token()
        if part:
            self.server.parts[oid, int(part)] = body
        elif hashlib.sha256(body).hexdigest() != oid:
            raise Refusal(400, "The digest does not match")
        else:
            self.server.repositories[_KINDS[kind], repo].stored[oid] = body
        return 200, {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}, b""

    def _complete(self, body: bytes, kind: str, repo: str, oid: str):
        parts = [self.server.parts.pop((oid, part["partNumber"])) for part in json.loads(body)["parts"]]
        return self._store(b"".join(parts), kind, repo, oid)

    def _verify(self, body: bytes, kind: str, repo: str, oid: str) -> dict:
        if len(self._repository(kind, repo, write=True).stored.get(oid, b"")) != json.loads(body)["size"]:
            raise Refusal(404, "The file was not uploaded")
        return {}

    def _fetch(self, body: bytes, kind: str, repo: str, oid: str):
        self._require_no_token()
        return 200, {"ETag": f'"{oid}"'}, self.server.repositories[_KINDS[kind], repo].stored[oid]

    def _require_no_token(self):
        # Storage knows the signature in the address, and refuses another authorization beside it.
        if "Authorization" in self.headers:
            raise Refusal(400, "Only one auth mechanism allowed")

    def _commit(self, body: bytes, kind: str, repo: str, revision: str) -> dict:
        found = self._repository(kind, repo, write=True)
        header, *operations = map(json.loads, body.splitlines())
        about = header["value"]
        oid = found.change(revision, about["summary"], about.get("parentCommit"), operations)
        return {"success": True, "commitOid": oid, "commitUrl": f"{self.server.url}/{repo}/commit/{oid}"}


def _storage(kind: str, repo: str, oid: str) -> str:
    return f"/storage/{_KINDS[kind]}s/{repo}/{oid}"


_API = r"/api/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)"
_REPOSITORY = r"/(?:(?P<kind>datasets)/)?(?P<repo>[^/]+/[^/]+)"
_STORAGE = r"/storage/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)/(?P<oid>\w{64})"
_ROUTES = [
    ("GET", r"/api/whoami-v2", _Handler._who_am_i),
    ("POST", r"/api/repos/create", _Handler._create),
    ("POST", r"/api/validate-yaml", _Handler._validate_card),
    ("GET", rf"{_API}(?:/revision/(?P<revision>[^/]+))?", _Handler._info),
    ("GET", rf"{_API}/refs", _Handler._refs),
    ("GET", rf"{_API}/tree/(?P<revision>[^/]+)(?:/(?P<path>.*))?", _Handler._tree),
    ("POST", rf"{_API}/paths-info/(?P<revision>[^/]+)", _Handler._paths),
    ("GET HEAD", rf"{_REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler._resolve),
    ("POST", rf"{_API}/branch/(?P<branch>[^/]+)", _Handler._branch),
    ("POST", rf"{_API}/preupload/(?P<revision>[^/]+)", _Handler._preupload),
    ("GET", rf"{_API}/xet-write-token/(?P<revision>[^/]+)", _Handler._xet_token),
    ("POST", rf"{_REPOSITORY}\.git/info/lfs/objects/batch", _Handler._batch),
    ("PUT", rf"{_STORAGE}(?:/(?P<part>\d+))?", _Handler._store),
    ("POST", rf"{_STORAGE}/complete", _Handler._complete),
    ("POST", rf"{_STORAGE}/verify", _Handler._verify),
    ("GET HEAD", _STORAGE, _Handler._fetch),
    ("POST", rf"{_API}/commit/(?P<revision>[^/]+)", _Handler._commit),
]


@contextlib.contextmanager
def serving_hub() -> Iterator[HubServer]:
    """Serve an empty Hub while the block runs."""
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def connect(hub: HubServer, monkeypatch, token: str | None = TOKEN) -> None:
    """Let the clients in this process talk to a Hub, until the test ends, and not wait before they try again."""
    settings = {"ENDPOINT": hub.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}
    settings["HUGGINGFACE_CO_URL_TEMPLATE"] = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    settings["HF_TOKEN_PATH"] = "/nowhere/token"
    for name, value in settings.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # it keeps the address that it was made with
    monkeypatch.setattr(huggingface_hub.utils._http, "time", SimpleNamespace(sleep=lambda seconds: None))
    huggingface_hub.close_session()  # there may be connections to a Hub that had the same port
    if token is None:
        monkeypatch.delenv("HF_TOKEN", raising=False)
    else:
        monkeypatch.setenv("HF_TOKEN", token)


def connect_xet(hub: HubServer, monkeypatch, folder: Path) -> Path:
    """Let the clients in this process upload large files to Xet, which stores them in a folder; returns it."""
    hub.xet = f"local://{folder}/storage"
    monkeypatch.setenv("HF_XET_CACHE", str(folder / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setattr(huggingface_hub.utils._xet._GLOBAL_XET_HOLDER, "_session", None)
    return folder / "storage"
