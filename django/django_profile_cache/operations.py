"""Migration operations: attach() and detach(), each the way back of the other, and notifications.

The first two change no row, so they take the same time on a large table as on a small one; but they lock the tables for that moment,
and whoever comes later waits behind them. Migrate with a lock_timeout: PGOPTIONS='-c lock_timeout=5s' manage.py migrate
"""

from django.db import router
from django.db.migrations.operations.base import Operation

__all__ = ["Attach", "Detach", "Notify"]


class _Operation(Operation):
    reduces_to_sql = True
    reversible = True
    hints = {}

    def state_forwards(self, app_label, state):
        pass  # the four columns are in no model

    def run(self, app_label, schema_editor, statement, values):
        """Where it has a place, as django.contrib.postgres' own operations do."""
        connection = schema_editor.connection
        if connection.vendor != "postgresql" or not router.allow_migrate(connection.alias, app_label, **self.hints):
            return
        schema_editor.execute(statement, params=values)


class _AttachOrDetach(_Operation):
    def __init__(self, profile=None, key=None, document=None, exclude=None, drop_columns=None, hints=None):
        """The first four are attach()'s, where they are not its defaults; hints: what a database router is told, as RunSQL's."""
        self.profile, self.key, self.document = profile, key, document
        self.exclude = None if exclude is None else list(exclude)
        if drop_columns is not None:
            self.drop_columns = drop_columns
        self.hints = hints or {}

    def attach(self, app_label, schema_editor):
        given = {
            "profile => %s::regclass": self.profile, "key => %s::name": self.key,
            "document => %s::regclass": self.document, "exclude => %s::name[]": self.exclude,
        }  # fmt: skip
        given = {words: value for words, value in given.items() if value is not None}
        self.run(app_label, schema_editor, f"SELECT profile_cache.attach({', '.join(given)})", list(given.values()))

    def detach(self, app_label, schema_editor):
        self.run(app_label, schema_editor, "SELECT profile_cache.detach(drop_columns => %s)", [self.drop_columns])


class Attach(_AttachOrDetach):
    """SELECT profile_cache.attach(…). Again, it takes up what has changed. Backwards: detach(drop_columns)."""

    drop_columns = True

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        self.attach(app_label, schema_editor)

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        self.detach(app_label, schema_editor)

    def describe(self):
        return "Attaches profile_cache"

    @property
    def migration_name_fragment(self):
        return "profile_cache_attach"


class Detach(_AttachOrDetach):
    """SELECT profile_cache.detach(drop_columns). Backwards: attach(…), with the arguments that are given here for that."""

    drop_columns = False

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        self.detach(app_label, schema_editor)

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        self.attach(app_label, schema_editor)

    def describe(self):
        return "Detaches profile_cache"

    @property
    def migration_name_fragment(self):
        return "profile_cache_detach"


class Notify(_Operation):
    """Turns profile_cache.notify on for this database, from each session's next connection on. Backwards: off."""

    def __init__(self, hints=None):
        self.hints = hints or {}

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        self.set(app_label, schema_editor, "SET profile_cache.notify = on")

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        self.set(app_label, schema_editor, "RESET profile_cache.notify")

    def set(self, app_label, schema_editor, words):
        # Only where the extension is loaded may a setting of it be given for good, so a function of it comes first.
        self.run(app_label, schema_editor, "SELECT profile_cache.iso8601(now())", None)
        self.run(app_label, schema_editor, f"DO $$ BEGIN EXECUTE format('ALTER DATABASE %I {words}', current_database()); END $$", None)

    def describe(self):
        return "Has profile_cache notify of changes"

    @property
    def migration_name_fragment(self):
        return "profile_cache_notify"
