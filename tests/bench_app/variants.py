"""The app as the bench asks it: its four variants, and two that it does not have, so that what is compared differs in one thing.

    redis_text         the text of get_profile out of Redis, by the short way that get_profile has into the response
    get_profile_rest   get_profile by the long way that the others have: REST framework's request, permissions and response

A request that asks for it (X-Count-Queries) is told in its response how many queries it took. WSGI: variants:application.
"""

import os

import django

django.setup()

from accounts import sources  # noqa: E402
from django.conf import settings  # noqa: E402
from django.core.cache import cache  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection  # noqa: E402
from django.http import HttpResponse  # noqa: E402

app = get_wsgi_application()
get_profile = sources.get_profile


def redis_text(user_id):
    text = cache.get(text_key(user_id))
    if text is None:
        text = get_profile(user_id).content
        cache.set(text_key(user_id), text, sources.SECONDS)
    return HttpResponse(text, content_type="application/json")


def text_key(user_id):
    return f"text:{user_id}"


def choose(variant):
    """From now on the app answers with this one."""
    sources.ANSWERS["get_profile_rest"] = get_profile
    settings.PROFILE_SOURCE = "get_profile" if variant == "redis_text" else variant
    sources.ANSWERS["get_profile"] = redis_text if variant == "redis_text" else get_profile


def application(environ, start_response):
    if "HTTP_X_COUNT_QUERIES" not in environ:
        return app(environ, start_response)
    queries = []

    def counted(execute, *args):
        queries.append(1)
        return execute(*args)

    def start(status, headers, *error):
        return start_response(status, [*headers, ("X-Queries", str(len(queries)))], *error)

    with connection.execute_wrapper(counted):
        return app(environ, start)


choose(os.environ.get("PROFILE_SOURCE", "get_profile"))
