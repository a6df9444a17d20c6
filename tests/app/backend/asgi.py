"""The app with its WebSocket: uvicorn backend.asgi:application --ws-max-size=16384, for a token is all that a socket may say.
Or this for /ws/ alone, and wsgi.py for the rest."""

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "backend.settings")
os.environ.setdefault("CONN_MAX_AGE", "0")  # under ASGI each request has a thread of its own, which would keep its connection
http = get_asgi_application()

from accounts.realtime import ProfileSocket  # noqa: E402  (Django has to be ready)

websocket = URLRouter([path("ws/profile/", ProfileSocket.as_asgi())])
application = ProtocolTypeRouter({"http": http, "websocket": websocket})
