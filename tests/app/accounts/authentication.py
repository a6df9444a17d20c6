"""Supabase signs who a user is into a JWT (HS256): `sub` is the user's id, `aud` is `authenticated`.
Checking one asks no database."""

import dataclasses
import uuid

import jwt
from django.conf import settings
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed


class InvalidToken(Exception):
    pass


@dataclasses.dataclass(frozen=True)
class SupabaseUser:
    id: uuid.UUID
    until: int  # when the token ends, in seconds since 1970
    is_authenticated = True


def user_of_token(token):
    try:
        claims = jwt.decode(
            token, settings.SUPABASE_JWT_SECRET, algorithms=["HS256"], audience="authenticated",
            options={"require": ["exp", "sub", "aud"]},
        )  # fmt: skip
        return SupabaseUser(uuid.UUID(claims["sub"]), int(claims["exp"]))
    except (jwt.InvalidTokenError, ValueError):
        raise InvalidToken from None


def bearer_token(request):
    """What the request brings along as one, or None."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else None


class SupabaseAuthentication(BaseAuthentication):
    def authenticate(self, request):
        token = bearer_token(request)
        if token is None:
            return None
        try:
            return user_of_token(token), token
        except InvalidToken:
            raise AuthenticationFailed("Invalid or expired token") from None

    def authenticate_header(self, request):
        return "Bearer"  # so that a refusal is a 401, not a 403
