"""A random document view over the tables of random_schema.py.

Most of what is made here is tied to the profile by foreign keys, as attach() demands it, and in ways that the
prover has to see through. A view has a few `risks` to spend, too: an OR, an outer join the wrong way round, a LIMIT
below a condition, half a composite key. Such a view should be refused. If it is accepted, it must be right.

A view shows nothing that PostgreSQL itself may choose: what is ordered is ordered by whole keys, and values that
are equal but print differently are not merged and shown.
"""

import random
import re

from catalogue.random_schema import KEY, KINDS, PROFILE


# What a view may do that should be refused, each seldom enough to stand alone in most views.
INSIDE = ["condition above LIMIT", "grouped by another column", "distinct on by another column", "window by another column"]
ELSEWHERE = ["half a key", "untied", "untied constant", "outer join", "outer side", "many rows", "late key", "whole profile"]
TIES = [f"tie {how}" for how in ("less", "OR", "NOT", "computed", "cast", "lower", "collated", "blurred", "CASE value", "constant", "nothing", "NOT IN")]
RISKS = 3 * INSIDE + 2 * ELSEWHERE + TIES


class Rel:
    """What stands in FROM. columns: name → (kind, shown: whether it always prints the same);
    bases: tables whose columns it has, by their names here; key: names that tell its rows apart."""

    def __init__(self, alias, columns, bases, key):
        self.alias, self.columns, self.bases, self.key = alias, columns, bases, key

    def sql(self, name):
        return f"{self.alias}.{name}"


def of_table(table, alias):
    columns = {c.name: (c.kind, True) for c in table.columns.values()}
    return Rel(alias, columns, [(table, {c: c for c in columns})], table.key)


class Edge:
    """How a table is tied to a relation that is there: parts are (its column, the other's SQL, kinds of both)."""

    def __init__(self, table, parts, one, weight):
        self.table, self.parts, self.one, self.weight = table, parts, one, weight
        columns = {p[0] for p in parts}
        self.almost = any(set(key) <= columns for key in [*table.late, *(names for names, _ in table.partial)])


class View:
    def __init__(self, schema, seed):
        self.schema, self.rng = schema, random.Random(f"view {seed}")
        self.risks = self.rng.sample(RISKS, self.rng.choices([0, 1, 2, 3], [25, 50, 20, 5])[0])
        self.size = self.rng.choice([1, 2, 2, 3, 3, 4, 5, 7])  # tables that may still be read
        if {"outer join", "outer side", "untied", *INSIDE} & set(self.risks):
            self.size += 1
        self.subqueries = 3 if set(INSIDE) & set(self.risks) else 1  # how much more often they are written
        self.number = 0
        self.withs, self.nested, self.shapes = [], [], set()
        self.shared = []  # relations by name that may be read again

    # Choices

    def chance(self, p):
        return self.rng.random() < p

    def of(self, choices):
        """A choice; choices: a list, or {choice: weight}."""
        if isinstance(choices, dict):
            return self.rng.choices(list(choices), list(choices.values()))[0]
        return self.rng.choice(choices)

    def risky(self, name):
        if name not in self.risks or self.chance(0.4):
            return False
        if self.chance(0.7):  # mostly once
            self.risks.remove(name)
        return self.shape(f"! {name}")

    def shape(self, name):
        self.shapes.add(name)
        return True

    def alias(self, name="s"):
        self.number += 1
        return f"{name[0]}{self.number}"

    # Ties

    def edges(self, env):
        """Every way to tie another table to what is there."""
        found = []
        for rel in env:
            for table, names in rel.bases:
                kind = lambda c: table.columns[c].kind
                for fk in table.fks:
                    if all(c in names for c in fk.columns):
                        parts = [(t, rel.sql(names[c]), fk.to.columns[t].kind, kind(c)) for c, t in zip(fk.columns, fk.there)]
                        found.append(Edge(fk.to, parts, True, 3))
                for fk in self.schema.fks:
                    if fk.to is table and all(t in names for t in fk.there):
                        parts = [(c, rel.sql(names[t]), fk.table.columns[c].kind, kind(t)) for c, t in zip(fk.columns, fk.there)]
                        found.append(Edge(fk.table, parts, fk.table.is_unique(fk.columns), 6 if table.name == PROFILE else 2))
                    for mine in table.fks:
                        if fk.table is not PROFILE and fk.to is mine.to and fk.there == mine.there and all(c in names for c in mine.columns):
                            parts = [(c, rel.sql(names[m]), fk.table.columns[c].kind, kind(m)) for c, m in zip(fk.columns, mine.columns)]
                            found.append(Edge(fk.table, parts, fk.table.is_unique(fk.columns), 0.6))
                if table.key and all(k in names for k in table.key):
                    found.append(Edge(table, [(k, rel.sql(names[k]), kind(k), kind(k)) for k in table.key], True, 0.7))
        return found

    def edge(self, env, one=False):
        found = [e for e in self.edges(env) if e.one or not one]
        # A subquery that groups may be joined by the profile's key alone: otherwise it is read whole, and refused for that.
        by_key = [e for e in found if [p[1] for p in e.parts] == [f"p.{KEY}"]]
        if self.subqueries > 1 and by_key and self.chance(0.7):
            found = by_key
        composite = [e for e in found if len(e.parts) > 1]
        if "half a key" in self.risks and composite and self.chance(0.8):
            found = composite
        return self.rng.choices(found, [e.weight for e in found])[0] if found else None

    def others(self, env, family):
        """Columns of what is there, of one family."""
        return [r.sql(n) for r in env for n, (kind, shown) in r.columns.items() if kind.family == family and shown]

    def pair(self, mine, theirs, kind, other, env, tying):
        """One equality, written in one of many ways. tying: what else it may equal and is tied."""
        others = [o for o in (tying if self.chance(0.8) else self.others(env, other.family)) if o != theirs] or [theirs]
        second, constant = self.of(others), other.value(self.rng, 4)
        cast = f"::{other.sql}" if other.sql.isalnum() else ""
        known = {
            "IN list": f"{mine} IN ({theirs})",
            "ANY array": f"{mine} = ANY (ARRAY[{theirs}])",
            "IN two": f"{mine} IN ({theirs}, {second})",
            "OR of ties": f"({mine} = {theirs} OR {mine} = {second})",
            "coalesce": f"{mine} = coalesce({theirs}, {second})",
            "coalesce const": f"{mine} = coalesce({theirs}, {constant}{cast})",
            "nullif": f"{mine} = nullif({theirs}, {constant}{cast})",
            "coalesce nullif": f"{mine} = coalesce(nullif({theirs}, {constant}{cast}), {second})",
            "CASE": f"{mine} = CASE WHEN {self.condition(env)} THEN {theirs} ELSE {second} END",
            "greatest": f"{mine} = {self.of(['greatest', 'least'])}({theirs}, {second})",
            "scalar": f"{mine} = (SELECT {theirs})",
            "VALUES": f"{mine} IN (SELECT v.x FROM (VALUES ({theirs}), ({second})) AS v (x))",
            "IS NOT DISTINCT": f"{mine} IS NOT DISTINCT FROM {theirs}",
        }
        short = {"number": "int", "uuid": "text::char(8)", "mood": "text::varchar(1)"}.get(kind.family, "varchar(1)")
        wrong = {
            "less": f"{mine} <= {theirs}",
            "OR": f"({mine} = {theirs} OR {self.condition(env)})",
            "NOT": f"NOT ({mine} <> {theirs} AND {self.condition(env)})",
            "computed": f"{mine}::text = {theirs}::text",
            "cast": f"{mine}::{short} = {theirs}::{short}",
            "lower": f"lower({mine}::text) = lower({theirs}::text)",
            "collated": f'{mine}::text COLLATE "C" = {theirs}::text',
            "blurred": f"{mine}::text COLLATE any_case = {theirs}::text",
            "CASE value": f"CASE WHEN {mine} = {theirs} THEN true ELSE {self.condition(env)} END",
            "constant": f"{mine} = {kind.value(self.rng, 4)}",
            "nothing": self.condition(env),
            "NOT IN": f"{mine} NOT IN ({theirs})",
        }
        for name, text in wrong.items():
            if self.risky(f"tie {name}"):
                return text
        how = self.rng.random()
        if how < 0.7:
            return f"{mine} = {theirs}"
        if how < 0.82:
            return f"{theirs} = {mine}"
        name = self.of(list(known))
        self.shape(f"tie {name}")
        return known[name]

    def tie(self, edge, rel, env):
        """The condition that ties rel, a relation that has the edge's columns under some names."""
        names = next(m for t, m in rel.bases if t is edge.table and all(p[0] in m for p in edge.parts))
        parts = [(rel.sql(names[mine]), *rest) for mine, *rest in edge.parts]
        if len(parts) > 1 and self.risky("half a key"):
            parts.pop(self.rng.randrange(len(parts)))
        elif len(parts) > 1 and self.chance(0.25):
            self.shape("row comparison")
            mine, theirs = (", ".join(p[i] for p in parts) for i in (0, 1))
            return self.of([f"({mine}) = ({theirs})", f"({mine}) IN (({theirs}))"])
        same = [e.parts[0] for e in self.edges(env) if e.table is edge.table and len(e.parts) == 1]
        tying = [p[1] for p in same if p[0] == edge.parts[0][0] and len(edge.parts) == 1 and p[3].name == edge.parts[0][3].name]
        conditions = [self.pair(*p, env, tying) for p in parts]
        if self.chance(0.2):
            conditions.insert(self.rng.randint(0, 1), self.condition([rel, *env]))
        return " AND ".join(conditions)

    # Conditions and values

    def condition(self, rels, deep=0):
        """A condition that ties nothing."""
        rel = self.of(rels)
        usable = [(n, k) for n, (k, shown) in rel.columns.items() if k.family not in ("jsonb", "text[]", "int[]", "anything")]
        if not usable or (deep < 2 and self.chance(0.15)):
            return "(" + self.of([" AND ", " OR "]).join(self.condition(rels, deep + 2) for _ in range(2)) + ")" if usable else "true"
        name, kind = self.of(usable)
        column = rel.sql(name)
        if kind.family == "bool":
            return self.of([column, f"NOT {column}", f"{column} IS NOT TRUE", f"coalesce({column}, false)"])
        others = [o for o in self.others(rels, kind.family) if o != column]
        if others and self.chance(0.3):
            return f"{column} {self.of(['=', '<>', '<', '>='])} {self.of(others)}"
        return self.of([f"{column} IS NOT NULL", f"{column} IS NULL", *[f"{column} {self.of(['<', '>=', '<>', '='])} {kind.value(self.rng, 4)}"] * 3])

    def column(self, rels):
        """A column that can be shown: SQL, kind."""
        found = [[(r.sql(n), k) for n, (k, shown) in r.columns.items() if shown] for r in rels]
        found = [f for f in found if f]
        return self.of(self.rng.choices(found, range(1, len(found) + 1))[0]) if found else ("1", None)

    def value(self, rels, depth, grouped=False):
        """Anything that a document may show of what is there."""
        if self.size > 0 and depth == 0 and (self.chance(0.5) or self.subqueries > 1):
            return self.of([self.aggregated, self.aggregated, self.first])(rels, depth)
        how = self.of({"column": 6, "computed": 2, "case": 1.5, "aggregate": 0 if grouped else 5, "first": 0 if grouped else 3, "exists": 0 if grouped else 2,
            "row": 0 if grouped else 0.8, "array": 0 if grouped else 1.2, "function": 0 if grouped else 1.5})  # fmt: skip
        if (depth > 2 or self.size <= 0) and how in ("aggregate", "first", "exists", "array"):
            how = "column"
        column, kind = self.column(rels)
        if how == "computed":
            self.shape("value computed")
            return self.of([f"upper({column}::text)", f"coalesce({column}::text, 'none')", f"nullif({column}::text, 'k1')", f"({column} IS NULL)", f"to_jsonb({column})",
                f"concat_ws('-', {column}, {self.column(rels)[0]})"])  # fmt: skip
        if how == "case":
            return f"CASE WHEN {self.condition(rels)} THEN to_jsonb({self.value(rels, depth + 1, grouped)}) ELSE to_jsonb({column}) END"
        if how == "aggregate":
            return self.aggregated(rels, depth)
        if how == "first":
            return self.first(rels, depth)
        if how == "exists":
            return self.exists(rels, depth)
        if how == "array":
            self.shape("ARRAY")
            source, where, inner = self.rows(rels, depth)
            shown, kind = self.column(inner)
            order = self.order(inner)
            shown = f"to_jsonb({shown})" if kind is None or kind.family in ("text[]", "int[]", "anything") else shown
            return f"to_jsonb(ARRAY(SELECT {shown} FROM {source}{where} ORDER BY {order}))" if order else f"(SELECT count(*) FROM {source}{where})"
        if how == "row":
            return self.whole_row(rels)
        if how == "function":
            return self.unrolled(rels)
        return column

    def whole_row(self, rels):
        rel = self.of(rels)
        if len(rel.bases) != 1 or rel.bases[0][0].name == PROFILE and not self.risky("whole profile") or not all(s for _, s in rel.columns.values()):
            return self.column(rels)[0]
        self.shape("whole row")
        if rel.bases[0][0].name == PROFILE:
            left_out = "".join(f" - '{c}'" for c in ("cached_profile", "cached_profile_epoch", "cached_profile_valid_until", "profile_cache_updated_at"))
            return f"to_jsonb({rel.alias}){left_out}"
        return self.of([f"to_jsonb({rel.alias})", f"to_jsonb({rel.alias}) - '{next(iter(rel.columns))}'", f"({rel.alias} IS NULL)", f"row_to_json({rel.alias})::jsonb"])

    def functions(self, rels):
        """Functions in FROM over columns of a row that is there: SQL, alias, what they give."""
        found = []
        for rel in rels:
            for name, (kind, shown) in rel.columns.items():
                column = rel.sql(name)
                if kind.family in ("text[]", "int[]"):
                    found.append((f"unnest({column})", "x", kind.family.removesuffix("[]")))
                elif kind.family == "jsonb":
                    found.append((f"jsonb_array_elements({column} -> 'list')", "x", "anything"))
                    found.append((f"jsonb_each({column} -> 'o')", "x, y", "text"))
                    found.append((f"jsonb_object_keys({column} -> 'o')", "x", "text"))
                    found.append((f"jsonb_to_record({column})", "x text, n int", None))
                elif kind.name in ("int", "small_no"):
                    found.append((f"generate_series(1, {column})", "x", "int"))
                elif kind.name == "text":
                    found.append((f"regexp_split_to_table({column}, 'k')", "x", "text"))
        return found

    def called(self, found, rels):
        """A function as one more item of FROM."""
        call, names, kind = found
        self.shape("function joined")
        alias = self.alias("f")
        if kind is None:
            rels.append(Rel(alias, {"x": (KINDS["text"], True), "n": (KINDS["int"], True)}, [], []))
            return f" CROSS JOIN {call} AS {alias} ({names})"
        # Its number tells its rows apart, beside the row that it is called with.
        rels.append(Rel(alias, {"x": (KINDS[kind], True), "o": (KINDS["bigint"], True)}, [], ["o"]))
        return f" CROSS JOIN {self.of(['', 'LATERAL '])}{call} WITH ORDINALITY AS {alias} ({names}, o)"

    def unrolled(self, rels):
        found = self.functions(rels)
        if not found:
            return self.column(rels)[0]
        call, names, kind = self.of(found)
        self.shape("function in FROM")
        alias = self.alias("f")
        if kind and self.chance(0.3):
            self.shape("ORDINALITY")
            source = self.of([f"{call} WITH ORDINALITY", f"ROWS FROM ({call}) WITH ORDINALITY"])
            return f"(SELECT jsonb_agg({alias}.x ORDER BY {alias}.o) FROM {source} AS {alias} ({names}, o))"
        return f"(SELECT {self.of(['jsonb_agg', 'array_agg', 'min'])}({alias}.x::text ORDER BY {alias}.x::text) FROM {self.of(['', 'LATERAL '])}{call} AS {alias} ({names}))"

    def order(self, rels):
        """ORDER BY that leaves nothing open, or None."""
        if any(r.key is None for r in rels):
            return None
        names = [r.sql(k) for r in rels for k in r.key]
        column, kind = self.column(rels)
        first = [f"{column}{self.of(['', ' DESC', ' NULLS FIRST'])}"] if kind and kind.family not in ("jsonb", "anything") and self.chance(0.3) else []
        return ", ".join(first + names)

    def aggregate(self, rels, depth, filtered=True):
        """An aggregate over the rows of rels."""
        column, kind = self.column(rels)
        order = self.order(rels)
        exact = kind is not None and kind.exact and kind.family not in ("jsonb", "bool", "text[]", "int[]", "anything")
        choices = ["count(*)", f"count({column})"]
        if order:
            choices += [f"jsonb_agg({column} ORDER BY {order})"] * 3 + [f"string_agg({column}::text, ',' ORDER BY {order})", *([f"array_agg({column} ORDER BY {order})"] if kind is not None and kind.family not in ("text[]", "int[]", "anything") else []),
                f"jsonb_object_agg('k' || coalesce({column}::text, ''), {self.column(rels)[0]} ORDER BY {order})", f"jsonb_agg(jsonb_build_array({column}, {self.column(rels)[0]}) ORDER BY {order})"]  # fmt: skip
            if depth < 2:
                choices += [f"jsonb_agg({self.value(rels, depth + 1)} ORDER BY {order})"]
        else:
            choices += [f'jsonb_agg({column} ORDER BY {column}::text COLLATE "C")', f"""string_agg({column}::text, ',' ORDER BY {column}::text COLLATE "C")"""]
        if exact:
            choices += [f"jsonb_agg(DISTINCT {column})", f"count(DISTINCT {column})"] + ([] if kind.family == "uuid" else [f"max({column})", f"min({column})"])
        if kind is not None and kind.family == "bool":
            choices += [f"bool_or({column})", f"every({column})"]
        call = self.of(choices)
        if filtered and self.chance(0.2):
            self.shape("FILTER")
            call += f" FILTER (WHERE {self.condition(rels)})"
        return call

    # Rows

    def rows(self, env, depth):
        """FROM and WHERE of a query whose rows are tied to env: SQL of both, and the relations in it."""
        source, rel, condition = self.item(env, depth)
        where, rels = [condition], [rel]
        for _ in range(self.of([1, 1, 2] if "outer join" in self.risks else [0, 0, 0, 1, 1, 2])):
            if self.size > 0:
                source = self.join(source, rels, env, where, depth)
        if self.chance(0.1) and (calls := self.functions(rels if self.chance(0.7) else rels + env)):
            source += self.called(self.of(calls), rels)
        if self.chance(0.15):
            where.append(self.condition(rels + env))
        if depth < 2 and self.size > 0 and self.chance(0.12):
            where.append(self.exists(rels + env, depth))
        where = [w for w in where if w]
        return source, f" WHERE {' AND '.join(where)}" if where else "", rels

    def item(self, env, depth, one=False):
        """One item of FROM, tied to env: its SQL, itself, and the condition that ties it."""
        self.size -= 1
        if not one and self.risky("untied"):
            table = self.of([self.schema.tables["elsewhere"], self.of(list(self.schema.tables.values()))])
            rel = of_table(table, self.alias(table.name))
            return f"{table.name} AS {rel.alias}", rel, ""
        if not one and self.risky("untied constant") or not one and self.chance(0.04):
            return self.constant()
        again = [s for s in self.shared if self.edges_to(s, env)]
        if again and not one and self.chance(0.3):
            self.shape("used twice")
            name, make, ties = self.of(again)
            rel = make(self.alias())
            edge = self.of(self.edges_to((name, make, ties), env))
            return f"{name} AS {rel.alias}", rel, self.tie(edge, rel, env)
        if not one and depth < 3 and self.size > 1 and self.chance(0.12):
            if found := self.through(env, depth):
                return found
        edge = self.edge(env, one)
        if edge is None or (not one and depth < 3 and self.chance(0.32 * self.subqueries)):
            derived = self.derived(self.edge(env), env, depth + 1) if self.edge(env) else None
            if derived:
                return derived
        rel = of_table(edge.table, self.alias(edge.table.name))
        return f"{edge.table.name} AS {rel.alias}", rel, self.tie(edge, rel, env)

    def through(self, env, depth):
        """An item that is tied by what a subquery finds, or None."""
        source, where, inner = self.rows(env, depth + 1)
        edges = [e for e in self.edges(inner) if len(e.parts) == 1]
        if not edges:
            return None
        edge = self.rng.choices(edges, [e.weight for e in edges])[0]
        rel = of_table(edge.table, self.alias(edge.table.name))
        mine, theirs = rel.sql(edge.parts[0][0]), edge.parts[0][1]
        order = self.order(inner)
        how = self.of({"IN": 3, "ANY": 1.5, "EXISTS": 3, "first": 1.5 if order else 0, "NOT EXISTS": 3 if self.risky("tie NOT") else 0})
        self.shape(f"through {how}")
        also = f"{where} AND" if where else " WHERE"
        condition = {
            "IN": f"{mine} IN (SELECT {theirs} FROM {source}{where})",
            "ANY": f"{mine} = ANY (ARRAY(SELECT {theirs} FROM {source}{where}))",
            "EXISTS": f"EXISTS (SELECT FROM {source}{also} {mine} = {theirs})",
            "NOT EXISTS": f"NOT EXISTS (SELECT FROM {source}{also} {mine} = {theirs})",
            "first": f"{mine} = (SELECT {theirs} FROM {source}{where} ORDER BY {order} LIMIT 1)",
        }[how]
        return f"{edge.table.name} AS {rel.alias}", rel, condition

    def has(self, rel, edge):
        return any(t is edge.table and all(p[0] in m for p in edge.parts) for t, m in rel.bases)

    def edges_to(self, shared, env):
        """Ways to tie a shared subquery by the columns that it goes by, or now and then by others."""
        _, make, ties = shared
        rel = make("x")
        return [e for e in self.edges(env) if self.has(rel, e) and (set(ties) == {p[0] for p in e.parts} or "untied" in self.risks)]

    def constant(self):
        """A row, or some, by constants."""
        table = self.of([t for t in self.schema.tables.values() if len(t.key) == 1 and t.name not in (PROFILE, "elsewhere")])
        rel, self.shapes = of_table(table, self.alias(table.name)), self.shapes | {"constant key"}
        key, kind = rel.sql(table.key[0]), table.columns[table.key[0]].kind
        value = lambda: kind.value(self.rng, 4)
        return f"{table.name} AS {rel.alias}", rel, self.of([f"{key} = {value()}", f"{key} IN ({value()}, {value()})", f"{value()} = {key}"])

    def join(self, source, rels, env, where, depth):
        """FROM with one more item, tied to what is there."""
        near = rels if self.chance(0.85) else rels + env
        text, rel, condition = self.item(near, depth)
        kind = self.of({"JOIN": 4, "LEFT JOIN": 5, ",": 1.5, "nested": 1})
        if "LATERAL" not in text and self.risky("outer join"):
            kind = self.of(["RIGHT JOIN", "FULL JOIN", "LEFT JOIN outer", "LEFT JOIN outer"])
        if kind == "nested" and depth < 3 and self.size > 0:
            self.shape("nested join")
            more, other, condition2 = self.item([rel], depth + 1)
            text = f"({text} {self.of(['JOIN', 'LEFT JOIN'])} {more} ON {condition2 or 'true'})"
            rels.append(other)
            kind = self.of(["JOIN", "LEFT JOIN"])
        rels.append(rel)
        if kind == "LEFT JOIN outer":
            # What ties the first side is said where it leaves out nothing.
            moved, where[:] = [w for w in where if w], []
            return f"{source} LEFT JOIN {text} ON {' AND '.join([condition or 'true', *moved])}"
        if kind in (",", "nested"):
            where.append(condition)
            return f"{source} CROSS JOIN {text}"
        return f"{source} {kind} {text} ON {condition or 'true'}"

    # Subqueries in FROM

    def derived(self, edge, env, depth):
        """A subquery of the edge's table, tied from outside, or from inside where it is LATERAL."""
        table, ties = edge.table, list(dict.fromkeys(p[0] for p in edge.parts))
        inner = of_table(table, self.alias(table.name))
        source, rels = f"{table.name} AS {inner.alias}", [inner]
        filters = [self.condition([inner])] if self.chance(0.2) else []
        if self.size > 0 and self.chance(0.25):
            source = self.join(source, rels, [], filters, depth + 1)
        lateral = self.chance(0.25 / self.subqueries**2)
        if lateral:
            self.shape("LATERAL")
            filters.append(self.tie(edge, inner, env))
        where = f" WHERE {' AND '.join(f for f in filters if f)}" if any(filters) else ""
        tied = lambda arm: self.tie(edge, arm, env) if lateral and self.chance(0.8) else self.condition([arm])
        body = self.body(inner, rels, (source, where, tied), ties, lateral)
        if body is None:
            return None
        query, columns, key, outside = body
        alias = self.alias("s")
        make = lambda name: Rel(name, columns, [(table, {c: c for c in columns if c in table.columns})], key)
        rel = make(alias)
        if not self.has(rel, edge) and not lateral:
            return None
        text = f"{'LATERAL ' if lateral else ''}({query}) AS {alias}" if lateral else f"{self.place(query, make, ties)} AS {alias}"
        conditions = [] if lateral else [self.tie(edge, rel, env)]
        return text, rel, " AND ".join(conditions + ([outside.format(alias)] if outside else [])) or "true"

    def place(self, query, make, ties):
        """Where a subquery is written: in its place, in WITH, or as a view of its own."""
        where = self.of({"in place": 6, "WITH": 2, "view": 2})
        # A view does not see the WITH queries of the one that reads it.
        if where == "in place" or where == "view" and re.search(r"\bw\d", query):
            return f"({query})"
        self.shape(where)
        name = f"{'w' if where == 'WITH' else 'nested'}{len(self.withs) + len(self.nested) + 1}"
        if where == "WITH":
            self.withs.append(f"{name} AS {self.of(['', '', 'NOT MATERIALIZED ', 'MATERIALIZED '])}({query})")
        else:
            self.nested.append(f"CREATE VIEW {name} AS {query}")
        self.shared.append((name, make, ties))
        return name

    def body(self, inner, rels, query, ties, lateral):
        """The subquery itself: SQL, its columns, its key, and a condition outside ({}: its alias)."""
        table = inner.bases[0][0]
        extra = [c for c in table.columns if c not in ties and self.chance(0.6)]
        names = list(dict.fromkeys(ties + extra + table.key))
        columns = {c: inner.columns[c] for c in names}
        listed = ", ".join(inner.sql(c) for c in names)
        by, key = ", ".join(inner.sql(c) for c in ties), ", ".join(inner.sql(k) for k in table.key)
        kind = self.of({"plain": 3, "grouped": 3, "distinct": 2, "distinct on": 2, "window": 3, "union": 2, "setop": 1, "limit": 0.7})
        wanted = [risk for risk in self.risks if risk in INSIDE]
        if wanted and self.chance(0.8):
            kind = self.of(wanted).removesuffix(" by another column").replace("condition above LIMIT", "limit")
        wrong = [c for c in table.columns if c not in ties and table.columns[c].kind.key]
        if kind in ("grouped", "distinct on", "window") and wrong and self.risky(f"{kind} by another column"):
            by = inner.sql(self.of(wrong))
        elif not lateral and kind == "limit" and not self.risky("condition above LIMIT"):
            kind = "plain"
        self.shape(f"subquery {kind}")
        if len(rels) > 1 and kind in ("plain", "window", "union", "limit"):
            key_here = None  # rows of a join: the table's own key may be there twice
        else:
            key_here = table.key
        return self.of_kind(kind, inner, rels, query, (columns, listed, by, key, key_here), ties)

    def of_kind(self, kind, inner, rels, query, told, ties):
        (source, where, tied), (columns, listed, by, key, key_here) = query, told
        table = inner.bases[0][0]
        from_where = f" FROM {source}{where}"
        if kind == "plain":
            return f"SELECT {listed}{from_where}", columns, key_here, None
        if kind == "grouped":
            grouped = {c: (k, shown and k.exact) for c, (k, shown) in columns.items() if c in ties}
            number = f"{self.aggregate(rels, 9)} AS n"
            having = f" HAVING count(*) {self.of(['>', '<', '='])} {self.rng.randint(1, 2)}" if self.chance(0.25) else ""
            groups = ", ".join(dict.fromkeys([*(inner.sql(c) for c in ties), *by.split(", ")]))
            key = ties if set(by.split(", ")) <= {inner.sql(c) for c in ties} else None
            return f"SELECT {', '.join(inner.sql(c) for c in ties)}, {number}{from_where} GROUP BY {groups}{having}", grouped | {"n": (KINDS["anything"], True)}, key, None
        if kind == "distinct":
            names = [c for c in columns if columns[c][0].exact and columns[c][0].family not in ("jsonb", "anything") or c in ties][:4]
            shown = {c: (columns[c][0], columns[c][0].exact) for c in names}
            return f"SELECT DISTINCT {', '.join(inner.sql(c) for c in names)}{from_where}", shown, names, None
        if kind == "distinct on":
            if len(rels) > 1:
                return None
            return f"SELECT DISTINCT ON ({by}) {listed}{from_where} ORDER BY {by}, {key}", columns, key_here, None
        if kind == "window":
            call = self.of([f"row_number() OVER (PARTITION BY {by} ORDER BY {key})", f"count(*) OVER (PARTITION BY {by})", f"rank() OVER (PARTITION BY {by} ORDER BY {key})"])
            if call.startswith("row") and len(rels) > 1:
                call = call.replace("row_number", "dense_rank")
            limit = self.of([None, "{}.n = 1", "{}.n <= 2"])
            return f"SELECT {listed}, {call} AS n{from_where}", columns | {"n": (KINDS["bigint"], True)}, key_here, limit
        if kind == "limit":
            if len(rels) > 1:
                return None
            return f"SELECT {listed}{from_where} ORDER BY {key} LIMIT {self.rng.randint(1, 3)}{self.of(['', ' OFFSET 1'])}", columns, key_here, None
        if any(not k.exact for k, _ in columns.values()):
            return None
        second = of_table(table, self.alias(table.name))
        again = f"SELECT {', '.join(second.sql(c) for c in columns)} FROM {table.name} AS {second.alias} WHERE {tied(second)}"
        word = self.of(["UNION ALL", "UNION"]) if kind == "union" else self.of(["EXCEPT", "INTERSECT", "EXCEPT ALL"])
        self.shape(word)
        # UNION ALL may have a row twice.
        whole = None if word in ("UNION ALL", "EXCEPT ALL") or any(k.family in ("jsonb", "anything") for k, _ in columns.values()) else list(columns)
        return f"SELECT {listed}{from_where} {word} {again}", columns, whole, None

    # Subqueries as values and conditions

    def aggregated(self, env, depth):
        self.shape("aggregated")
        source, where, rels = self.rows(env, depth + 1)
        having = f" HAVING count(*) > {self.rng.randint(0, 2)}" if self.chance(0.15) else ""
        return f"(SELECT {self.aggregate(rels, depth + 1)} FROM {source}{where}{having})"

    def first(self, env, depth):
        source, where, rels = self.rows(env, depth + 1)
        order = self.order(rels)
        if order is None:
            return f"(SELECT {self.aggregate(rels, depth + 1)} FROM {source}{where})"
        self.shape("LIMIT 1")
        return f"(SELECT {self.value(rels, depth + 1)} FROM {source}{where} ORDER BY {order} LIMIT 1{self.of(['', '', '', ' OFFSET 1'])})"

    def exists(self, env, depth):
        """A condition on rows that are there or not."""
        if depth > 2 or self.size <= 0:
            return self.condition(env)
        source, where, rels = self.rows(env, depth + 1)
        how = self.of({"EXISTS": 3, "NOT EXISTS": 3, "IN": 1.5, "NOT IN": 1, "= ANY": 1, "row IN": 0.7})
        self.shape(how)
        if how.endswith("EXISTS"):
            return f"{how} (SELECT FROM {source}{where})"
        mine = [(r.sql(n), k) for r in env for n, (k, s) in r.columns.items() if k.key]
        theirs = [(r.sql(n), k) for r in rels for n, (k, s) in r.columns.items() if k.key]
        pairs = [(m, t) for m, k in mine for t, o in theirs if k.family == o.family]
        if not pairs:
            return f"EXISTS (SELECT FROM {source}{where})"
        (m, t), (m2, t2) = self.of(pairs), self.of(pairs)
        if how == "= ANY":
            return f"{m} = ANY (ARRAY(SELECT {t} FROM {source}{where}))"
        if how == "row IN":
            return f"({m}, {m2}) IN (SELECT {t}, {t2} FROM {source}{where})"
        return f"{m} {how} (SELECT {t} FROM {source}{where})"

    # The whole

    def beside(self, rels):
        """What is joined to the profile, one row at most: JOIN and all."""
        how = self.of({"one": 6, "lateral": 2, "first": 2, "derived": 3 * self.subqueries, "partial": 1.5, "constant": 0.6, "many": 6 if "many rows" in self.risks else 0})
        if how == "many" and not self.risky("many rows") or how == "partial" and not self.partial(rels):
            how = "one"
        self.shape(f"beside {how}")
        inner = "LEFT JOIN" if self.chance(0.8) else "JOIN"
        alias = self.alias("l")
        self.size -= how not in ("lateral", "first")
        if how == "lateral":
            source, where, found = self.rows(rels, 1)
            calls = {f"a{i}": self.aggregate(found, 1) for i in range(self.rng.randint(1, 2))}
            rels.append(Rel(alias, {n: (KINDS["anything"], True) for n in calls}, [], None))
            text = f"LATERAL (SELECT {', '.join(f'{c} AS {n}' for n, c in calls.items())} FROM {source}{where}) AS {alias}"
            return self.of([f"LEFT JOIN {text} ON true", f"CROSS JOIN {text}"])
        if how == "first":
            source, where, found = self.rows(rels, 1)
            order = self.order(found)
            if order:
                base = next((r for r in found if r.bases), found[0])
                names = list(base.columns)
                rels.append(Rel(alias, base.columns, [(t, m) for t, m in base.bases], names))
                return f"{inner} LATERAL (SELECT {', '.join(base.sql(n) for n in names)} FROM {source}{where} ORDER BY {order} LIMIT 1) AS {alias} ON {self.of(['true', 'true', self.condition(rels)])}"
        if how == "derived":
            edge = self.edge(rels, self.chance(0.5))
            derived = self.derived(edge, rels, 1) if edge else None
            if derived:
                text, rel, condition = derived
                rels.append(rel)
                return f"{inner} {text} ON {condition or 'true'}"
        if how == "partial":
            table, fk, (columns, predicate) = self.partial(rels)
            rel = of_table(table, self.alias(table.name))
            condition = " AND ".join(f"{rel.sql(c)} = {rels[0].sql(t)}" for c, t in zip(fk.columns, fk.there))
            rels.append(rel)
            return f"{inner} {table.name} AS {rel.alias} ON {condition} AND {predicate.format(rel.alias + '.')}"
        if how == "constant":
            text, rel, condition = self.constant()
            rels.append(rel)
            return f"{inner} {text} ON {condition}"
        edge = self.edge(rels, one=how != "many")
        almost = [e for e in self.edges(rels) if e.almost]
        if almost and self.risky("late key"):
            edge = self.of(almost)
        rel = of_table(edge.table, self.alias(edge.table.name))
        condition = self.tie(edge, rel, rels)
        rels.append(rel)
        if self.risky("outer side"):
            inner = self.of(["RIGHT JOIN", "FULL JOIN"])
        return f"{inner} {edge.table.name} AS {rel.alias} ON {condition}"

    def partial(self, rels):
        found = [(t, fk, p) for t in self.schema.tables.values() for p in t.partial for fk in t.fks if fk.to.name == PROFILE and fk.columns == p[0]]
        return self.of(found) if found else None

    def plain(self, name="p"):
        """A query with one row for a profile."""
        person = self.schema.tables[PROFILE]
        rels = [of_table(person, name)]
        joins = []
        for _ in range(self.of([0, 0, 1, 1, 1, 2, 2, 3])):
            if self.size > 0:
                joins.append(self.beside(rels))
        where = []
        if self.chance(0.12):
            where.append(self.condition(rels))
        if self.chance(0.12):
            where.append(self.exists(rels, 1))
        fields = ", ".join(f"'{chr(97 + i)}', {self.value(rels, 0)}" for i in range(self.of([1, 1, 1, 2, 2, 3])))
        return f"SELECT {name}.{KEY}, jsonb_build_object({fields}) AS document FROM person AS {name} {' '.join(joins)}{' WHERE ' + ' AND '.join(where) if where else ''}"

    def grouped(self):
        """The profile joined to what it has many of, and grouped."""
        self.shape("top grouped")
        person = self.schema.tables[PROFILE]
        mine = of_table(person, "p")
        rels, where = [mine], []
        source = "person AS p"
        for _ in range(self.rng.randint(1, 2)):
            if self.size > 0:
                source = self.join(source, rels, [], where, 1)
        groups = list(dict.fromkeys([KEY, *person.key]))
        fields = [self.aggregate(rels, 1) for _ in range(self.rng.randint(1, 3))] + [self.value([mine], 9) for _ in range(self.rng.randint(0, 2))]
        having = f" HAVING count(*) > {self.rng.randint(0, 1)}" if self.chance(0.2) else ""
        where = [w for w in where if w]
        return (
            f"SELECT p.{KEY}, jsonb_build_array({', '.join(fields)}) AS document FROM {source}"
            f"{' WHERE ' + ' AND '.join(where) if where else ''} GROUP BY {', '.join(f'p.{g}' for g in groups)}{having}"
        )

    def statements(self):
        """What makes the view: nested views first."""
        top = self.of({"plain": 8, "grouped": 1.5, "wrapped": 1, "arms": 0.4})
        if top == "grouped":
            query = self.grouped()
        elif top == "wrapped":
            self.shape("top wrapped")
            query = f"SELECT x.{KEY}, x.document FROM ({self.plain()}) AS x"
        elif top == "arms":
            self.shape("top UNION ALL")
            flag = "p.person_c1"
            first, second = self.plain(), self.plain()
            add = lambda q, c: f"SELECT y.{KEY}, y.document FROM ({q}) AS y JOIN person AS p ON p.{KEY} = y.{KEY} AND {c}"
            query = f"{add(first, f'coalesce({flag}, false)')} UNION ALL {add(second, f'NOT coalesce({flag}, false)')}"
        else:
            query = self.plain()
        withs = f"WITH {', '.join(self.withs)} " if self.withs else ""
        return [*self.nested, f"CREATE VIEW document AS {withs}{query}"]
