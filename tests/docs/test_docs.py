"""README.md and the pages under docs/ as a reader would follow them: their SQL, in order, and their commands.

```sql blocks run in psql. One that cannot be run has `<!-- no-test: reason -->` above it.
A ```text block with `<!-- output -->` above it is what the block before it must print.
```sh and ```bash blocks hold `make` targets, `psql` commands (run), `git clone` and `cd`; ```crontab such a psql, for a database app.
README.md begins with the app's tables (setup.sql); each other page in a copy of the database that README.md leaves behind.
"""

import re
import subprocess

import pytest

from lib.cluster import ROOT, TESTS, clean_environment
from lib.command import Failed, run

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
LINKING = [*PAGES, *sorted(path for path in ROOT.glob("*.md") if path != README)]


def name(page):
    return str(page.relative_to(ROOT))


class Block:
    """A fenced block, and what is noted above it."""

    def __init__(self, page, found):
        self.page, self.note, self.language, self.body = page, found["note"] or "", found["language"], found["body"]
        line = found.string.count("\n", 0, found.start("body"))
        self.id = f"{page.stem}-{line}"
        self.where = f"{name(page)}, line {line}: {self.body.strip().partition(chr(10))[0]}"
        self.untested = self.note.startswith("no-test")

    def tested(self):
        """Whether it is one to follow; one that is not to be tested must say why."""
        if self.untested:
            return not re.match(r"no-test: *\S", self.note)
        return self.language in ("sql", "sh", "bash", "crontab") or (self.language == "text" and self.note == "output")


def blocks(page):
    pattern = r"^(?:<!-- *(?P<note>[^\n]*?) *-->\n+)?```(?P<language>\w+)\n(?P<body>.*?)^```$"
    return [Block(page, found) for found in re.finditer(pattern, page.read_text(), re.MULTILINE | re.DOTALL)]


BLOCKS = [block for page in PAGES for block in blocks(page) if block.tested()]


class Reader:
    """Follows the pages. Whoever is asked for a block in the middle does first what comes before it."""

    def __init__(self, server):
        self.server, self.page, self.database, self.printed, self.failures = server, None, None, None, []

    def read(self, index):
        for block in BLOCKS[len(self.failures) : index + 1]:
            if block.page != self.page:
                self.turn_to(block.page)
            try:
                self.follow(block)
                self.failures.append(None)
            except Failed as failure:
                self.failures.append(Failed(f"{block.where}\n{failure}"))
        if self.failures[index]:
            raise self.failures[index]

    def turn_to(self, page):
        self.page, self.printed = page, None
        if page == README:
            self.database = "docs"
            self.server.fresh("docs", "docs")
        else:
            self.database = f"docs_{page.stem}"
            self.server.create(self.database, template="docs")

    def follow(self, block):
        body = block.body
        if block.untested:
            raise Failed("say why: <!-- no-test: reason -->")
        if block.language == "crontab":
            body = re.sub(r"^(\S+ +){5}", "", body, flags=re.MULTILINE).replace(" -d app ", f" -d {self.database} ")
        if block.language == "sql":
            done = self.server.psql(self.database, "-f", "-", input=body, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.printed = done.stdout
            if done.returncode:
                raise Failed(done.stdout)
        elif block.language == "text":
            got, wanted = ([line.rstrip() for line in (s or "").strip().splitlines()] for s in (self.printed, body))
            if got != wanted:
                raise Failed("\n".join(["it says:", *wanted, "it is:", *got]))
        else:
            self.printed = "".join(readme_command(self.server, line, self.database) for line in body.replace("\\\n", " ").splitlines())


@pytest.fixture(scope="module")
def reader(server):
    return Reader(server)


@pytest.mark.parametrize("index", range(len(BLOCKS)), ids=[block.id for block in BLOCKS])
def test_block(reader, index):
    reader.read(index)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_nothing_overlooked(page):
    if len(re.findall(r"^[ >]*```", page.read_text(), re.MULTILINE)) != 2 * len(blocks(page)):
        raise Failed("a block is indented, or has no language: nobody would run it")


def without_blocks(path):
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", LINKING, ids=name)
def test_links(page):
    """Every relative link of a page leads to a file that is there, and to a heading that it has."""
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page)):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.exists():
            raise Failed(f"{target}: no such file")
        if anchor and anchor not in anchors(path):
            raise Failed(f"{target}: no such heading")


def anchors(path):
    """What GitHub makes of a page's headings."""
    found = {}
    for heading in re.findall(r"^#+ +(.*?) *$", without_blocks(path), re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found[anchor] = found.get(anchor, -1) + 1
        if found[anchor]:
            found[f"{anchor}-{found[anchor]}"] = 0
    return found


def test_index():
    """README.md links to every page."""
    for page in PAGES[1:]:
        if f"]({name(page)})" not in without_blocks(README):
            raise Failed(f"not {name(page)}")


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


def test_health_checks():
    """Each check of health() has its section, in their order, and each state that it names is one that a test has been in."""
    text = "\n".join(page.read_text() for page in PAGES)
    sections = re.findall(r"^### Check: (\w+)$(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    seen = (TESTS / "regress" / "expected" / "health.out").read_text()
    order = next(line for line in seen.splitlines() if line.startswith("versions attachment "))
    if [check for check, _ in sections] != order.split():
        raise Failed(f"sections of {[check for check, _ in sections]}")
    seen += "".join((TESTS / "servers" / f"test_{name}.py").read_text().replace("\\", "") for name in ("health", "worker"))
    said = [words for _, section in sections for item in re.findall(r"^- (.*?): ", section.replace("\n  ", " "), re.MULTILINE) for words in re.findall("`([^`]*)`", item)]
    for words in said:
        for part in filter(None, (part.strip() for part in words.split("…"))):
            if part not in seen:
                raise Failed(f"neither in regress/health nor in a test of servers: {part}")
    if len(said) < 20:
        raise Failed(f"{len(said)} states")


def readme_command(server, line, database):
    """Runs one line of a shell block, or makes sure that it could run; returns what it printed."""
    command = line.split("#")[0].strip().removeprefix("$ ")
    word = command.split(" ")[0]
    if word == "make":
        # `make test` is this run, and began with `make install`; others must exist, and the demo is run small.
        run(["make", "-n", *command.replace("…", "").split()[1:]])
        if command == "make demo":
            run(["make", "demo"], log="demo.log", env=clean_environment() | {"DEMO_USERS": "2000"})
    elif word == "psql":
        return run(["bash", "-euo", "pipefail", "-c", command], env=server.env | {"PGDATABASE": database})
    elif command and not re.match(r"(git clone|cd) ", command):
        raise Failed(f"cannot test `{command}`: put <!-- no-test: reason --> above the block")
    return ""
