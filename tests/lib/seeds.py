"""Seeds that have failed once. They are kept in a file beside the test, and run first from then on."""

from lib.cluster import ROOT
from lib.command import Failed, Vacuous, run


def known(path):
    """The lines of such a file, as lists of words, without comments."""
    lines = (line.partition("#")[0].split() for line in path.read_text().splitlines())
    return [words for words in lines if words]


def run_seed(command, path, line, **options):
    """Runs the test with one seed; where that fails, says what to add to the file."""
    try:
        return run(command, **options)
    except Vacuous:
        raise
    except Failed as failure:
        words = line.split()
        advice = "" if words in known(path) else f"\nso that this seed runs first from now on, add to {path.relative_to(ROOT)}:\n{line}"
        raise Failed(f"{failure}{advice}") from None
