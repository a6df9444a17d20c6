"""Format, clippy, whether mutants find what they take out, and what SQL scripts of an extension must mind."""

import hashlib
import sys
import tomllib

import pytest

from lib.cluster import ROOT, TESTS, VERSION
from lib.command import Failed, cargo, run

SCRIPTS = sorted((ROOT / "sql").glob("*.sql"))
BIN = TESTS / ".venv/bin"


def test_fmt():
    run(["cargo", "fmt", "--check"])


def test_clippy(pytestconfig):
    cargo(pytestconfig.getoption("--pg"), "clippy", "--all-targets", "--", "-D", "warnings")


def test_mutants():
    """Each mutant finds its text once, and its tests: a guard that has moved out of its sight is not tested any more."""
    run([sys.executable, TESTS / "mutants.py", "--check"])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_pgspot(script):
    # refresh() commits, so it can have no SET clause: every name in it is qualified instead. pgspot sees to names,
    # operators and casts; it does not look at declared types, which a type in pg_temp could stand for.
    run([BIN / "pgspot", "--proc-without-search-path", "profile_cache.refresh(batch_size integer)", script])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_declared_types(script):
    run([sys.executable, TESTS / "lint/declared_types.py", script])


def test_released():
    """Scripts of released versions are what they were; the version to come can be reached from the newest of them."""
    released = tomllib.loads((TESTS / "released.toml").read_text())
    for version in released.values():
        for name, digest in version["scripts"].items():
            if hashlib.sha256((ROOT / "sql" / name).read_bytes()).hexdigest() != digest:
                raise Failed(f"sql/{name} belongs to a released version, and has changed")
    known = {name for version in released.values() for name in version["scripts"]}
    wanted = known if VERSION in released else known | {f"profile_cache--{list(released)[-1]}--{VERSION}.sql"}
    found = {path.name for path in SCRIPTS if "--" in path.name}
    if found != wanted:
        raise Failed(f"sql/ has {sorted(found)}, and should have {sorted(wanted)}")


def test_rustdoc(pytestconfig):
    """The rooms' pages are part of it: every link in them leads somewhere."""
    cargo(pytestconfig.getoption("--pg"), "doc", "--no-deps", "--document-private-items", env={"RUSTDOCFLAGS": "-D warnings"})


def test_house():
    """Rooms in one direction, no circle, sizes, what is pure, where unsafe is."""
    run([sys.executable, TESTS / "lint/house.py"])


def test_rules():
    """Each rule of the protocol has its argument, a function, a test and a mutant, and all that is named is there."""
    run([sys.executable, TESTS / "lint/rules.py"])


def test_meta():
    """META.json is what PGXN takes, and says what Cargo.toml and the control file say."""
    run([sys.executable, TESTS / "lint/meta.py"])
