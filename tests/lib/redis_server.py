"""A private Redis for the tests: on a unix socket, nothing kept on disk, gone with the process that made it.

    with Redis(folder) as redis:
        os.environ["REDIS_URL"] = redis.url
"""

import pathlib
import subprocess
import time


class Redis:
    def __init__(self, folder):
        self.socket, self.log = pathlib.Path(folder) / "redis.sock", pathlib.Path(folder) / "redis.log"
        self.url = f"unix://{self.socket}?db=0"

    def __enter__(self):
        command = ["setpriv", "--pdeathsig", "KILL", "redis-server", "--port", "0", "--unixsocket", self.socket]
        with self.log.open("w") as log:
            command += ["--save", "", "--appendonly", "no"]
            self.server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 10
        while not self.answers():
            if self.server.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"redis-server does not answer:\n{self.log.read_text()}")
            time.sleep(0.05)
        return self

    def answers(self):
        done = subprocess.run(["redis-cli", "-s", str(self.socket), "ping"], capture_output=True, text=True)
        return done.stdout.strip() == "PONG"

    def __exit__(self, *_):
        self.server.terminate()
        self.server.wait()
