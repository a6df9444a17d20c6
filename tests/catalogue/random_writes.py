"""Random statements that write to the tables of random_schema.py: mostly to what a view reads, and to a row or a few."""

import re

from catalogue.random_schema import PROFILE, some_row


class Writes:
    def __init__(self, schema, rng, view):
        self.schema, self.rng = schema, rng
        self.words = words = set(re.findall(r"\w+", view))
        self.tables = list(schema.tables.values())
        self.used = {t.name: 6 if t.name in words else 3 if t.name == PROFILE else 0.3 for t in self.tables}
        self.effects = dict.fromkeys(self.used, 0)  # writes that changed a document
        self.written = []  # since the last look
        weight = lambda t, c: (15 if c.name in words else 1) * (0.5 if c.name in t.key else 1)
        self.columns = {t.name: [weight(t, c) for c in t.columns.values()] for t in self.tables}

    def write(self, truncate=True):
        """A statement. Nobody can read beside TRUNCATE."""
        rng = self.rng
        # Rather where no write has had an effect yet.
        table = rng.choices(self.tables, [self.used[t.name] / (1 + self.effects[t.name]) for t in self.tables])[0]
        self.written.append(table.name)
        kinds = {self.insert: 3.5, self.update: 8, self.delete: 2.5, self.refer: 3 if table.fks else 0, self.merge: 0.8, self.again: 0.5, self.truncate: 0.06 * truncate}
        return rng.choices(list(kinds), list(kinds.values()))[0](table)

    def seen(self, changed):
        for name in set(self.written) if changed else ():
            self.effects[name] += 1
        self.written = []

    def which(self, table):
        rng = self.rng
        how = rng.random()
        columns = list(table.columns.values())
        if how < 0.06:
            return "true"
        if how < 0.25:
            return " AND ".join(f"{k} = {table.columns[k].kind.value(rng, table.columns[k].n)}" for k in table.key)
        if how < 0.7:
            # A row that is there.
            keys = ", ".join(table.key)
            return f"({keys}) = {some_row(table, keys, table.key, rng.randrange(100))}"
        column = rng.choice([c for c in columns if c.kind.key or c.kind.family == "bool"])
        if how < 0.78:
            return f"{column.name} IN ({', '.join(column.kind.value(rng, column.n) for _ in range(3))})"
        return rng.choice([f"{column.name} = {column.kind.value(rng, column.n)}"] * 3 + [f"{column.name} IS NULL" if column.nullable else f"{column.name} = {column.kind.value(rng, column.n)}"])

    def insert(self, table):
        rng = self.rng
        sql = self.schema.insert(table, rng)
        plain = [c for c in table.columns if c not in table.key]
        keys = ", ".join(table.key)
        update = ", ".join(f"{c} = excluded.{c}" for c in rng.sample(plain, min(2, len(plain)))) if plain else ""
        if table.late:  # such a unique key cannot decide a conflict
            return sql
        return sql + rng.choice(["", " ON CONFLICT DO NOTHING", f" ON CONFLICT ({keys}) DO UPDATE SET {update}" if plain else ""])

    def update(self, table):
        rng = self.rng
        columns = list(table.columns.values())
        chosen = {c.name: c for c in rng.choices(columns, self.columns[table.name], k=rng.choice([1, 1, 1, 2, 3]))}
        flags = [c for c in chosen.values() if c.kind.family == "bool"]
        if flags and rng.random() < 0.6:
            values = {c.name: f"NOT {c.name}" for c in flags}
        else:
            values = {c.name: c.name if rng.random() < 0.03 else c.value(rng) for c in chosen.values()}
        return f"UPDATE {table.name} SET {', '.join(f'{n} = {v}' for n, v in values.items())} WHERE {self.which(table)}"

    def refer(self, table):
        """Refer to another row that is there."""
        weights = [8 if fk.columns[0] in self.words else 1 for fk in table.fks]
        fk = self.rng.choices(table.fks, weights)[0]
        source = some_row(fk.to, ", ".join(fk.there), fk.there, self.rng.randrange(100))
        return f"UPDATE {table.name} SET ({', '.join(fk.columns)}) = {source} WHERE {self.which(table)}"

    def delete(self, table):
        return f"DELETE FROM {table.name} WHERE {self.which(table)}"

    def truncate(self, table):
        return f"TRUNCATE {table.name} CASCADE"

    def merge(self, table):
        values = self.schema.referring(table, self.rng)
        plain = [c for c in table.columns if c not in table.key] or table.key
        columns = self.rng.sample(plain, min(2, len(plain)))
        on = " AND ".join(f"t.{k} = {values[k]}" for k in table.key)
        done = self.rng.choice(["DELETE", "UPDATE SET " + ", ".join(f"{c} = {values[c]}" for c in columns)])
        return f"MERGE INTO {table.name} AS t USING (SELECT 1) AS one ON {on} WHEN MATCHED THEN {done} WHEN NOT MATCHED THEN INSERT ({', '.join(values)}) VALUES ({', '.join(values.values())})"

    def again(self, table):
        """A row deleted, and inserted again with another value, in one statement."""
        columns = list(table.columns.values())
        other = self.rng.choice(columns)
        values = ", ".join(f"{other.value(self.rng)}::{other.kind.sql.split(' COLLATE')[0]}" if c is other else c.name for c in columns)
        names = ", ".join(c.name for c in columns)
        return f"WITH gone AS (DELETE FROM {table.name} WHERE {self.which(table)} RETURNING *) INSERT INTO {table.name} ({names}) SELECT {values} FROM gone"
