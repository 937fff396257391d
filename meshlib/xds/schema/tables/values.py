"""Wire table: small shared values: percentages, ranges, string and regex matchers, TypedStruct.

The notation is explained in `meshlib.xds.schema.pool`.
"""

__all__ = ["VALUES"]

VALUES = """
package envoy.type.v3

enum CodecClientType HTTP1=0 HTTP2=1 HTTP3=2

message Percent
   1 value double

message FractionalPercent
   1 numerator   uint32
   2 denominator .DenominatorType
  enum DenominatorType HUNDRED=0 TEN_THOUSAND=1 MILLION=2

message Int32Range
   1 start int32
   2 end   int32

message Int64Range
   1 start int64
   2 end   int64

message HashPolicy
   1 source_ip    .SourceIp @policy_specifier
   2 filter_state .FilterState @policy_specifier

message HashPolicy.SourceIp

message HashPolicy.FilterState
   1 key string

message SemanticVersion
   1 major_number uint32
   2 minor_number uint32
   3 patch        uint32

package envoy.type.matcher.v3

message MetadataMatcher
   1 filter string
   2 path   [.PathSegment]
   3 value  ValueMatcher
   4 invert bool

message MetadataMatcher.PathSegment
   1 key string @segment

message ValueMatcher
   1 null_match    .NullMatch @match_pattern
   2 double_match  opaque @match_pattern
   3 string_match  StringMatcher @match_pattern
   4 bool_match    bool @match_pattern
   5 present_match bool @match_pattern
   6 list_match    opaque @match_pattern
   7 or_match      opaque @match_pattern

message ValueMatcher.NullMatch

message FilterStateMatcher
   1 key           string
   2 string_match  StringMatcher @matcher
   3 address_match opaque @matcher

message AddressMatcher
   1 ranges       [xds.core.v3.CidrRange]
   2 invert_match bool

message RegexMatcher
   1 google_re2 .GoogleRE2 @engine_type
   2 regex      string

message RegexMatcher.GoogleRE2
   1 max_program_size pb.UInt32Value

message RegexMatchAndSubstitute
   1 pattern      RegexMatcher
   2 substitution string

message StringMatcher
   1 exact       string @match_pattern
   2 prefix      string @match_pattern
   3 suffix      string @match_pattern
   5 safe_regex  RegexMatcher @match_pattern
   7 contains    string @match_pattern
   8 custom      opaque @match_pattern
   6 ignore_case bool

package xds.core.v3

message CidrRange
   1 address_prefix string
   2 prefix_len     pb.UInt32Value

package xds.type.v3

message TypedStruct
   1 type_url string
   2 value    pb.Struct

package udpa.type.v1

message TypedStruct
   1 type_url string
   2 value    pb.Struct
"""
