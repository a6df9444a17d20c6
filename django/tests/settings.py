"""Settings of the package's own tests: one app, on the database that libpq's PG* variables name."""

import os

SECRET_KEY = "of the tests"
DATABASES = {
    "default": {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ.get("PGDATABASE", "django_profile_cache")},
    "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
}
INSTALLED_APPS = ["django_profile_cache", "tests"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
