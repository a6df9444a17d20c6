#!/usr/bin/env python3
"""`make abi`: one library does for all minor releases of a major from `minimum` (pgrx-test.toml) on, whatever minor it was built with.

    tests/abi.py --pg 15

With what `make install` makes:
- built with the headers of the newest minor at hand, run on the oldest that is supported (`oldest`): isolation and stress,
  for what regress expects has words that the server has changed since;
- built with the headers of an older one (`older`, where one can be had), run on the newest at hand: regress.
Everything but what is installed lies in target/abi and target/oldest. Ten minutes; not part of `make test`.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys

from lib.cluster import CONFIG, ROOT, TESTS, clean_environment, pg_config
from lib.command import Failed, cargo, run
from lib.oldest import install


def minor(postgres):
    return re.search(r"\d+\.\d+", run([postgres, "--version"]))[0]


def test(major, tests, library, config=None):
    """pytest says what it does itself; its exit status is ours."""
    env = clean_environment() | ({"PROFILE_CACHE_CONFIG": str(config)} if config else {})
    subprocess.run([TESTS / ".venv/bin/pytest", *tests, "--pg", major, "--library", library], cwd=ROOT, env=env, check=True)


def older(major, work):
    """The headers of an older minor: its pg_config."""
    folder = work / "older"
    run([TESTS / "unpack.sh", major, folder, CONFIG["pg"][major]["older"]], log="abi.log")
    found = [path for path in folder.rglob("bin/pg_config") if run([path, "--version"]).startswith(f"PostgreSQL {major}.")]
    return found[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pg", default="15", choices=CONFIG["pg"])
    major = parser.parse_args().pg
    work, ours = ROOT / "target/abi" / major, CONFIG["pg"][major]
    os.umask(0o022)
    subprocess.run([TESTS / "setup.sh", "install", pg_config(major)], check=True)
    newest = minor(pathlib.Path(run([pg_config(major), "--bindir"]).strip()) / "postgres")

    folder = install(major, ROOT / "target/release/libprofile_cache.so")
    config = folder / "pgrx-test.toml"
    config.write_text((ROOT / "pgrx-test.toml").read_text().replace(f'"{ours["pg_config"]}"', f'"{folder / "pg_config"}"'))
    if minor(folder / "bin/postgres") != ours["minimum"]:
        raise Failed(f"{ours['oldest']} is {minor(folder / 'bin/postgres')}, not {ours['minimum']}")
    print(f"abi: built with the headers of {newest}, run on {ours['minimum']}", flush=True)
    test(major, ["tests/isolation", "tests/stress", "--seconds", "30"], folder / "lib/postgresql", config)

    if "older" not in ours:
        print(f"abi: no headers of {major} older than those of {newest} are at hand")
        return
    headers = older(major, work)
    print(f"abi: built with the headers of {minor(headers)}, run on {newest} (compiling takes minutes)", flush=True)
    target = ROOT / "target/abi/build"
    cargo(major, "build", "--locked", "--release", "--target-dir", target, env={"PGRX_PG_CONFIG_PATH": str(headers)}, log="abi.log")
    library = work / "lib"
    library.mkdir(exist_ok=True)
    shutil.copy(target / "release/libprofile_cache.so", library / "profile_cache.so")
    test(major, ["tests/regress"], library)


if __name__ == "__main__":
    try:
        main()
    except (Failed, subprocess.CalledProcessError) as failure:
        sys.exit(str(failure))
