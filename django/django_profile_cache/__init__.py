"""profile_cache, the PostgreSQL extension, in a Django app.

    from django_profile_cache import get_profile, get_profiles

A profile is handed on as the text that PostgreSQL sent, and parsed by nobody.
"""

from django.db import DEFAULT_DB_ALIAS, connections

__all__ = ["get_profile", "get_profiles"]


def get_profile(user_id, using=DEFAULT_DB_ALIAS):
    """The profile as JSON text; None where there is no such user, or the database's role may not see him."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT get_profile(%s::uuid)::text", [str(user_id)])
        return cursor.fetchone()[0]


def get_profiles(user_ids, using=DEFAULT_DB_ALIAS):
    """{user_id: JSON text, or None} for each of these, in their order, by one query."""
    user_ids = list(user_ids)
    with connections[using].cursor() as cursor:
        # A row for each, in the order asked.
        cursor.execute("SELECT profile::text FROM get_profiles(%s::uuid[])", [[str(user_id) for user_id in user_ids]])
        return {user_id: text for user_id, (text,) in zip(user_ids, cursor.fetchall(), strict=True)}
