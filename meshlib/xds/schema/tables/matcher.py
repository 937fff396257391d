"""Wire table: xDS's matcher trees, and what of a connection they look at.

The notation is explained in `meshlib.xds.schema.pool`.
"""

__all__ = ["MATCHER"]

MATCHER = """
package xds.core.v3

message TypedExtensionConfig
   1 name         string
   2 typed_config pb.Any

package xds.type.matcher.v3

message Matcher
   1 matcher_list .MatcherList @matcher_type
   2 matcher_tree .MatcherTree @matcher_type
   3 on_no_match  .OnMatch

message Matcher.OnMatch
   1 matcher       Matcher @on_match
   2 action        xds.core.v3.TypedExtensionConfig @on_match
   3 keep_matching bool

message Matcher.MatcherList
   1 matchers [.FieldMatcher]

message Matcher.MatcherList.FieldMatcher
   1 predicate Matcher.MatcherList.Predicate
   2 on_match  Matcher.OnMatch

message Matcher.MatcherList.Predicate
   1 single_predicate .SinglePredicate @match_type
   2 or_matcher       .PredicateList @match_type
   3 and_matcher      .PredicateList @match_type
   4 not_matcher      Matcher.MatcherList.Predicate @match_type

message Matcher.MatcherList.Predicate.SinglePredicate
   1 input        xds.core.v3.TypedExtensionConfig
   2 value_match  StringMatcher @matcher
   3 custom_match xds.core.v3.TypedExtensionConfig @matcher

message Matcher.MatcherList.Predicate.PredicateList
   1 predicate [Matcher.MatcherList.Predicate]

message Matcher.MatcherTree
   1 input            xds.core.v3.TypedExtensionConfig
   2 exact_match_map  .MatchMap @tree_type
   3 prefix_match_map .MatchMap @tree_type
   4 custom_match     xds.core.v3.TypedExtensionConfig @tree_type

message Matcher.MatcherTree.MatchMap
   1 map map:Matcher.OnMatch

message StringMatcher
   1 exact       string @match_pattern
   2 prefix      string @match_pattern
   3 suffix      string @match_pattern
   5 safe_regex  RegexMatcher @match_pattern
   7 contains    string @match_pattern
   8 custom      xds.core.v3.TypedExtensionConfig @match_pattern
   6 ignore_case bool

message RegexMatcher
   1 google_re2 .GoogleRE2 @engine_type
   2 regex      string

message RegexMatcher.GoogleRE2

message IPMatcher
   1 range_matchers [.IPRangeMatcher]

message IPMatcher.IPRangeMatcher
   1 ranges    [xds.core.v3.CidrRange]
   2 on_match  Matcher.OnMatch
   3 exclusive bool

message ServerNameMatcher
   1 domain_matchers [.DomainMatcher]

message ServerNameMatcher.DomainMatcher
   1 domains  [string]
   2 on_match Matcher.OnMatch

package envoy.extensions.matching.common_inputs.network.v3

message DestinationIPInput

message DestinationPortInput

message SourceIPInput

message SourcePortInput

message DirectSourceIPInput

message SourceTypeInput

message ServerNameInput

message TransportProtocolInput

message ApplicationProtocolInput
"""
