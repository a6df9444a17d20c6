"""Where a cache beside the database goes stale, though the app does all that Django's signals allow: the reasons for
this extension. Each test shows Redis giving an old answer, for up to 15 minutes, and get_profile the right one."""

from unittest import mock

from django.core.cache import cache
from django.test import override_settings

from accounts import sources
from accounts.models import UserSubscription
from accounts.tests.support import FROM_DATABASE, AppTestCase, answer, explain, in_another_session, in_days, sql
from accounts.tests.test_writes import WRITES, make_tests, rename


class RedisIsStale(AppTestCase):
    def assert_stale(self, users=None):
        """Redis answers at least one of them with something else than the other three, who agree."""
        self.assert_same(FROM_DATABASE, users)
        ids = [user.supabase_user_id for user in users or self.users]
        self.assertNotEqual([answer("redis", user_id) for user_id in ids], [answer("as_it_was", user_id) for user_id in ids])

    def check_unseen(self, do):
        do(self)
        self.assert_stale()

    def test_time(self):
        """Nobody writes anything at the moment at which a period ends."""
        for seconds in (0.5, 2, 8, 30):  # long enough for this machine to read the profile in
            UserSubscription.objects.update_or_create(user=self.ada, defaults={"current_period_end": in_days(seconds / 86400)})
            if answer("redis", self.ada.supabase_user_id)[2]["subscription_plan"] == "pro":
                break
        sql(
            "SELECT pg_sleep(extract(epoch FROM current_period_end - clock_timestamp())) FROM user_subscription WHERE user_id = %s",
            self.ada.id,
        )
        self.assertEqual(explain(self.ada.supabase_user_id), ("view", "expired"))
        self.assertEqual(answer("get_profile", self.ada.supabase_user_id)[2]["subscription_plan"], "free")
        self.assert_stale([self.ada])

    def test_race_between_read_and_invalidation(self):
        """A reader misses, reads the database, and stores what it read after the writer has deleted the key."""

        def slow_load(user_id):
            data = load(user_id)
            in_another_session(rename, self.ada.id, "renamed")
            return data

        cache.clear()
        load = sources.load
        with mock.patch.object(sources, "load", slow_load):
            self.assertEqual(answer("redis", self.ada.supabase_user_id)[2]["full_name"], "Ada")
        self.assertEqual(answer("get_profile", self.ada.supabase_user_id)[2]["full_name"], "renamed")
        self.assert_stale([self.ada])

    def test_redis_unreachable_for_a_moment(self):
        """The write commits; that the key could not be deleted is found out by nobody."""
        with override_settings(CACHES={"default": {
            "BACKEND": "django_redis.cache.RedisCache", "LOCATION": "unix:///nowhere", "OPTIONS": {"IGNORE_EXCEPTIONS": True},
        }}):  # fmt: skip
            rename(self.ada.id, "renamed")
        self.assert_stale([self.ada])


# Every kind of write that sends no signal.
make_tests(RedisIsStale, RedisIsStale.check_unseen, [do for do in WRITES if do.unseen])
