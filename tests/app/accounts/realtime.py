"""Tells open pages that their user's profile may have changed. A page then asks the endpoint for it.

No profile passes through here: what a page shows has come by the one URL that checks who is asking, and a message that
went to the wrong socket would give nothing away. Nor do messages have to be kept or counted: one says no more than
"look again", and it comes after the commit, so whoever looks sees the change.

The database notifies (profile_cache.notify, migration 0005) a user's id, or `*` where many may have changed. Each process
listens on one connection of its own, however many sockets it has.
"""

import asyncio
import collections
import contextlib
import logging
import threading
import time

from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django_profile_cache import listener as profile_cache

from .authentication import InvalidToken, user_of_token

log = logging.getLogger(__name__)

TOKEN_SECONDS = 5  # in which a socket has to say whose it is
UNAUTHORIZED = 4401
TOO_LATE = 4408  # not the token's fault: come again
INTERNAL_ERROR = 1011


class ProfileSocket(AsyncWebsocketConsumer):
    """Expects a token as the first message: in the URL it would be in every log. Ends with the token.

    Sends `changed` where the user's profile was computed anew, and `look` where it may have been: at first, since nobody told
    this page what happened before; where many changed; and where the database was out of reach."""

    async def connect(self):
        await self.accept()
        listener.start()
        self.words, self.woken = set(), asyncio.Event()  # what happens twice before it has been said is said once
        self.token = asyncio.get_running_loop().create_future()
        self.serving = asyncio.create_task(self.serve())

    async def receive(self, text_data=None, bytes_data=None):
        if not self.token.done():
            self.token.set_result(text_data)

    async def disconnect(self, code):
        self.serving.cancel()

    async def serve(self):
        try:
            try:
                async with asyncio.timeout(TOKEN_SECONDS):
                    user = user_of_token(await self.token)
            except TimeoutError:
                return await self.close(TOO_LATE)
            with listener.knowing(self, user.id):
                self.say("look")
                async with asyncio.timeout(user.until - time.time()):
                    await self.send_words()
        except (InvalidToken, TimeoutError):
            await self.close(UNAUTHORIZED)
        except OSError:
            pass  # the page went away while it was told something
        except Exception:
            log.exception("a socket's end")
            await self.close(INTERNAL_ERROR)  # so that the page comes again, rather than waiting for nothing

    def say(self, word):
        self.words.add(word)
        self.woken.set()

    async def send_words(self):
        while True:
            await self.woken.wait()
            self.woken.clear()
            while self.words:
                await self.send(self.words.pop())


class Listener:
    """Hears from the database, in a thread of its own, and wakes the sockets that it concerns."""

    def __init__(self):
        self.sockets = collections.defaultdict(set)  # of each user
        self.waiting = set()  # sockets that are to look again, in their turn
        self.thread = self.telling = None

    def start(self):
        if self.thread is None:
            self.thread = threading.Thread(target=self.listen, args=[asyncio.get_running_loop()], daemon=True)
            self.thread.start()

    def listen(self, loop):
        """Whoever it is at first, and after a reconnect: everyone, for no page is held here that could be compared."""
        for user_id in profile_cache.Listener(conninfo=settings.LISTEN_TO):
            loop.call_soon_threadsafe(self.heard, user_id)

    @contextlib.contextmanager
    def knowing(self, socket, user_id):
        self.sockets[str(user_id)].add(socket)
        try:
            yield
        finally:
            self.waiting.discard(socket)
            self.sockets[str(user_id)].discard(socket)
            if not self.sockets[str(user_id)]:
                del self.sockets[str(user_id)]

    def heard(self, user_id):
        if user_id is profile_cache.EVERYBODY:
            self.everyone()
        else:
            for socket in self.sockets.get(str(user_id), ()):
                socket.say("changed")

    def everyone(self):
        self.waiting.update(*self.sockets.values())
        if self.telling is None or self.telling.done():
            self.telling = asyncio.create_task(self.tell())

    async def tell(self):
        """One after the other, at a pace that the endpoint can follow: each will come and ask."""
        while self.waiting:
            self.waiting.pop().say("look")
            await asyncio.sleep(1 / settings.LOOKS_PER_SECOND)


listener = Listener()
