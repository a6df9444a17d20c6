"""Adds to a Debian copyright file (standard input) the Rust packages that are linked into the library for a major, and
Rust's standard library.

    packaging/licenses.py MAJOR < packaging/debian/copyright

Their licenses want their notices in every copy. Who holds the copyright is read from the license that a package
brings, or from its authors; texts of licenses other than MIT are the packages' own.
"""

import json
import pathlib
import re
import subprocess
import sys

MIT = """\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""

# What is in the standard library, with the packages that it is made of: MIT or Apache-2.0, but for Unicode's tables.
STANDARD = [
    ("*", "the Rust Project Developers (see https://thanks.rust-lang.org), and the authors of the packages that it is made of", "Expat"),
    ("backtrace/*", "2014, Alex Crichton\n the Rust Project Developers (see https://thanks.rust-lang.org)", "Expat"),
    ("std/src/sync/mpmc/*", "2019, the Crossbeam Project Developers\n the Rust Project Developers (see https://thanks.rust-lang.org)", "Expat"),
    ("core/src/unicode/unicode_data.rs", "1991-2024, Unicode, Inc", "Unicode-3.0"),
]


def cargo(*command):
    return subprocess.run(["cargo", *command, "--locked", "--no-default-features"], check=True, text=True, stdout=subprocess.PIPE).stdout


def linked(major):
    """All packages whose code is in the library; not those that only compile it, as macros do."""
    features = ["--features", f"pg{major}"]
    tree = cargo("tree", *features, "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}")
    names = {tuple(line.split()[:2]) for line in tree.splitlines()}
    packages = json.loads(cargo("metadata", *features, "--format-version", "1"))["packages"]
    found = [package for package in packages if package["source"] and (package["name"], "v" + package["version"]) in names]
    return sorted(found, key=lambda package: (package["name"], package["version"]))


def license_files(package):
    folder = pathlib.Path(package["manifest_path"]).parent
    return sorted(file for file in folder.rglob("*") if file.is_file() and re.search(r"licen[sc]e|copying|\bmit\b", str(file.relative_to(folder)), re.I))


def holders(package):
    notices = set()
    for file in license_files(package):
        if "apache" not in file.name.lower():
            notice = r"^\s*Copyright (?:\(c\) |© )?(.*\d.*?)\.?\s*$"
            notices |= set(re.findall(notice, file.read_text(errors="replace"), re.MULTILINE | re.IGNORECASE))
    named = sorted(notice for notice in notices if re.search("[a-z]", notice))
    return named or package["authors"] or [f"the authors of {package['name']}"]


def terms(package):
    """Each license that applies, MIT where there is a choice, with its text."""
    for part in re.split(r" AND ", package["license"]):
        names = re.split(r" OR |/", part.strip("()"))
        if "MIT" in names:
            yield "Expat", MIT
        else:
            own = [f for f in license_files(package) if f.name == "LICENSE" or f.stem.partition("-")[2].lower() in names[0].lower()]
            if len(own) != 1:
                sys.exit(f"{package['name']}: which file has the text of {names[0]}? Teach packaging/licenses.py")
            yield names[0], own[0].read_text().strip()


def main():
    print(sys.stdin.read(), end="")
    texts = {}
    for package in linked(sys.argv[1]):
        apply = dict(terms(package))
        texts |= apply
        print(f"\nFiles: {package['name']}-{package['version']}/*\nCopyright: " + "\n ".join(holders(package)))
        print(f"License: {' and '.join(apply)}")
    # As Rust's own COPYRIGHT-library.html has it. All that it says the same of is in one; none has other terms than these.
    version = subprocess.run(["rustc", "--version"], check=True, text=True, stdout=subprocess.PIPE).stdout.split()[1]
    for files, holder, names in STANDARD:
        print(f"\nFiles: rust-{version}/library/{files}\nCopyright: {holder}\nLicense: {names}")
        if missing := set(names.split(" and ")) - texts.keys():
            sys.exit(f"Rust's standard library: no package brings the text of {missing}. Teach packaging/licenses.py")
    for name, text in sorted(texts.items()):
        print(f"\nLicense: {name}\n" + "\n".join(f" {line.strip() or '.'}" for line in text.splitlines()))


if __name__ == "__main__":
    main()
