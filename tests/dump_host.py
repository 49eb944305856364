"""A loopback server laid out as Wikimedia's dump host is, which can misbehave on request."""

import hashlib
import json
from collections import defaultdict, deque
from http.server import BaseHTTPRequestHandler

from tests.loopback import serving


class DumpHost:
    """Files by path, and for each path the faults of its next requests.

    Faults: an int is a status; ("cut", n) breaks off after n bytes; "ignore range" sends all;
    ("lie", n) announces n bytes more than there are.
    """

    def __init__(self):
        self.files = {}
        self.faults = defaultdict(deque)
        self.requests = []
        self.retry_after = "0"

    def add_run(self, wiki, date, dump, index, status="done", sha1=None, in_parts=False):
        """A dated run with its dumpstatus.json; large wikis are dumped in parts, then joined."""
        names = [
            f"{wiki}-{date}-pages-articles-multistream.xml.bz2",
            f"{wiki}-{date}-pages-articles-multistream-index.txt.bz2",
        ]
        files = {}
        for name, content in zip(names, (dump, index), strict=True):
            self.files[f"/{wiki}/{date}/{name}"] = content
            digest = sha1 or hashlib.sha1(content).hexdigest()
            files[name] = {"size": len(content), "sha1": digest}
        jobs = {"articlesmultistreamdump": {"status": status, "files": files}}
        if in_parts:
            part = {names[0].replace(".xml", "1.xml-p1p9"): {"size": 1, "sha1": "0"}}
            jobs["articlesmultistreamdump"] = {"status": "done", "files": part}
            jobs["articlesmultistreamdumprecombine"] = {"status": status, "files": files}
        self.files[f"/{wiki}/{date}/dumpstatus.json"] = json.dumps({"jobs": jobs}).encode()
        dates = sorted({path.split("/")[2] for path in self.files if path.count("/") == 3})
        listing = "".join(f'<a href="{each}/">{each}/</a>\n' for each in dates)
        self.files[f"/{wiki}/"] = f'<a href="latest/">latest/</a>\n{listing}'.encode()
        return f"/{wiki}/{date}/{names[0]}"

    def running(self):
        """A context with the address."""
        return serving(handler_of(self))


def handler_of(host):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            host.requests.append((self.path, dict(self.headers)))
            fault = host.faults[self.path].popleft() if host.faults[self.path] else None
            content = host.files.get(self.path)
            if isinstance(fault, int):
                return self.answer(fault, b"", {"Retry-After": host.retry_after})
            if content is None:
                return self.answer(404, b"", {})
            headers = {"ETag": f'"{hashlib.md5(content).hexdigest()}"'}
            asked = self.headers.get("Range")
            status, body = 200, content
            if asked and fault != "ignore range":
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                total = len(content)
                if start >= total:
                    return self.answer(416, b"", {**headers, "Content-Range": f"bytes */{total}"})
                headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
                status, body = 206, content[start:]
            kind, number = fault if isinstance(fault, tuple) else (None, 0)
            headers["Content-Length"] = str(len(body) + (number if kind == "lie" else 0))
            return self.answer(status, body[:number] if kind == "cut" else body, headers)

        def answer(self, status, body, headers):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

    return Handler
