"""The profile as the frontend knows it. The view that attach() writes holds the same fields, and
tests/test_contract.py holds the two together."""

from rest_framework import serializers

from .models import UserProfile


# What a user may change of his own profile: these, and no column that is added one day.
EDITABLE = ["full_name", "avatar_url", "phone", "organization", "pronouns", "job_title", "timezone", "language",
            "onboarding_completed", "preferences"]  # fmt: skip


class UserProfileSerializer(serializers.ModelSerializer):
    """As it was: one property for each field, and many of them ask the database."""

    subscription_plan = serializers.CharField(read_only=True)
    subscription_status = serializers.CharField(read_only=True)
    subscription_display_name = serializers.CharField(read_only=True)
    ai_daily_limit = serializers.IntegerField(read_only=True)
    subscription_data = serializers.SerializerMethodField()
    roles = serializers.SerializerMethodField()

    class Meta:
        model = UserProfile
        exclude = ["id"]
        read_only_fields = sorted({field.name for field in UserProfile._meta.local_fields} - {*EDITABLE})

    def update(self, profile, values):
        """Writes what was sent and nothing beside it: what another request wrote meanwhile stays."""
        for name, value in values.items():
            setattr(profile, name, value)
        profile.save(update_fields=[*values, "updated_at"])
        return profile

    def get_subscription_data(self, profile):
        active = hasattr(profile, "subscription") and profile.subscription.is_active()
        features = profile.subscription.plan.features if active else None
        return {
            "plan": profile.subscription_plan,
            "status": profile.subscription_status,
            "display_name": profile.subscription_display_name,
            "features": {} if features is None else features,
        }

    def get_roles(self, profile):
        roles = [user_role.role for user_role in profile.user_roles.all()]
        # By code point: how the database sorts depends on its collation.
        return [{"name": role.name, "permissions": role.permissions} for role in sorted(roles, key=lambda role: role.name)]


class FastUserProfileSerializer(UserProfileSerializer):
    """Looks at the subscription once. For profiles that come with their related rows."""

    def get_subscription_data(self, profile):
        subscription = getattr(profile, "subscription", None)
        if subscription is None or not subscription.is_active():
            return {"plan": "free", "status": "free", "display_name": "Free Plan", "features": {}}
        plan = subscription.plan
        return {
            "plan": plan.id,
            "status": subscription.status,
            "display_name": plan.display_name,
            "features": {} if plan.features is None else plan.features,
        }
