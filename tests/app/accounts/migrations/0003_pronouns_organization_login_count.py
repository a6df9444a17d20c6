"""Adds, renames and retypes columns that the document shows. PostgreSQL retypes no column that a view uses, so the
cache is detached for that moment. All of it is one transaction: readers wait for it and never find the cache gone."""

from django.db import migrations, models

from django_profile_cache.operations import Attach, Detach


class Migration(migrations.Migration):
    dependencies = [("accounts", "0002_profile_cache")]

    operations = [
        Detach(),
        migrations.AddField("userprofile", "pronouns", models.CharField(max_length=50, blank=True, default=""), preserve_default=False),
        migrations.RenameField("userprofile", "company", "organization"),
        migrations.AlterField("userprofile", "login_count", models.BigIntegerField(default=0)),
        Attach(drop_columns=False),
    ]
