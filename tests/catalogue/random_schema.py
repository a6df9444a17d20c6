"""A random app: tables, keys, foreign keys and rows, as the views of random_view.py read them.

Everything follows from the seed. `person` is the profile table. Beside it there are dimensions, which it and
others refer to, members, which refer to it, and children of members. The types are those that go wrong most
easily: values that are equal and print differently (citext, numeric, a collation that ignores case), padded ones,
domains, enums, composite keys.
"""

import random

PROFILE, KEY = "person", "uid"
TYPES = """CREATE TYPE mood AS ENUM ('k1', 'k2', 'k3', 'k4', 'k5', 'k6', 'k7', 'k8', 'k9')
CREATE DOMAIN small_no AS int CHECK (VALUE < 1000)
CREATE DOMAIN code AS text
CREATE COLLATION any_case (PROVIDER = icu, LOCALE = 'und-u-ks-level2', DETERMINISTIC = false)"""


class Type:
    """A type of columns. family: what compares with what; exact: equal values print the same."""

    def __init__(self, name, sql, family, exact=True, key=True):
        self.name, self.sql, self.family, self.exact, self.key = name, sql, family, exact, key

    def value(self, rng, n):
        """One of about n values, as a literal."""
        n = min(n, 9) if self.name == "mood" else n
        i = rng.randint(1, n)
        j = rng.randint(1, n)
        text = rng.choice("kK") if self.name in ("citext", "any_case") else "k"
        return {
            "number": lambda: f"{i}" + (rng.choice(["", ".0", ".50"]) if self.name == "numeric" else ""),
            "uuid": lambda: f"'{i:08d}-0000-4000-8000-000000000000'",
            "bool": lambda: rng.choice(["true", "false"]),
            "text[]": lambda: rng.choice([f"ARRAY['k{i}', 'k{j}']", f"ARRAY['k{i}']", "'{}'"]),
            "int[]": lambda: rng.choice([f"ARRAY[{i}, {j}]", f"ARRAY[{i}]", "'{}'"]),
            "jsonb": lambda: rng.choice(
                [f"""'{{"list": [{i}, {j}.0], "x": "k{i}", "n": {j}, "o": {{"k{i}": {j}}}}}'""", f"""'{{"list": [], "x": null, "n": {i}}}'""", f"""'{{"x": "k{j}"}}'"""]
            ),
            "date": lambda: f"'2024-01-{i:02d}'",
        }.get(self.family, lambda: f"'{text}{i}'")()


KINDS = {
    t.name: t
    for t in (
        Type("int", "int", "number"),
        Type("bigint", "bigint", "number"),
        Type("numeric", "numeric", "number", exact=False),
        Type("small_no", "small_no", "number"),
        Type("uuid", "uuid", "uuid"),
        Type("text", "text", "text"),
        Type("varchar", "varchar(20)", "text"),
        Type("code", "code", "text"),
        Type("char", "char(4)", "char"),
        Type("any_case", "text COLLATE any_case", "any_case", exact=False),
        Type("citext", "citext", "citext", exact=False),
        Type("mood", "mood", "mood"),
        Type("bool", "boolean", "bool", key=False),
        Type("date", "date", "date", key=False),
        Type("text[]", "text[]", "text[]", key=False),
        Type("int[]", "int[]", "int[]", key=False),
        Type("jsonb", "jsonb", "jsonb", exact=False, key=False),
        Type("anything", "", "anything", exact=False, key=False),  # what a view has computed
    )
}
# What a foreign key's column may be instead of its key's type.
OTHERS = {"int": ["bigint", "small_no"], "bigint": ["int"], "numeric": ["int"], "text": ["varchar", "code"], "varchar": ["text"], "code": ["text"], "small_no": ["int"]}


class Column:
    def __init__(self, name, kind, nullable, n):
        self.name, self.kind, self.nullable, self.n = name, kind, nullable, n
        self.fks = []

    def value(self, rng):
        if self.nullable and rng.random() < 0.12:
            return "NULL"
        return self.kind.value(rng, self.n)


class ForeignKey:
    """columns of `table` refer to `there` of `to`."""

    def __init__(self, table, columns, to, there):
        self.table, self.columns, self.to, self.there = table, columns, to, there


class Table:
    def __init__(self, name, size):
        self.name, self.size = name, size
        self.columns = {}
        self.key = []
        self.unique = []  # beside the key: lists of names
        self.partial = []  # names, predicate with {} for the alias
        self.late = []  # names that are unique at commit only
        self.fks = []
        self.lines = []  # of CREATE TABLE
        self.indexes = []

    def add(self, name, kind, nullable=False, n=4, more=""):
        self.columns[name] = Column(name, KINDS[kind], nullable, n)
        self.lines.append(f"{name} {KINDS[kind].sql}{'' if nullable else ' NOT NULL'}{more}")
        return self.columns[name]

    def is_unique(self, names):
        return any(set(key) <= set(names) for key in [self.key, *self.unique])


def some_row(table, shown, key, number):
    """SQL for columns of a row that is there, whatever is there now."""
    return f"(SELECT {shown} FROM {table.name} ORDER BY {', '.join(key)} OFFSET (SELECT {number} % greatest(count(*), 1) FROM {table.name}) LIMIT 1)"


class Schema:
    def __init__(self, seed, mixed=True):
        """mixed: the server has foreign keys between a collation that ignores case and one that does not."""
        self.rng, self.mixed = random.Random(f"schema {seed}"), mixed
        self.kinds = [k for k in KINDS.values() if k.key]
        self.every = [k for k in KINDS.values() if k.sql]
        self.tables, self.fks = {}, []
        rng = self.rng
        dims = [self.dimension(f"dim{i}") for i in range(1, rng.randint(3, 4) + 1)]
        for dim in dims[1:]:
            if rng.random() < 0.4:
                self.refer(dim, dims[0])
            if rng.random() < 0.2:
                self.refer(dim, dim, nullable=True)
        self.account = self.dimension("account", size=7, kind=rng.choice(["uuid", "bigint", "int"]))
        person = self.person(dims)
        members = [self.member(f"mem{i}", person, dims) for i in range(1, rng.randint(3, 4) + 1)]
        for i in range(1, rng.randint(1, 2) + 1):
            child = self.table(f"kid{i}", 14)
            self.identify(child)
            self.refer(child, rng.choice(members), nullable=rng.random() < 0.3)
            if rng.random() < 0.5:
                self.refer(child, rng.choice(dims))
            self.fill(child)
        self.tables["elsewhere"] = other = Table("elsewhere", 3)  # what nothing refers to
        other.add("elsewhere_id", "int", n=5)
        other.key = ["elsewhere_id"]
        self.fill(other)

    # Tables

    def table(self, name, size):
        self.tables[name] = Table(name, size)
        return self.tables[name]

    def identify(self, table, kind=None, n=None):
        """A key of one column, or now and then of two."""
        n = n or table.size + 3
        if kind is None and self.rng.random() < 0.3:
            first, second = f"{table.name}_org", f"{table.name}_no"
            table.add(first, self.rng.choice(["int", "text", "mood"]), n=3)
            table.add(second, self.rng.choice(["int", "bigint", "numeric"]), n=5)
            table.key = [first, second]
        else:
            kind = kind or self.rng.choice([k.name for k in self.kinds if table.size < 6 or k.name not in ("mood", "char")])
            table.add(f"{table.name}_id", kind, n=n)
            table.key = [f"{table.name}_id"]

    def fill(self, table):
        """Columns that are no keys, and unique indexes of all sorts."""
        rng = self.rng
        for i in range(1, rng.randint(2, 4) + 1):
            kind = rng.choice(self.every) if i > 2 else [KINDS["bool"], rng.choice([k for k in self.every if k.key])][i - 1]
            table.add(f"{table.name}_c{i}", kind.name, nullable=rng.random() < 0.6)
        plain = [c for c in table.columns if c not in table.key and table.columns[c].kind.key and not table.columns[c].fks]
        if plain and rng.random() < 0.3:
            name = rng.choice(plain)
            table.columns[name].n = table.size + 2
            defer = rng.random() < 0.25
            table.lines.append(f"UNIQUE ({name}){' DEFERRABLE INITIALLY DEFERRED' if defer else ''}")
            (table.late if defer else table.unique).append([name])
        if plain and rng.random() < 0.15 and table.columns[name := rng.choice(plain)].kind.family == "text":
            table.indexes.append(f"CREATE UNIQUE INDEX ON {table.name} ({name} text_pattern_ops)")
            table.columns[name].n = table.size + 2

    def dimension(self, name, size=4, kind=None):
        table = self.table(name, size)
        self.identify(table, kind)
        self.fill(table)
        return table

    def refer(self, table, to, nullable=None, defer=None, suffix=""):
        """A foreign key, to the key or another unique key, of the same type or one that compares with it."""
        rng = self.rng
        there = rng.choice([to.key, to.key, *to.unique])
        nullable = rng.random() < 0.5 if nullable is None else nullable
        columns = []
        for name in there:
            theirs = to.columns[name]
            kind = theirs.kind.name
            if rng.random() < 0.25 and kind in OTHERS:
                kind = rng.choice(OTHERS[kind])
            if kind == "any_case" and rng.random() < 0.15 and self.mixed:
                kind = "text"
            # Of a composite key a column may be shared with another foreign key, as a tenant's number is.
            shared = [c for c in table.columns.values() if c.fks and c.kind is theirs.kind and len(there) > 1 and c.name not in columns]
            if shared and rng.random() < 0.5:
                columns.append(rng.choice(shared).name)
                continue
            column = f"{table.name}_{to.name}{suffix}" + (f"_{name.rsplit('_', 1)[1]}" if len(there) > 1 else "")
            while column in table.columns:
                column += "x"
            table.add(column, kind, nullable=nullable, n=theirs.n)
            columns.append(column)
        fk = ForeignKey(table, columns, to, there)
        for c in columns:
            table.columns[c].fks.append(fk)
        on_delete = rng.choice(["CASCADE", "CASCADE", "SET NULL" if all(table.columns[c].nullable for c in columns) else "CASCADE", "NO ACTION"])
        more = rng.choice([" DEFERRABLE INITIALLY DEFERRED", " DEFERRABLE"]) if rng.random() < 0.2 else ""
        match = " MATCH FULL" if len(columns) > 1 and rng.random() < 0.3 else ""
        table.lines.append(
            f"FOREIGN KEY ({', '.join(columns)}) REFERENCES {to.name} ({', '.join(there)}){match} ON UPDATE {rng.choice(['CASCADE', 'CASCADE', 'NO ACTION'])} ON DELETE {on_delete}{more}"
        )
        if rng.random() < 0.9:
            table.indexes.append(f"CREATE INDEX ON {table.name} ({', '.join(columns)})")
        table.fks.append(fk)
        self.fks.append(fk)
        return fk

    def person(self, dims):
        rng, person = self.rng, self.table(PROFILE, 7)
        person.add(KEY, "uuid", n=9)
        kind = rng.choice(["int", "bigint", "uuid", "text", "numeric", "citext", "any_case", "both", "both", *["key"] * 6])
        if kind == "key":
            person.key = [KEY]
        elif kind == "both":
            person.add("person_org", "int", n=3)
            person.add("person_no", "int", n=8)
            person.key = ["person_org", "person_no"]
        else:
            self.identify(person, kind, 9)
        if kind != "key":
            person.unique.append([KEY])
        if rng.random() < 0.7:
            self.refer(person, self.account, nullable=rng.random() < 0.3)
            if rng.random() < 0.5:
                fk = person.fks[-1]
                person.unique.append(fk.columns)
        for dim in rng.sample(dims, rng.randint(1, len(dims))):
            self.refer(person, dim)
            if rng.random() < 0.3:
                self.refer(person, dim, suffix="_2")
        if rng.random() < 0.6:
            self.refer(person, person, nullable=True)
        self.fill(person)
        for column in rng.sample(["text[]", "int[]", "jsonb", "int"], 3):
            person.add(f"person_{column.removesuffix('[]')}{'s' if '[' in column else 'x'}", column, nullable=True)
        return person

    def member(self, name, person, dims):
        rng, table = self.rng, self.table(name, 12)
        shape = rng.choice(["own id", "own id", "one", "pair", "late"])
        if shape in ("own id", "late"):
            self.identify(table)
        fk = self.refer(table, person, nullable=shape == "own id" and rng.random() < 0.3)
        if shape == "one":
            table.key = fk.columns
        if shape == "late":
            table.late.append(fk.columns)
            table.lines.append(f"UNIQUE ({', '.join(fk.columns)}) DEFERRABLE INITIALLY DEFERRED")
        if shape == "pair":
            table.key = [*fk.columns, *self.refer(table, rng.choice(dims), nullable=False).columns]
            table.key = list(dict.fromkeys(table.key))
        if rng.random() < 0.35:
            self.refer(table, person, nullable=True, suffix="_by")
        if rng.random() < 0.5:
            self.refer(table, rng.choice(dims))
        if rng.random() < 0.4:
            self.refer(table, self.account)
        self.fill(table)
        if shape == "own id" and rng.random() < 0.5:
            flag = f"{name}_c1"
            column = rng.choice([c for c in table.columns.values() if c.kind.exact and c.kind.key] or [table.columns[flag]])
            where = rng.choice([f"{{}}{flag}", f"NOT {{}}{flag}", f"{{}}{column.name} IS NULL", f"{{}}{column.name} = {column.kind.value(rng, column.n)}"])
            table.partial.append((fk.columns, where))
        return table

    # What the database is told

    def ddl(self):
        """Statements that make the tables."""
        yield from TYPES.split("\n")
        for table in self.tables.values():
            extra = [f"PRIMARY KEY ({', '.join(table.key)})"]
            extra += [f"UNIQUE ({', '.join(key)})" for key in table.unique if f"UNIQUE ({key[0]})" not in table.lines]
            yield f"CREATE TABLE {table.name} (\n    " + ",\n    ".join(table.lines + extra) + ")"
        for table in self.tables.values():
            yield from table.indexes
            for columns, where in table.partial:
                yield f"CREATE UNIQUE INDEX ON {table.name} ({', '.join(columns)}) WHERE {where.format('')}"

    def fill_rows(self, run):
        """First rows for every table; run: executes an INSERT, and says whether it went well."""
        rows = {}
        for table in self.tables.values():
            mine = rows[table.name] = []
            for _ in range(4 * table.size):
                row = self.row(table, rows)
                if row and len(mine) < table.size and run(f"INSERT INTO {table.name} ({', '.join(row)}) VALUES ({', '.join(row.values())})"):
                    mine.append(row)

    def row(self, table, rows):
        """A row whose foreign keys refer to rows that are there, or None."""
        row = {}
        for fk in table.fks:
            columns = [table.columns[c] for c in fk.columns]
            fits = [
                r for r in rows[fk.to.name]
                if all(r[t] != "NULL" and row.get(c.name, r[t]) == r[t] and (c.kind.name == "numeric" or "." not in r[t] or c.kind.family != "number") for c, t in zip(columns, fk.there))
            ]  # fmt: skip
            if fits and (self.rng.random() < 0.9 or not all(c.nullable for c in columns)):
                chosen = self.rng.choice(fits)
                row |= {c.name: chosen[t] for c, t in zip(columns, fk.there)}
            elif all(c.nullable or c.name in row for c in columns) and any(c.nullable and c.name not in row for c in columns):
                row |= {c.name: "NULL" for c in columns if c.nullable and c.name not in row}
            else:
                return None
        # Written otherwise, where that is the same.
        row = {c: v.swapcase() if table.columns[c].kind.name in ("citext", "any_case") and self.rng.random() < 0.4 and v != "NULL" else v for c, v in row.items()}
        return {c.name: row.get(c.name) or c.value(self.rng) for c in table.columns.values()}

    @staticmethod
    def referring(table, rng, fresh=0.3):
        """Values for the columns of a row, as SQL: those of foreign keys mostly of rows that are there."""
        values = {c.name: c.value(rng) for c in table.columns.values()}
        for fk in table.fks:
            if len(fk.columns) == 1 and rng.random() < fresh:
                continue
            if values[fk.columns[0]] != "NULL":
                number = rng.randrange(100)
                for column, name in zip(fk.columns, fk.there):
                    values[column] = some_row(fk.to, name, fk.there, number)
        return values

    def insert(self, table, rng, fresh=0.3):
        values = self.referring(table, rng, fresh)
        return f"INSERT INTO {table.name} ({', '.join(values)}) VALUES ({', '.join(values.values())})"
