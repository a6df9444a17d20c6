"""Settings of the example app. What differs between machines comes from the environment."""

import os

SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "only for development and tests: thirty-two bytes and more")
SUPABASE_JWT_SECRET = os.environ.get("SUPABASE_JWT_SECRET", "only for development and tests: thirty-two bytes and more")
DEBUG = False
ALLOWED_HOSTS = ["*"]

# Where GET /api/v1/auth/profile/ takes a profile from: one of accounts.sources.SOURCES.
PROFILE_SOURCE = os.environ.get("PROFILE_SOURCE", "get_profile")
# Requests run as the database role `authenticated`, under the policies of migration 0004.
ROW_SECURITY = os.environ.get("ROW_SECURITY", "off") == "on"

# Host, port, user and password come from libpq's own PGHOST, PGPORT, PGUSER and PGPASSWORD.
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get("PGDATABASE", "app"),
        "CONN_MAX_AGE": 60,  # without it each request connects anew, which takes longer than the profile
    }
}

CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"),
        # Without Redis the app is slower, not down.
        "OPTIONS": {"IGNORE_EXCEPTIONS": True},
    }
}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "rest_framework",
    "accounts",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "backend.urls"
WSGI_APPLICATION = "backend.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"
USE_TZ = True
TIME_ZONE = "UTC"  # timestamps go out with a Z, from the serializer and from the document alike

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["accounts.authentication.SupabaseAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "UNAUTHENTICATED_USER": None,
}
