"""The part of the bench that runs inside the app: reads a JSON list, name and arguments, from each line of its input,
calls that function, and prints what it returns as JSON."""

import datetime
import io
import itertools
import json
import random
import select
import sys
import time
import uuid

import django

django.setup()

from accounts import sources  # noqa: E402
from accounts.models import Role, SubscriptionPlan, UserProfile, UserRole, UserSubscription  # noqa: E402
from accounts.tests.support import differences, in_days, sql, token  # noqa: E402
from django.conf import settings  # noqa: E402
from django.core.cache import cache  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection  # noqa: E402
from django.http import HttpResponse  # noqa: E402

get_profile = sources.get_profile
application = get_wsgi_application()
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
    call_command("refresh_profiles")


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
    response = application(environ, lambda status, headers: said.append(status))
    body = b"".join(response)
    response.close()
    if said != ["200 OK"]:
        raise RuntimeError(f"{said}: {body[:200]}")
    return body


def choose(variant):
    settings.PROFILE_SOURCE = "get_profile" if variant == "redis_text" else variant
    sources.get_profile = redis_text if variant == "redis_text" else get_profile


def warm(variant):
    """Every user once."""
    choose(variant)
    for token in tokens:
        get(token)


def redis_text(user_id):
    """What the app does not do, and could: the text of get_profile, from Redis, by the same short way into the response."""
    text = cache.get(f"text:{user_id}")
    if text is None:
        text = get_profile(user_id).content
        cache.set(f"text:{user_id}", text)
    return HttpResponse(text, content_type="application/json")


def calls(variant, count):
    """Milliseconds of a call, and how many of them it is in the database; the queries of one. Random users."""
    choose(variant)
    spent = {"database": 0, "queries": 0}

    def clocked(execute, *args):
        start = time.perf_counter()
        try:
            return execute(*args)
        finally:
            spent["database"] += time.perf_counter() - start
            spent["queries"] += 1

    start = time.perf_counter()
    with connection.execute_wrapper(clocked):
        for token in random.choices(tokens, k=count):
            get(token)
    took = time.perf_counter() - start
    return {"ms": took * 1000 / count, "ms in the database": spent["database"] * 1000 / count, "queries": spent["queries"] / count}


def write(pause):
    """Changes users as the app does, each with save() or delete() and so with signals for Redis, until the next line comes."""
    roles, profiles = list(Role.objects.all()), list(UserProfile.objects.order_by("id")[:1000])
    for n in itertools.count():
        if select.select([sys.stdin], [], [], pause)[0]:
            sys.stdin.readline()
            return n
        profile = random.choice(profiles)
        if n % 3 == 0:
            profile.full_name = f"Changed {n}"
            profile.save(update_fields=["full_name", "updated_at"])
        elif n % 3 == 1:
            given, new = UserRole.objects.get_or_create(user=profile, role=random.choice(roles))
            if not new:
                given.delete()
        elif subscription := UserSubscription.objects.filter(user=profile).first():
            subscription.status = random.choice(UserSubscription.Status.values)
            subscription.save()


def from_cache(count):
    """How many of a hundred profiles get_profile takes from its cache, by its own word; so many are asked for."""
    sample = [str(user_id) for (user_id,) in UserProfile.objects.order_by("?").values_list("supabase_user_id")[:count]]
    [(share,)] = sql(
        "SELECT avg((profile_cache.explain(u) ->> 'served_from' = 'cache')::int)::float8 * 100 FROM unnest(%s::uuid[]) AS u", sample
    )
    return share


def differing(bodies, others):
    """How many answers differ from the first, of lists of bodies."""
    return sum(any(differences(json.loads(a), json.loads(b))) for a, b in zip(bodies, others, strict=True))


def verify():
    return [str(row) for row in sql("SELECT user_id, problem FROM profile_cache.verify()")]


FUNCTIONS = {f.__name__: f for f in (users, write_tokens, warm, calls, write, from_cache, differing, verify)}

while line := sys.stdin.readline():
    name, *arguments = json.loads(line)
    print(json.dumps(FUNCTIONS[name](*arguments)), flush=True)
