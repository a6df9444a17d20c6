"""Supabase signs who a user is into a JWT (HS256): `sub` is the user's id, `aud` is `authenticated`.
Checking one asks no database."""

import dataclasses
import uuid

import jwt
from django.conf import settings
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed


@dataclasses.dataclass(frozen=True)
class SupabaseUser:
    id: uuid.UUID
    is_authenticated = True


class SupabaseAuthentication(BaseAuthentication):
    def authenticate(self, request):
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        try:
            claims = jwt.decode(
                token, settings.SUPABASE_JWT_SECRET, algorithms=["HS256"], audience="authenticated",
                options={"require": ["exp", "sub", "aud"]},
            )  # fmt: skip
            return SupabaseUser(uuid.UUID(claims["sub"])), token
        except (jwt.InvalidTokenError, ValueError):
            raise AuthenticationFailed("Invalid or expired token") from None

    def authenticate_header(self, request):
        return "Bearer"  # so that a refusal is a 401, not a 403
