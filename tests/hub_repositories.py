"""What a Hub keeps: repositories with branches and commits, each whole or not at all; `hub_server.py` serves them."""

import base64
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None):
        super().__init__(message)
        told = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.status, self.headers = status, told | dict(headers or {})


@dataclass(frozen=True)
class Blob:
    """A file; a large one is known by its digest, and git sees only a pointer to it."""

    content: bytes = field(repr=False)
    large: bool = False

    @functools.cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @functools.cached_property
    def git_content(self) -> bytes:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        return pointer.encode() if self.large else self.content

    @functools.cached_property
    def oid(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.git_content) + self.git_content).hexdigest()

    def entry(self, path: str) -> dict:
        """What the tree says of it."""
        entry = {"type": "file", "path": path, "oid": self.oid, "size": len(self.content)}
        pointed = {"oid": self.sha256, "size": len(self.content), "pointerSize": len(self.git_content)}
        return entry | ({"lfs": pointed} if self.large else {})


@dataclass(frozen=True)
class Commit:
    """The files at one time, by path."""

    oid: str
    files: Mapping[str, Blob] = field(repr=False)

    def entries(self) -> dict[str, dict]:
        """What the tree says of all files and of the folders that they are in, by path."""
        folders = {str(above) for path in self.files for above in Path(path).parents} - {"."}
        entries = {path: {"type": "directory", "path": path, "oid": self.oid, "size": 0} for path in folders}
        return dict(sorted((entries | {path: blob.entry(path) for path, blob in self.files.items()}).items()))


class Repository:
    """Branches as lists of commits; `stored` has large files by digest, before a commit names them and after."""

    def __init__(self, private: bool):
        self.private = private
        self.stored: dict[str, bytes] = {}
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, list[str]] = {"main": []}
        self._commit("main", "initial commit", {".gitattributes": Blob(b"*.safetensors filter=lfs\n")})

    def at(self, revision: str) -> Commit:
        oid = self.branches[revision][-1] if revision in self.branches else revision
        if oid not in self.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]

    def change(self, branch: str, title: str, parent: str | None, operations: Iterable[Mapping]) -> str:
        """Commit operations, as the lines of a request say them; nothing is changed unless all can be done."""
        if branch not in self.branches:
            raise Refusal(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        if parent not in (None, self.at(branch).oid):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(self.at(branch).files)
        for operation in operations:
            self._apply(operation["key"], operation["value"], files)
        return self._commit(branch, title, files)

    def state(self) -> dict[str, tuple[str, dict[str, bytes]]]:
        """What anyone can see: the last commit of each branch, and its files."""
        seen = {branch: self.at(branch) for branch in self.branches}
        return {
            branch: (commit.oid, {path: blob.content for path, blob in commit.files.items()})
            for branch, commit in seen.items()
        }

    def _apply(self, key: str, value: Mapping[str, str], files: dict[str, Blob]):
        path = value["path"]
        if path.startswith("/") or ".." in path.split("/"):
            raise Refusal(400, f"Invalid path {path}")
        if key == "file":
            files[path] = Blob(base64.b64decode(value["content"]))
        elif key == "lfsFile" and value["oid"] in self.stored:
            files[path] = Blob(self.stored[value["oid"]], large=True)
        elif key == "lfsFile":
            raise Refusal(400, "LFS pointer pointed to a file that does not exist")
        elif key == "deletedFile" and path in files:
            del files[path]
        else:
            raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")

    def _commit(self, branch: str, title: str, files: Mapping[str, Blob]) -> str:
        history = self.branches[branch]
        tree = json.dumps([history[-1:], title, sorted((path, blob.oid) for path, blob in files.items())])
        oid = hashlib.sha1(tree.encode()).hexdigest()
        self.commits[oid] = Commit(oid, dict(files))
        history.append(oid)
        return oid
