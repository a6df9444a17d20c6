"""The Django app in this folder: its commands, then its tests by Django's own runner, as a role that is no superuser."""

import contextlib
import secrets
import subprocess

import pytest

from lib import django_runner
from lib.cluster import OUTPUT, TESTS
from lib.command import Failed, run
from lib.filled import expect
from lib.pgbouncer import pgbouncer
from lib.redis_server import Redis

FOLDER = TESTS / "app"
MANAGE = [FOLDER / ".venv/bin/python", "manage.py"]
FILES = [path.stem for path in sorted(FOLDER.glob("accounts/tests/test_*.py"))]


@pytest.fixture(scope="module")
def env(server, pytestconfig):
    """The environment of the app's processes: PostgreSQL, PgBouncer and Redis."""
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        subprocess.run([TESTS / "setup.sh", "app"], check=True)
    # The owner's name needs quotes, and what it is without them is another's.
    server.sql("postgres", 'CREATE ROLE authenticated; CREATE ROLE anon; CREATE ROLE app; CREATE ROLE "App" LOGIN CREATEDB IN ROLE authenticated, anon')
    # As on Supabase, where whatever is new is open to both; template1, for the database that Django makes for its tests.
    for kind in ("TABLES", "SEQUENCES", "FUNCTIONS"):
        server.sql("template1", f'ALTER DEFAULT PRIVILEGES FOR ROLE "App" IN SCHEMA public GRANT ALL ON {kind} TO authenticated, anon')
    server.sql("postgres", 'CREATE DATABASE app OWNER "App"')
    # Fewer connections than users who ask at once, so that they take turns on one.
    with Redis(server.dir) as redis, pgbouncer(server, size=2, user="App") as pooled:
        yield server.env | server.commands() | {
            "PGUSER": "App", "PGDATABASE": "app", "REDIS_URL": redis.url, "PYTHONDONTWRITEBYTECODE": "1",
            "POOLED_PORT": pooled["PGPORT"], "HYPOTHESIS_STORAGE_DIRECTORY": str(OUTPUT / "hypothesis"), "SCREENSHOTS": str(OUTPUT),
            "DJANGO_SECRET_KEY": secrets.token_hex(32), "SUPABASE_JWT_SECRET": secrets.token_hex(32),
        }  # fmt: skip


@pytest.mark.parametrize("command", ["makemigrations --check", "migrate", "profile_cache_refresh", "migrate accounts zero"])
def test_manage(env, command):
    run([*MANAGE, *command.split()], cwd=FOLDER, env=env)


def test_pool(server, env):
    """What docs/operations/pgbouncer.md says of transaction mode: a refresh goes through it, SET LOCAL ends with the transaction, and
    DISCARD ALL takes nothing away."""
    server.sql("postgres", 'CREATE DATABASE pooled OWNER "App"')
    pooled = env | {"PGPORT": env["POOLED_PORT"], "PGDATABASE": "pooled"}

    def psql(*arguments):
        return run([server.bindir / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", *arguments], env=pooled).strip()

    for file in ("tables.sql", "data.sql"):
        psql("-v", "users=300", "-f", TESTS / "demo" / file)
    psql("-c", "CREATE EXTENSION profile_cache", "-c", "SELECT profile_cache.attach()", "-c", "CALL profile_cache.refresh()")
    expect("stale", psql("-c", "SELECT stale FROM profile_cache.status"), 0)
    why = "SELECT profile_cache.explain(supabase_user_id) ->> 'reason' FROM user_profile WHERE id = 7"
    off = psql("-c", "BEGIN", "-c", "SET LOCAL profile_cache.enabled = off", "-c", why, "-c", "COMMIT")
    expect("off in one transaction", off, "disabled")
    expect("and in no other", psql("-c", why, "-c", "DISCARD ALL", "-c", why), "fresh\nfresh")


@pytest.fixture(scope="module")
def django(env, request):
    """What Django's runner prints for all files that are asked for, run in one go."""
    files = [item.callspec.params["file"] for item in request.session.items if item.path == request.path and "file" in item.fixturenames]
    command = [*MANAGE, "test", "--noinput", "--verbosity", "2", *(f"accounts.tests.{file}" for file in files)]
    with contextlib.suppress(Failed):  # what failed is in what it prints
        run(command, log="app.log", cwd=FOLDER, env=env)
    return (OUTPUT / "app.log").read_text()


@pytest.mark.parametrize("file", FILES)
def test_django(django, say, file):
    say(f"{django_runner.passed(django, f'accounts.tests.{file}')} tests")


def test_django_as_a_whole(django, say):
    """Django's runner is content, too, and has left nothing out."""
    say(django_runner.content(django), margin="")
