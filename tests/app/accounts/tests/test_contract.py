"""The contract: whatever a profile holds, the four variants answer with equal JSON, and get_profile asks one query.

Hypothesis makes the users up: APP_EXAMPLES=10000 for a longer run. A failure prints the smallest user that shows it."""

import datetime
import os
import uuid

from django.core.cache import cache
from django.core.management import call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from accounts.models import Role, SubscriptionPlan, UserProfile, UserRole, UserSubscription
from accounts.sources import SOURCES
from accounts.tests.support import FROM_DATABASE, AppTestCase, answer, explain, in_days, request

EXAMPLES = int(os.environ.get("APP_EXAMPLES", "2000"))

NASTY = [
    "", " ", "O'Hara", 'say "hi"', "back\\slash", "tab\tline\nreturn\r", "</script>", "%s %(a)s {}", "$1 :name", "\\u0041", "null",
    "naïve Straße", "山田 太郎", "שלום",
    "👩‍👩‍👧‍👦 🏳️‍🌈", "𝒳 \U0010ffff", "e\u0301 \u200f\ufeff", "\x01\x1f\x7f", "\u2028",
]  # fmt: skip
ROLES = [*NASTY, "admin", "Admin", "ädmin", "z", "Z"]

# PostgreSQL has no \0 in text or jsonb, and no half of a surrogate pair.
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


def text(longest):
    return st.one_of(st.sampled_from([nasty for nasty in NASTY if len(nasty) <= longest]), st.text(characters, max_size=longest))


numbers = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, text(20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(text(8), inner, max_size=4)),
    max_leaves=12,
)
moments = st.one_of(
    st.datetimes(datetime.datetime(1, 1, 2), datetime.datetime(9999, 12, 30), timezones=st.timezones()),
    st.sampled_from(["2024-02-29T23:59:59.999999Z", "2024-05-01T12:00:00.000001Z", "1969-12-31T23:59:59.5Z", "0001-01-01T00:00:00Z"]).map(
        datetime.datetime.fromisoformat
    ),
)
profiles = st.fixed_dictionaries({
    "full_name": text(255), "avatar_url": text(200), "phone": st.none() | text(20), "organization": text(255), "pronouns": text(50),
    "job_title": text(100), "timezone": text(50), "language": text(10), "is_active": st.booleans(), "is_verified": st.booleans(),
    "onboarding_completed": st.booleans(), "login_count": st.integers(-(2**63), 2**63 - 1), "preferences": values,
    "last_login": st.none() | moments, "created_at": moments, "updated_at": moments,
})  # fmt: skip
ends = st.none() | st.sampled_from([-40000, -1, -0.01, 0.01, 1, 40000]).map(in_days) | moments
subscriptions = st.none() | st.fixed_dictionaries({
    "plan_id": st.sampled_from([*NASTY, "free", "pro"]), "status": st.sampled_from(UserSubscription.Status.values),
    "current_period_end": ends,
})  # fmt: skip
role_names = st.lists(st.sampled_from(ROLES), unique=True)


# What then happens to a user, and what with.


def save(profile, fields):
    """By an instance from before all that happened meanwhile."""
    for name, value in fields.items():
        setattr(profile, name, value)
    profile.save()


def update(profile, fields):
    UserProfile.objects.filter(id=profile.id).update(**fields)


def bulk_update(profile, fields):
    for name, value in fields.items():
        setattr(profile, name, value)
    UserProfile.objects.bulk_update([profile], [*fields])


def set_roles(profile, names):
    profile.roles.set(Role.objects.filter(name__in=names))


def subscribe(profile, subscription):
    if subscription:
        UserSubscription.objects.update_or_create(user=profile, defaults=subscription)
    else:
        UserSubscription.objects.filter(user=profile).delete()


def cancel(profile, status):
    UserSubscription.objects.filter(user__email=profile.email).update(status=status)


def undone(profile, names):
    with transaction.atomic():
        profile.roles.clear()
        profile.roles.set(Role.objects.filter(name__in=names))
        transaction.set_rollback(True)


changes = st.lists(st.one_of(
    st.tuples(st.sampled_from([save, update, bulk_update]), profiles), st.tuples(st.sampled_from([set_roles, undone]), role_names),
    st.tuples(st.just(subscribe), subscriptions), st.tuples(st.just(cancel), st.sampled_from(UserSubscription.Status.values)),
), max_size=3)  # fmt: skip


class Contract(AppTestCase):
    def test_generated_users(self):
        SubscriptionPlan.objects.bulk_create(
            SubscriptionPlan(id=name, display_name=name * 2, ai_daily_limit=n - 5, features=[None, {}, {name: [n, {"deep": 1e300}]}][n % 3])
            for n, name in enumerate(NASTY)
        )
        Role.objects.all().delete()
        Role.objects.bulk_create(Role(name=name, permissions=[None, [], [name, {"n": n}]][n % 3]) for n, name in enumerate(ROLES))
        roles = {role.name: role.id for role in Role.objects.all()}
        call_command("profile_cache_refresh")
        seen = []

        @settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None,
                  phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(profiles, subscriptions, role_names, changes)
        def answers_are_equal(fields, subscription, names, changes):
            user_id = uuid.uuid4()
            profile = UserProfile.objects.create(supabase_user_id=user_id, email=f"{user_id}@example.com", **fields)
            # save() puts the time of saving into these two.
            UserProfile.objects.filter(id=profile.id).update(created_at=fields["created_at"], updated_at=fields["updated_at"])
            if subscription:
                UserSubscription.objects.create(user=profile, **subscription)
            UserRole.objects.bulk_create(UserRole(user=profile, role_id=roles[name]) for name in names)
            status, _, document = self.assert_same_id(user_id)
            self.assertEqual((status, explain(user_id)), (200, ("cache", "fresh")))
            seen.append((document["subscription_status"], len(document["roles"])))
            for change, value in changes:
                change(profile, value)
                self.assert_same_id(user_id, FROM_DATABASE)
                self.assertEqual(explain(user_id), ("cache", "fresh"))

        answers_are_equal()
        self.assertGreaterEqual(len(seen), EXAMPLES)
        if EXAMPLES >= 1000:  # then it has met everything that it was made up for
            self.assertEqual({status for status, _ in seen}, {"active", "trialing", "free"})
            self.assertGreater(max(count for _, count in seen), 5)

    def test_the_document_is_the_serializers(self):
        """Spelled out once, so that the four are not equal by all being wrong."""
        times = {"created_at": "2024-05-01T14:00:00+02", "updated_at": "2024-05-01T12:00:00.000001Z"}
        UserProfile.objects.filter(id=self.bob.id).update(**times)
        cache.clear()  # Redis does not notice update()
        _, content_type, document = self.assert_same_id(self.bob.supabase_user_id)
        self.assertEqual(content_type, "application/json")
        self.assertEqual(document, {
            "supabase_user_id": str(self.bob.supabase_user_id), "email": self.bob.email, "full_name": "Bob", "avatar_url": "",
            "phone": None, "organization": "", "pronouns": "", "job_title": "", "timezone": "UTC", "language": "en",
            "is_active": True, "is_verified": False, "onboarding_completed": False, "login_count": 0, "preferences": {}, "last_login": None,
            "created_at": "2024-05-01T12:00:00Z", "updated_at": "2024-05-01T12:00:00.000001Z",
            "subscription_plan": "team", "subscription_status": "trialing", "subscription_display_name": "Team", "ai_daily_limit": 900,
            "subscription_data": {"plan": "team", "status": "trialing", "display_name": "Team", "features": {"seats": [1, {"max": 9}]}},
            "roles": [{"name": "editor", "permissions": ["editor.read"]}, {"name": "viewer", "permissions": ["viewer.read"]}],
        })  # fmt: skip

    def test_headers_are_the_same(self):
        responses = [request(name, self.ada.supabase_user_id) for name in SOURCES]
        # The length by how much space is between keys; and what else is allowed, which REST framework adds to all it answers.
        headers = [{k: v for k, v in response.headers.items() if k not in ("Content-Length", "Allow")} for response in responses]
        self.assertEqual(headers, headers[:1] * len(SOURCES))

    def test_unknown_user(self):
        answers = [answer(name, uuid.uuid4()) for name in SOURCES]
        self.assertEqual(answers, [(404, "application/json", {"error": "Profile not found"})] * len(SOURCES))

    def test_queries(self):
        """As it was: profile, subscription, plan, roles, and one more for each role (Bob has two)."""
        for name, count in {"as_it_was": 6, "prefetched": 3, "redis": 0, "get_profile": 1}.items():
            with self.subTest(name), CaptureQueriesContext(connection) as queries:
                request(name, self.bob.supabase_user_id)
            self.assertEqual(len(queries), count, queries.captured_queries)

    def test_every_source_is_compared(self):
        self.assertEqual(list(SOURCES), ["as_it_was", "prefetched", "redis", "get_profile"])
