"""Row security as Supabase does it: a request runs as the database role `authenticated`, and the policies
(migration 0004) compare a row with the token's claims. Both end with the transaction, so a pooled connection
carries nothing over to the next request."""

import contextlib
import json

from django.conf import settings
from django.db import connection, transaction


@contextlib.contextmanager
def as_user(user_id):
    if not settings.ROW_SECURITY:
        yield
        return
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', %s, true)",
                [json.dumps({"sub": str(user_id), "role": "authenticated"})],
            )
        yield
