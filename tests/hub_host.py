"""A loopback server that speaks as much of the Hub's language as its client needs, and can misbehave.

Pushing models: whoami-v2, repos/create, validate-yaml, branch, preupload, LFS batch, PUT and verify,
commit, paths-info. Downloading models and data sets: info, tree, paths-info, resolve, and the storage
that resolve sends to for large files, with ranges. A data set is a repository named `datasets/...`.
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections import defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from socket import SHUT_RDWR
from urllib.parse import parse_qs, unquote, urlsplit

from tests.loopback import serving


@dataclass(frozen=True)
class Blob:
    """A file of a commit."""

    content: bytes
    is_lfs: bool

    @property
    def sha256(self):
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self):
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\n".encode()

    @property
    def oid(self):
        stored = self.pointer if self.is_lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    def as_entry(self, path):
        entry = {"type": "file", "path": path, "size": len(self.content), "oid": self.oid}
        if self.is_lfs:
            size = len(self.pointer)
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": size}
        return entry


@dataclass
class Repository:
    """Commits by id, each a title and files by path; branches by name."""

    private: bool
    gated: bool = False
    commits: dict = field(default_factory=dict)
    branches: dict = field(default_factory=dict)
    ignored: set = field(default_factory=set)
    """What its .gitignore names."""

    def commit(self, branch, title, files):
        before = self.commits[self.branches[branch]][1] if branch in self.branches else {}
        oid = hashlib.sha1(f"{len(self.commits)} {title}".encode()).hexdigest()
        self.commits[oid] = (title, {**before, **files})
        self.branches[branch] = oid
        return oid

    def titles(self):
        return [title for title, _ in self.commits.values()]

    def files(self, branch="main"):
        return {path: blob.content for path, blob in self.tree(branch).items()}

    def tree(self, revision):
        return self.commits[self.branches.get(revision, revision)][1]


class HubHost:
    """Repositories by name, who may write, and for each route the faults of its next requests.

    `sent` lists path and size of each answer's body.

    Routes are the names of the handler's methods: info, create, branch, validate, preupload, batch,
    put, verify, commit, paths, tree, resolve, stored. Faults: an int is a status, with `answer_headers`;
    a float hangs up after so many seconds of silence; "drop" does so at once; "drop after" does what was asked, then hangs up;
    "slow" does it only when the next request of the same route comes; ("status after", n) does it
    and answers n; ("cut", n) reads n bytes of the body, then hangs up; ("cut answer", n) does so after n
    bytes of the answer; "html" answers 200 with a
    page; "echo" answers 403 and quotes the request's token.
    """

    def __init__(self, tokens):
        self.tokens = tokens
        self.repositories = {}
        self.lfs = {}
        self.faults = defaultdict(deque)
        self.answer_headers = {}
        self.requests = []
        self.sent = []
        self.delayed = []
        self.lock = threading.Lock()

    def routes_asked(self):
        return [route for route, _ in self.requests]

    def running(self):
        """A context with the address."""
        return serving(handler_of(self))


class Refused(Exception):
    """An error answer: status, message and the Hub's error code."""


REPO = r"(?P<repo>(datasets/)?[^/]+/[^/]+)"
ROUTES = [
    ("GET", "/api/whoami-v2", "whoami"),
    ("POST", "/api/repos/create", "create"),
    ("POST", "/api/validate-yaml", "validate"),
    ("GET", rf"/api/(models/)?{REPO}(/revision/(?P<rev>[^/]+))?", "info"),
    ("POST", rf"/api/(models/)?{REPO}/branch/(?P<rev>[^/]+)", "branch"),
    ("POST", rf"/api/(models/)?{REPO}/preupload/(?P<rev>[^/]+)", "preupload"),
    ("POST", rf"/api/(models/)?{REPO}/commit/(?P<rev>[^/]+)", "commit"),
    ("POST", rf"/api/(models/)?{REPO}/paths-info/(?P<rev>[^/]+)", "paths"),
    ("GET", rf"/api/(models/)?{REPO}/tree/(?P<rev>[^/]+)(/(?P<path>.+))?", "tree"),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/storage/(?P<oid>\w+)", "put"),
    ("GET", r"/storage/(?P<oid>\w+)", "stored"),
    ("POST", r"/verify/(?P<oid>\w+)", "verify"),
    ("GET", rf"/{REPO}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", "resolve"),
]


def handler_of(host):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def handle_one(self):
            method = "GET" if self.command == "HEAD" else self.command
            path = urlsplit(self.path).path
            for verb, pattern, route in ROUTES:
                if verb == method and (match := re.fullmatch(pattern, path)):
                    names = {k: unquote(v) for k, v in match.groupdict().items() if v}
                    return self.answer_route(route, names)
            self.read_body()
            return self.answer(404, {"error": f"no route {method} {path}"})

        do_GET = do_HEAD = do_POST = do_PUT = handle_one

        def answer_route(self, route, names):
            authorization = self.headers.get("Authorization", "")
            with host.lock:
                host.requests.append((route, authorization))
                fault = host.faults[route].popleft() if host.faults[route] else None
                late = [each for name, each in host.delayed if name == route]
                host.delayed = [each for each in host.delayed if each[0] != route]
            if isinstance(fault, tuple) and fault[0] == "cut":
                self.rfile.read(fault[1])
                return self.hang_up()
            body = self.read_body()
            if isinstance(fault, float):
                time.sleep(fault)
            if fault == "drop" or isinstance(fault, float):
                return self.hang_up()
            if fault == "html":
                return self.answer(200, b"<html>be back soon</html>", {"Content-Type": "text/html"})
            if fault == "echo":
                return self.answer(403, {"error": f"Forbidden: {authorization}"})
            if isinstance(fault, int):
                return self.answer(fault, {"error": f"fault {fault}"}, host.answer_headers)
            if fault == "slow":
                host.delayed.append((route, lambda: getattr(self, route)(body, **names)))
                return self.hang_up()
            with host.lock:
                for each in late:
                    each()
                try:
                    answer = getattr(self, route)(body, **names)
                except Refused as refused:
                    status, message, *code = refused.args
                    headers = {"X-Error-Message": message}
                    if code:
                        headers["X-Error-Code"] = code[0]
                    return self.answer(status, {"error": message}, headers)
            if fault == "drop after":
                return self.hang_up()
            if isinstance(fault, tuple) and fault[0] == "cut answer":
                answer = answer if isinstance(answer, tuple) else (200, answer)
                return self.answer(*answer, most=fault[1])
            if isinstance(fault, tuple):
                return self.answer(fault[1], {"error": f"fault {fault[1]}"}, host.answer_headers)
            return self.answer(*answer) if isinstance(answer, tuple) else self.answer(200, answer)

        def read_body(self):
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def hang_up(self):
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(SHUT_RDWR)

        def answer(self, status, body, headers=None, most=None):
            if not isinstance(body, bytes):
                body = json.dumps(body).encode()
            headers = {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                **(headers or {}),
            }
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                host.sent.append((self.path, len(body[:most])))
                with suppress(OSError):  # the client may not want the rest
                    self.wfile.write(body[:most])
            self.close_connection = True
            if most is not None:
                self.hang_up()

        def user(self):
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if token and token not in host.tokens:
                raise Refused(401, "Invalid credentials in Authorization header")
            return host.tokens.get(token)

        def writable(self, name):
            user = self.user()
            if user is None:
                raise Refused(401, "Invalid username or password.")
            if user != name.partition("/")[0]:
                raise Refused(403, f"You don't have the rights to write under {name}")

        def readable(self, name, revision="main"):
            """The repository, once it is known to have the revision."""
            repo, user = host.repositories.get(name), self.user()
            if repo is None or (repo.private and user != name.split("/")[-2]):
                raise Refused(404, "Repository not found", "RepoNotFound")
            if revision not in repo.branches and revision not in repo.commits:
                raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            return repo

        def address(self, path):
            return f"http://{self.headers['Host']}/{path}"

        def whoami(self, _):
            if self.user() is None:
                raise Refused(401, "Invalid username or password.")
            return {"name": self.user(), "type": "user", "orgs": []}

        def create(self, body):
            asked = json.loads(body)
            name = f"{asked['organization'] or self.user()}/{asked['name']}"
            self.writable(name)
            answer = {"url": self.address(name), "name": name}
            if name in host.repositories:
                return 409, {"error": "You already created this model repo", **answer}
            repo = host.repositories[name] = Repository(asked.get("visibility") == "private")
            repo.commit("main", "initial commit", {".gitattributes": Blob(b"*.bin lfs\n", False)})
            return answer

        def validate(self, body):
            if "license: nonsense" in json.loads(body)["content"]:
                return 400, {"errors": [{"message": '"license" must be one of [mit]'}]}
            return {"errors": [], "warnings": []}

        def info(self, _, repo, rev="main"):
            found = self.readable(repo, rev)
            return {
                "_id": "0",
                "id": repo,
                "private": found.private,
                "sha": found.branches.get(rev, rev),
                "tags": [],
                "siblings": [{"rfilename": path} for path in found.tree(rev)],
            }

        def branch(self, _, repo, rev):
            self.writable(repo)
            branches = self.readable(repo).branches
            if rev in branches:
                raise Refused(409, "Reference already exists")
            branches[rev] = branches["main"]
            return {}

        def preupload(self, body, repo, rev):
            self.writable(repo)
            found = self.readable(repo, rev)
            answers = []
            for file in json.loads(body)["files"]:
                there = found.tree(rev).get(file["path"])
                is_lfs = b"\0" in base64.b64decode(file["sample"])
                known = there and (there.sha256 if there.is_lfs else there.oid)
                answers.append(
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if is_lfs else "regular",
                        "shouldIgnore": file["path"] in found.ignored,
                        **({"oid": known} if known else {}),
                    }
                )
            return {"files": answers}

        def batch(self, body, repo):
            self.writable(repo)
            objects = []
            for each in json.loads(body)["objects"]:
                if each["oid"] not in host.lfs:
                    each["actions"] = {
                        "upload": {"href": self.address(f"storage/{each['oid']}")},
                        "verify": {"href": self.address(f"verify/{each['oid']}")},
                    }
                objects.append(each)
            return {"transfer": "basic", "objects": objects}

        def put(self, body, oid):
            if hashlib.sha256(body).hexdigest() != oid:
                raise Refused(400, "the content is not what was announced")
            host.lfs[oid] = body
            return {}

        def verify(self, _, oid):
            if oid not in host.lfs:
                raise Refused(404, "not uploaded")
            return {}

        def commit(self, body, repo, rev):
            self.writable(repo)
            found = self.readable(repo, rev)
            files, header = {}, {}
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "header":
                    header = value
                elif line["key"] == "file":
                    files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
                elif line["key"] == "lfsFile":
                    if value["oid"] not in host.lfs:
                        raise Refused(400, f"LFS object {value['oid']} was not uploaded")
                    files[value["path"]] = Blob(host.lfs[value["oid"]], True)
            if header.get("parentCommit", found.branches[rev]) != found.branches[rev]:
                raise Refused(412, "A commit has happened since. Please refresh and try again.")
            oid = found.commit(rev, header["summary"], files)
            return {"commitUrl": self.address(f"{repo}/commit/{oid}"), "commitOid": oid}

        def paths(self, body, repo, rev):
            tree = self.readable(repo, rev).tree(rev)
            asked = parse_qs(body.decode())["paths"]
            return [tree[path].as_entry(path) for path in asked if path in tree]

        def tree(self, _, repo, rev, path=""):
            tree = self.readable(repo, rev).tree(rev)
            inside = f"{path}/" if path else ""
            names = [name for name in tree if name.startswith(inside)]
            if inside and not names:
                raise Refused(404, f"{path} does not exist on {rev}", "EntryNotFound")
            if "recursive=true" in self.path.lower():
                return [tree[name].as_entry(name) for name in names]
            entries = {}
            for name in names:
                first, _, rest = name.removeprefix(inside).partition("/")
                folder = {"type": "directory", "path": inside + first, "size": 0, "oid": "0" * 40}
                entries[first] = folder if rest else tree[name].as_entry(name)
            return list(entries.values())

        def ranged(self, content, headers):
            """The part of the content that is asked for."""
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            headers = {"Accept-Ranges": "bytes", **headers}
            if not wanted:
                return 200, content, headers
            first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
            if first > last:
                return 416, b"", headers | {"Content-Range": f"bytes */{len(content)}"}
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            return 206, content[first : last + 1], headers

        def stored(self, _, oid):
            blobs = (b for repo in host.repositories.values() for _, tree in repo.commits.values()
                     for b in tree.values())  # fmt: skip
            return self.ranged(next(b.content for b in blobs if b.sha256 == oid), {})

        def resolve(self, _, repo, rev, path):
            found = self.readable(repo, rev)
            if found.gated and self.user() is None:
                raise Refused(401, f"Access to dataset {repo} is restricted.", "GatedRepo")
            blob = found.tree(rev).get(path)
            headers = {"X-Repo-Commit": found.branches.get(rev, rev)}
            if blob is None:
                headers["X-Error-Code"] = "EntryNotFound"
                return 404, {"error": "Entry not found"}, headers
            headers["ETag"] = f'"{blob.sha256 if blob.is_lfs else blob.oid}"'
            if blob.is_lfs:
                headers["X-Linked-Etag"] = f'"{blob.sha256}"'
                headers["X-Linked-Size"] = str(len(blob.content))
                # as on the Hub, files are stored on another host
                stored = self.address(f"storage/{blob.sha256}").replace("127.0.0.1", "localhost")
                headers["Location"] = stored
                return 302, b"", headers
            return self.ranged(blob.content, headers)

    return Handler
