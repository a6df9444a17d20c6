"""Lets the database tell who listens when profiles change (accounts/realtime.py), from each session's next connection on."""

from django.db import migrations


def database(change):
    # attach() first, which changes nothing here: only where the extension is loaded may a setting of it be given for good.
    return f"""SELECT profile_cache.attach();
        DO $$ BEGIN EXECUTE format('ALTER DATABASE %I {change}', current_database()); END $$"""


class Migration(migrations.Migration):
    dependencies = [("accounts", "0004_row_security")]

    operations = [migrations.RunSQL(database("SET profile_cache.notify = on"), database("RESET profile_cache.notify"))]
