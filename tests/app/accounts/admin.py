from django.contrib import admin

from .models import Role, SubscriptionPlan, UserProfile, UserRole, UserSubscription
from .signals import forget

admin.site.register([Role, SubscriptionPlan])


class SubscriptionInline(admin.StackedInline):
    model = UserSubscription


class RoleInline(admin.TabularInline):
    model = UserRole
    extra = 0


@admin.action(permissions=["change"], description="Give the role admin")
def give_admin(modeladmin, request, profiles):
    role = Role.objects.get(name="admin")
    UserRole.objects.bulk_create([UserRole(user=profile, role=role) for profile in profiles], ignore_conflicts=True)
    forget(profiles)


@admin.action(permissions=["change"], description="Take all roles")
def take_roles(modeladmin, request, profiles):
    UserRole.objects.filter(user__in=profiles).delete()
    forget(profiles)


@admin.action(permissions=["change"], description="Move to the plan pro")
def move_to_pro(modeladmin, request, profiles):
    UserSubscription.objects.filter(user__in=profiles).update(plan="pro")
    forget(profiles)


@admin.action(permissions=["change"], description="Cancel the subscription")
def cancel(modeladmin, request, profiles):
    UserSubscription.objects.filter(user__in=profiles).update(status=UserSubscription.Status.CANCELED)
    forget(profiles)


@admin.register(UserProfile)
class UserProfileAdmin(admin.ModelAdmin):
    list_display = ["email", "full_name", "subscription_plan"]
    list_select_related = ["subscription"]
    inlines = [SubscriptionInline, RoleInline]
    actions = [give_admin, take_roles, move_to_pro, cancel]
