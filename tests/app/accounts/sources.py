"""Four ways to answer GET /api/v1/auth/profile/, from the slowest to the fastest. All give the same JSON.

Each takes a user's id and returns a response, or raises UserProfile.DoesNotExist.
settings.PROFILE_SOURCE says which one the app uses.
"""

from django.core.cache import cache
from django.db import connection
from django.http import HttpResponse
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
    """One query. Django gives jsonb to a raw cursor as text, and that text is the response."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT get_profile(%s::uuid)", [user_id])
        (document,) = cursor.fetchone()
    if document is None:
        raise UserProfile.DoesNotExist
    return HttpResponse(document, content_type="application/json")


def load(user_id):
    profiles = UserProfile.objects.select_related("subscription__plan").prefetch_related("user_roles__role")
    return FastUserProfileSerializer(profiles.get(supabase_user_id=user_id)).data


def cache_key(user_id):
    return f"user_profile:{user_id}"


SOURCES = {source.__name__: source for source in (as_it_was, prefetched, redis, get_profile)}
