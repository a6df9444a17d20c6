"""`manage.py check --database default`: whether the cache is there, attached, refreshed, and what else it says of itself.

It asks the databases in settings.PROFILE_CACHE_DATABASES (["default"]). Each finding is a warning, because Django runs these
checks before a migration too: the one that would mend it must not be refused. What is so for the first time may be right: the
extension is missing before the first migration.
"""

import datetime

from django.conf import settings
from django.core.checks import Tags, Warning, register
from django.db import DEFAULT_DB_ALIAS, Error, connections

PENDING = datetime.timedelta(minutes=5)  # how long a change may wait for refresh; settings.PROFILE_CACHE_PENDING is another

STATUS = """SELECT profile::text, now() - oldest_pending, last_refresh IS NOT NULL, disabled_triggers::text[], warnings
    FROM profile_cache.status"""


@register(Tags.database)
def check_profile_cache(databases=None, **_):
    wanted = getattr(settings, "PROFILE_CACHE_DATABASES", [DEFAULT_DB_ALIAS])
    return [finding for alias in databases or () if alias in wanted for finding in findings(alias)]


def findings(alias):
    def warning(number, message, hint=None):
        return Warning(f"{alias}: {message}", hint=hint, id=f"profile_cache.W{number:03}")

    connection = connections[alias]
    if connection.vendor != "postgresql":
        return [warning(1, "profile_cache is for PostgreSQL, and this is another database.", "Leave it out of PROFILE_CACHE_DATABASES.")]
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'profile_cache')")
            if not cursor.fetchone()[0]:
                return [warning(2, "the extension profile_cache is not installed.", 'CreateExtension("profile_cache") in a migration.')]
            cursor.execute(STATUS)
            profile, pending, refreshed, disabled, warnings = cursor.fetchone()
    except Error as error:
        return [warning(3, f"profile_cache.status could not be read: {error}".strip(), "GRANT pg_monitor TO the role that asks.")]
    if profile is None:
        return [warning(4, "profile_cache is not attached, and get_profile fails.", "django_profile_cache.operations.Attach() in a migration.")]
    found = []
    if disabled:
        found.append(warning(5, f"triggers are missing or disabled, and reads are slow: {', '.join(disabled)}.", "Attach() again."))
    if not refreshed or (pending or datetime.timedelta()) > getattr(settings, "PROFILE_CACHE_PENDING", PENDING):
        so = f"a change has waited for refresh for {pending}" if refreshed else "refresh has never come through"
        found.append(warning(6, f"{so}.", "manage.py profile_cache_refresh every minute, or the extension's background worker."))
    # What DDL has changed since attach() is among these, in the extension's words, and what to do.
    return found + [warning(7, text) for text in warnings or ()]
