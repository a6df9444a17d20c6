"""Keeps each profile as ready JSON. It changes no row, so it takes the same time on a large table as on a small one.
Afterwards run `manage.py profile_cache_refresh`, and from then on every minute or so."""

from django.contrib.postgres.operations import CreateExtension
from django.db import migrations

from django_profile_cache.operations import Attach


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial")]

    operations = [CreateExtension("profile_cache"), Attach()]
