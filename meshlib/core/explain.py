"""What a call would do, without doing it: the plan's stages up to the pick, with every step told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.destination import bound_for
from meshlib.core.effects import Call
from meshlib.core.endpoint import LiveEndpoint
from meshlib.core.hedging import told
from meshlib.core.override import Named
from meshlib.core.refusals import without_answer
from meshlib.core.resolve import source_words
from meshlib.core.sessions import hold
from meshlib.core.stages import Routed, call_hash, call_labels, mirrors_of, retry_policy, route, time_limits
from meshlib.core.upstream import PickContext
from meshlib.model.call import Decision, Head
from meshlib.model.cluster import Discovery
from meshlib.model.hidden import hidden
from meshlib.model.route import Forward, HostRewriteKind
from meshlib.model.subset import shown

if TYPE_CHECKING:
    from meshlib.core.effects import Env
    from meshlib.core.joining import Adoption
    from meshlib.core.match import Match
    from meshlib.core.resolution import Resolution
    from meshlib.model.call import Response
    from meshlib.model.cluster import Cluster
    from meshlib.model.policy import RetryPolicy
    from meshlib.model.route import ClusterWeight, Mirror

__all__ = ["explain"]


class _Draft:
    """A Decision as it grows."""

    def __init__(self, resolution: Resolution, head: Head) -> None:
        self.resolution = resolution
        self.asked = head
        self.head = head
        self.lines = [f"{head.method} {head.scheme}://{head.authority}{head.path}"]
        self.match: Match | None = None
        self.cluster = ""
        self.leaf = ""  # of an aggregate
        self.endpoint = ""
        self.timeout: float | None = None
        self.retry: RetryPolicy | None = None
        self.response: Response | None = None
        self.via = "mesh" if resolution.via in ("mesh", "failed", "wait", "closed") else "direct"
        if resolution.handed is not None:
            self.via = "sidecar"

    def decision(self) -> Decision:
        listener, head, match = self.resolution.listener, self.head, self.match
        return Decision(
            via=self.via,
            listener=listener.name if listener is not None else "",
            virtual_host=match.virtual_host.name if match is not None else "",
            route=match.name if match is not None else "",
            cluster=self.leaf or self.cluster,
            endpoint=self.endpoint,
            method=head.method,
            authority=head.authority,
            path=head.path,
            headers={name: hidden(name, value) for name, value in head.headers.to_dict().items()},
            timeout=self.timeout,
            retry=self.retry,
            response=self.response,
            lines=tuple(self.lines),
        )


def explain(resolution: Resolution, head: Head, env: Env, adoption: Adoption, now: float = 0.0) -> Decision:
    """The Decision for ``head``. Counts nothing; a random split is drawn anew at each call.

    A resolution that is not of the mesh gives a Decision whose ``via`` is ``"direct"`` and whose trace says why; one that
    waits or fails has no route, and is ``"mesh"`` unless it would be called directly in the end.
    """
    draft = _Draft(resolution, head)
    joining = resolution.joining
    if joining is not None and not joining.includes(adoption.text_of(head)):
        draft.via = "direct"
        draft.lines.append(joining.words)
        return draft.decision()
    end = resolution.otherwise
    if end is None or resolution.open:
        draft.lines.append(resolution.reason)
    if end is None:
        draft.lines.extend(resolution.words()[1:])
    else:
        first, *more = end.words()
        draft.lines.extend((f"a call waits for that, else: {first}" if resolution.open else first, *more))
        draft.via = "direct" if end.via == "direct" else draft.via
    if resolution.via != "mesh" or resolution.routes is None:
        return draft.decision()
    if resolution.listener is not None:
        draft.lines.append(f"listener {resolution.listener.name} of {source_words(resolution.part)}")
    routed = Routed(*route(resolution, head, env.random, draft.lines))
    draft.asked = draft.head = routed.head
    draft.match, draft.cluster = routed.match, routed.cluster
    if routed.answer is None:
        assert routed.match is not None
        _forward(draft, routed.match, routed.weight, env, now)
        return draft.decision()
    draft.response, words = routed.answer
    draft.lines.append(words)
    return draft.decision()


def _forward(draft: _Draft, match: Match, weight: ClusterWeight | None, env: Env, now: float) -> None:
    action = match.route.action
    assert isinstance(action, Forward)
    held = None
    if draft.resolution.sessions:
        held = hold(draft.resolution, match, weight, draft.asked, env, now, grpc=False)
    if held is not None:
        draft.asked = held.head
        draft.cluster, weight = held.place(match, draft.cluster, weight)
        draft.lines.append(held.words())
    draft.lines.append(f"cluster {draft.cluster}")
    draft.timeout = time_limits(draft.resolution, action, head=draft.asked)[0]
    draft.retry = retry_policy(match, action)
    if action.hedge is not None:
        words = told(action.hedge, draft.retry)
        draft.lines.append(f"another attempt is made beside it {words}")
    made = match.compiled.request_head(weight, draft.asked, cluster=draft.cluster)
    draft.head = match.compiled.sent(made)
    upstream = env.upstream(draft.resolution.part, draft.cluster)
    if isinstance(upstream, str):
        then = f"the call fails ({action.not_found_status})"
        awaits = env.awaits(draft.resolution.part, draft.cluster)
        why = f"{upstream}: {then}" if upstream else f"{awaits}: it is waited for, else {then}"
        draft.lines.append(f"cluster {draft.cluster!r} {why}")
        return
    if action.high:
        upstream = upstream.high
        draft.lines.append("priority HIGH: the cluster's limits for these calls hold")
    if upstream.cluster.discovery is Discovery.ORIGINAL_DST:
        _passed(draft, upstream.cluster, made)
        return
    key = None
    if upstream.consistent:
        call = Call(draft.resolution, draft.asked)
        key = call_hash(match, upstream.cluster.balancing, call, env).value
    draft.retry = retry_policy(match, action, upstream.cluster)
    context = PickContext(hash=key, head=draft.asked)
    headers = upstream.cluster.balancing.override_headers
    if held is not None or headers:
        session = None if held is None else held.override(1)
        context.override = session or Named(headers, made).override(1)
    wanted = ""
    if upstream.labelled:
        context.labels = call_labels(match, weight)
        wanted = f" with {shown(context.labels)}" if context.labels else ""
        draft.lines.append(f"subset{wanted or ' of calls without labels'}")
    leaf, context, why = upstream.chosen(context)
    if why:
        draft.lines.append(why)
    cluster = upstream.cluster if leaf is None else leaf.cluster
    endpoint = None if leaf is None else leaf.peek(context)
    if endpoint is None:
        override = context.override
        reason = without_answer(cluster)
        if override is not None and override.strict:
            reason = f": the session is at {override.words()}"
        draft.lines.append(f"cluster {cluster.name} has no endpoint{wanted} that can be called now{reason}")
        return
    draft.leaf = why and cluster.name
    _endpoint(draft, match, action, endpoint, mirrors_of(match, upstream.cluster))


def _passed(draft: _Draft, cluster: Cluster, made: Head) -> None:
    """Of a pass-through cluster."""
    rule = cluster.destination
    bound = None if rule is None else bound_for(rule, made)
    if bound is not None:
        draft.lines.append(f"a pass-through cluster: the call goes to {bound.address}")
        return
    draft.via = "direct"
    draft.lines.append("a pass-through cluster: the URL is called as it is")


def _endpoint(
    draft: _Draft, match: Match, action: Forward, endpoint: LiveEndpoint, mirrors: tuple[Mirror, ...]
) -> None:
    draft.endpoint = endpoint.name
    draft.lines.append(f"endpoint {endpoint.name} (weight {endpoint.weight}, priority {endpoint.priority})")
    if action.redirects is not None:
        codes = ", ".join(map(str, sorted(action.redirects.statuses)))
        draft.lines.append(f"redirects ({codes}) are followed, {action.redirects.most} of a call at most")
    for mirror in mirrors:
        share = "" if mirror.per_million is None else f", {mirror.per_million / 10_000:g} % of the calls"
        draft.lines.append(f"mirrored to cluster {mirror.cluster or mirror.cluster_header}{share}")
    rewrite = action.host_rewrite
    if rewrite is not None and rewrite.kind is HostRewriteKind.AUTO:
        draft.head = match.compiled.sent(match.compiled.auto_host(draft.head, endpoint.hostname))
