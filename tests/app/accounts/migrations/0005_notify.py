"""Lets the database tell who listens when profiles change (accounts/realtime.py), from each session's next connection on."""

from django.db import migrations

from django_profile_cache.operations import Notify


class Migration(migrations.Migration):
    dependencies = [("accounts", "0004_row_security")]

    operations = [Notify()]
