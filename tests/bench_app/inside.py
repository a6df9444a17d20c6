"""The part of the bench that runs inside the app: reads a JSON list, name and arguments, from each line of its input,
calls that function, and prints what it returns as JSON."""

import collections
import datetime
import io
import itertools
import json
import random
import select
import sys
import time
import uuid

from variants import app, choose, text_key  # first, for it sets Django up

from accounts.models import Role, SubscriptionPlan, UserProfile, UserRole, UserSubscription
from accounts.sources import cache_key
from accounts.tests.support import differences, in_days, sql, token
from django.conf import settings
from django.core.cache import cache
from django.core.management import call_command
from django.db import connection

tokens = []  # of all users


def users(count):
    """So many users: nine of ten have a subscription, one of nine of those has ended; none to four roles."""
    plans = [SubscriptionPlan(id=name, display_name=name.title(), ai_daily_limit=limit, features={"export": True, "seats": {"max": limit}})
             for name, limit in (("pro", 500), ("team", 900))]  # fmt: skip
    SubscriptionPlan.objects.bulk_create(plans)
    roles = Role.objects.bulk_create(Role(name=f"role {n}", permissions=[f"part{n}.read", f"part{n}.write"]) for n in range(8))
    profiles = UserProfile.objects.bulk_create((
        UserProfile(
            supabase_user_id=uuid.uuid4(), email=f"user{n}@example.com", full_name=f"User {n}", organization="Example Ltd",
            avatar_url=f"https://example.com/{n}.png", preferences={"theme": "dark", "digest": n % 2 == 0}, login_count=n,
            last_login=in_days(-n % 30),
        )
        for n in range(count)
    ), batch_size=1000)  # fmt: skip
    UserSubscription.objects.bulk_create((
        UserSubscription(user=profile, plan=plans[n % 2], current_period_end=in_days(30 if n % 9 else -1))
        for n, profile in enumerate(profiles) if n % 10
    ), batch_size=1000)  # fmt: skip
    UserRole.objects.bulk_create((
        UserRole(user=profile, role=roles[(n + k) % 8]) for n, profile in enumerate(profiles) for k in range(n % 5)
    ), batch_size=1000)  # fmt: skip
    refresh()


def write_tokens(path):
    with open(path, "w") as file:
        for (user_id,) in UserProfile.objects.order_by("id").values_list("supabase_user_id"):
            tokens.append(token(user_id, exp=datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)))
            file.write(tokens[-1] + "\n")


def get(token):
    """The app's answer by way of everything but a server: middleware, URL, token, view, response."""
    said = []
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": "/api/v1/auth/profile/", "HTTP_AUTHORIZATION": f"Bearer {token}",
        "SERVER_NAME": "localhost", "SERVER_PORT": "80", "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr,
    }  # fmt: skip
    response = app(environ, lambda status, headers: said.append(status))
    body = b"".join(response)
    response.close()
    if said != ["200 OK"]:
        raise RuntimeError(f"{said}: {body[:200]}")
    return body


def warm(variant):
    """Every user once."""
    choose(variant)
    for token in tokens:
        get(token)


def calls(variant, count, row_security=False):
    """Milliseconds of a call, and how many of them it is in the database. Random users."""
    choose(variant)
    settings.ROW_SECURITY = row_security
    in_database = 0

    def clocked(execute, *args):
        nonlocal in_database
        start = time.perf_counter()
        try:
            return execute(*args)
        finally:
            in_database += time.perf_counter() - start

    start = time.perf_counter()
    with connection.execute_wrapper(clocked):
        for token in random.choices(tokens, k=count):
            get(token)
    took = time.perf_counter() - start
    settings.ROW_SECURITY = False
    return {"ms": took * 1000 / count, "ms in the database": in_database * 1000 / count}


def write(pause):
    """Changes users as the app does, each with save() or delete() and so with signals for Redis, until the next line comes.
    After each it looks whether answers about the changed user are right, and about the one of a second ago, whom others have
    asked for meanwhile. Nobody else writes, so what the tables say stays what it is while it looks."""
    roles, profiles = list(Role.objects.all()), list(UserProfile.objects.order_by("id")[:1000])
    counted = collections.Counter()
    recent = collections.deque(maxlen=round(1 / pause))
    for n in itertools.count():
        if select.select([sys.stdin], [], [], pause)[0]:
            sys.stdin.readline()
            return counted
        profile = random.choice(profiles)
        if n % 3 == 0:
            profile.full_name = f"Changed {n}"
            profile.save(update_fields=["full_name", "updated_at"])
        elif n % 3 == 1:
            given, new = UserRole.objects.get_or_create(user=profile, role=random.choice(roles))
            if not new:
                given.delete()
        else:
            UserSubscription.objects.update_or_create(user=profile, defaults={"status": random.choice(UserSubscription.Status.values), "plan_id": "pro"})
        cache.delete(text_key(profile.supabase_user_id))  # which no signal of the app's knows of
        recent.append(profile)
        counted["writes"] += 1
        for user_id in {recent[0].supabase_user_id, profile.supabase_user_id}:
            counted.update(stale(user_id))


def stale(user_id):
    """Which answers about a user are not what the tables say. Of Redis what it holds, if it holds something."""
    choose("as_it_was")
    right = json.loads(get(token(user_id)))
    choose("get_profile")
    answers = {"get_profile": get(token(user_id)), "redis": cache.get(cache_key(user_id)), "redis_text": cache.get(text_key(user_id))}
    for variant, answer in answers.items():
        if answer is not None:
            document = answer if variant == "redis" else json.loads(answer)
            yield f"asked, {variant}"
            if any(differences(right, json.loads(json.dumps(document)))):
                yield f"stale, {variant}"


def from_cache(count):
    """How many of a hundred profiles get_profile takes from its cache, by its own word; so many are asked for."""
    sample = [str(user_id) for (user_id,) in UserProfile.objects.order_by("?").values_list("supabase_user_id")[:count]]
    [(share,)] = sql(
        "SELECT avg((profile_cache.explain(u) ->> 'served_from' = 'cache')::int)::float8 * 100 FROM unnest(%s::uuid[]) AS u", sample
    )
    return share


def invalidate_all():
    sql("SELECT profile_cache.invalidate_all()")


def refresh():
    call_command("profile_cache_refresh")


def differing(bodies, others):
    """How many answers differ from the first, of lists of bodies."""
    return sum(any(differences(json.loads(a), json.loads(b))) for a, b in zip(bodies, others, strict=True))


def verify():
    return [str(row) for row in sql("SELECT user_id, problem FROM profile_cache.verify()")]


FUNCTIONS = {f.__name__: f for f in (users, write_tokens, warm, calls, write, from_cache, invalidate_all, refresh, differing, verify)}

while line := sys.stdin.readline():
    name, *arguments = json.loads(line)
    print(json.dumps(FUNCTIONS[name](*arguments)), flush=True)
