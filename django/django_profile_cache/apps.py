from django.apps import AppConfig


class ProfileCacheConfig(AppConfig):
    name = "django_profile_cache"
    verbose_name = "profile cache"

    def ready(self):
        from . import checks  # noqa: F401  (registers them)
