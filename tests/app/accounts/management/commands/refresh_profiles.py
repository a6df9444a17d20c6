from django.core.management.base import BaseCommand
from django.db import connection


class Command(BaseCommand):
    help = "Makes every cached profile fresh. Run it after migrations, and every minute or so."

    def add_arguments(self, parser):
        parser.add_argument("--batch-size", type=int, default=5000, help="profiles for each commit")

    def handle(self, *args, batch_size, verbosity, **options):
        connection.ensure_connection()
        if verbosity > 1:
            connection.connection.add_notice_handler(lambda notice: self.stdout.write(notice.message_primary))
        # It commits as it goes: not inside atomic().
        with connection.cursor() as cursor:
            cursor.execute("CALL profile_cache.refresh(%s)", [batch_size])
            # Django hides what attach() said in a migration; what still holds is here.
            cursor.execute("SELECT unnest(warnings) FROM profile_cache.status")
            for (warning,) in cursor:
                self.stderr.write(warning)
