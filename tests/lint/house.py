#!/usr/bin/env python3
"""The house's rules for src/: rooms in one direction, files and functions of a size that can be read, unsafe in one room.

    house.py [ROOT]          says what breaks a rule; exit status 1 if anything does

A room is a file or a folder of src/. ROOMS has them from the top to the bottom: a room may use those below it, and
nobody above, so there is no circle. Within a room no two files use each other, but for a folder's mod.rs, which
declares the others. Tests (`#[cfg(test)]`) may use whatever they want.
"""

import pathlib
import re
import sys

ROOMS = """
lib entry api monitor worker write refresh document read attach failures pending blockers xact_state attachment proof rights
wakeup stats settings pg definition error query_tree iso8601
""".split()

# Rooms, or files of them, that know nothing of the server: neither pgrx nor pg/.
PURE = ["definition", "query_tree", "iso8601", "read/rule", "proof/mod", "proof/conditions", "proof/scopes", "proof/ties", "proof/one_row"]

FILE, FUNCTION = 500, 70
# Tables of data, clearer in one piece.
LONGER = {"src/error/messages.rs::report"}


def code(path):
    """The text without comments, strings and tests, of the same number of lines."""
    text = path.read_text()
    text = re.sub(r"'.'", "' '", text)
    text = re.sub(r'"(?:[^"\\]|\\.)*"', lambda s: '""' + "\n" * s[0].count("\n"), text, flags=re.DOTALL)
    text = re.sub(r"//[^\n]*", "", text)
    return text.partition("#[cfg(test)]\nmod tests")[0]


def names(group):
    """The first names of the paths in a `use` group."""
    depth, found, word = 0, [], ""
    for c in group[1:]:
        if c in "{(":
            depth += 1
        elif c in "})":
            depth -= 1
        if depth < 0:
            break
        if depth == 0:
            word += c
    for part in word.split(","):
        if part.strip():
            found.append(part.strip())
    return found


def used(text):
    """Every path below crate:: that the code names, as tuples."""
    for m in re.finditer(r"crate::", text):
        rest = text[m.end() :]
        if rest.startswith("{"):
            for name in names(rest):
                yield tuple(re.findall(r"\w+", name.partition("{")[0]))
        else:
            path = re.match(r"\w+(?:::\w+)*", rest)[0]
            after = rest[len(path) :]
            if after.startswith("::{"):
                for name in names(after[2:]):
                    yield (*path.split("::"), *re.findall(r"\w+", name.partition("{")[0]))
            else:
                yield tuple(path.split("::"))


def module(path, root):
    parts = path.relative_to(root).with_suffix("").parts
    return parts[:-1] if parts[-1] == "mod" else parts


def long_functions(text):
    lines = text.split("\n")
    for i, line in enumerate(lines):
        head = re.match(r'( *)(?:pub(?:\([^)]*\))? )?(?:const )?(?:unsafe )?(?:extern "" )?fn (\w+)', line)
        if head and not line.rstrip().endswith(("}", ";")):
            end = next((j for j in range(i, len(lines)) if lines[j].startswith(head[1] + "}") and len(lines[j].rstrip()) == len(head[1]) + 1), i)
            if end - i + 1 > FUNCTION:
                yield head[2], end - i + 1


def circles(arrows):
    """Groups of files that use each other, by their strongly connected components."""
    reach = {a: set(bs) for a, bs in arrows.items()}
    changed = True
    while changed:
        changed = False
        for a, bs in reach.items():
            more = set().union(*(reach.get(b, set()) for b in bs)) - bs if bs else set()
            if more:
                bs |= more
                changed = True
    return {frozenset(b for b in bs if a in reach.get(b, set())) for a, bs in reach.items() if a in bs}


def check(root):
    src, wrong = root / "src", []
    files = {module(path, src): path for path in sorted(src.rglob("*.rs"))}
    arrows = {}
    for here, path in files.items():
        where, text = path.relative_to(root), code(path)
        room = here[0] if here else "lib"
        if room not in ROOMS:
            wrong.append(f"{where}: room {room} is not among ROOMS")
            continue
        if not path.read_text().startswith("//!"):
            wrong.append(f"{where}: begins with no //! that says what it is for")
        lines = path.read_text().partition("#[cfg(test)]\nmod tests")[0].count("\n")
        if lines > FILE and str(where) not in LONGER:
            wrong.append(f"{where}: {lines} lines, more than {FILE}")
        for name, length in long_functions(text):
            if f"{where}::{name}" not in LONGER:
                wrong.append(f"{where}: function {name} has {length} lines, more than {FUNCTION}")
        if room != "pg" and re.search(r"\bunsafe\s*(\{|fn|impl|extern)", text):
            wrong.append(f"{where}: unsafe outside src/pg/")
        pure = "/".join(here) in PURE or room in PURE or "/".join((*here, "mod")) in PURE
        if pure and re.search(r"\bpgrx\b|\bcrate::pg\b", text):
            wrong.append(f"{where}: is to know nothing of the server")
        for target in used(text):
            other = target[0]
            if other in ROOMS and other != room and ROOMS.index(other) < ROOMS.index(room):
                wrong.append(f"{where}: uses crate::{'::'.join(target)}, a room above it")
            to = next((target[:n] for n in range(len(target), 0, -1) if target[:n] in files), None)
            # A folder's mod.rs stands for all of it.
            if to and to != here and here[: len(to)] != to and to[: len(here)] != here:
                arrows.setdefault(here, set()).add(to)
    wrong += [f"files that use each other: {', '.join(sorted('::'.join(f) for f in group))}" for group in circles(arrows)]
    return wrong, files, arrows


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[2])
    wrong, files, arrows = check(root)
    print("\n".join(wrong) or f"{len(files)} files, {sum(map(len, arrows.values()))} arrows between them, none upwards, no circle")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
