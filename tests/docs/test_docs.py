"""README.md and docs/*.md as a reader would follow them: their SQL in one database, in order, and their commands.

```sql blocks run in psql. One that cannot be run has `<!-- no-test: reason -->` above it.
A ```text block with `<!-- output -->` above it is what the block before it must print.
```sh and ```bash blocks hold `make` targets, `psql` commands (run), `git clone` and `cd`.
"""

import re
import subprocess

import pytest

from lib.cluster import ROOT, TESTS, clean_environment
from lib.command import Failed, run

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


class Block:
    """A fenced block, and what is noted above it."""

    def __init__(self, page, found):
        self.note, self.language, self.body = found["note"] or "", found["language"], found["body"]
        line = found.string.count("\n", 0, found.start("body"))
        self.id = f"{page.stem}-{line}"
        self.where = f"{page.relative_to(ROOT)}, line {line}: {self.body.strip().partition(chr(10))[0]}"
        self.untested = self.note.startswith("no-test")

    def tested(self):
        """Whether it is one to follow; one that is not to be tested must say why."""
        if self.untested:
            return not re.match(r"no-test: *\S", self.note)
        return self.language in ("sql", "sh", "bash") or (self.language == "text" and self.note == "output")


def blocks(page):
    pattern = r"^(?:<!-- *(?P<note>[^\n]*?) *-->\n+)?```(?P<language>\w+)\n(?P<body>.*?)^```$"
    return [Block(page, found) for found in re.finditer(pattern, page.read_text(), re.MULTILINE | re.DOTALL)]


BLOCKS = [block for page in PAGES for block in blocks(page) if block.tested()]


class Reader:
    """Follows the pages. Whoever is asked for a block in the middle does first what comes before it."""

    def __init__(self, server):
        self.server, self.printed, self.failures = server, None, []
        server.fresh("docs", "docs")

    def read(self, index):
        for block in BLOCKS[len(self.failures) : index + 1]:
            try:
                self.follow(block)
                self.failures.append(None)
            except Failed as failure:
                self.failures.append(Failed(f"{block.where}\n{failure}"))
        if self.failures[index]:
            raise self.failures[index]

    def follow(self, block):
        if block.untested:
            raise Failed("say why: <!-- no-test: reason -->")
        if block.language == "sql":
            done = self.server.psql("docs", "-f", "-", input=block.body, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.printed = done.stdout
            if done.returncode:
                raise Failed(done.stdout)
        elif block.language in ("sh", "bash"):
            self.printed = "".join(readme_command(self.server, line) for line in block.body.replace("\\\n", " ").splitlines())
        else:
            got, wanted = ([line.rstrip() for line in (s or "").strip().splitlines()] for s in (self.printed, block.body))
            if got != wanted:
                raise Failed("\n".join(["it says:", *wanted, "it is:", *got]))


@pytest.fixture(scope="module")
def reader(server):
    return Reader(server)


@pytest.mark.parametrize("index", range(len(BLOCKS)), ids=[block.id for block in BLOCKS])
def test_block(reader, index):
    reader.read(index)


def test_on_call_table():
    """Each state in the table for whoever is on call is one that regress/on_call has been in."""
    text = "\n".join(page.read_text() for page in PAGES)
    section = re.search(r"^#+ On call$(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)[1]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| ")][2:]
    seen = (TESTS / "regress" / "expected" / "on_call.out").read_text()
    for row in rows:
        said = [part.strip(" ;") for quoted in re.findall("`([^`]*)`", row[1]) for part in quoted.split("…")]
        if not any(said):
            raise Failed(f"no words of status: {row}")
        for words in filter(None, said):
            if words not in seen:
                raise Failed(f"not in regress/on_call: {words}")
    if len(rows) < 20:
        raise Failed(f"{len(rows)} rows")


def readme_command(server, line):
    """Runs one line of a shell block, or makes sure that it could run; returns what it printed."""
    command = line.split("#")[0].strip().removeprefix("$ ")
    word = command.split(" ")[0]
    if word == "make":
        # `make test` is this run, and began with `make install`; others must exist, and the demo is run small.
        run(["make", "-n", *command.replace("…", "").split()[1:]])
        if command == "make demo":
            run(["make", "demo"], log="demo.log", env=clean_environment() | {"DEMO_USERS": "2000"})
    elif word == "psql":
        return run(["bash", "-euo", "pipefail", "-c", command], env=server.env | {"PGDATABASE": "docs"})
    elif command and not re.match(r"(git clone|cd) ", command):
        raise Failed(f"cannot test `{command}`: put <!-- no-test: reason --> above the block")
    return ""
