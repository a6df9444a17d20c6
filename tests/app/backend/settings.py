"""Settings of the example app. What differs between machines comes from the environment."""

import os

SWITCH = {"on": True, "off": False}  # and nothing else: "true" must not be taken for off

# No defaults: whoever knows the second can sign a token for anybody.
SECRET_KEY = os.environ["DJANGO_SECRET_KEY"]
SUPABASE_JWT_SECRET = os.environ["SUPABASE_JWT_SECRET"]
DEBUG = False
ALLOWED_HOSTS = ["*"]

# Where GET /api/v1/auth/profile/ takes a profile from: one of accounts.sources.ANSWERS.
PROFILE_SOURCE = os.environ.get("PROFILE_SOURCE", "get_profile")
# Requests run as the database role `authenticated`, under the policies of migration 0004.
ROW_SECURITY = SWITCH[os.environ.get("ROW_SECURITY", "off")]

PGBOUNCER = SWITCH[os.environ.get("PGBOUNCER", "off")]  # in transaction mode

# Host, port, user and password come from libpq's own PGHOST, PGPORT, PGUSER and PGPASSWORD.
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get("PGDATABASE", "app"),
        # With 0 each request connects anew, which takes longer than the profile.
        "CONN_MAX_AGE": int(os.environ.get("CONN_MAX_AGE", "60")),
        # A cursor would outlive its connection. Prepared statements too, but Django makes none unless OPTIONS ask for it.
        "DISABLE_SERVER_SIDE_CURSORS": PGBOUNCER,
    }
}

# What listens does so there, on a connection that it keeps, so past PgBouncer; libpq knows the rest, as above.
LISTEN_TO = os.environ.get("LISTEN_TO", f"dbname={DATABASES['default']['NAME']}")
LOOKS_PER_SECOND = 200  # how many pages a process sends to look again, where a change concerns all

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
    "django_profile_cache",
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
