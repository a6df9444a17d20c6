"""CHANGELOG.md (standard input) as a Debian changelog, from the version in Cargo.toml downwards.

    packaging/changelog.py MAINTAINER < CHANGELOG.md

An entry's time is midnight of its date; one that is not released has that of SOURCE_DATE_EPOCH, and the version
VERSION~dev, which the release replaces. The first entry is the package's version: without one for Cargo.toml's,
nothing is printed, and the exit status is 1.
"""

import datetime
import os
import pathlib
import re
import sys
import textwrap
import tomllib
from email.utils import format_datetime


UNRELEASED = "unreleased"


def moment(date):
    """The text after the version in an entry's heading, as a time."""
    if date == UNRELEASED:
        return datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.UTC)
    return datetime.datetime.strptime(f"{date} +0000", "%Y-%m-%d %z")


def items(body):
    """The paragraphs and list items of an entry; headings within it are left out."""
    found, open_item = [], False
    for line in body.splitlines():
        if line.startswith("- ") or line.strip() and not line.startswith("#") and not open_item:
            found.append(line.removeprefix("- "))
            open_item = True
        elif open_item and line.strip() and not line.startswith("#"):
            found[-1] += " " + line.strip()
        else:
            open_item = False
    return found


def entry(version, date, body, maintainer):
    lines = [
        textwrap.fill(item, 78, initial_indent="  * ", subsequent_indent="    ", break_on_hyphens=False) for item in items(body)
    ]
    debian = version + ("~dev" if date == UNRELEASED else "")
    head, foot = f"profile-cache ({debian}) unstable; urgency=medium", f" -- {maintainer}  {format_datetime(moment(date))}"
    return "\n".join([head, "", *lines, "", foot, ""])


current = tomllib.loads((pathlib.Path(__file__).parent.parent / "Cargo.toml").read_text())["package"]["version"]
parts = re.split(r"^## (\S+) - (\S+)$", sys.stdin.read(), flags=re.MULTILINE)[1:]
entries = list(zip(parts[0::3], parts[1::3], parts[2::3], strict=True))
versions = [version for version, _, _ in entries]
if current not in versions:
    sys.exit(f"CHANGELOG.md has no entry for {current}, the version in Cargo.toml")
print("\n".join(entry(*e, sys.argv[1]) for e in entries[versions.index(current) :]), end="")
