#!/usr/bin/env python3
"""Takes one guard after another out of the source and shows that a test fails for it.

    tests/mutants.py                    all of them: about 15 minutes, so not part of `make test`
    tests/mutants.py NAME...            some
    tests/mutants.py --list

A mutant is an entry of tests/mutants/*.toml:

    [no-row-lock]
    guard = "what is taken out, in words"
    file = "src/routes.rs"
    search = "text that occurs once there; any white space stands for any"
    replace = "what stands there instead"
    tests = ["members"]                 the specs that must fail; part = "regress" for others

Several pairs: search and replace as lists, and file too where they differ. Each mutant is
built and tested in a copy of the tree under target/mutants (tests/run.py --library): nothing
is installed, but the extension's SQL is the installed one, so `make install` comes first.
First the tree as it is must pass every test named. A mutant is killed when a test fails;
`stale` beside it says that a stale document was seen, the worst that a missing guard can do.
Exit status 0 only if all were killed.
"""

import sys

# Our own folder comes last in the path: tests/random.py is a test, not the library.
sys.path.append(sys.path.pop(0))

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORK = ROOT / "target" / "mutants"
SOURCE, TREE, LIBRARIES = WORK / "source", WORK / "tree", WORK / "lib"
BUILT = ["Cargo.toml", "Cargo.lock", "profile_cache.control", "src", "sql"]
TESTS = ["pgrx-test.toml", "tests"]


def load():
    mutants = {}
    for path in sorted((ROOT / "tests" / "mutants").glob("*.toml")):
        for name, m in tomllib.loads(path.read_text()).items():
            if name in mutants:
                sys.exit(f"{path.name}: {name} is there twice")
            listed = lambda v: v if isinstance(v, list) else [v]
            searches, replaces, files = listed(m["search"]), listed(m["replace"]), listed(m["file"])
            files = files * len(searches) if len(files) == 1 else files
            m["edits"] = list(zip(files, searches, replaces, strict=True))
            mutants[name] = m
    return mutants


def put(path, content):
    """Writes a file only where that changes it: cargo goes by the time of the last change."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)


def mutated(m):
    """The files of the mutant, by path; an error where a search text is not there exactly once."""
    files = {}
    for file, search, replace in m["edits"]:
        text = files.get(file) or (SOURCE / file).read_text()
        pattern = r"\s+".join(re.escape(word) for word in search.split())
        found = re.findall(pattern, text)
        if len(found) != 1:
            raise LookupError(f"{file} has {len(found)} times: {search}")
        files[file] = re.sub(pattern, lambda _: replace, text)
    return files


def build(files, name):
    """Builds the tree with `files` in place of its own; returns the folder of the library."""
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
    }  # fmt: skip
    done = subprocess.run(["nice", "cargo", "build", "--release"], cwd=TREE, env=env, text=True, capture_output=True)
    if done.returncode:
        raise SyntaxError(done.stderr[-3000:])
    folder = LIBRARIES / name
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(WORK / "build" / "release" / "libprofile_cache.so", folder / "profile_cache.so")
    return folder


def run(library, part, tests):
    """Whether the tests pass; and whether a stale document was seen."""
    command = [sys.executable, SOURCE / "tests" / "run.py", "--only", part, "--library", library, *tests]
    done = subprocess.run([str(c) for c in command], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    results = [SOURCE / "tests" / "output" / part / "results" / f"{test}.out" for test in tests]
    stale = any("STALE" in path.read_text() for path in results if path.exists())
    return done.returncode == 0, stale, done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--list", action="store_true", help="only says what there is")
    options = parser.parse_args()
    mutants = load()
    for name in options.names:
        if name not in mutants:
            parser.error(f"no such mutant: {name}")
    wanted = {name: m for name, m in mutants.items() if not options.names or name in options.names}
    if options.list:
        for name, m in wanted.items():
            print(f"{name}: {m['guard']} [{', '.join(m['tests'])}]")
        return

    # The tree as it is now, its tests too: what is edited or tested in it meanwhile does not matter.
    shutil.rmtree(SOURCE, ignore_errors=True)
    for top in BUILT + TESTS:
        if (ROOT / top).is_dir():
            shutil.copytree(ROOT / top, SOURCE / top, ignore=shutil.ignore_patterns("output", ".venv", "__pycache__"))
        else:
            SOURCE.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / top, SOURCE / top)
    # Where a mutant makes a step wait for ever, that is known sooner.
    runner = (SOURCE / "tests" / "run.py").read_text()
    if '"PGISOLATIONTIMEOUT": "60"' not in runner:
        sys.exit("tests/run.py no longer sets PGISOLATIONTIMEOUT to 60")
    (SOURCE / "tests" / "run.py").write_text(runner.replace('"PGISOLATIONTIMEOUT": "60"', '"PGISOLATIONTIMEOUT": "5"'))

    files = {}
    for name, m in wanted.items():  # before anything is built
        try:
            files[name] = mutated(m)
        except LookupError as e:
            sys.exit(f"{name}: {e}")

    print("the tree as it is", flush=True)
    library = build({}, "none")
    by_part = {}
    for m in wanted.values():
        by_part.setdefault(m.get("part", "isolation"), set()).update(m["tests"])
    for part, tests in by_part.items():
        passed, _, output = run(library, part, sorted(tests))
        if not passed:
            sys.exit(f"fails without any mutation:\n{output}")

    killed, survived, broken = 0, [], []
    for name, m in wanted.items():
        start = time.monotonic()
        try:
            library = build(files[name], name)
        except SyntaxError as e:
            broken.append(name)
            print(f"  BROKEN         {name} does not compile:\n{e}", flush=True)
            continue
        passed, stale, output = run(library, m.get("part", "isolation"), m["tests"])
        if passed:
            survived.append(name)
        else:
            killed += 1
        failed = ", ".join(re.findall(r"^  FAILED  (\S+)", output, re.MULTILINE))
        verdict = "SURVIVED" if passed else "killed, stale" if stale else "killed"
        print(f"  {verdict:<14} {name} ({failed or 'nothing failed'}, {time.monotonic() - start:.0f} s): {m['guard']}", flush=True)
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
