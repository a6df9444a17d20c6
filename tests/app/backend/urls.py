from django.contrib import admin
from django.urls import path

from accounts.views import profile

urlpatterns = [
    path("api/v1/auth/profile/", profile, name="profile"),
    path("admin/", admin.site.urls),
]
