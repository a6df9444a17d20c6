"""After every kind of write that an app does through Django, all variants answer the same, at once.

Where Django sends signals the Redis variant keeps up too; where it does not, see test_redis_holes.py.
Each write is a function in WRITES. `later` marks those that concern many users through one row: reads use the
view until the next refresh, and are right before and after it."""

import os
import random

import psycopg
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ObjectDoesNotExist
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.db.models import F, Value
from django.db.models.functions import Concat, Upper
from django.test import Client
from django.urls import reverse

from accounts.admin import UserProfileAdmin
from accounts.models import Role, Session, SubscriptionHistory, SubscriptionPlan, UserProfile, UserRole, UserSubscription
from accounts.sources import SOURCES
from accounts.tests.support import FROM_DATABASE, AppTestCase, answer, explain, in_another_session, in_days, request, sql

WRITES = []


def write(unseen=False, later=False, changes=True):
    """A kind of write. unseen: no signal tells of it. later: refresh has work to do. changes: some answer differs afterwards."""

    def register(function):
        WRITES.append(function)
        function.unseen, function.later, function.changes = unseen, later, changes
        return function

    return register


# save()


@write()
def save(t):
    t.ada.full_name = "Ada Lovelace"
    t.ada.save()


@write()
def save_update_fields(t):
    t.ada.full_name = "Ada Lovelace"
    t.ada.save(update_fields=["full_name"])


@write()
def save_a_stale_instance(t):
    """An instance from before another write puts every column back, which must not put the old document back."""
    stale = UserProfile.objects.get(id=t.ada.id)
    in_another_session(rename, t.ada.id, "somebody else's change")
    UserRole.objects.create(user=t.ada, role=t.admin)
    stale.phone = "1"
    stale.save()


@write()
def save_a_deferred_instance(t):
    profile = UserProfile.objects.only("id", "full_name").get(id=t.ada.id)
    profile.full_name = "Ada Lovelace"
    profile.save()


@write()
def save_a_subscription(t):
    t.bob.subscription.plan = t.pro
    t.bob.subscription.status = "active"
    t.bob.subscription.save()


@write(unseen=True)
def save_a_subscription_that_moves(t):
    """The signal names the user who has it now, not the one who had it."""
    subscription = t.bob.subscription
    subscription.user = t.eve
    subscription.save()


@write()
def create_a_subscription(t):
    UserSubscription.objects.create(user=t.eve, plan=t.pro, current_period_end=in_days(30))


@write()
def save_a_new_user_with_everything(t):
    t.users.append(t.user("Ida", t.pro, [t.admin, t.viewer]))


@write(later=True)
def save_a_plan(t):
    t.pro.display_name, t.pro.features = "Professional", {"export": [True, None]}
    t.pro.save()


@write(later=True)
def save_the_free_plan(t):
    plan = SubscriptionPlan.objects.get(id="free")
    plan.ai_daily_limit = 11
    plan.save()


@write(later=True)
def save_a_role(t):
    t.editor.name = "author"
    t.editor.save()


@write(changes=False)
def save_what_the_document_does_not_show(t):
    Session.objects.create(user=t.ada, user_agent="curl")
    SubscriptionHistory.objects.create(user=t.ada, plan=t.pro, status="active")
    t.editor.description = "edits"
    t.editor.save()
    t.pro.price_monthly = 99
    t.pro.save()


# create or not


@write()
def get_or_create(t):
    for _ in range(2):
        UserRole.objects.get_or_create(user=t.eve, role=t.viewer)


@write()
def update_or_create(t):
    for plan in (t.pro, t.team):
        UserSubscription.objects.update_or_create(user=t.eve, defaults={"plan": plan})
    UserProfile.objects.update_or_create(id=t.ada.id, defaults={"organization": "Analytical Engines"})


# delete()


@write()
def delete_a_role_of_a_user(t):
    UserRole.objects.get(user=t.bob, role=t.viewer).delete()


@write()
def delete_a_subscription(t):
    t.bob.subscription.delete()


@write()
def delete_a_user_and_cascade(t):
    Session.objects.create(user=t.bob)
    t.bob.delete()


@write()
def delete_a_user_and_create_him_again(t):
    with transaction.atomic():
        user_id = t.bob.supabase_user_id
        t.bob.delete()
        UserProfile.objects.create(supabase_user_id=user_id, email="again@example.com", full_name="Bob again")


@write(later=True)
def delete_a_role_and_cascade(t):
    t.editor.delete()


@write(later=True)
def delete_a_plan_and_cascade(t):
    t.team.delete()


@write()
def delete_a_queryset(t):
    UserSubscription.objects.filter(plan=t.team).delete()


# many to many


@write()
def roles_set(t):
    t.bob.roles.set([t.admin, t.viewer])


@write()
def roles_add_and_remove(t):
    t.eve.roles.add(t.admin, t.editor)
    t.eve.roles.remove(t.editor)


@write()
def roles_clear(t):
    t.bob.roles.clear()


@write()
def roles_set_from_the_other_side(t):
    t.editor.users.set([t.eve])


# No signals from here on


@write(unseen=True)
def update(t):
    UserProfile.objects.filter(full_name__in=["Ada", "Bob"]).update(full_name="both")


@write(unseen=True)
def update_with_f(t):
    UserProfile.objects.update(login_count=F("login_count") + 1, full_name=Concat(Upper("full_name"), Value(" & "), "language"))


@write(unseen=True)
def update_through_a_join(t):
    UserProfile.objects.filter(subscription__plan__display_name="Team").update(is_verified=True)


@write(unseen=True)
def update_subscriptions(t):
    UserSubscription.objects.update(status=UserSubscription.Status.CANCELED)


@write(unseen=True)
def update_nothing_then_something(t):
    UserProfile.objects.filter(full_name="nobody").update(full_name="x")
    UserProfile.objects.filter(id=t.ada.id).update(preferences={"a": {"b": [1, None]}})


@write(unseen=True, later=True)
def update_a_plan(t):
    SubscriptionPlan.objects.filter(id="pro").update(ai_daily_limit=F("ai_daily_limit") * 2)


@write(unseen=True, later=True)
def update_roles(t):
    Role.objects.update(permissions=["none"])


@write(unseen=True)
def bulk_create(t):
    UserRole.objects.bulk_create([UserRole(user=user, role=t.admin) for user in t.users])


@write(unseen=True)
def bulk_create_ignoring_conflicts(t):
    UserRole.objects.bulk_create([UserRole(user=user, role=t.editor) for user in t.users], ignore_conflicts=True)


@write(unseen=True)
def bulk_create_updating_conflicts(t):
    UserSubscription.objects.bulk_create(
        [UserSubscription(user=user, plan=t.team) for user in t.users],
        update_conflicts=True, update_fields=["plan"], unique_fields=["user"],
    )  # fmt: skip


@write(unseen=True)
def bulk_update(t):
    for user in t.users:
        user.full_name, user.preferences = user.full_name[::-1], [user.id]
    UserProfile.objects.bulk_update(t.users, ["full_name", "preferences"])


@write(unseen=True)
def bulk_update_subscriptions(t):
    subscriptions = list(UserSubscription.objects.all())
    for subscription in subscriptions:
        subscription.plan, subscription.current_period_end = t.team, in_days(1)
    UserSubscription.objects.bulk_update(subscriptions, ["plan", "current_period_end"])


@write(unseen=True)
def raw_delete(t):
    UserRole.objects.filter(user=t.bob)._raw_delete("default")


@write(unseen=True)
def raw_sql(t):
    sql(
        """WITH gone AS (DELETE FROM user_role WHERE user_id = %s), named AS (UPDATE user_profile SET full_name = 'SQL' WHERE id = %s)
           INSERT INTO user_subscription (user_id, plan_id, status, current_period_start) VALUES (%s, 'pro', 'active', now())""",
        t.ada.id, t.bob.id, t.eve.id,
    )  # fmt: skip


@write(unseen=True)
def raw_copy(t):
    with connection.cursor() as cursor, cursor.copy("COPY user_role (user_id, role_id, assigned_at) FROM STDIN") as copy:
        copy.write_row((t.eve.id, t.admin.id, "2024-05-01"))


@write(unseen=True, later=True)
def raw_truncate(t):
    sql("TRUNCATE user_role")


# Transactions


@write()
def atomic(t):
    with transaction.atomic():
        t.bob.roles.add(t.admin)
        t.bob.full_name = "Robert"
        t.bob.save()


@write()
def atomic_with_a_nested_rollback(t):
    with transaction.atomic():
        t.bob.roles.add(t.admin)
        try:
            with transaction.atomic():
                t.bob.subscription.delete()
                UserProfile.objects.update(full_name="never")
                raise ValueError
        except ValueError:
            pass
        rename(t.ada.id, "kept")


@write(changes=False)
def atomic_rolled_back(t):
    try:
        with transaction.atomic():
            UserProfile.objects.update(full_name="never")
            t.bob.delete()
            t.admin.users.add(t.eve)
            raise ValueError
    except ValueError:
        pass


@write()
def select_for_update(t):
    with transaction.atomic():
        profile = UserProfile.objects.select_for_update().get(id=t.ada.id)
        profile.login_count += 1
        profile.save()
        profile.roles.add(t.admin)


# Admin


def admin_client():
    client = Client()
    client.force_login(User.objects.get_or_create(username="root", is_staff=True, is_superuser=True)[0])
    return client


def admin_action(action, t):
    response = admin_client().post(
        reverse("admin:accounts_userprofile_changelist"), {"action": action, "_selected_action": [user.id for user in t.users]}
    )
    assert response.status_code == 302, response.content


@write()
def admin_action_give_admin(t):
    admin_action("give_admin", t)


@write()
def admin_action_take_roles(t):
    admin_action("take_roles", t)


@write()
def admin_action_move_to_pro(t):
    admin_action("move_to_pro", t)


@write()
def admin_action_cancel(t):
    admin_action("cancel", t)


@write()
def admin_delete_selected(t):
    response = admin_client().post(
        reverse("admin:accounts_userprofile_changelist"), {"action": "delete_selected", "_selected_action": [t.bob.id], "post": "yes"}
    )
    assert response.status_code == 302, response.content


@write()
def admin_form(t):
    """The change form with its inlines: one subscription changed, one role added, one taken."""
    viewers, subscription = t.bob.user_roles.get(role=t.viewer), UserSubscription.objects.get(user=t.bob)
    response = admin_client().post(
        reverse("admin:accounts_userprofile_change", args=[t.bob.id]),
        {
            "supabase_user_id": t.bob.supabase_user_id, "email": "robert@example.com", "full_name": "Robert",
            "timezone": "UTC", "language": "de", "login_count": 3, "preferences": '{"a": 1}', "is_active": "on",
            "subscription-TOTAL_FORMS": 1, "subscription-INITIAL_FORMS": 1, "subscription-0-id": subscription.id,
            "subscription-0-user": t.bob.id, "subscription-0-plan": "pro", "subscription-0-status": "active",
            "subscription-0-current_period_start_0": "2024-05-01", "subscription-0-current_period_start_1": "12:00:00",
            "user_roles-TOTAL_FORMS": 2, "user_roles-INITIAL_FORMS": 1, "user_roles-0-id": viewers.id, "user_roles-0-user": t.bob.id,
            "user_roles-0-role": t.viewer.id, "user_roles-0-DELETE": "on", "user_roles-1-user": t.bob.id, "user_roles-1-role": t.admin.id,
        },
    )  # fmt: skip
    assert response.status_code == 302, response.context["errors"]


@write(later=True)
def admin_form_of_a_plan(t):
    data = {"id": "pro", "display_name": "Pro+", "price_monthly": "9.50", "ai_daily_limit": 1, "features": "[]"}
    response = admin_client().post(reverse("admin:accounts_subscriptionplan_change", args=["pro"]), data)
    assert response.status_code == 302, response.context["errors"]


@write()
def patch(t):
    assert request("get_profile", t.ada.supabase_user_id, "patch", data={"pronouns": "she/her"}).status_code == 200


# Helpers


def rename(profile_id, name):
    profile = UserProfile.objects.get(id=profile_id)
    profile.full_name = name
    profile.save()


def make_tests(case, check, writes):
    """A test for each write, under its name."""

    def make(do):
        def test(self):
            check(self, do)

        test.__doc__ = do.__doc__
        setattr(case, f"test_{do.__name__}", test)

    for do in writes:
        make(do)


class Writes(AppTestCase):
    def check(self, do):
        ids = [user.supabase_user_id for user in self.users]
        before = [answer("as_it_was", user_id) for user_id in ids]
        do(self)
        ids += [user.supabase_user_id for user in self.users if user.supabase_user_id not in ids]
        variants = FROM_DATABASE if do.unseen else tuple(SOURCES)
        after = [self.assert_same_id(user_id, variants) for user_id in ids]
        self.assertEqual(after != before, do.changes)
        if not do.later:
            self.assert_served_from_cache(ids)
        call_command("profile_cache_refresh")
        self.assertEqual([self.assert_same_id(user_id, variants) for user_id in ids], after)
        self.assert_served_from_cache(ids)

    def assert_served_from_cache(self, ids):
        self.assertEqual({explain(user_id)[0] for user_id in ids} - {"none"}, {"cache"})


make_tests(Writes, Writes.check, WRITES)


class Staff(AppTestCase):
    def test_who_may_only_look(self):
        """is offered no action that changes something, and does nothing with one that he was not offered."""
        looks = User.objects.create(username="looks", is_staff=True)
        looks.user_permissions.set(Permission.objects.filter(codename="view_userprofile"))
        client, page = Client(), reverse("admin:accounts_userprofile_changelist")
        client.force_login(looks)
        before = [answer("as_it_was", user.supabase_user_id) for user in self.users]
        self.assertEqual(client.get(page).status_code, 200)
        for action in UserProfileAdmin.actions:
            client.post(page, {"action": action.__name__, "_selected_action": [user.id for user in self.users]})
        self.assertEqual([self.assert_same_id(user.supabase_user_id) for user in self.users], before)


class InAnyOrder(AppTestCase):
    """Writes one after the other in one transaction, some of them undone: every answer on the way is right, and the last ones
    are after the commit."""

    STEPS = [do for do in WRITES if do is not save_a_stale_instance]  # whose other session would wait for this one

    def check(self, seed):
        choices, done = random.Random(seed), []
        with transaction.atomic():
            for do in choices.choices(self.STEPS, k=8):
                undone = choices.random() < 0.25
                try:
                    with transaction.atomic():
                        do(self)
                        connection.check_constraints()  # now, for it may be of a user who is gone
                        transaction.set_rollback(undone)
                except NOT_ANY_MORE:
                    continue
                done.append((do.__name__, undone))
                self.assert_right(done)
        self.assert_right(done)
        call_command("profile_cache_refresh")
        self.assert_right(done)
        self.assertGreaterEqual(len(done), 2)

    def assert_right(self, done):
        with self.subTest(done):
            self.assert_same(FROM_DATABASE)


# A write to what an earlier one has deleted, or made already.
NOT_ANY_MORE = (ObjectDoesNotExist, IntegrityError, psycopg.IntegrityError, ValueError)


def check_sequence(seed):
    return lambda t: t.check(seed)


for seed in range(int(os.environ.get("APP_SEQUENCES", "20"))):
    setattr(InAnyOrder, f"test_{seed}", check_sequence(seed))
