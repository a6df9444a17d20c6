"""Commands that tests run, and how a test says that it failed."""

import subprocess

from lib.cluster import OUTPUT, ROOT, clean_environment, pg_config


class Failed(Exception):
    """A test failed; the text says why."""


class Vacuous(Failed):
    """Nothing was wrong, but what happened was too little to show anything: another seed may do better."""

    STATUS = 3


def run(command, log=None, **options):
    """Runs a command; Failed, with the end of what it said, if that fails. All that it said goes to tests/output/LOG."""
    command = [str(c) for c in command]
    options = {"cwd": ROOT, "env": clean_environment()} | options
    try:
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
        ended, output = f"exit status {done.returncode}" if done.returncode else "", done.stdout
    except subprocess.TimeoutExpired as error:
        ended, output = f"not over in {error.timeout:g} s", (error.stdout or b"").decode(errors="replace")
    if log:
        (OUTPUT / log).write_text(output)
    if ended:
        tail = "\n".join(output.splitlines()[-60:])
        vacuous = ended == f"exit status {Vacuous.STATUS}"
        raise (Vacuous if vacuous else Failed)(f"{' '.join(command)}: {ended}\n{tail}")
    return output


def cargo(major, *command, env=None, **options):
    """Runs cargo for one major, and tells pgrx of its pg_config, as tests/setup.sh does."""
    features = ["--no-default-features", "--features", f"pg{major}"]
    env = clean_environment() | {"PGRX_PG_CONFIG_PATH": pg_config(major)} | (env or {})
    return run(["cargo", command[0], *features, *command[1:]], env=env, **options)
