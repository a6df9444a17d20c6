"""What the tests share: tokens, requests to each variant, and comparing what they answer."""

import concurrent.futures
import datetime
import itertools
import json
import uuid

import jwt
from django.conf import settings
from django.core.cache import cache
from django.core.management import call_command
from django.db import connection, connections
from django.test import Client, TransactionTestCase, override_settings
from django.utils import timezone

from accounts.models import Role, SubscriptionPlan, UserProfile, UserRole, UserSubscription
from accounts.sources import SOURCES

URL = "/api/v1/auth/profile/"
FROM_DATABASE = [name for name in SOURCES if name != "redis"]


def in_days(days):
    return timezone.now() + datetime.timedelta(days=days)


def token(user_id, secret=None, **claims):
    now = datetime.datetime.now(datetime.UTC)
    claims = {"sub": str(user_id), "aud": "authenticated", "exp": now + datetime.timedelta(hours=1)} | claims
    return jwt.encode({k: v for k, v in claims.items() if v is not None}, secret or settings.SUPABASE_JWT_SECRET, algorithm="HS256")


def client(user_id):
    return Client(raise_request_exception=False, headers={"Authorization": f"Bearer {token(user_id)}"})


def request(variant, user_id, method="get", **options):
    """One request to the endpoint as it answers with this variant."""
    with override_settings(PROFILE_SOURCE=variant):
        return getattr(client(user_id), method)(URL, content_type="application/json", **options)


def answer(variant, user_id):
    """Status and body of GET."""
    response = request(variant, user_id)
    return response.status_code, response.headers["Content-Type"], json.loads(response.content)


def differences(a, b, path="$"):
    """Where two parsed JSON values differ, key by key. Python's == takes true for 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            if key not in a or key not in b:
                yield f"{path}.{key} is only in the {'second' if key in b else 'first'}"
            else:
                yield from differences(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from differences(x, y, f"{path}[{i}]")
    elif a != b or isinstance(a, bool) != isinstance(b, bool):
        yield f"{path}: {a!r} != {b!r}"


def sql(statement, *values):
    """Runs it; its rows, if it has any."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall() if cursor.description else None


def explain(user_id):
    return sql("SELECT e ->> 'served_from', e ->> 'reason' FROM profile_cache.explain(%s) AS e", user_id)[0]


def migrate(name=None):
    """There or back to this migration, or to the last."""
    call_command("migrate", *(["accounts", name] if name else []), verbosity=0)


def end_other_connections():
    """PgBouncer keeps its own, with which the database could not be dropped."""
    others = "datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    sql(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}")


def in_another_session(function, *args):
    """Runs it to its end on a database connection of its own, which never waits for a lock of the caller's for long."""

    def run():
        try:
            sql("SET lock_timeout = '5s'")
            return function(*args)
        finally:
            connections.close_all()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


class AppTestCase(TransactionTestCase):
    """Tests that commit, as the app does: a few plans, roles and users, every profile cached."""

    serialized_rollback = True  # each test begins with the rows that migrations made: the plan `free`
    numbers = itertools.count()

    def setUp(self):
        cache.clear()
        self.pro = SubscriptionPlan.objects.create(id="pro", display_name="Pro", ai_daily_limit=500, features={"export": True})
        self.team = SubscriptionPlan.objects.create(id="team", display_name="Team", ai_daily_limit=900, features={"seats": [1, {"max": 9}]})
        self.admin, self.editor, self.viewer = (
            Role.objects.create(name=name, permissions=[f"{name}.read"]) for name in ("admin", "editor", "viewer")
        )
        self.ada = self.user("Ada", self.pro, [self.editor])
        self.bob = self.user("Bob", self.team, [self.editor, self.viewer], status="trialing", current_period_end=in_days(7))
        self.eve = self.user("Eve")
        self.users = [self.ada, self.bob, self.eve]
        self.warm()

    def user(self, name, plan=None, roles=(), **subscription):
        n = next(self.numbers)
        user = UserProfile.objects.create(supabase_user_id=uuid.UUID(int=n), email=f"{name.lower()}{n}@example.com", full_name=name)
        if plan:
            UserSubscription.objects.create(user=user, plan=plan, **subscription)
        UserRole.objects.bulk_create(UserRole(user=user, role=role) for role in roles)
        return user

    def warm(self):
        """Every cache holds every profile."""
        call_command("profile_cache_refresh")
        for user in self.users:
            request("redis", user.supabase_user_id)
            self.assertEqual(explain(user.supabase_user_id), ("cache", "fresh"))

    def assert_same(self, variants=tuple(SOURCES), users=None):
        """The variants answer alike, for each user."""
        for user in users or self.users:
            self.assert_same_id(user.supabase_user_id, variants)

    def assert_same_id(self, user_id, variants=tuple(SOURCES)):
        first, *others = variants
        expected = answer(first, user_id)
        for variant in others:
            found = list(differences(expected, answer(variant, user_id)))
            self.assertEqual(found, [], f"{first} and {variant} differ")
        return expected
