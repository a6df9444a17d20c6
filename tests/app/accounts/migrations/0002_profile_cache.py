"""Keeps each profile as ready JSON. It changes no row, so it takes the same time on a large table as on a small one.
Afterwards run `manage.py refresh_profiles`, and from then on every minute or so."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial")]

    operations = [
        migrations.RunSQL("CREATE EXTENSION IF NOT EXISTS profile_cache", "DROP EXTENSION profile_cache"),
        migrations.RunSQL("SELECT profile_cache.attach()", "SELECT profile_cache.detach()"),
    ]
