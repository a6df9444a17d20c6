"""The least of the tables that profile_cache.attach() knows."""

from django.db import models


class UserProfile(models.Model):
    supabase_user_id = models.UUIDField(unique=True)
    full_name = models.CharField(max_length=200, blank=True)
    secret_note = models.TextField(blank=True)

    class Meta:
        db_table = "user_profile"


class SubscriptionPlan(models.Model):
    id = models.CharField(max_length=50, primary_key=True)
    display_name = models.CharField(max_length=100)
    ai_daily_limit = models.IntegerField()
    features = models.JSONField(default=dict)

    class Meta:
        db_table = "subscription_plan"


class UserSubscription(models.Model):
    user = models.OneToOneField(UserProfile, on_delete=models.CASCADE)
    plan = models.ForeignKey(SubscriptionPlan, on_delete=models.CASCADE)
    status = models.CharField(max_length=20, default="active")
    current_period_end = models.DateTimeField(null=True)

    class Meta:
        db_table = "user_subscription"
