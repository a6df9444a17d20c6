"""The package of `make package`, and the layout of the images of packaging/Dockerfile, as somebody would use them who
has only a Debian with PostgreSQL: lintian finds nothing, apt installs it, the extension works, and nothing is left of it
when it is removed. The Debian is target/root/MAJOR.tar (tests/setup.sh package-root), unpacked anew for each test.
"""

import contextlib
import os
import pathlib
import re
import tempfile

import pytest

from lib.cluster import ROOT, TESTS, VERSION, pg_config
from lib.command import Failed, run

AS_ROOT = [] if os.geteuid() == 0 else ["sudo"]

# What makes a read worth trusting: it is the right document, and it came from the cache.
USE = """
CREATE EXTENSION profile_cache;
CREATE TABLE user_profile (id int PRIMARY KEY, supabase_user_id uuid NOT NULL UNIQUE, email text);
INSERT INTO user_profile VALUES (1, 'a3f1c9d2-5b7e-4c68-9f04-2d8e61b7c0a5', 'ada@example.com');
SELECT profile_cache.attach();
CALL profile_cache.refresh();
UPDATE user_profile SET email = 'ada@example.org';
SELECT extversion, get_profile(supabase_user_id) ->> 'email', profile_cache.explain(supabase_user_id) ->> 'served_from'
FROM user_profile, pg_extension WHERE extname = 'profile_cache';
"""


class Debian:
    """A Debian of its own in a folder, for as long as a `with` lasts. Its server is reached from inside only."""

    ENV = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]

    def __init__(self, major):
        self.major, self.bindir = major, f"/usr/lib/postgresql/{major}/bin"

    def __enter__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="profile_cache_root_", dir="/tmp"))
        self.dir.chmod(0o755)
        self.root("tar", "-x", "-C", self.dir, "-f", ROOT / f"target/root/{self.major}.tar")
        return self

    def __exit__(self, *_):
        self.root("rm", "-rf", self.dir)

    def root(self, *command):
        """A command on the machine, as root."""
        return run([*AS_ROOT, *command])

    def run(self, *command, user="root"):
        """A command inside."""
        return self.root("chroot", f"--userspec={user}", self.dir, *self.ENV, *command)

    def apt(self, *command):
        return self.run("apt-get", "-y", "-o", "Dpkg::Use-Pty=0", *command)

    def put(self, *files, into):
        self.root("mkdir", "-p", self.dir / into)
        self.root("cp", *files, self.dir / into)

    @contextlib.contextmanager
    def server(self, **settings):
        """A server, for as long as a `with` lasts: what runs SQL there, each statement in a transaction of its own."""
        settings = {"listen_addresses": "", "unix_socket_directories": "/tmp", "fsync": "off"} | settings
        self.run(f"{self.bindir}/initdb", "-D", "/tmp/data", "-A", "trust", "-E", "UTF8", "--no-sync", user="postgres")
        control = [f"{self.bindir}/pg_ctl", "-D", "/tmp/data", "-w"]
        options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
        psql = [f"{self.bindir}/psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-h", "/tmp", "-c", "SET client_min_messages = warning"]
        self.run(*control, "start", "-l", "/tmp/log", "-o", options, user="postgres")
        try:
            yield lambda *statements: self.run(*psql, *(arg for statement in statements for arg in ("-c", statement)), user="postgres").strip()
        finally:
            self.run(*control, "stop", "-m", "fast", user="postgres")
            self.root("rm", "-r", self.dir / "tmp/data", self.dir / "tmp/log")

    def files(self):
        """All files but what apt and dpkg write down of each thing that they do."""
        logs = [arg for folder in ("proc", "tmp", "var/cache", "var/lib/dpkg", "var/lib/apt", "var/log") for arg in ("-path", f"./{folder}/*", "-o")]
        return set(self.root("sh", "-c", 'cd "$0" && find . "$@"', self.dir, "(", *logs, "-false", ")", "-prune", "-o", "-print").splitlines())


def use(sql):
    """Uses the extension as an app would."""
    said = sql(*(statement for statement in USE.split(";\n") if statement.strip()))
    if said != f"{VERSION}|ada@example.org|cache":
        raise Failed(f"it says: {said}")


def debian_version():
    """Before its release, a version sorts below it."""
    unreleased = f"\n## {VERSION} - unreleased\n" in (ROOT / "CHANGELOG.md").read_text()
    return VERSION + ("~dev" if unreleased else "")


@pytest.fixture(scope="module")
def major(pytestconfig):
    return pytestconfig.getoption("--pg")


@pytest.fixture(scope="module")
def root(major):
    """What a Debian is unpacked from."""
    run([TESTS / "setup.sh", "package-root", major])


@pytest.fixture(scope="module")
def package(major, root):
    """What `make package` makes; what is in target/package of other versions is no matter."""
    run([TESTS / "setup.sh", "package", major])
    (made,) = (ROOT / "target/package").glob(f"postgresql-{major}-profile-cache_{debian_version()}_*.deb")
    return made


def test_lintian(package):
    run(["lintian", "--allow-root", "--fail-on", "error,warning", package])


def test_scripts(package):
    """Each script of sql/ is in it: the install script under its version's name, upgrades as they are."""
    listed = run(["dpkg-deb", "--contents", package])
    upgrades = [path.name for path in (ROOT / "sql").glob("profile_cache--*.sql")]
    if missing := [name for name in (f"profile_cache--{VERSION}.sql", *upgrades) if f"/extension/{name}\n" not in listed]:
        raise Failed(f"not in {package.name}: {', '.join(missing)}")


def test_install_use_remove(major, package, say):
    """apt installs it, which needs nothing but what the server brought; it works; purged, it leaves no file behind. Who has
    not dropped the extension before still can, and until then no DDL works, as docs/packages.md says."""
    with Debian(major) as debian:
        before = debian.files()
        debian.put(package, into="tmp")
        debian.apt("install", f"/tmp/{package.name}")
        with debian.server() as sql:
            use(sql)
            debian.apt("purge", package.name.partition("_")[0])
            with pytest.raises(Failed, match='could not access file "profile_cache"'):
                sql("CREATE TEMP TABLE scratch (id int)")
            sql("DROP EXTENSION profile_cache CASCADE", "CREATE TEMP TABLE scratch (id int)", "UPDATE user_profile SET email = NULL")
        after = debian.files()
        if after != before:
            raise Failed("\n".join(["left behind, or gone:", *sorted(after ^ before)]))
        say(debian.run(f"{debian.bindir}/postgres", "--version"))


def test_extension_volume(major, root, install, pytestconfig):
    """The image for CloudNativePG: lib and share/extension, mounted read-only anywhere. With the library that other tests
    have: a release would take minutes to build, and it is the layout that is tested."""
    install(major)
    library = pytestconfig.getoption("--library") or run([pg_config(major), "--pkglibdir"]).strip()
    with Debian(major) as debian, tempfile.TemporaryDirectory(prefix="profile_cache_image_") as image:
        (folders,) = re.findall(r"packaging/files\.sh /image(/\S+) /image(/\S+)", (ROOT / "packaging/Dockerfile").read_text())
        run(["env", f"LIBRARY={library}/profile_cache.so", ROOT / "packaging/files.sh", *(image + folder for folder in folders)])
        there = "extensions/profile_cache"
        debian.root("mkdir", "-p", debian.dir / there)
        debian.root("cp", "-r", f"{image}/.", debian.dir / there)
        with debian.server(extension_control_path=f"$system:/{there}/share", dynamic_library_path=f"$libdir:/{there}/lib") as sql:
            use(sql)
