"""What the tests share."""

import itertools
import json
import os
import subprocess
import uuid

from django.core.management import call_command
from django.db import connection
from django.test import TransactionTestCase

from tests.models import SubscriptionPlan, UserProfile, UserSubscription

numbers = itertools.count(1)


def sql(statement, *values):
    """Runs it; its rows, if it has any."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall() if cursor.description else None


def restart(how):
    """The server, `fast` or `immediate`: as after a loss of power."""
    with open(os.devnull, "w") as nowhere:  # a pipe would stay open for as long as the server runs
        for command in ([*json.loads(os.environ["STOP"]), how], json.loads(os.environ["START"])):
            subprocess.run(command, check=True, stdout=nowhere, stderr=nowhere)
    connection.close()


class PackageTestCase(TransactionTestCase):
    """Three users, all cached, and attached as the migrations have it."""

    def setUp(self):
        sql("SELECT profile_cache.attach(exclude => '{secret_note}')")  # whatever the test before has made of it
        self.pro = SubscriptionPlan.objects.create(id="pro", display_name="Pro", ai_daily_limit=500)
        self.ada, self.bob, self.eve = self.users = [self.user(name) for name in ("Ada", "Bob", "Eve")]
        UserSubscription.objects.create(user=self.ada, plan=self.pro)
        call_command("profile_cache_refresh")

    def user(self, name):
        return UserProfile.objects.create(supabase_user_id=uuid.UUID(int=next(numbers)), full_name=name)
