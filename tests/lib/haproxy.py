"""A private HAProxy before servers on loopback, gone with the process that made it.

    with HAProxy(folder, sections) as haproxy:
        haproxy.up("writes")       the names of the servers that it sends connections of this listener to
"""

import csv
import io
import socket
import subprocess
import time

GLOBAL = """global
    maxconn 200
    stats socket {socket} mode 600 level user

"""


def free_ports(n):
    """Ports of loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


class HAProxy:
    PROGRAM = "/usr/sbin/haproxy"

    def __init__(self, folder, sections):
        """sections: what comes after `global` in its configuration."""
        self.socket, self.config, self.log = folder / "haproxy.sock", folder / "haproxy.cfg", folder / "haproxy.log"
        self.config.write_text(GLOBAL.format(socket=self.socket) + sections)

    def __enter__(self):
        checked = subprocess.run([self.PROGRAM, "-c", "-f", self.config], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if checked.returncode or "WARNING" in checked.stdout:
            raise RuntimeError(f"haproxy does not like its configuration:\n{checked.stdout}")
        with self.log.open("w") as log:
            command = ["setpriv", "--pdeathsig", "TERM", self.PROGRAM, "-db", "-f", self.config]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while not self.socket.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"haproxy does not answer:\n{self.log.read_text()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def up(self, listener):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(self.socket))
            client.sendall(b"show stat\n")
            with client.makefile() as answer:
                rows = list(csv.DictReader(io.StringIO(answer.read().removeprefix("# "))))
        return {row["svname"] for row in rows if row["pxname"] == listener and row["svname"] not in ("FRONTEND", "BACKEND") and row["status"].startswith("UP")}

    def wait_for(self, listener, *names):
        deadline = time.monotonic() + 30
        while (up := self.up(listener)) != set(names):
            if time.monotonic() > deadline:
                raise RuntimeError(f"haproxy, {listener}: up are {sorted(up)}, expected {sorted(names)}\n{self.log.read_text()}")
            time.sleep(0.05)
