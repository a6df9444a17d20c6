"""CALL profile_cache.refresh(), for cron or after a migration."""

from django.core.management.base import BaseCommand
from django.db import DEFAULT_DB_ALIAS, connections


class Command(BaseCommand):
    help = "Makes every cached profile fresh. Run it after migrations, and every minute or so where there is no background worker."

    def add_arguments(self, parser):
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, help="whose profiles: an alias of settings.DATABASES")
        parser.add_argument("--batch-size", type=int, default=5000, help="profiles for each commit")

    def handle(self, *args, database, batch_size, verbosity, **options):
        connection = connections[database]
        connection.ensure_connection()
        session = connection.connection

        def say(notice):
            if verbosity > 1 or notice.severity_nonlocalized == "WARNING":
                self.stdout.write(notice.message_primary)

        session.add_notice_handler(say)
        try:
            # It commits as it goes: not inside atomic(), where PostgreSQL refuses it.
            with connection.cursor() as cursor:
                cursor.execute("CALL profile_cache.refresh(%s)", [batch_size])
                # Django hides what attach() said in a migration; what still holds is here.
                cursor.execute("SELECT unnest(warnings) FROM profile_cache.status")
                for (warning,) in cursor:
                    self.stderr.write(warning)
        finally:
            session.remove_notice_handler(say)
