"""What a listener and its routes answer by themselves, before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core import guards
from meshlib.core.replies import Reply
from meshlib.model.call import Response
from meshlib.model.route import DirectResponse, Forward, Redirect

if TYPE_CHECKING:
    from meshlib.core.match import Match
    from meshlib.core.resolution import Resolution
    from meshlib.model.call import Head
    from meshlib.model.route import ClusterWeight

__all__ = ["own_answer"]


def own_answer(
    resolution: Resolution, asked: Head, head: Head, match: Match | None, weight: ClusterWeight | None
) -> tuple[Response, str] | None:
    """The response and why it is given, in words; None where the call is to be sent.

    ``asked`` is the head as it came, ``head`` as the routes saw it; ``match`` and ``weight`` what they made of it.
    """
    replies = resolution.replies
    if resolution.entrance is not None and (own := resolution.entrance.answer(asked, head)) is not None:
        reply, why = own
        return replies.give(reply), f"{why}: {reply.status}"
    if resolution.guards and (guard := guards.covering(resolution.guards, match, weight)):
        return replies.give(Reply(head, guards.refusal(guard))), f"{guards.words(guard)}: 403"
    if match is None:
        return replies.give(Reply(head, Response(404), flags="NR")), "no route matches: 404"
    action = match.route.action
    if isinstance(action, Forward):
        if resolution.router is None or (unread := resolution.router.refusal(head)) is None:
            return None
        words = f"{unread.body.decode('latin-1')}: 400"
        return replies.give(unread), words
    if isinstance(action, DirectResponse):
        response = match.compiled.direct_response(head, replies)
        return response, f"the configuration answers {response.status}"
    if isinstance(action, Redirect):
        response = match.compiled.redirect(head, replies)
        return response, f"the configuration answers {response.status}"
    # A route without a cluster, to Envoy.
    refused = match.compiled.failure_reply(None, head, Response(503), replies, flags="NC")
    return refused, "the route is for servers only: 503"
