import logging

from django.conf import settings
from django.db import DataError, Error
from django.http import JsonResponse
from django.views.decorators.csrf import csrf_exempt
from rest_framework.exceptions import ValidationError
from rest_framework.response import Response
from rest_framework.views import APIView

from . import sources
from .authentication import InvalidToken, bearer_token, user_of_token
from .models import UserProfile
from .row_security import as_user
from .serializers import UserProfileSerializer

log = logging.getLogger(__name__)

READY = ("get_profile", "copied")  # sources whose answer is text


class ProfileView(APIView):
    """The profile of whoever the token says is asking."""

    def get(self, request):
        with as_user(request.user.id):
            return sources.ANSWERS[settings.PROFILE_SOURCE](request.user.id)

    def patch(self, request):
        with as_user(request.user.id):
            return self.update_profile(request)

    def update_profile(self, request):
        profile = UserProfile.objects.get(supabase_user_id=request.user.id)
        serializer = UserProfileSerializer(profile, data=request.data, partial=True)
        serializer.is_valid(raise_exception=True)
        try:
            serializer.save()
        except DataError:  # of a \0 inside of preferences, say, which no jsonb holds
            raise ValidationError({"error": "Not storable"}) from None
        return Response(serializer.data)

    def handle_exception(self, error):
        if isinstance(error, UserProfile.DoesNotExist | Error):
            return no_profile(error, self.request.user.id)
        return super().handle_exception(error)


with_rest_framework = ProfileView.as_view()


@csrf_exempt  # nothing here trusts a cookie
def profile(request):
    """Text that is ready needs no parser, negotiation or renderer of REST framework, which take longer than the query.
    What is no plain GET, or brings no valid token, goes the way it always went."""
    if request.method != "GET" or settings.PROFILE_SOURCE not in READY:
        return with_rest_framework(request)
    try:
        user = user_of_token(bearer_token(request))
    except InvalidToken:
        return with_rest_framework(request)
    try:
        with as_user(user.id):
            return sources.ANSWERS[settings.PROFILE_SOURCE](user.id)
    except (UserProfile.DoesNotExist, Error) as error:
        return no_profile(error, user.id)


def no_profile(error, user_id):
    if isinstance(error, UserProfile.DoesNotExist):
        return JsonResponse({"error": "Profile not found"}, status=404)
    log.error("profile of %s: %s", user_id, error)
    return JsonResponse({"error": "Profile not available"}, status=500)
