"""The oldest supported minor release of a major, beside the newest at hand: laid out once, under target/oldest/MAJOR."""

import pathlib
import shlex
import shutil

from lib.cluster import CONFIG, ROOT, pg_config
from lib.command import run

# Asks for a server that is laid out here; all else is as the newest minor has it.
PG_CONFIG = """#!/bin/sh
case $1 in
--bindir) echo {folder}/bin ;;
--pkglibdir) echo {folder}/lib/postgresql ;;
--sharedir) echo {folder}/share/postgresql ;;
*) exec {newest} "$@" ;;
esac
"""


def oldest(major):
    """Its folder. From npm: postgres, its libraries and contrib. The newest one's clients do for it."""
    folder, newest, source = ROOT / "target/oldest" / major, pg_config(major), CONFIG["pg"][major]["oldest"]
    done, made = folder / "unpacked", f"{folder} {source} {newest}"
    if done.exists() and done.read_text() == made:
        return folder
    run(["tests/setup.sh", "abi"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    package = run(["npm", "pack", "--silent", source.removeprefix("npm:")], cwd=folder).split()[-1]
    run(["tar", "-x", "--strip-components=2", "-f", package, "package/native"], cwd=folder)
    run(["/sbin/ldconfig", "-n", folder / "lib"])  # links by which libraries are found; npm has none in its packages
    for program in pathlib.Path(run([newest, "--bindir"]).strip()).iterdir():
        if not (folder / "bin" / program.name).exists():
            (folder / "bin" / program.name).symlink_to(program)
    asked = folder / "pg_config"
    asked.write_text(PG_CONFIG.format(folder=shlex.quote(str(folder)), newest=shlex.quote(newest)))
    asked.chmod(0o755)
    run(["chmod", "-R", "a+rX", folder])
    done.write_text(made)
    return folder


def install(major, library):
    """Puts the extension there, with a library that has been built for that major."""
    folder = oldest(major)
    extension = folder / "share/postgresql/extension"
    run(["env", f"LIBRARY={library}", ROOT / "packaging/files.sh", folder / "lib/postgresql", extension])
    return folder
