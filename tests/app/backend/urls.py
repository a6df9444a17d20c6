from django.contrib import admin
from django.urls import path

from accounts.views import ProfileView

urlpatterns = [
    path("api/v1/auth/profile/", ProfileView.as_view(), name="profile"),
    path("admin/", admin.site.urls),
]
