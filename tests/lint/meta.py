#!/usr/bin/env python3
"""META.json by the rules of PGXN's specification 1.0 (pgxn.org/spec), and by what else says the same of this repository.

    tests/lint/meta.py          says what is wrong; exit status 1 if anything is

Known here are the keys that ours has, and the other required ones. A new key brings its rule along.
"""

import json
import pathlib
import re
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]

NUMBER = r"(?:0|[1-9]\d*)"
VERSION = rf"{NUMBER}\.{NUMBER}\.{NUMBER}(?:-[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
PHASES = ["configure", "build", "test", "runtime", "develop"]
RELATIONS = ["requires", "recommends", "suggests", "conflicts"]
LICENSES = """
agpl_3 apache_1_1 apache_2_0 artistic_1 artistic_2 bsd freebsd gfdl_1_2 gfdl_1_3 gpl_1 gpl_2 gpl_3 lgpl_2_1 lgpl_3_0 mit
mozilla_1_0 mozilla_1_1 openssl perl_5 postgresql qpl_1_0 ssleay sun zlib open_source restricted unrestricted unknown
""".split()


def text(value):
    return isinstance(value, str) and value != ""


def like(pattern):
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def list_of(rule):
    return lambda value: isinstance(value, list) and value and all(map(rule, value)) and len(set(value)) == len(value)


def one_or_more(rule):
    return lambda value: rule(value) or list_of(rule)(value)


def table(keys, values):
    """An object with at least one key, each as the rule says."""
    return lambda value: isinstance(value, dict) and value and all(keys(k) and values(v) for k, v in value.items())


def object_of(required, optional=None):
    """Whoever uses the format may add keys that begin with x_."""
    rules = required | (optional or {})
    return lambda value: (
        isinstance(value, dict)
        and required.keys() <= value.keys()
        and all(rules[k](v) if k in rules else re.match("[xX]_.", k) for k, v in value.items())
    )


term = like(r"[^\s/\\\x00-\x1f\x7f]{2,}")
version = like(VERSION)
range_of_versions = like(rf"(?:(?:[=!]=|[<>]=?)\s*)?(?:{VERSION}|0)(?:,\s*(?:[=!]=|[<>]=?)?\s*{VERSION})*")
path = like(r"(?!/)(?!.*(?:^|/)\.\.(?:/|$)).{2,}")
extension = object_of({"file": path, "version": version}, {"abstract": text, "docfile": path})
RULES = {
    "name": term,
    "version": version,
    "abstract": text,
    "maintainer": one_or_more(text),
    "license": one_or_more(LICENSES.__contains__),
    "provides": table(term, extension),
    "meta-spec": object_of({"version": like(r"1\.0\.\d+")}, {"url": like(r"https?://pgxn\.org/meta/spec\.txt")}),
}
OPTIONAL = {
    "description": text,
    "tags": list_of(like(r"[^/\\\x00-\x1f\x7f]{2,255}")),
    "prereqs": table(PHASES.__contains__, table(RELATIONS.__contains__, table(term, lambda value: value == 0 or range_of_versions(value)))),
}


def check(meta, root):
    """By the specification, each key alone; then by Cargo.toml, the control file and the files that there are."""
    if not isinstance(meta, dict):
        return ["it is no object"]
    rules = RULES | OPTIONAL
    wrong = [f"{key} is missing" for key in RULES if key not in meta]
    wrong += [f"{key} is no key that is known here" for key in meta if key not in rules and not re.match("[xX]_.", key)]
    wrong += [f"{key} is not as the specification has it" for key, rule in rules.items() if key in meta and not rule(meta[key])]
    if wrong:
        return wrong

    cargo = tomllib.loads((root / "Cargo.toml").read_text())["package"]
    (control,) = root.glob("*.control")
    ours = meta["provides"].get(control.stem)
    if ours is None:
        return [f"provides has no {control.stem}, the extension of {control.name}"]
    if {meta["version"], ours["version"]} != {cargo["version"]}:
        wrong.append(f"its versions are {meta['version']} and {ours['version']}, Cargo.toml's is {cargo['version']}")
    if meta["abstract"] != cargo["description"]:
        wrong.append("its abstract is not the description in Cargo.toml")
    wrong += [f"{file} is not there" for file in (ours["file"], ours.get("docfile", ours["file"])) if not (root / file).is_file()]
    minimum = tomllib.loads((root / "pgrx-test.toml").read_text())["pg"].values()
    oldest = min((entry["minimum"] for entry in minimum), key=lambda minor: tuple(map(int, minor.split("."))))
    if meta.get("prereqs", {}).get("runtime", {}).get("requires", {}).get("PostgreSQL") != f"{oldest}.0":
        wrong.append(f"it requires another PostgreSQL than {oldest}, the oldest minimum in pgrx-test.toml")
    return wrong


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT)
    wrong = check(json.loads((root / "META.json").read_text()), root)
    print("\n".join(f"META.json: {line}" for line in wrong) or "META.json is in order")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
