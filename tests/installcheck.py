#!/usr/bin/env python3
"""`make installcheck`: the regress and isolation tests against a PostgreSQL that runs already and has the extension
installed, as extensions do. Needs nothing but Python and PostgreSQL's own pg_regress and pg_isolation_regress.

    make install installcheck PG_CONFIG=/usr/lib/postgresql/15/bin/pg_config
    PGHOST=/var/run/postgresql PGUSER=postgres tests/installcheck.py --pg-config pg_config attach readers

The server is the one that PGHOST, PGPORT and PGUSER lead to, as psql finds it. It must be one for tests, since databases
(regress_*, isolation_*) and roles come and go in it, and have
- a superuser for us, who needs no password, through a unix socket in the only folder of unix_socket_directories;
- contrib's btree_gist, citext, dblink, hstore and pg_trgm, ICU, encoding UTF8, and messages in English (lc_messages = C);
- max_prepared_transactions = 20 and max_connections = 60, or more; deadlock_timeout = 100ms; jit = off;
  autovacuum_naptime = 1h; no profile_cache in shared_preload_libraries, and before PostgreSQL 17 therefore
  profile_cache.track = off. Other settings as they come.
pgrx-test.toml has the settings of the server that `make test` starts.
Results are in tests/output.
"""

import argparse
import os
import sys
import time

from lib import pg_regress
from lib.cluster import Server
from lib.command import Failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pg-config", default="pg_config", help="of the PostgreSQL that runs")
    parser.add_argument("names", nargs="*", help="only these tests")
    options = parser.parse_args()
    tests = [(kind, name) for kind in pg_regress.SOURCES for name in pg_regress.tests(kind)]
    if unknown := set(options.names) - {name for _, name in tests}:
        parser.error(f"no such test: {', '.join(sorted(unknown))}")
    server = Server(options.pg_config, dict(os.environ))
    passed = failed = 0
    for kind, name in tests:
        if options.names and name not in options.names:
            continue
        start = time.monotonic()
        try:
            pg_regress.check(server, kind, name)
        except (Failed, RuntimeError) as failure:
            failed += 1
            print(f"FAILED  {kind} {name}\n{failure}", flush=True)
        else:
            passed += 1
            print(f"ok      {kind} {name} ({time.monotonic() - start:.1f} s)", flush=True)
    print(f"installcheck: {passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
