"""Two sessions at once, each interleaving spelled out: what one has not committed the other does not see, what is
locked is not waited for, and no order of commits leaves an old document."""

from unittest import mock

from django.core.management import call_command
from django.db import transaction

from accounts.models import SubscriptionPlan, UserProfile, UserRole, UserSubscription
from accounts.serializers import UserProfileSerializer
from accounts.tests.support import FROM_DATABASE, AppTestCase, answer, explain, in_another_session, request, sql


class Concurrency(AppTestCase):
    def setUp(self):
        super().setUp()
        self.id = self.ada.supabase_user_id

    def roles(self, variant="get_profile"):
        return [role["name"] for role in answer(variant, self.id)[2]["roles"]]

    def assert_roles(self, *names):
        self.assertEqual([self.roles(variant) for variant in FROM_DATABASE], [list(names)] * len(FROM_DATABASE))

    def assert_well(self):
        """All variants agree, before refresh and after, and then everything is cached again."""
        self.assert_same()
        call_command("profile_cache_refresh")
        self.assert_same()
        self.assertEqual({explain(user.supabase_user_id) for user in self.users}, {("cache", "fresh")})

    def test_select_for_update(self):
        """Another session gives a role to a user whose row is locked here. It does not wait, and the reader here sees it."""
        with transaction.atomic():
            # Without no_key PostgreSQL itself would make the other session wait: a new row's foreign key locks its user.
            ada = UserProfile.objects.select_for_update(no_key=True).get(id=self.ada.id)
            in_another_session(self.ada.roles.add, self.admin)
            self.assert_roles("admin", "editor")
            self.assertEqual(explain(self.id), ("view", "pending"))
            ada.full_name = "locked and changed"
            ada.save()
            self.assert_same(FROM_DATABASE)
        self.assert_well()

    def test_select_for_update_of_everything(self):
        with transaction.atomic():
            subscription = UserSubscription.objects.select_for_update().select_related("user").get(user=self.ada)
            in_another_session(self.ada.roles.clear)
            subscription.status = "canceled"
            subscription.save()
            self.assert_roles()
        self.assert_well()

    def test_uncommitted_is_unseen(self):
        with transaction.atomic():
            self.ada.roles.add(self.admin)
            self.assert_roles("admin", "editor")
            self.assertEqual(in_another_session(lambda: [self.roles(variant) for variant in FROM_DATABASE]), [["editor"]] * 3)
        self.assert_roles("admin", "editor")
        self.assert_well()

    def test_both_add_a_role(self):
        with transaction.atomic():
            self.ada.roles.add(self.admin)
            in_another_session(self.ada.roles.add, self.viewer)
            self.assert_roles("admin", "editor", "viewer")
        self.assert_roles("admin", "editor", "viewer")
        self.assert_well()

    def test_one_rolls_back(self):
        with transaction.atomic():
            self.ada.roles.add(self.admin)
            in_another_session(self.ada.roles.add, self.viewer)
            transaction.set_rollback(True)
        self.assert_roles("editor", "viewer")
        self.assert_well()

    def test_a_plan_changes_beside_a_subscription(self):
        def rename_plan():
            SubscriptionPlan.objects.filter(id="team").update(display_name="Teams")

        with transaction.atomic():
            UserSubscription.objects.filter(user=self.ada).update(plan="team")
            in_another_session(rename_plan)
            self.assert_same(FROM_DATABASE)
        self.assertEqual(answer("get_profile", self.id)[2]["subscription_display_name"], "Teams")
        self.assert_same(FROM_DATABASE)

    def test_patch_beside_another_write(self):
        """PATCH writes what was sent. What was written since it read the profile stays."""

        def is_valid(serializer, **options):
            in_another_session(lambda: UserProfile.objects.filter(id=self.ada.id).update(phone="1", login_count=7))
            return well(serializer, **options)

        well = UserProfileSerializer.is_valid
        with mock.patch.object(UserProfileSerializer, "is_valid", is_valid):
            self.assertEqual(request("get_profile", self.id, "patch", data={"pronouns": "she/her"}).status_code, 200)
        profile = self.assert_same_id(self.id)[2]
        self.assertEqual((profile["pronouns"], profile["phone"], profile["login_count"]), ("she/her", "1", 7))
        self.assert_well()

    def test_repeatable_read(self):
        """A snapshot stays what it was, from the cache and from the tables."""
        with transaction.atomic():
            sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            before = self.assert_same_id(self.id, FROM_DATABASE)
            in_another_session(UserRole.objects.all().delete)
            in_another_session(call_command, "profile_cache_refresh")
            self.assertEqual(self.assert_same_id(self.id, FROM_DATABASE), before)
        self.assert_roles()
        self.assert_well()
