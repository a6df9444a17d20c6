"""A server of the app for tests that need one: uvicorn, on a port of its own, with the test's database."""

import os
import pathlib
import socket
import subprocess
import sys
import time

from django.db import connection

from accounts.tests.support import AppTestCase, end_other_connections, sql

APP = pathlib.Path(__file__).resolve().parents[2]
UVICORN = ["uvicorn", "backend.asgi:application", "--log-level=warning", "--ws-max-size=16384", "--timeout-graceful-shutdown=1"]


class LiveTestCase(AppTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        connection.close()  # what the migrations set for the database holds from the next connection on
        cls.listening = socket.create_server(("127.0.0.1", 0))  # who connects waits in it until a server is there
        cls.addClassCleanup(cls.listening.close)
        cls.address = f"127.0.0.1:{cls.listening.getsockname()[1]}"
        cls.start()
        cls.addClassCleanup(end_other_connections)
        cls.addClassCleanup(cls.stop)

    @classmethod
    def start(cls):
        cls.server = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", *UVICORN, f"--fd={cls.listening.fileno()}"],
            cwd=APP, pass_fds=[cls.listening.fileno()], env=os.environ | cls.environment(),
        )  # fmt: skip

    @classmethod
    def environment(cls):
        """The server's, beside that of the tests."""
        return {"PGDATABASE": connection.settings_dict["NAME"]}

    @classmethod
    def through_pgbouncer(cls):
        """For environment(): the database through PgBouncer, but for what needs a session of its own."""
        name = connection.settings_dict["NAME"]
        return {"PGPORT": os.environ["POOLED_PORT"], "PGBOUNCER": "on", "PGAPPNAME": "pooled", "LISTEN_TO": f"dbname={name} port={os.environ['PGPORT']}"}

    def wait_until_listening(self):
        """Until notifications reach the server."""
        deadline = time.monotonic() + 20
        heartbeat = "(application_name, state) = ('django_profile_cache listener', 'idle') AND query ~ '^SELECT pg_notify'"
        while not sql(f"SELECT 1 FROM pg_stat_activity WHERE {heartbeat}"):
            self.assertLess(time.monotonic(), deadline)

    @classmethod
    def stop(cls):
        cls.server.terminate()
        cls.server.wait()
