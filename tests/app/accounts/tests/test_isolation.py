"""One user never reads another's profile: with row security on, and a request running as the role `authenticated`
with its token's claims, the database refuses it even to an app that asks for the wrong one."""

import concurrent.futures
import contextlib
import http.client
import itertools
import json
import os
import uuid
from unittest import mock

from django.core.cache import cache
from django.db import connection, connections, transaction
from django.db.utils import DatabaseError
from django.test import override_settings

from accounts import sources
from accounts.models import UserProfile, UserRole
from accounts.row_security import as_user
from accounts.serializers import EDITABLE, UserProfileSerializer
from accounts.sources import SOURCES
from accounts.tests.live import LiveTestCase
from accounts.tests.support import FROM_DATABASE, URL, AppTestCase, answer, client, end_other_connections, explain, migrate, request, sql, token

# As Ada, of her own, what she has no say in.
FORBIDDEN = [
    "UPDATE user_profile SET is_verified = true", "UPDATE user_profile SET supabase_user_id = gen_random_uuid()",
    "UPDATE user_profile SET cached_profile = '{}'", "DELETE FROM user_profile", "TRUNCATE user_session",
]  # fmt: skip
# And of what is not hers.
OF_OTHERS = [
    "INSERT INTO role (name, description) VALUES ('root', '')", "UPDATE role SET permissions = '[\"all\"]'", "DELETE FROM role",
    "UPDATE subscription_plan SET ai_daily_limit = 1000000", "DELETE FROM subscription_plan",
    "INSERT INTO user_role (user_id, role_id, assigned_at) SELECT u.id, r.id, now() FROM user_profile u, role r WHERE r.name = 'admin'",
    "UPDATE user_role SET role_id = (SELECT id FROM role WHERE name = 'admin')", "DELETE FROM user_role",
    "INSERT INTO user_subscription (user_id, plan_id, status, current_period_start) SELECT id, 'team', 'active', now() FROM user_profile",
    "UPDATE user_subscription SET plan_id = 'team'", "DELETE FROM user_subscription",
    "INSERT INTO user_session (user_id, user_agent, started_at) SELECT id, '', now() FROM user_profile", "DELETE FROM user_session",
    "DELETE FROM auth_user", "DELETE FROM user_profile",
]  # fmt: skip

READABLE = ["user_profile", "user_subscription", "user_role", "subscription_plan", "role"]


def open_tables():
    """Tables, views and sequences of which the current role may do anything at all, the cache's own as well."""
    relations = sql("""
        SELECT oid::regclass::text FROM pg_class
        WHERE relnamespace IN ('public'::regnamespace, 'profile_cache'::regnamespace) AND CASE relkind
            WHEN 'S' THEN has_sequence_privilege(oid, 'USAGE, SELECT, UPDATE')
            ELSE has_table_privilege(oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') AND relkind <> 'i' END""")
    return {name for (name,) in relations}


def everything():
    """All rows that a document is made of, but for the document and its stamp."""
    tables = ["role", "subscription_plan", "user_role", "user_subscription", "user_session", "auth_user"]
    rows = {table: sql(f"SELECT * FROM {table} ORDER BY 1") for table in tables}
    return rows | {"user_profile": list(UserProfile.objects.order_by("id").values())}


def hit_and_miss(t):
    """Once with every cache full, and once with every cache empty."""
    yield "hit"
    cache.clear()
    sql("SELECT profile_cache.invalidate_all()")
    t.assertEqual(explain(t.ada.supabase_user_id)[0], "view")
    yield "miss"


@override_settings(ROW_SECURITY=True)
class Isolation(AppTestCase):
    def test_everyone_reads_his_own(self):
        for state in hit_and_miss(self):
            with self.subTest(state):
                emails = [self.assert_same_id(user.supabase_user_id)[2]["email"] for user in self.users]
                self.assertEqual(emails, [user.email for user in self.users])

    def test_same_answers_as_without(self):
        for state in hit_and_miss(self):
            for variant, user in itertools.product(SOURCES, self.users):
                with self.subTest(state, variant=variant, user=user.full_name):
                    isolated = answer(variant, user.supabase_user_id)
                    if state == "miss":
                        cache.clear()
                    with override_settings(ROW_SECURITY=False):
                        self.assertEqual(isolated, answer(variant, user.supabase_user_id))

    def test_an_app_that_asks_for_another_user(self):
        """As by a bug that takes the id from somewhere else than the token."""
        for state in hit_and_miss(self):
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

    def test_every_view_asks_as_its_user(self):
        """An endpoint that takes the wrong id still finds nobody: what is not his is not there."""
        for state in hit_and_miss(self):
            for variant in FROM_DATABASE:
                wrong = lambda _, source=SOURCES[variant]: source(self.bob.supabase_user_id)  # noqa: E731
                with self.subTest(state, variant=variant), mock.patch.dict(sources.ANSWERS, {variant: wrong}):
                    self.assertEqual(answer(variant, self.ada.supabase_user_id)[0], 404)

        def is_valid(serializer, **options):
            roles.append(sql("SELECT current_user, (current_setting('request.jwt.claims')::jsonb ->> 'sub')::uuid"))
            return well(serializer, **options)

        roles, well = [], UserProfileSerializer.is_valid
        with mock.patch.object(UserProfileSerializer, "is_valid", is_valid):
            self.assertEqual(request("get_profile", self.ada.supabase_user_id, "patch", data={}).status_code, 200)
        self.assertEqual(roles, [[("authenticated", self.ada.supabase_user_id)]])

    def test_one_user_at_a_time(self):
        """Inside another transaction the role would outlast the block."""
        with self.assertRaises(RuntimeError), as_user(self.ada.supabase_user_id), as_user(self.bob.supabase_user_id):
            pass
        with self.assertRaises(RuntimeError), transaction.atomic(), as_user(self.ada.supabase_user_id):
            pass

    def test_every_table_is_closed(self):
        tables = sql("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relrowsecurity")
        self.assertEqual(tables, [])

    def test_tables_and_cache_show_only_ones_own(self):
        for state in hit_and_miss(self):
            with self.subTest(state), as_user(self.bob.supabase_user_id):
                self.assertEqual(sql("SELECT current_user"), [("authenticated",)])
                self.assertEqual(sql("SELECT id, cached_profile ->> 'email' FROM user_profile"), [(self.bob.id, self.bob.email)])
                self.assertEqual(sql("SELECT count(*), min(user_id) FROM user_subscription"), [(1, self.bob.id)])
                self.assertEqual(sql("SELECT count(*), min(user_id) FROM user_role"), [(2, self.bob.id)])
                self.assertEqual(explain(self.ada.supabase_user_id)[0], "none")
                self.assertEqual(open_tables(), {*READABLE})

    def test_nobody_known(self):
        """Who brings no token is `anon` on Supabase, to whom nothing is open."""
        with transaction.atomic():
            sql("SET LOCAL ROLE anon")
            self.assertEqual(open_tables(), set())
            with self.assertRaisesMessage(DatabaseError, "permission denied"):
                sql("SELECT get_profile(%s)", self.ada.supabase_user_id)

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
        """A user changes what is his to change of his own profile, and nothing else."""
        data = {name: {"theme": "dark"} if name == "preferences" else True if name == "onboarding_completed" else "https://ada.example" for name in EDITABLE}
        data |= {"phone": "1", "language": "de"}  # shorter columns
        response = request("get_profile", self.ada.supabase_user_id, "patch", data=data)
        self.assertEqual((response.status_code, {name: response.json()[name] for name in EDITABLE}), (200, data))
        self.assertEqual(explain(self.ada.supabase_user_id), ("cache", "fresh"))
        with as_user(self.ada.supabase_user_id):
            self.assertEqual(UserProfile.objects.exclude(id=self.ada.id).update(full_name="mine"), 0)
            self.assertEqual(UserProfile.objects.update(full_name="Ada L."), 1)  # which reads no row that it would have to see
            for write in FORBIDDEN + OF_OTHERS:
                with self.subTest(write), self.assertRaisesMessage(DatabaseError, "permission denied"), transaction.atomic():
                    sql(write)
        self.assert_same()

    def test_where_everything_is_granted(self):
        """On the tables, as Supabase does by itself for each new one. Row security alone keeps other users' rows then."""
        sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO authenticated, anon")
        self.addCleanup(migrate)
        self.addCleanup(migrate, "0003")
        self.addCleanup(sql, "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM authenticated, anon")
        before = everything()
        for state in hit_and_miss(self):
            with self.subTest(state), as_user(self.ada.supabase_user_id):
                self.assertEqual(sql("SELECT email FROM user_profile"), [(self.ada.email,)])
                # The view that attach() wrote looks with the caller's eyes.
                self.assertEqual(sql("SELECT supabase_user_id FROM profile_document"), [(self.ada.supabase_user_id,)])
                for table in open_tables() - {*READABLE, "profile_document"}:
                    self.assertEqual(sql(f"SELECT count(*) FROM {table}"), [(0,)], table)
                for variant in FROM_DATABASE:
                    with self.assertRaises(UserProfile.DoesNotExist):
                        SOURCES[variant](self.bob.supabase_user_id)
                for write in OF_OTHERS:
                    try:
                        with transaction.atomic():
                            self.assertEqual(sql(f"WITH written AS ({write} RETURNING 1) SELECT count(*) FROM written"), [(0,)], write)
                    except DatabaseError as error:
                        self.assertIn("violates row-level security policy", str(error))
                with self.assertRaisesMessage(DatabaseError, "violates row-level security policy"), transaction.atomic():
                    sql("UPDATE user_profile SET supabase_user_id = gen_random_uuid()")
                # Her own row, all of it, and even so not the document.
                kept = sql("UPDATE user_profile SET cached_profile = '{}', cached_profile_epoch = 1 RETURNING cached_profile ->> 'email'")
                self.assertEqual(kept, [(self.ada.email,)])
        with transaction.atomic():
            sql("SET LOCAL ROLE anon")
            for table in open_tables():
                self.assertEqual(sql(f"SELECT count(*) FROM {table}"), [(0,)], table)
        self.assertEqual(everything(), before)
        self.assert_same()

    def test_an_admin_changes_what_a_user_sees(self):
        UserRole.objects.create(user=self.ada, role=self.admin)
        self.assertEqual([role["name"] for role in self.assert_same_id(self.ada.supabase_user_id)[2]["roles"]], ["admin", "editor"])


class IsolationThroughPgBouncer(Isolation):
    """All of that where each transaction may have another connection, which others have used before."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.to_port(os.environ["POOLED_PORT"])
        cls.addClassCleanup(cls.to_port, "")

    @classmethod
    def to_port(cls, port):
        connection.close()
        connection.settings_dict["PORT"] = port
        end_other_connections()


@override_settings(ROW_SECURITY=True)
class ServerThroughPgBouncer(LiveTestCase):
    """A server's few connections to the database serve everyone in turn, each for one transaction."""

    @classmethod
    def environment(cls):
        return super().environment() | {"ROW_SECURITY": "on"} | cls.through_pgbouncer()

    def ask(self, user_id, count):
        """What he is answered, over one connection to the server."""
        with contextlib.closing(http.client.HTTPConnection(self.address, timeout=30)) as server:
            for _ in range(count):
                server.request("GET", URL, headers={"Authorization": f"Bearer {token(user_id)}"})
                response = server.getresponse()
                yield response.status, json.loads(response.read())

    def test_many_users_at_once(self):
        expected = {user_id: self.assert_same_id(user_id)[::2] for user_id in [user.supabase_user_id for user in self.users] + [uuid.uuid4()]}
        for state in hit_and_miss(self):
            with self.subTest(state), concurrent.futures.ThreadPoolExecutor(8) as pool:
                asked = [*expected] * 2
                for user_id, answers in zip(asked, pool.map(lambda user_id: list(self.ask(user_id, 25)), asked), strict=True):
                    self.assertEqual(answers, [expected[user_id]] * 25)
        pooled = sql("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pooled'")
        self.assertIn(pooled, ([(1,)], [(2,)]))
