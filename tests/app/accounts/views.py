import logging

from django.conf import settings
from django.db import DatabaseError
from rest_framework.response import Response
from rest_framework.views import APIView

from .models import UserProfile
from .row_security import as_user
from .serializers import UserProfileSerializer
from .sources import SOURCES

log = logging.getLogger(__name__)


class ProfileView(APIView):
    """The profile of whoever the token says is asking."""

    def get(self, request):
        with as_user(request.user.id):
            return SOURCES[settings.PROFILE_SOURCE](request.user.id)

    def patch(self, request):
        with as_user(request.user.id):
            return self.update_profile(request)

    def update_profile(self, request):
        profile = UserProfile.objects.get(supabase_user_id=request.user.id)
        serializer = UserProfileSerializer(profile, data=request.data, partial=True)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(serializer.data)

    def handle_exception(self, error):
        if isinstance(error, UserProfile.DoesNotExist):
            return Response({"error": "Profile not found"}, status=404)
        if isinstance(error, DatabaseError):
            log.error("profile of %s: %s", self.request.user.id, error)
            return Response({"error": "Profile not available"}, status=500)
        return super().handle_exception(error)
