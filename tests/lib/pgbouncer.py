"""A private PgBouncer before a private server (cluster.py), in transaction mode: a client has one of the server's few
connections for a transaction only. On a unix socket in the server's folder, gone with the process that made it.

    with pgbouncer(server, size=8) as environment:
        subprocess.run(command, env=server.env | environment)
"""

import contextlib
import subprocess
import time

PORT = 6432
CONFIG = """[databases]
* = host={server.dir} port={server.port} user={user}
[pgbouncer]
listen_addr =
listen_port = {PORT}
unix_socket_dir = {server.dir}
auth_type = any
pool_mode = transaction
default_pool_size = {size}
log_connections = 0
log_disconnections = 0
log_stats = 0
"""


@contextlib.contextmanager
def pgbouncer(server, size, user="app"):
    config, log = server.dir / "pgbouncer.ini", server.dir / "pgbouncer.log"
    config.write_text(CONFIG.format(server=server, user=user, size=size, PORT=PORT))
    with log.open("w") as file:
        command = ["setpriv", "--pdeathsig", "TERM", *server.server_command("/usr/sbin/pgbouncer", "-q", config)]
        process = subprocess.Popen(command, cwd=server.dir, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 10
        while not (server.dir / f".s.PGSQL.{PORT}").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"pgbouncer does not answer:\n{log.read_text()}")
            time.sleep(0.05)
        yield {"PGPORT": str(PORT), "PGBOUNCER": "on"}
    finally:
        process.terminate()
        process.wait()
