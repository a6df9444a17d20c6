from django.contrib import admin
from django.urls import path
from django.views.generic import TemplateView

from accounts.views import profile

urlpatterns = [
    path("api/v1/auth/profile/", profile, name="profile"),
    path("", TemplateView.as_view(template_name="profile.html")),
    path("admin/", admin.site.urls),
]
