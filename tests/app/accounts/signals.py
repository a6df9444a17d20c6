"""What the Redis variant needs to forget a profile that changes. Django sends signals for save() and delete(),
and for nothing else: not for update(), bulk_create(), bulk_update() or SQL. Those callers have to remember
forget() themselves. With get_profile this file, and every call of forget(), can go."""

from django.core.cache import cache
from django.db import transaction
from django.db.models.signals import m2m_changed, post_delete, post_save
from django.dispatch import receiver

from .models import Role, SubscriptionPlan, UserProfile, UserRole, UserSubscription
from .sources import cache_key


def forget(profiles):
    """Deletes their cached copies, once what changed them is committed."""
    keys = [cache_key(user_id) for user_id in profiles.values_list("supabase_user_id", flat=True)]
    transaction.on_commit(lambda: cache.delete_many(keys))


@receiver([post_save, post_delete], sender=UserProfile)
def profile_changed(instance, **_):
    transaction.on_commit(lambda: cache.delete(cache_key(instance.supabase_user_id)))


@receiver([post_save, post_delete], sender=UserSubscription)
@receiver([post_save, post_delete], sender=UserRole)
def member_changed(instance, **_):
    forget(UserProfile.objects.filter(id=instance.user_id))


@receiver(m2m_changed, sender=UserRole)
def roles_set(instance, action, **_):
    if action.startswith("post_"):
        forget(UserProfile.objects.filter(id=instance.id) if isinstance(instance, UserProfile) else instance.users.all())


@receiver(post_save, sender=SubscriptionPlan)
def plan_changed(instance, **_):
    forget(UserProfile.objects.all() if instance.id == "free" else UserProfile.objects.filter(subscription__plan=instance))


@receiver(post_save, sender=Role)
def role_changed(instance, **_):
    forget(instance.users.all())
