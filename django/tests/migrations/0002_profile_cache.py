from django.contrib.postgres.operations import CreateExtension
from django.db import migrations

from django_profile_cache.operations import Attach, Notify


class Migration(migrations.Migration):
    dependencies = [("tests", "0001_initial")]

    operations = [CreateExtension("profile_cache"), Attach(exclude=["secret_note"]), Notify()]
