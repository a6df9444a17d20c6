"""Fails on a variable of a PL/pgSQL function in an SQL script whose type is not qualified: where such a
function has no search_path of its own, a type of that name in pg_temp would take its place. The types that
are words of SQL's grammar (bigint, integer, …) cannot be shadowed."""

import pathlib
import re
import sys

from pglast import parse_plpgsql

WORDS = {"record", "bigint", "integer", "int", "smallint", "boolean", "numeric", "real"}


def variables(node):
    """Every declared variable below: its line in the body, its name, its type as written."""
    for item in node if isinstance(node, list) else node.values() if isinstance(node, dict) else ():
        yield from variables(item)
    if isinstance(node, dict) and isinstance(variable := node.get("PLpgSQL_var"), dict):
        yield variable.get("lineno"), variable["refname"], variable["datatype"]["PLpgSQL_type"]["typname"].strip()


script = re.sub("@ext(schema|owner)@", r"ext\1", pathlib.Path(sys.argv[1]).read_text())
found = [v for v in variables(parse_plpgsql(script)) if "." not in v[2] and v[2].lower() not in WORDS]
for line, name, type_ in found:
    print(f"line {line} of the body: {name} {type_}: write pg_catalog.{type_}")
sys.exit(bool(found))
