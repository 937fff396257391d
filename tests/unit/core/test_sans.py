"""TL-04: names of a certificate against those that are demanded, by Envoy's rules."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.sans import PeerName, canonical, compile_sans, describe_name, describe_san, dns_matches
from meshlib.model.match import StringKind, StringMatch
from meshlib.model.tls import San, SanKind

KINDS = [SanKind.DNS, SanKind.URI, SanKind.EMAIL, SanKind.IP]


def san(kind, value, how=StringKind.EXACT, *, ignore_case=False, oid=""):
    return San(kind, StringMatch(how, value, ignore_case), oid)


def found(wanted, *names):
    return compile_sans([wanted])(names)


@pytest.mark.parametrize(
    ("wanted", "held", "same"),
    [
        ("a.example", "a.example", True),
        ("A.example", "a.EXAMPLE", True),
        ("a.example.", "a.example", True),
        ("a.example", "*.example", True),
        ("a.b.example", "*.example", False),
        ("example", "*.example", False),
        (".example", "*.example", False),
        ("*.example", "*.example", True),
        ("*.example", "a.example", False),  # a wildcard of ours stands for nothing
        ("foo.example", "f*.example", True),
        ("foo.example", "*o.example", True),
        ("foo.example", "f*o.example", True),
        ("fo.example", "f*o.example", True),
        ("f.example", "f*f.example", False),  # its ends may not overlap
        ("foo.example", "*o*.example", False),
        ("foo.example", "foo.*", False),
        ("foo.bar.example", "foo.*.example", False),
        ("foo.*.example", "*.*.example", False),
        ("xn--foo.example", "xn--*.example", False),
        ("xn--foo.example", "*.example", True),
        ("a", "*", False),
        ("", "", False),
    ],
)
def test_dns_names(wanted, held, same):
    assert dns_matches(wanted, held) is same
    assert found(san(SanKind.DNS, wanted), PeerName(SanKind.DNS, held)) is same
    assert found(san(SanKind.ANY, wanted), PeerName(SanKind.DNS, held)) is same


def test_only_an_exact_matcher_knows_wildcards():
    wild = PeerName(SanKind.DNS, "*.example")
    for how in (StringKind.PREFIX, StringKind.SUFFIX, StringKind.CONTAINS):
        assert not found(san(SanKind.DNS, "a.example", how), wild)
        assert found(san(SanKind.DNS, "*.example", how), wild)
    assert found(san(SanKind.DNS, r"\*\.example", StringKind.REGEX), wild)
    assert not found(san(SanKind.DNS, "EXAMPLE", StringKind.SUFFIX), wild)
    assert found(san(SanKind.DNS, "EXAMPLE", StringKind.SUFFIX, ignore_case=True), wild)


@pytest.mark.parametrize(
    ("how", "value", "matches"),
    [
        (StringKind.EXACT, "spiffe://td/ns/a/sa/b", True),
        (StringKind.EXACT, "spiffe://TD/ns/a/sa/b", False),
        (StringKind.EXACT, "spiffe://td/ns/a/sa/*", False),
        (StringKind.PREFIX, "spiffe://td/ns/a/", True),
        (StringKind.PREFIX, "spiffe://td/ns/b/", False),
        (StringKind.SUFFIX, "/sa/b", True),
        (StringKind.CONTAINS, "/ns/a/", True),
        (StringKind.REGEX, "spiffe://td/ns/[a-z]/sa/.*", True),
        (StringKind.REGEX, "spiffe://td/ns/[a-z]/sa/", False),  # all of it
    ],
)
def test_uris(how, value, matches):
    held = PeerName(SanKind.URI, "spiffe://td/ns/a/sa/b")
    assert found(san(SanKind.URI, value, how), held) is matches
    assert found(san(SanKind.ANY, value, how), held) is matches
    assert not found(san(SanKind.DNS, value, how), held)


def test_case_is_ignored_where_that_is_said():
    held = PeerName(SanKind.URI, "spiffe://td/A")
    assert found(san(SanKind.URI, "SPIFFE://TD/a", ignore_case=True), held)
    assert not found(san(SanKind.URI, "SPIFFE://TD/a"), held)
    assert not found(san(SanKind.EMAIL, "a@x.example"), PeerName(SanKind.EMAIL, "A@x.example"))


@pytest.mark.parametrize(
    ("wanted", "held", "same"),
    [
        ("::1", "0:0:0:0:0:0:0:1", True),
        ("2001:DB8::1", "2001:db8:0:0:0:0:0:1", True),
        ("::ffff:10.0.0.1", "0:0:0:0:0:ffff:a00:1", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "::ffff:10.0.0.1", False),
        ("10.0.0.1", "10.0.0.2", False),
        ("010.0.0.1", "10.0.0.1", False),
        ("nonsense", "10.0.0.1", False),
        ("nonsense", "nonsense", False),
        ("<invalid>", "<invalid>", False),
    ],
)
def test_addresses_in_any_spelling(wanted, held, same):
    assert found(san(SanKind.IP, wanted), PeerName(SanKind.IP, held)) is same
    assert found(san(SanKind.ANY, wanted), PeerName(SanKind.IP, held)) is same


def test_other_matchers_see_an_address_in_its_canonical_spelling():
    held = PeerName(SanKind.IP, "2001:db8:0:0:0:0:0:1")
    assert found(san(SanKind.IP, "2001:db8::", StringKind.PREFIX), held)
    assert not found(san(SanKind.IP, "2001:db8:0", StringKind.PREFIX), held)
    assert not found(san(SanKind.IP, "", StringKind.PREFIX), PeerName(SanKind.IP, "<invalid>"))


def test_an_address_is_no_dns_name_and_a_dns_name_no_address():
    assert not found(san(SanKind.DNS, "10.0.0.1"), PeerName(SanKind.IP, "10.0.0.1"))
    assert not found(san(SanKind.IP, "10.0.0.1"), PeerName(SanKind.DNS, "10.0.0.1"))


def test_other_names_by_their_type():
    held = PeerName(SanKind.OTHER_NAME, "me@realm", "1.3.6.1.4.1.311.20.2.3")
    assert found(san(SanKind.OTHER_NAME, "me@realm", oid="1.3.6.1.4.1.311.20.2.3"), held)
    assert not found(san(SanKind.OTHER_NAME, "me@realm", oid="1.2.3"), held)
    assert not found(san(SanKind.OTHER_NAME, "me@realm"), held)  # Envoy refuses a matcher without one
    assert not found(san(SanKind.OTHER_NAME, "you@realm", oid="1.3.6.1.4.1.311.20.2.3"), held)
    assert not found(san(SanKind.ANY, "me@realm"), held)


def test_text_that_is_not_ascii_is_bytes_of_utf8():
    held = PeerName(SanKind.URI, "https://ü.example/")
    assert found(san(SanKind.URI, "https://ü.example/"), held)
    assert not found(san(SanKind.URI, r"https://.\.example/", StringKind.REGEX), held)
    assert found(san(SanKind.URI, r"https://..\.example/", StringKind.REGEX), held)


def test_one_of_several_is_enough_and_nothing_matches_nothing():
    wanted = compile_sans([san(SanKind.URI, "spiffe://a"), san(SanKind.DNS, "b.example")])
    assert wanted([PeerName(SanKind.DNS, "x.example"), PeerName(SanKind.DNS, "b.example")])
    assert not wanted([])
    assert not compile_sans([])([PeerName(SanKind.DNS, "b.example")])
    with pytest.raises(ValueError, match="missing"):
        compile_sans([san(SanKind.URI, "(", StringKind.REGEX)])


def test_in_words():
    assert describe_san(san(SanKind.URI, "spiffe://a")) == 'uri exact "spiffe://a"'
    assert describe_san(san(SanKind.ANY, "a")) == 'exact "a"'
    assert describe_san(san(SanKind.OTHER_NAME, "a", oid="1.2")) == 'other_name 1.2 exact "a"'
    assert describe_name(PeerName(SanKind.DNS, "a")) == 'dns "a"'


LABEL = st.text("abcxyz0-", min_size=1, max_size=8)
DOMAIN = st.lists(LABEL, min_size=1, max_size=4).map(".".join)


@given(DOMAIN, DOMAIN)
def test_without_a_wildcard_names_are_equal_or_not(wanted, held):
    assert dns_matches(wanted, held) is (wanted == held)
    assert dns_matches(wanted.upper(), held) is (wanted == held)


@given(LABEL, st.integers(0, 8), st.integers(0, 8), DOMAIN)
def test_a_wildcard_stands_for_a_part_of_the_first_label(label, begin, end, rest):
    begin, end = sorted((min(begin, len(label)), min(end, len(label))))
    pattern = f"{label[:begin]}*{label[end:]}"
    assert dns_matches(f"{label}.{rest}", f"{pattern}.{rest}") is not pattern.startswith("xn--")
    assert not dns_matches(f"{label}.more.{rest}", f"{pattern}.{rest}")
    assert not dns_matches(rest, f"*.{rest}")


@given(
    st.text(max_size=30), st.text(max_size=30), st.sampled_from(KINDS), st.sampled_from(list(StringKind)[:4])
)
def test_whatever_is_in_a_certificate_is_answered(wanted, held, kind, how):
    assert compile_sans([san(kind, wanted, how)])([PeerName(kind, held)]) in (True, False)


@given(st.ip_addresses())
def test_an_address_has_one_spelling(address):
    full = address.exploded
    assert canonical(full) == canonical(str(address))
    assert ipaddress.ip_address(canonical(full)) == address
    assert found(san(SanKind.IP, full.upper()), PeerName(SanKind.IP, str(address)))
