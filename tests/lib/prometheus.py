"""A private Prometheus, and its exporter for PostgreSQL beside it: on ports of the loopback that were free, gone with the
process that made them.

    with Exporter(folder, dsn, queries) as exporter, Prometheus(folder, exporter.address, rules) as prometheus:
        prometheus.query("up")
"""

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

# Each second: Prometheus looks for new samples, and at the rules.
CONFIG = """global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - {{job_name: profile_cache, static_configs: [{{targets: ["{target}"]}}]}}
"""


def free_address():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{s.getsockname()[1]}"


class Service:
    """A program that listens on a port, from start() to stop()."""

    def __init__(self, folder, name, command, ready, **env):
        self.address = free_address()
        self.command = ["setpriv", "--pdeathsig", "KILL", *command, f"--web.listen-address={self.address}"]
        self.log, self.env, self.ready, self.process = folder / f"{name}.log", env or None, ready, None

    def start(self):
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while True:
            try:
                return self.get(self.ready)
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError(f"{self.command[3]} does not answer:\n{self.log.read_text()[-3000:]}") from None
                time.sleep(0.1)

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def get(self, path):
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=10) as answer:
            return answer.read().decode()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()


class Exporter(Service):
    """Only with the queries of that file, not with its own."""

    def __init__(self, folder, dsn, queries):
        own = ["--disable-default-metrics", "--disable-settings-metrics"]
        super().__init__(folder, "exporter", ["prometheus-postgres-exporter", *own, f"--extend.query-path={queries}"], "/metrics", DATA_SOURCE_NAME=dsn)


class Prometheus(Service):
    def __init__(self, folder, target, rules):
        config = folder / "prometheus.yml"
        config.write_text(CONFIG.format(rules=rules, target=target))
        super().__init__(folder, "prometheus", ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'prometheus'}"], "/-/ready")

    def ask(self, path, **parameters):
        try:
            return json.loads(self.get(f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))["data"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{parameters}: {error.read().decode()}") from error

    def query(self, expression):
        """The samples of now: a list of labels and value."""
        return [(r["metric"], float(r["value"][1])) for r in self.ask("query", query=expression)["result"]]

    def range(self, expression, start, end):
        """The samples of each second between two times: a list of labels and pairs of time and value."""
        found = self.ask("query_range", query=expression, start=start, end=end, step=1)["result"]
        return [(r["metric"], [(t, float(v)) for t, v in r["values"]]) for r in found]

    def alerts(self):
        """The names of those that fire, and what they are of."""
        return {a["labels"]["alertname"]: a["labels"] for a in self.ask("alerts")["alerts"] if a["state"] == "firing"}
