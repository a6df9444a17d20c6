#!/usr/bin/env python3
"""Takes one guard after another out of the source and shows that a test fails for it.

    tests/mutants.py                    all of them: about 15 minutes, so not part of `make test`
    tests/mutants.py NAME...            some
    tests/mutants.py --list
    tests/mutants.py --check            only whether each text is there once, and the tests are (lint does that)

A mutant is an entry of tests/mutants/*.toml:

    [no-row-lock]
    guard = "what is taken out, in words"
    rule = "W3"                         the rule that the guard keeps, where it is one that has a name
    search = "text that occurs once in all of src/ and sql/; any white space stands for any"
    replace = "what stands there instead"
    tests = ["members"]                 the specs that must fail; part = "regress" for others
    pg = 18                             the major that it shows on, where that is not 15

Several pairs: search and replace as lists. Each mutant is built and tested in a copy of the
tree under target/mutants (pytest --library): nothing is installed, but the extension's SQL is
the installed one, so `make install` comes first (for 18 with PG_CONFIG=target/postgresql/18/…).
First the tree as it is must pass every test named. A mutant is killed when a test fails;
`stale` beside it says that a stale document was seen, the worst that a missing guard can do.
Exit status 0 only if all were killed.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import tomllib

from lib.cluster import pg_config

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORK = ROOT / "target" / "mutants"
SOURCE, TREE, LIBRARIES = WORK / "source", WORK / "tree", WORK / "lib"
BUILT = ["Cargo.toml", "Cargo.lock", "profile_cache.control", "src", "sql"]
TESTS = ["pgrx-test.toml", "pytest.ini", "tests"]
KEYS = {"guard", "rule", "search", "replace", "tests", "part", "pg"}
# The test of that name in a part, for pytest.
NODES = {
    "regress": "tests/regress/test_regress.py::test_regress[{}]", "isolation": "tests/isolation/test_isolation.py::test_isolation[{}]",
    "catalogue": "tests/catalogue/test_catalogue.py::test_catalogue[{}]",
}  # fmt: skip
# Where that test stands.
FILES = {"regress": "regress/sql/{}.sql", "isolation": "isolation/specs/{}.spec", "catalogue": "catalogue/accepted/{}.sql"}
# Where a mutant makes an isolation step wait for ever, that is known sooner.
STEP_TIMEOUT = 5


def load():
    mutants = {}
    for path in sorted((ROOT / "tests" / "mutants").glob("*.toml")):
        for name, m in tomllib.loads(path.read_text()).items():
            if name in mutants:
                sys.exit(f"{path.name}: {name} is there twice")
            if unknown := m.keys() - KEYS:
                sys.exit(f"{path.name}: {name}: what is {', '.join(sorted(unknown))}?")
            listed = lambda v: v if isinstance(v, list) else [v]
            m["edits"] = list(zip(listed(m["search"]), listed(m["replace"]), strict=True))
            if lost := [test for test in m["tests"] if not there(m.get("part", "isolation"), test)]:
                sys.exit(f"{path.name}: {name}: no such test: {', '.join(lost)}")
            mutants[name] = m
    return mutants


def of_servers(test):
    """The file of tests/servers with a test of that name; None where there is none."""
    files = sorted((ROOT / "tests/servers").glob("test_*.py"))
    return next((path for path in files if f"\ndef test_{test}(" in path.read_text()), None)


def node(part, test):
    if part == "servers":
        return f"tests/servers/{of_servers(test).name}::test_{test}"
    return NODES[part].format(test)


def there(part, test):
    """Whether a part has a test of that name."""
    if part == "servers":
        return of_servers(test) is not None
    return (ROOT / "tests" / FILES[part].format(test)).exists()


def put(path, content):
    """Writes a file only where that changes it: cargo goes by the time of the last change."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)


def sources(tree):
    """The texts that a mutant may be in, by path."""
    paths = [*sorted((tree / "src").rglob("*.rs")), tree / "sql/profile_cache.sql"]
    return {str(path.relative_to(tree)): path.read_text() for path in paths}


def mutated(m, texts):
    """The files of the mutant, by path; an error where a search text is not there exactly once."""
    files = {}
    for search, replace in m["edits"]:
        pattern = re.compile(r"\s+".join(re.escape(word) for word in search.split()))
        found = [file for file, text in (texts | files).items() for _ in pattern.finditer(text)]
        if len(found) != 1:
            raise LookupError(f"{len(found)} times{' in ' + ', '.join(found) if found else ''}: {search}")
        files[found[0]] = pattern.sub(lambda _: replace, (texts | files)[found[0]])
    return files


def build(files, name, pg):
    """Builds the tree for a major with `files` in place of its own; returns the folder of the library."""
    wanted = {}
    for top in BUILT:
        for path in [SOURCE / top] if (SOURCE / top).is_file() else sorted((SOURCE / top).rglob("*")):
            if path.is_file():
                relative = str(path.relative_to(SOURCE))
                wanted[relative] = files.get(relative, "").encode() or path.read_bytes()
    for path in TREE.rglob("*"):
        if path.is_file() and str(path.relative_to(TREE)) not in wanted:
            path.unlink()
    for relative, content in wanted.items():
        put(TREE / relative, content)
    env = os.environ | {
        "CARGO_TARGET_DIR": str(WORK / "build"), "CARGO_PROFILE_RELEASE_LTO": "off",
        "CARGO_PROFILE_RELEASE_OPT_LEVEL": "1", "CARGO_INCREMENTAL": "1", "CARGO_TERM_COLOR": "never",
        "PGRX_PG_CONFIG_PATH": pg_config(pg),
    }  # fmt: skip
    done = subprocess.run(["nice", "cargo", "build", "--release", "--no-default-features", "--features", f"pg{pg}"], cwd=TREE, env=env, text=True, capture_output=True)
    if done.returncode:
        raise SyntaxError(done.stderr[-3000:])
    folder = LIBRARIES / name
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(WORK / "build" / "release" / "libprofile_cache.so", folder / "profile_cache.so")
    return folder


def run(library, part, tests, pg):
    """Which of the tests fail; whether a stale document was seen; and what was printed."""
    # Said outright: the library's folder, an argument too, would have pytest look for its root above both.
    root = ["-c", SOURCE / "pytest.ini", "--rootdir", SOURCE]
    command = [ROOT / "tests" / ".venv/bin/python", "-m", "pytest", *root, "--library", library, "--step-timeout", STEP_TIMEOUT, "--pg", pg]
    command += [node(part, test) for test in tests]
    done = subprocess.run([str(c) for c in command], cwd=SOURCE, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode not in (0, 1):  # it was not the tests that failed
        sys.exit(done.stdout)
    results = [SOURCE / "tests" / "output" / part / "results" / f"{test}.out" for test in tests]
    stale = any("STALE" in path.read_text() for path in results if path.exists())
    summary = done.stdout.rpartition(" short test summary info ")[2] if done.returncode else ""
    failed = re.findall(r"^(?:FAILED|ERROR) \S+?(?:\[|::test_)([\w-]+)(?:\]|\s|$)", summary, re.MULTILINE)
    return failed or ["pytest"] * done.returncode, stale, done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--list", action="store_true", help="only says what there is")
    parser.add_argument("--check", action="store_true", help="only looks whether each text is there once")
    options = parser.parse_args()
    mutants = load()
    for name in options.names:
        if name not in mutants:
            parser.error(f"no such mutant: {name}")
    wanted = {name: m for name, m in mutants.items() if not options.names or name in options.names}
    if options.list:
        for name, m in wanted.items():
            print(f"{name}: {m['guard']} [{', '.join(m['tests'])}]" + (f" {m['rule']}" if "rule" in m else ""))
        return

    files, lost = {}, []  # before anything is built
    texts = sources(ROOT)
    for name, m in wanted.items():
        try:
            files[name] = mutated(m, texts)
        except LookupError as e:
            lost.append(f"{name}: {e}")
    if lost or options.check:
        sys.exit("\n".join(lost) or None)

    # The tree as it is now, its tests too: what is edited or tested in it meanwhile does not matter.
    shutil.rmtree(SOURCE, ignore_errors=True)
    for top in BUILT + TESTS:
        if (ROOT / top).is_dir():
            shutil.copytree(ROOT / top, SOURCE / top, ignore=shutil.ignore_patterns("output", ".venv", "__pycache__"))
        else:
            SOURCE.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / top, SOURCE / top)
    # Other majors are found below the tree that tests them.
    (SOURCE / "target").mkdir()
    (SOURCE / "target/postgresql").symlink_to(ROOT / "target/postgresql")
    # The same that was looked through.
    if sources(SOURCE) != texts:
        sys.exit("the source was edited just now: once more, please")
    subprocess.run([ROOT / "tests" / "setup.sh", "venv"], check=True)

    print("the tree as it is", flush=True)
    by_part = {}
    for m in wanted.values():
        by_part.setdefault((m.get("pg", 15), m.get("part", "isolation")), set()).update(m["tests"])
    for (pg, part), tests in sorted(by_part.items()):
        failed, _, output = run(build({}, "none", pg), part, sorted(tests), pg)
        if failed:
            sys.exit(f"fails without any mutation:\n{output}")

    killed, survived, broken = 0, [], []
    for name, m in wanted.items():
        start = time.monotonic()
        try:
            library = build(files[name], name, m.get("pg", 15))
        except SyntaxError as e:
            broken.append(name)
            print(f"  BROKEN         {name} does not compile:\n{e}", flush=True)
            continue
        failed, stale, _ = run(library, m.get("part", "isolation"), m["tests"], m.get("pg", 15))
        if failed:
            killed += 1
        else:
            survived.append(name)
        verdict = "SURVIVED" if not failed else "killed, stale" if stale else "killed"
        print(f"  {verdict:<14} {name} ({', '.join(failed) or 'nothing failed'}, {time.monotonic() - start:.0f} s): {m['guard']}", flush=True)
        shutil.rmtree(LIBRARIES / name)
    for what, names in [("survived", survived), ("do not compile", broken)]:
        if names:
            print(f"{what}: {', '.join(names)}")
    print(f"mutants: {killed} killed, {len(survived)} survived" + (f", {len(broken)} broken" if broken else ""))
    sys.exit(1 if survived or broken else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
