"""Row security as Supabase does it: a request runs as the database role `authenticated`, and the policies
(migration 0004) compare a row with the token's user. Both end with the transaction, so a pooled connection
carries nothing over to the next request. What runs outside as_user() runs as the owner, and sees every row."""

import contextlib
import json

from django.conf import settings
from django.db import connection, transaction


@contextlib.contextmanager
def as_user(user_id):
    if not settings.ROW_SECURITY:
        yield
        return
    # durable: inside another transaction it would go on to the end of that one, and not of this block.
    with transaction.atomic(durable=True):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', %s, true)",
                [json.dumps({"sub": str(user_id), "role": "authenticated"})],
            )
        yield
