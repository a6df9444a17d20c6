"""One user never reads another's profile: with row security on, and a request running as the role `authenticated`
with its token's claims, the database refuses it even to an app that asks for the wrong one."""

import concurrent.futures
import itertools
import uuid

from django.core.cache import cache
from django.db import connections, transaction
from django.db.utils import DatabaseError
from django.test import override_settings

from accounts.models import UserProfile, UserRole
from accounts.row_security import as_user
from accounts.sources import SOURCES
from accounts.tests.support import FROM_DATABASE, URL, AppTestCase, answer, client, explain, request, sql


@override_settings(ROW_SECURITY=True)
class Isolation(AppTestCase):
    def hit_and_miss(self):
        """Once with every cache full, and once with every cache empty."""
        yield "hit"
        cache.clear()
        sql("SELECT profile_cache.invalidate_all()")
        self.assertEqual(explain(self.ada.supabase_user_id)[0], "view")
        yield "miss"

    def test_everyone_reads_his_own(self):
        for state in self.hit_and_miss():
            with self.subTest(state):
                emails = [self.assert_same_id(user.supabase_user_id)[2]["email"] for user in self.users]
                self.assertEqual(emails, [user.email for user in self.users])

    def test_same_answers_as_without(self):
        for state in self.hit_and_miss():
            for variant, user in itertools.product(SOURCES, self.users):
                with self.subTest(state, variant=variant, user=user.full_name):
                    isolated = answer(variant, user.supabase_user_id)
                    with override_settings(ROW_SECURITY=False):
                        self.assertEqual(isolated, answer(variant, user.supabase_user_id))

    def test_an_app_that_asks_for_another_user(self):
        """As by a bug that takes the id from somewhere else than the token."""
        for state in self.hit_and_miss():
            for variant in FROM_DATABASE:
                with self.subTest(state, variant=variant), self.assertRaises(UserProfile.DoesNotExist):
                    with as_user(self.ada.supabase_user_id):
                        SOURCES[variant](self.bob.supabase_user_id)

    def test_row_security_does_not_reach_into_redis(self):
        """There only the key keeps users apart: what the three others refuse, a hit gives away."""
        with as_user(self.ada.supabase_user_id):
            self.assertEqual(SOURCES["redis"](self.bob.supabase_user_id).data["email"], self.bob.email)
        cache.clear()
        with self.assertRaises(UserProfile.DoesNotExist), as_user(self.ada.supabase_user_id):
            SOURCES["redis"](self.bob.supabase_user_id)

    def test_the_user_comes_from_the_token_alone(self):
        other = str(self.bob.supabase_user_id)
        for variant in SOURCES:
            with override_settings(PROFILE_SOURCE=variant), self.subTest(variant):
                headers = {"X-User-Id": other, "Cookie": f"user_id={other}; sub={other}"}
                response = client(self.ada.supabase_user_id).get(URL, {"user_id": other, "supabase_user_id": other}, headers=headers)
                self.assertEqual(response.json()["email"], self.ada.email)

    def test_tables_and_cache_show_only_ones_own(self):
        for state in self.hit_and_miss():
            with self.subTest(state), as_user(self.bob.supabase_user_id):
                self.assertEqual(sql("SELECT current_user"), [("authenticated",)])
                self.assertEqual(sql("SELECT id, cached_profile ->> 'email' FROM user_profile"), [(self.bob.id, self.bob.email)])
                self.assertEqual(sql("SELECT count(*), min(user_id) FROM user_subscription"), [(1, self.bob.id)])
                self.assertEqual(sql("SELECT count(*), min(user_id) FROM user_role"), [(2, self.bob.id)])
                self.assertEqual(explain(self.ada.supabase_user_id)[0], "none")
                for table in ("profile_document", "user_session", "subscription_history", "auth_user", "profile_cache.pending"):
                    with self.assertRaisesMessage(DatabaseError, "permission denied"), transaction.atomic():
                        sql(f"SELECT * FROM {table}")

    def test_nobody_in_particular_sees_nothing(self):
        for claims in ("", "{}", '{"sub": null}'):
            with self.subTest(claims), transaction.atomic():
                sql("SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', %s, true)", claims)
                self.assertEqual(sql("SELECT count(*) FROM user_profile"), [(0,)])
                self.assertEqual(sql("SELECT get_profile(%s)", self.ada.supabase_user_id), [(None,)])
        unknown = [answer(variant, uuid.uuid4())[0] for variant in SOURCES]
        self.assertEqual(unknown, [404] * len(SOURCES))

    def test_a_connection_carries_nothing_over(self):
        for user_id, status in ((self.ada.supabase_user_id, 200), (uuid.uuid4(), 404)):
            self.assertEqual(answer("get_profile", user_id)[0], status)
            left = sql("SELECT current_user = session_user, nullif(current_setting('request.jwt.claims', true), '')")
            self.assertEqual(left, [(True, None)])

    def test_many_users_at_once_over_few_connections(self):
        def requests(first):
            try:
                for n in range(40):
                    user = self.users[(first + n) % len(self.users)]
                    yield user.email, client(user.supabase_user_id).get(URL).json()["email"]
            finally:
                connections.close_all()

        for variant in SOURCES:
            with override_settings(PROFILE_SOURCE=variant), concurrent.futures.ThreadPoolExecutor(3) as pool, self.subTest(variant):
                for pairs in pool.map(lambda first: list(requests(first)), range(3)):
                    self.assertEqual([asked for asked, _ in pairs], [answered for _, answered in pairs])

    def test_writes(self):
        """A user changes his own profile, nobody else's; and nobody's document by hand."""
        response = request("get_profile", self.ada.supabase_user_id, "patch", data={"full_name": "Ada L."})
        self.assertEqual((response.status_code, response.json()["full_name"]), (200, "Ada L."))
        self.assertEqual(explain(self.ada.supabase_user_id), ("cache", "fresh"))
        with as_user(self.ada.supabase_user_id):
            self.assertEqual(UserProfile.objects.exclude(id=self.ada.id).update(full_name="mine"), 0)
            kept = sql("UPDATE user_profile SET cached_profile = '{}', cached_profile_epoch = 1 RETURNING cached_profile ->> 'full_name'")
            self.assertEqual(kept, [("Ada L.",)])
            with self.assertRaisesMessage(DatabaseError, "permission denied"), transaction.atomic():
                UserRole.objects.create(user=self.ada, role=self.admin)
        self.assert_same()

    def test_an_admin_changes_what_a_user_sees(self):
        UserRole.objects.create(user=self.ada, role=self.admin)
        self.assertEqual([role["name"] for role in self.assert_same_id(self.ada.supabase_user_id)[2]["roles"]], ["admin", "editor"])
