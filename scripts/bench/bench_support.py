"""What the benchmarks share: an OCI layout written by hand, a mount with a cache of its own, dated results."""
import datetime
import hashlib
import http.client
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
RELEASE = os.path.join(HERE, "../../target/release/ocifs")


class Layout:
    """A minimal writer of OCI layouts with one image each."""

    def __init__(self, directory):
        self.directory = directory
        self.blobs = os.path.join(directory, "blobs", "sha256")
        self.entries = []
        os.makedirs(self.blobs)
        with open(os.path.join(directory, "oci-layout"), "w", encoding="ascii") as file:
            file.write('{"imageLayoutVersion":"1.0.0"}')

    def add(self, path_or_bytes, media_type):
        sha, size = hashlib.sha256(), 0
        if isinstance(path_or_bytes, bytes):
            sha.update(path_or_bytes)
            size = len(path_or_bytes)
            with open(os.path.join(self.blobs, sha.hexdigest()), "wb") as file:
                file.write(path_or_bytes)
        else:
            with open(path_or_bytes, "rb") as file:
                while chunk := file.read(1 << 20):
                    sha.update(chunk)
                    size += len(chunk)
            shutil.move(path_or_bytes, os.path.join(self.blobs, sha.hexdigest()))
        return {"mediaType": media_type, "digest": "sha256:" + sha.hexdigest(), "size": size}

    def image(self, tag, layers):
        config = self.add(b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}', "application/vnd.oci.image.config.v1+json")
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers}
        entry = self.add(json.dumps(manifest).encode(), manifest["mediaType"])
        entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
        self.entries.append(entry)
        with open(os.path.join(self.directory, "index.json"), "w", encoding="ascii") as file:
            json.dump({"schemaVersion": 2, "manifests": self.entries}, file)


class Registry:
    """docker-registry on a free port with storage of its own."""

    def __init__(self, work):
        self.storage = tempfile.mkdtemp(prefix="registry-", dir=work)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.host = "127.0.0.1:%d" % free.getsockname()[1]
        self.configuration = os.path.join(self.storage, "config.yml")
        with open(self.configuration, "w", encoding="ascii") as file:
            file.write("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s/data}}\nhttp: {addr: %s}\n"
                       % (self.storage, self.host))
        self.start()

    def start(self):
        self.process = subprocess.Popen(["docker-registry", "serve", self.configuration], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(self.host.split(":")[1]))) == 0:
                    return
            time.sleep(0.02)
        raise SystemExit("docker-registry did not start")

    def restart(self):
        """Killed and started again at once, on the same port and storage."""
        self.process.kill()
        self.process.wait()
        self.start()

    def stored(self):
        """Bytes of all blobs."""
        total = 0
        for directory, _, names in os.walk(os.path.join(self.storage, "data")):
            total += sum(os.path.getsize(os.path.join(directory, name)) for name in names if name == "data")
        return total

    def stop(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.storage)


class Proxy:
    """In front of a registry: every request waits `delay` seconds, and a connection gets `rate` bytes a second at most (0: all that
    there are); the bytes of bodies are counted both ways."""

    def __init__(self, upstream, delay=0.0, rate=0):
        self.requests, self.fetched, self.sent = 0, 0, 0
        lock, local, proxy = threading.Lock(), threading.local(), self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                time.sleep(delay)
                if not hasattr(local, "connection"):
                    local.connection = http.client.HTTPConnection(upstream)
                headers = {name: ", ".join(self.headers.get_all(name)) for name in self.headers.keys() if name.lower() != "host"}
                local.connection.request(self.command, self.path, body, {**headers, "Host": proxy.host})
                answer = local.connection.getresponse()
                with lock:
                    proxy.requests += 1
                    proxy.sent += len(body)
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() != "transfer-encoding":
                        self.send_header(name, value)
                self.end_headers()
                started, passed = time.monotonic(), 0
                while data := answer.read(1 << 16 if rate else 1 << 20):
                    with lock:
                        proxy.fetched += len(data)
                    try:
                        self.wfile.write(data)
                    except ConnectionError:
                        # The client has enough of it.
                        local.connection.close()
                        self.close_connection = True
                        return
                    passed += len(data)
                    if rate:
                        time.sleep(max(0, started + passed / rate - time.monotonic()))

            do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = "127.0.0.1:%d" % self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Mount:
    """A mount with a cache of its own that survives remounts."""

    def __init__(self, ocifs, source, work):
        self.command, self.source, self.point = ocifs, source, os.path.join(work, "mnt")
        self.environment = dict(os.environ, HOME=work, XDG_CACHE_HOME=work + "/cache", XDG_STATE_HOME=work + "/state",
                                XDG_RUNTIME_DIR=work + "/run", XDG_CONFIG_HOME=work + "/config")
        self.flags = ["--cache-dir", work + "/cache/ocifs", "--state-dir", work + "/state/ocifs"]
        os.makedirs(self.point, exist_ok=True)
        os.makedirs(work + "/run", mode=0o700, exist_ok=True)

    def up(self):
        started = time.monotonic()
        subprocess.run([self.command, "mount", self.source, self.point, *self.flags], check=True, env=self.environment)
        return time.monotonic() - started

    def down(self):
        subprocess.run([self.command, "umount", self.point], check=True, env=self.environment)

    def fresh(self):
        """An empty page cache in front of a warm disk cache."""
        self.down()
        self.up()
        return os.path.join(self.point, "v1")


def daemon_of(point):
    """The daemon is the process whose command line names the mount point."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        if os.fsencode(point) in words and b"mount" in words and b"ocifs" in os.path.basename(words[0]):
            return int(pid)
    sys.exit("no daemon for " + point)


class Sampler(threading.Thread):
    """Reads the memory of a process every 10 ms until it is stopped: `anonymous` is the highest RssAnon, `resident` the
    kernel's own high-water mark (VmHWM, mapped files among it), both in MiB."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.path, self.anonymous, self.resident, self.running = "/proc/%d/status" % pid, 0, 0, True
        self.start()

    def sample(self):
        try:
            with open(self.path, encoding="ascii", errors="replace") as file:
                values = {name: int(rest.split()[0]) / 1024 for name, _, rest in (line.partition(":") for line in file) if name in ("RssAnon", "VmHWM")}
        except (OSError, ValueError):
            return
        self.anonymous = max(self.anonymous, values.get("RssAnon", 0))
        self.resident = max(self.resident, values.get("VmHWM", 0))

    def run(self):
        while self.running:
            self.sample()
            time.sleep(0.01)

    def stop(self):
        """Answers the highest anonymous memory."""
        self.sample()
        self.running = False
        self.join()
        return self.anonymous


def record(benchmark, rows):
    """Appends (name, ours, theirs, ratio, unit) rows to results.tsv; `-` where there is no peer."""
    with open(os.path.join(HERE, "results.tsv"), "a", encoding="ascii") as file:
        today = datetime.date.today().isoformat()
        for row in rows:
            file.write("\t".join([today, benchmark, *row]) + "\n")
