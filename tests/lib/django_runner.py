"""What Django's own runner prints, with --verbosity 2: whether a file's tests have run and passed, and all together."""

import re

from lib.command import Failed


def passed(output, module):
    """How many tests of a module have run; raises what failed of them, or that not all of it was run."""
    here = f"({module}."
    if failed := [block for block in output.split("=" * 70 + "\n")[1:] if here in block.splitlines()[0]]:
        raise Failed("\n".join(failed))
    ran = len(re.findall(rf"^\w+ {re.escape(here)}", output, re.MULTILINE))
    if not ran or not re.search(r"^Ran \d+ tests? in ", output, re.MULTILINE):
        raise Failed(f"not all of it was run:\n{end(output)}")
    return ran


def content(output):
    """Its closing lines, where it is content and has left nothing out."""
    ran = re.search(r"^Ran \d+ tests? in \S+\n\nOK$", output, re.MULTILINE)
    if not ran:
        raise Failed(end(output))
    return ran[0].replace("\n\n", "\n")


def end(output):
    return "\n".join(output.splitlines()[-60:])
