"""Four ways to answer GET /api/v1/auth/profile/, from the slowest to the fastest. All give the same JSON. And a fifth, which may be a
moment behind the others.

Each takes a user's id and returns a response, or raises UserProfile.DoesNotExist.
settings.PROFILE_SOURCE says which one the app uses.
"""

import functools

import django_profile_cache
from django.conf import settings
from django.core.cache import cache
from django.http import HttpResponse
from django_profile_cache.copies import Copies
from rest_framework.response import Response

from .models import UserProfile
from .serializers import FastUserProfileSerializer, UserProfileSerializer

SECONDS = 15 * 60


def as_it_was(user_id):
    """The profile, then its subscription, its plan, its roles, and each role: N + 1."""
    profile = UserProfile.objects.get(supabase_user_id=user_id)
    return Response(UserProfileSerializer(profile).data)


def prefetched(user_id):
    return Response(load(user_id))


def redis(user_id):
    """Redis for 15 minutes. signals.py deletes what it sees changing."""
    data = cache.get(cache_key(user_id))
    if data is None:
        data = load(user_id)
        cache.set(cache_key(user_id), data, SECONDS)
    return Response(data)


def get_profile(user_id):
    """One query, whose text is the response."""
    return ready(django_profile_cache.get_profile(user_id))


def copied(user_id):
    """None, for most: from this process's own copies, which the database's notifications keep true, some milliseconds later."""
    return ready(copies().get(user_id))


@functools.cache
def copies():
    """At the first request, so after gunicorn's fork."""
    kept = Copies(conninfo=settings.LISTEN_TO)
    kept.start()
    return kept


def ready(document):
    if document is None:
        raise UserProfile.DoesNotExist
    return HttpResponse(document, content_type="application/json")


def load(user_id):
    profiles = UserProfile.objects.select_related("subscription__plan").prefetch_related("user_roles__role")
    return FastUserProfileSerializer(profiles.get(supabase_user_id=user_id)).data


def cache_key(user_id):
    return f"user_profile:{user_id}"


SOURCES = {source.__name__: source for source in (as_it_was, prefetched, redis, get_profile)}
ANSWERS = SOURCES | {"copied": copied}
