"""The Django package in django/: its tests by Django's own runner, as a role that is no superuser, and what is published of it."""

import contextlib
import shutil
import subprocess
import zipfile

import pytest

from lib import django_runner
from lib.cluster import OUTPUT, ROOT, TESTS, VERSION, Cluster
from lib.command import Failed, run

FOLDER = ROOT / "django"
PYTHON = TESTS / "app/.venv/bin/python"
FILES = [path.stem for path in sorted(FOLDER.glob("tests/test_*.py"))]


@pytest.fixture(scope="module")
def django(pytestconfig, install):
    """What Django's runner prints. The server is this part's own: it is restarted, and crashes."""
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        subprocess.run([TESTS / "setup.sh", "django"], check=True)
    major, library = pytestconfig.getoption("--pg"), pytestconfig.getoption("--library")
    install(major)
    with Cluster(major, library) as server:
        server.sql("postgres", "CREATE ROLE app LOGIN CREATEDB; CREATE ROLE stranger; GRANT stranger TO app; GRANT pg_signal_backend TO app")
        env = server.env | server.commands() | {"PGUSER": "app", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [PYTHON, "-m", "django", "test", "--settings", "tests.settings", "--noinput", "--verbosity", "2"]
        with contextlib.suppress(Failed):  # what failed is in what it prints
            run(command, log="django.log", cwd=FOLDER, env=env)
        (OUTPUT / "django-server.log").write_text(server.log())
    return (OUTPUT / "django.log").read_text()


@pytest.mark.parametrize("file", FILES)
def test_django(django, say, file):
    say(f"{django_runner.passed(django, f'tests.{file}')} tests")


def test_django_as_a_whole(django, say):
    """Django's runner is content, too, and has left nothing out."""
    say(django_runner.content(django), margin="")


def test_published(django, tmp_path):
    """The wheel, made from the source archive as an index would: it has every file of the package, and works elsewhere."""
    source = shutil.copytree(FOLDER, tmp_path / "source")  # building leaves files there
    run([PYTHON, "-m", "build", "--no-isolation", "--outdir", tmp_path, source], log="django-build.log")
    (wheel,) = tmp_path.glob("*.whl")
    if f"-{VERSION}-py3-none-any" not in wheel.name:
        raise Failed(f"{wheel.name}, and the extension is {VERSION}")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {str(path.relative_to(FOLDER)) for path in (FOLDER / "django_profile_cache").rglob("*.py")}
    if names != wanted:
        raise Failed(f"only in one of them: {sorted(names ^ wanted)}")
    there = tmp_path / "there"
    run([PYTHON, "-m", "pip", "install", "--no-deps", "--no-index", "--target", there, wheel])
    code = "import sys; sys.path.insert(0, sys.argv[1]); import django_profile_cache.listener as it; assert it.__file__.startswith(sys.argv[1])"
    run([PYTHON, "-c", code, there], cwd=tmp_path)
