"""Chat pages with Django: ``/threads/room?me=ana&message=…&message=…``, and the like."""

import os
from dataclasses import asdict
from typing import Any, Final

from asgiref.sync import async_to_sync
from django.http import HttpRequest, JsonResponse
from django.urls import path

from reaction_tally import AsyncTallyReader, Page, TallyReader

reader: Final = TallyReader.from_url(os.environ["REDIS_URL"])
async_reader: Final = AsyncTallyReader.from_url(os.environ["REDIS_URL"])


def wanted(request: HttpRequest) -> dict[str, Any]:
    """Return what a request asks for."""
    return {
        "message_timetokens": request.GET.getlist("message"),
        "me": request.GET["me"],
        "names": 2,
    }


def answer(page: Page) -> JsonResponse:
    """Answer a page."""
    return JsonResponse(asdict(page))


def in_threads(request: HttpRequest, channel: str) -> JsonResponse:
    """Read in the thread of the request."""
    return answer(reader.page(channel, **wanted(request)))


def in_loops(request: HttpRequest, channel: str) -> JsonResponse:
    """Read in an event loop that lives as long as the request."""
    return answer(async_to_sync(async_reader.page)(channel, **wanted(request)))


async def in_tasks(request: HttpRequest, channel: str) -> JsonResponse:
    """Read in the event loop of the server."""
    return answer(await async_reader.page(channel, **wanted(request)))


urlpatterns: Final = [
    path("threads/<channel>", in_threads),
    path("loops/<channel>", in_loops),
    path("tasks/<channel>", in_tasks),
]
