#!/usr/bin/env python3
"""Shows that each rule of the protocol has its argument, its function, its test and its mutant.

    tests/lint_rules.py             exits 1 and says what is wrong
    tests/lint_rules.py --todo      says besides which files do not cite a rule yet

A rule is a heading in a README.md under src/ (`#### W3: What cannot be locked becomes a pending key`) and a row of the
table in ARCHITECTURE.md:

    | `W3` | what it says | `document::lock`, `write::commit::name_pending` | `members`, `pending_keys` | `waits-for-row` |

- A heading without a row, or a row without a heading, is wrong.
- A function is named by its module's path and its name. It must be in that module's file.
- A test is a spec, a regress test, or a function of tests/server*. (A file there, or in tests/servers/.)
- A mutant is an entry of tests/mutants/*.toml; one of its tests must be one of the row's. Where it names a rule itself, it is
  this one.
- `-` in a cell: there is none. Then the rule is listed with --todo, and wrong with --strict.
- With --todo: a rule must be cited (`W3`, as a word) in a .rs file of src/, in that of each of its functions, and in the head of
  each of its tests. With --strict all of it must be so.
"""

import pathlib
import re
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
while not (ROOT / "src").is_dir():
    ROOT = ROOT.parent
HEADING = re.compile(r"^#{2,6} ([A-Z]\d+): (\S.*)$", re.M)
ROW = re.compile(r"^\| `([A-Z]\d+)` \|(.*)\|$", re.M)
NAMED = re.compile(r"`([^`]+)`")


def headings(wrong):
    found = {}
    for path in sorted((ROOT / "src").rglob("*.md")):
        for rule, _ in HEADING.findall(path.read_text()):
            if rule in found:
                wrong.append(f"{rule}: a heading of {found[rule]} and of {path.relative_to(ROOT)}")
            found[rule] = path.relative_to(ROOT)
    return found


def table(wrong):
    rows = {}
    for rule, rest in ROW.findall((ROOT / "ARCHITECTURE.md").read_text()):
        cells = [cell.strip() for cell in rest.split(" | ")]
        if rule in rows:
            wrong.append(f"{rule}: two rows in ARCHITECTURE.md")
        if len(cells) != 4 or not cells[0]:
            wrong.append(f"{rule}: its row has not five cells: rule, text, functions, tests, mutants")
            continue
        listed = []
        for cell in cells[1:]:
            names = NAMED.findall(cell)
            if cell != "-" and ", ".join(f"`{name}`" for name in names) != cell:
                wrong.append(f"{rule}: neither names in backticks nor a dash: {cell}")
            listed.append(names)
        rows[rule] = listed
    return rows


def file_of(function):
    """The file that should hold it, whether or not it does; None where there is no such module."""
    module = function.split("::")[:-1]
    places = [ROOT / "src" / ("/".join(module) + ".rs"), ROOT / "src" / "/".join(module) / "mod.rs"]
    return next((place for place in places if place.is_file()), None)


def has_function(path, function):
    return re.search(rf"\bfn {re.escape(function.split('::')[-1])}\b", path.read_text()) is not None


def head_of(test):
    """The comment that a test begins with; None where there is no such test."""
    for path in (ROOT / f"tests/isolation/specs/{test}.spec", ROOT / f"tests/regress/sql/{test}.sql"):
        if path.is_file():
            lines = []
            for line in path.read_text().splitlines():
                if not line.startswith(("#", "--")):
                    break
                lines.append(line)
            return "\n".join(lines)
    for path in sorted([*(ROOT / "tests").glob("server*.py"), *(ROOT / "tests").glob("server*/*.py")]):
        found = re.search(
            rf"(?:^[ \t]*#[^\n]*\n|^@[^\n]*\n)*^(?:async )?def (?:test_)?{re.escape(test)}\(.*?:\n(?:[ \t]+(\"\"\".*?\"\"\"|#[^\n]*\n))?",
            path.read_text(), re.M | re.S,
        )  # fmt: skip
        if found:
            return found[0]
    return None


def mutants():
    found = {}
    for path in sorted((ROOT / "tests" / "mutants").glob("*.toml")):
        found |= tomllib.loads(path.read_text())
    return found


def cites(text, rule):
    return re.search(rf"\b{rule}\b", text) is not None


def main():
    wrong, todo = [], []
    argued, rows, known = headings(wrong), table(wrong), mutants()
    if not rows:
        wrong.append("ARCHITECTURE.md: no table of rules")
    for rule in sorted(argued.keys() - rows.keys()):
        wrong.append(f"{rule}: a heading of {argued[rule]}, but no row in ARCHITECTURE.md")
    for rule in sorted(rows.keys() - argued.keys()):
        wrong.append(f"{rule}: a row in ARCHITECTURE.md, but no heading in a README.md under src/")
    sources = {path: path.read_text() for path in sorted((ROOT / "src").rglob("*.rs"))}
    for rule, (functions, tests, without) in rows.items():
        for what, names in (("function", functions), ("test", tests), ("mutant", without)):
            if not names:
                todo.append(f"{rule}: no {what}")
        for function in functions:
            path = file_of(function)
            if path is None:
                wrong.append(f"{rule}: no module of {function}")
            elif not has_function(path, function):
                wrong.append(f"{rule}: {path.relative_to(ROOT)} has no fn {function.split('::')[-1]}")
            elif not cites(sources[path], rule):
                todo.append(f"{rule}: not cited in {path.relative_to(ROOT)} ({function})")
        if not any(cites(text, rule) for text in sources.values()):
            todo.append(f"{rule}: cited in no .rs file of src/")
        for test in tests:
            head = head_of(test)
            if head is None:
                wrong.append(f"{rule}: no test {test}")
            elif not cites(head, rule):
                todo.append(f"{rule}: not cited in the head of the test {test}")
        for name in without:
            mutant = known.get(name)
            if mutant is None:
                wrong.append(f"{rule}: no mutant {name}")
            elif not set(mutant["tests"]) & set(tests):
                wrong.append(f"{rule}: the mutant {name} is killed by {', '.join(mutant['tests'])}, none of the row's tests")
    for name, mutant in known.items():
        rule = mutant.get("rule")
        if rule is None:
            continue
        if rule not in rows:
            wrong.append(f"the mutant {name} is about {rule}, which is no rule")
        elif name not in rows[rule][2]:
            wrong.append(f"{rule}: the mutant {name} is about it, and is not in its row")
    if "--todo" in sys.argv:
        print("\n".join(f"TODO {line}" for line in todo))
    if "--strict" in sys.argv:
        wrong += todo
    print("\n".join(wrong) if wrong else f"{len(rows)} rules: each has its row and its argument; all that they name is there")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
