"""Rules for xDS's matcher trees."""

from __future__ import annotations

from meshlib.xds.decode.fields.rules import rules

__all__ = ["MATCHER"]

_XDS = "xds.type.matcher.v3."
_TREE = f"{_XDS}Matcher."
_OTHERS = "one of another type has the whole tree not evaluated: a listener with several filter chains takes no call then"

MATCHER = {
    f"{_XDS}Matcher": rules(honoured="matcher_list matcher_tree on_no_match"),
    f"{_TREE}OnMatch": rules(
        honoured="matcher action keep_matching",
        notes={"action": f"the name of a filter chain, as a StringValue; {_OTHERS}"},
    ),
    f"{_TREE}MatcherList": rules(honoured="matchers"),
    f"{_TREE}MatcherList.FieldMatcher": rules(honoured="predicate on_match"),
    f"{_TREE}MatcherList.Predicate": rules(honoured="single_predicate or_matcher and_matcher not_matcher"),
    f"{_TREE}MatcherList.Predicate.SinglePredicate": rules(
        honoured="input value_match",
        reported="custom_match",
        notes={
            "input": "destination IP and port, server name, transport and application protocols, source type. What depends on the"
            f" caller's address or port takes no call; {_OTHERS}",
            "custom_match": _OTHERS,
        },
    ),
    f"{_TREE}MatcherList.Predicate.PredicateList": rules(honoured="predicate"),
    f"{_TREE}MatcherTree": rules(
        honoured="input exact_match_map prefix_match_map custom_match",
        notes={"custom_match": f"an IPMatcher or a ServerNameMatcher; {_OTHERS}"},
    ),
    f"{_TREE}MatcherTree.MatchMap": rules(honoured="map"),
    f"{_XDS}StringMatcher": rules(
        honoured="exact prefix suffix safe_regex contains ignore_case",
        reported="custom",
        notes={"custom": _OTHERS},
    ),
    f"{_XDS}RegexMatcher": rules(honoured="regex google_re2"),
    f"{_XDS}RegexMatcher.GoogleRE2": {},
    f"{_XDS}IPMatcher": rules(honoured="range_matchers"),
    f"{_XDS}IPMatcher.IPRangeMatcher": rules(honoured="ranges on_match exclusive"),
    f"{_XDS}ServerNameMatcher": rules(honoured="domain_matchers"),
    f"{_XDS}ServerNameMatcher.DomainMatcher": rules(honoured="domains on_match"),
    "xds.core.v3.TypedExtensionConfig": rules(
        honoured="typed_config", void="name", notes={"name": "`typed_config` says what it is"}
    ),
}
