import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.config import DEFAULT_DOMAINS, HostPatterns
from meshlib.config.hosts import check_address, check_host, check_key, check_pattern
from meshlib.hosts.urls import asked
from meshlib.model.hosts import canonical_host


@pytest.mark.parametrize("text", ["a\0", "a\r\nb", "\x7f", "ü\0", "fe80::1%a\n", "[fe80::1%\0]"])
def test_no_host_has_a_control_character(text):
    """Wherever a host comes from: no line of a head, of a log or of a status is broken by one."""
    with pytest.raises(ValueError, match=r"cannot be printed"):
        canonical_host(text)


def test_a_url_has_no_control_character_either():
    with pytest.raises(ValueError, match=r"cannot be printed"):
        asked("GET", "http://a\0/", ())


class TestAddresses:
    @pytest.mark.parametrize(
        ("text", "form"),
        [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("[2001:DB8:0::1]:80", "[2001:db8::1]:80"),
            ("[fe80::1%eth0]:80", "[fe80::1%eth0]:80"),
            ("Reviews.Default.svc:9080", "reviews.default.svc:9080"),
            ("unix:/run/x.sock", "unix:/run/x.sock"),
            ("unix:///run/x.sock", "unix:/run/x.sock"),
            ("under_score:1", "under_score:1"),
            ("trailing.dot.:1", "trailing.dot.:1"),
            ("Café.:1", "xn--caf-dma.:1"),
            ("[::FFFF:a00:1]:80", "[::ffff:10.0.0.1]:80"),
            ("[fe80::1%25Eth0]:80", "[fe80::1%Eth0]:80"),
        ],
    )
    def test_right(self, text, form):
        assert str(check_address(text)) == form

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "h",
            "h:",
            "h:-1",
            "h:1e3",
            "h:٣",
            ".h:1",
            "h/a:1",
            "a" * 64 + ":1",
            "1.2.3.4.5:1",
            "☃:1",
            "1.2.3.4.:1",
        ],
    )
    def test_wrong(self, text):
        with pytest.raises(ValueError, match=r"."):
            check_address(text)


class TestKeys:
    @pytest.mark.parametrize(
        ("text", "form"),
        [
            ("Reviews", "reviews"),
            ("reviews:9080", "reviews:9080"),
            ("*.internal", "*.internal"),
            ("*.internal:80", "*.internal:80"),
            ("10.0.0.1", "10.0.0.1"),
            ("[::1]:80", "[::1]:80"),
            ("::1", "[::1]"),
            ("[::1]", "[::1]"),
            ("0:0::1", "[::1]"),
            ("::ffff:1:2:3", "[::ffff:1:2:3]"),
            ("::ffff:0:0:1", "[::ffff:0:0:1]"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("[::FFFF:a00:1]:80", "10.0.0.1:80"),
            ("[fe80::1%25Eth0]", "[fe80::1%Eth0]"),
            ("Reviews.:80", "reviews:80"),
            ("*.BÜCHER.example.", "*.xn--bcher-kva.example"),
            ("my_svc.bücher.example", "my_svc.xn--bcher-kva.example"),
            ("bücher。example", "xn--bcher-kva.example"),
            ("straße.example", "xn--strae-oqa.example"),
        ],
    )
    def test_right(self, text, form):
        assert check_key(text) == form

    @pytest.mark.parametrize(
        "text", ["", "*", "*.", "a*", "http://a", "a/b", "a:0", "a b", "**.a", "[::1", "a..", "☃", "a：80"]
    )
    def test_wrong(self, text):
        with pytest.raises(ValueError, match=r"."):
            check_key(text)


class TestPatterns:
    @pytest.mark.parametrize(
        "text", ["*", "<local>", "a", "a:80", "*.a", "*.a:80", "a.*", "*.a.*", "10.0.*", "::1", "[::1]:80"]
    )
    def test_right(self, text):
        assert check_pattern(check_pattern(text)) == check_pattern(text)

    @pytest.mark.parametrize("text", ["", "a.*.b", "*a", "a*", "*.*", "<lokal>", "a.*:80", "*.a.*.b.*"])
    def test_wrong(self, text):
        with pytest.raises(ValueError, match=r"."):
            check_pattern(text)

    @pytest.mark.parametrize(
        ("pattern", "host", "port", "found"),
        [
            ("*", "anything.at.all", 80, True),
            ("<local>", "reviews", 80, True),
            ("<local>", "reviews.svc", 80, False),
            ("<local>", "::1", 80, False),
            ("Reviews", "reviews", None, True),
            ("reviews", "reviews", 9080, True),
            ("reviews:9080", "reviews", 9080, True),
            ("reviews:9080", "reviews", 80, False),
            ("reviews:9080", "reviews", None, False),
            ("::1", "::1", 80, True),
            ("[::1]:80", "::1", 80, True),
            ("[::1]:80", "::1", 81, False),
            ("*.svc", "a.svc", None, True),
            ("*.svc", "a.b.svc", None, True),
            ("*.svc", ".svc", None, False),
            ("*.svc", "svc", None, False),
            ("*.svc", "asvc", None, False),
            ("*.svc:80", "a.svc", 80, True),
            ("*.svc:80", "a.svc", 81, False),
            ("10.0.*", "10.0.3.4", None, True),
            ("10.0.*", "10.0.", None, False),
            ("10.0.*", "10.00.3.4", None, False),
            ("*.svc.*", "a.svc.cluster.local", None, True),
            ("*.svc.*", "svc.cluster.local", None, False),
            ("*.svc.*", "a.svc", None, False),
            ("*.svc.*", "a.svc.", None, False),
            ("*.bücher.example", "a.xn--bcher-kva.example", None, True),
            ("bücher.*", "xn--bcher-kva.example", None, True),
            ("reviews.", "reviews", None, True),
            ("::ffff:10.0.0.1", "10.0.0.1", 80, True),
        ],
    )
    def test_matches(self, pattern, host, port, found):
        assert HostPatterns([pattern]).matches(host, port) is found

    def test_the_defaults_are_those_of_the_contract(self):
        patterns = HostPatterns(DEFAULT_DOMAINS)
        for host in (
            "reviews",
            "reviews.default.svc",
            "reviews.default.svc.cluster.local",
            "a.mesh",
            "a.mesh.b",
        ):
            assert patterns.matches(host, 80)
        for host in ("example.com", "10.0.0.1", "::1", "mesh.example.com", "svc.example.com"):
            assert not patterns.matches(host, 80)

    def test_no_pattern_matches_nothing(self):
        assert not HostPatterns(()).matches("a", 1)


labels = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=4).map(".".join)


@given(names, names, st.sampled_from(["{}", "*.{}", "{}.*", "*.{}.*"]))
def test_globs_mean_what_they_look_like(host, middle, shape):
    pattern = shape.format(middle)
    inner = f".{middle}" if shape.startswith("*") else middle
    inner = f"{inner}." if shape.endswith("*") else inner
    at = [index for index in range(len(host)) if host.startswith(inner, index)]
    wanted = any(
        (index > 0 if shape.startswith("*") else index == 0)
        and (index + len(inner) < len(host) if shape.endswith("*") else index + len(inner) == len(host))
        for index in at
    )
    assert HostPatterns([pattern]).matches(host) is wanted


@given(st.text(max_size=40))
def test_any_text_is_a_host_or_a_value_error(text):
    for check in (check_host, check_key, check_pattern):
        try:
            form = check(text)
        except ValueError:
            continue
        assert check(form) == form
