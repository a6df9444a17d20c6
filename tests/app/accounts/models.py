"""The app's tables, under the names that profile_cache.attach() knows. Nothing here knows of the extension:
the four columns that it adds to user_profile are in no model, and Django never asks for them."""

from django.db import models
from django.utils import timezone


class TimeStampedModel(models.Model):
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True


class SubscriptionPlan(models.Model):
    id = models.CharField(max_length=50, primary_key=True)
    display_name = models.CharField(max_length=100)
    price_monthly = models.DecimalField(max_digits=10, decimal_places=2, default=0)
    ai_daily_limit = models.IntegerField()
    features = models.JSONField(default=dict, null=True, blank=True)

    class Meta:
        db_table = "subscription_plan"

    def __str__(self):
        return self.display_name


class Role(models.Model):
    name = models.CharField(max_length=100, unique=True)
    description = models.TextField(blank=True)
    permissions = models.JSONField(default=list, null=True, blank=True)

    class Meta:
        db_table = "role"

    def __str__(self):
        return self.name


class UserProfile(TimeStampedModel):
    supabase_user_id = models.UUIDField(unique=True)
    email = models.EmailField(unique=True)
    full_name = models.CharField(max_length=255, blank=True)
    avatar_url = models.URLField(blank=True)
    phone = models.CharField(max_length=20, null=True, blank=True)
    organization = models.CharField(max_length=255, blank=True)
    pronouns = models.CharField(max_length=50, blank=True)
    job_title = models.CharField(max_length=100, blank=True)
    timezone = models.CharField(max_length=50, default="UTC")
    language = models.CharField(max_length=10, default="en")
    is_active = models.BooleanField(default=True)
    is_verified = models.BooleanField(default=False)
    onboarding_completed = models.BooleanField(default=False)
    login_count = models.BigIntegerField(default=0)
    preferences = models.JSONField(default=dict, null=True, blank=True)
    last_login = models.DateTimeField(null=True, blank=True)
    roles = models.ManyToManyField(Role, through="UserRole", related_name="users")

    class Meta:
        db_table = "user_profile"

    def __str__(self):
        return self.email

    @property
    def subscription_plan(self):
        if hasattr(self, "subscription") and self.subscription.is_active():
            return self.subscription.plan_id
        return "free"

    @property
    def subscription_status(self):
        if hasattr(self, "subscription") and self.subscription.is_active():
            return self.subscription.status
        return "free"

    @property
    def subscription_display_name(self):
        if hasattr(self, "subscription") and self.subscription.is_active():
            return self.subscription.plan.display_name
        return "Free Plan"

    @property
    def ai_daily_limit(self):
        if hasattr(self, "subscription") and self.subscription.is_active():
            return self.subscription.plan.ai_daily_limit
        return SubscriptionPlan.objects.filter(id="free").values_list("ai_daily_limit", flat=True).first()


class UserSubscription(models.Model):
    class Status(models.TextChoices):
        ACTIVE = "active"
        TRIALING = "trialing"
        PAST_DUE = "past_due"
        CANCELED = "canceled"

    user = models.OneToOneField(UserProfile, on_delete=models.CASCADE, related_name="subscription")
    plan = models.ForeignKey(SubscriptionPlan, on_delete=models.CASCADE, related_name="subscriptions")
    status = models.CharField(max_length=20, choices=Status, default=Status.ACTIVE)
    current_period_start = models.DateTimeField(default=timezone.now)
    current_period_end = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "user_subscription"

    def __str__(self):
        return f"{self.plan_id} ({self.status})"

    def is_active(self):
        running = self.current_period_end is None or self.current_period_end > timezone.now()
        return running and self.status in (self.Status.ACTIVE, self.Status.TRIALING)


class UserRole(models.Model):
    user = models.ForeignKey(UserProfile, on_delete=models.CASCADE, related_name="user_roles")
    role = models.ForeignKey(Role, on_delete=models.CASCADE, related_name="user_roles")
    assigned_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "user_role"
        constraints = [models.UniqueConstraint(fields=["user", "role"], name="user_role_once")]


class Session(models.Model):
    user = models.ForeignKey(UserProfile, on_delete=models.CASCADE, related_name="sessions")
    user_agent = models.TextField(blank=True)
    started_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "user_session"


class SubscriptionHistory(models.Model):
    """The audit trail: what a subscription was changed to, and when."""

    user = models.ForeignKey(UserProfile, on_delete=models.CASCADE, related_name="subscription_history")
    plan = models.ForeignKey(SubscriptionPlan, on_delete=models.CASCADE, related_name="+")
    status = models.CharField(max_length=20)
    changed_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "subscription_history"
