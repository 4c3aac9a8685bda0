"""Where the real `@actions/cache` client saves to and restores from in the bench: the least server that it accepts
(its first protocol), writing each archive to a file. It stands for a service as fast as a disk."""
import http.server, json, pathlib, re, shutil, threading, urllib.parse


class ActionsStore:
    def __init__(self, folder):
        self.folder, self.entries, self.lock = pathlib.Path(folder), [], threading.Lock()
        store = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, status, body=None):
                data = b"" if body is None else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self):
                url = urllib.parse.urlparse(self.path)
                if number := re.search(r"/archive/(\d+)$", url.path):
                    return self.archive(int(number[1]))
                query = urllib.parse.parse_qs(url.query)
                found = store.find(query["keys"][0].split(","), query["version"][0])
                if found is None:
                    return self.answer(204)
                place = f"http://{self.headers['Host']}/archive/{found['id']}"
                self.answer(200, {"cacheKey": found["key"], "archiveLocation": place, "scope": "refs/heads/main"})

            def archive(self, number):
                path = store.path(number)
                self.send_response(200)
                self.send_header("Content-Length", str(path.stat().st_size))
                self.end_headers()
                with open(path, "rb") as file:
                    shutil.copyfileobj(file, self.wfile, 1 << 20)

            def body(self):
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                parts = []
                while length := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(length))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def do_POST(self):
                if number := re.search(r"/caches/(\d+)$", self.path):
                    self.body()
                    store.entries[int(number[1]) - 1]["saved"] = True
                    return self.answer(204)
                wanted = json.loads(self.body())
                with store.lock:
                    store.entries.append({"id": len(store.entries) + 1, "key": wanted["key"],
                                          "version": wanted["version"], "saved": False})
                    number = len(store.entries)
                store.path(number).touch()
                self.answer(201, {"cacheId": number})

            def do_PATCH(self):
                number = int(re.search(r"/caches/(\d+)$", self.path)[1])
                begin = int(re.match(r"bytes (\d+)-", self.headers["Content-Range"])[1])
                with open(store.path(number), "r+b") as file:
                    file.seek(begin)
                    file.write(self.body())
                self.answer(204)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def path(self, number):
        return self.folder / f"{number}.archive"

    def find(self, keys, version):
        for key in keys:
            for exact in (True, False):
                for entry in reversed(self.entries):
                    same = entry["key"] == key if exact else entry["key"].startswith(key)
                    if entry["saved"] and entry["version"] == version and same:
                        return entry
        return None

    def stored(self):
        return sum(path.stat().st_size for path in self.folder.glob("*.archive"))

    def stop(self):
        self.server.shutdown()
