"""Who is asking is what a valid token says, and nothing else. No database is asked about a bad one."""

import base64
import json
import uuid

import jwt
from django.conf import settings
from django.test import Client, SimpleTestCase

from accounts.serializers import EDITABLE, UserProfileSerializer
from accounts.tests.support import URL, AppTestCase, in_days, request, sql, token


class RefusedTokens(SimpleTestCase):  # which fails a test that touches the database
    user = uuid.uuid4()

    def refused(self, authorization):
        for ask in (Client().get, Client().patch):
            response = ask(URL, headers={"Authorization": authorization} if authorization else {})
            self.assertEqual(response.status_code, 401, response.content)
            self.assertEqual(response.headers["WWW-Authenticate"], "Bearer")

    def test_missing(self):
        self.refused(None)
        self.refused("Bearer")
        self.refused("Bearer ")
        self.refused(f"Basic {token(self.user)}")

    def test_expired(self):
        self.refused(f"Bearer {token(self.user, exp=in_days(-1))}")

    def test_not_yet_valid(self):
        self.refused(f"Bearer {token(self.user, nbf=in_days(1))}")

    def test_of_another_audience(self):
        self.refused(f"Bearer {token(self.user, aud='anon')}")

    def test_forged(self):
        header, claims, signature = token(self.user).split(".")
        other = token(uuid.uuid4()).split(".")[1]
        self.refused(f"Bearer {token(self.user, secret='of somebody else, and also thirty-two bytes')}")
        self.refused(f"Bearer {header}.{other}.{signature}")
        self.refused(f"Bearer {header}.{claims}.")

    def test_unsigned(self):
        claims = {"sub": str(self.user), "aud": "authenticated", "exp": in_days(1)}
        self.refused(f"Bearer {jwt.encode(claims, None, algorithm='none')}")

    def test_signed_otherwise(self):
        """With the right secret, but by an algorithm that Supabase does not use, or that the token only claims."""
        _, claims, signature = token(self.user).split(".")
        for algorithm in ("RS256", "ES256", "none", "hs256"):
            header = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "typ": "JWT"}).encode()).decode().rstrip("=")
            self.refused(f"Bearer {header}.{claims}.{signature}")
        self.refused(f"Bearer {jwt.encode(jwt.decode(token(self.user), options={'verify_signature': False}), settings.SUPABASE_JWT_SECRET, algorithm='HS512')}")

    def test_incomplete(self):
        for claim in ("sub", "aud", "exp"):
            self.refused(f"Bearer {token(self.user, **{claim: None})}")

    def test_not_a_user_id(self):
        self.refused(f"Bearer {token('1 OR true')}")


class AcceptedTokens(AppTestCase):
    def test_valid(self):
        self.assertEqual(request("get_profile", self.ada.supabase_user_id).json()["full_name"], "Ada")

    def test_update_profile(self):
        data = {"full_name": "Ada L.", "preferences": {"theme": "dark"}}
        response = request("get_profile", self.ada.supabase_user_id, "patch", data=data)
        self.assertEqual((response.status_code, response.json()["full_name"]), (200, "Ada L."))
        _, _, profile = self.assert_same_id(self.ada.supabase_user_id)
        self.assertEqual((profile["full_name"], profile["preferences"]), ("Ada L.", {"theme": "dark"}))
        self.assertEqual(response.json(), profile)

    def test_what_a_user_may_not_update(self):
        before = self.assert_same_id(self.ada.supabase_user_id)[2]
        claims = {"email": "root@example.com", "is_verified": True, "supabase_user_id": str(self.bob.supabase_user_id),
                  "roles": ["admin"], "subscription_plan": "team", "login_count": 9, "is_active": False, "last_login": "2024-05-01T12:00:00Z",
                  "created_at": "2024-05-01T12:00:00Z", "id": 0, "ai_daily_limit": 9, "cached_profile": {}}  # fmt: skip
        response = request("get_profile", self.ada.supabase_user_id, "patch", data=claims)
        self.assertEqual(response.status_code, 200)
        after = self.assert_same_id(self.ada.supabase_user_id)[2]
        self.assertEqual({k: v for k, v in after.items() if before[k] != v}.keys(), {"updated_at"})

    def test_what_a_user_may_update(self):
        """The serializer and the rights that migration 0004 gives say the same."""
        fields = UserProfileSerializer().fields
        self.assertEqual({name for name, field in fields.items() if not field.read_only}, {*EDITABLE})
        columns = "SELECT attname FROM pg_attribute WHERE attrelid = 'user_profile'::regclass AND attnum > 0 AND NOT attisdropped"
        granted = {name for (name,) in sql(f"{columns} AND has_column_privilege('authenticated', attrelid, attnum, 'UPDATE')")}
        self.assertEqual(granted, {*EDITABLE, "updated_at"})

    def test_update_that_no_column_holds(self):
        for value in ({"a": "\0"}, "\ud800"):
            response = request("get_profile", self.ada.supabase_user_id, "patch", data={"preferences": value})
            self.assertEqual((response.status_code, response.json()), (400, {"error": "Not storable"}))
        self.assert_same_id(self.ada.supabase_user_id)

    def test_invalid_update(self):
        response = request("get_profile", self.ada.supabase_user_id, "patch", data={"avatar_url": "no URL"})
        self.assertEqual((response.status_code, list(response.json())), (400, ["avatar_url"]))
