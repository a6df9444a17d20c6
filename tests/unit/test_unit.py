"""The unit tests in src/, by cargo. One of them: cargo test --lib NAME."""

import re

from lib.command import Failed, cargo


def test_cargo(pytestconfig, say):
    # Plain `cargo test`, not `cargo pgrx test`: the pure modules need no server, and on
    # Linux the test binary links although PostgreSQL's symbols are missing, as long as no
    # test calls into the server. It costs one debug build, no second installation, and no sudo.
    output = cargo(pytestconfig.getoption("--pg"), "test", "--lib", log="unit.log")
    results = re.findall(r"^test result: .*$", output, re.MULTILINE)
    if not any(re.search(r"[1-9]\d* passed", line) for line in results) or any("0 ignored" not in line for line in results):
        raise Failed(f"not all were run:\n{output}")
    say("\n".join(results), margin="")
