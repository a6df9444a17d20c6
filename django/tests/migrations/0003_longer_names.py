"""PostgreSQL retypes no column that a view shows."""

from django.db import migrations, models

from django_profile_cache.operations import Attach, Detach


class Migration(migrations.Migration):
    dependencies = [("tests", "0002_profile_cache")]

    operations = [
        Detach(exclude=["secret_note"]),
        migrations.AlterField("userprofile", "full_name", models.CharField(max_length=200, blank=True)),
        Attach(exclude=["secret_note"], drop_columns=False),
    ]
