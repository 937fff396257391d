"""What servers send: well-formed, sloppy and hostile responses, and how each is read.

One ``row`` is the bytes of one connection after one request. It says how ``Http1`` reads them, with either parser and cut into
segments in any way: ``Read``, or refused, cut off, or still waiting for more. Where h11 (as httpcore uses it) or llhttp (by
httptools, strict as it is by default) read the same bytes differently, ``others`` says how, and why we do not as they do.
httptools cannot tell llhttp the request's method, so llhttp is asked about answers to GET only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

__all__ = ["ROWS", "No", "Read", "Row"]


class No(Enum):
    """Not read to the end."""

    REFUSED = "refused"
    #: The peer closed before the response was whole.
    CUT = "cut off"
    #: More bytes are needed.
    WAITS = "waits"


@dataclass(frozen=True)
class Read:
    """Read as this final response. ``kept``: the connection may carry the next request (only ours is compared)."""

    status: int
    body: bytes = b""
    interim: int = 0
    kept: bool = True
    lines: tuple[tuple[bytes, bytes], ...] | None = None
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    leftover: bytes | None = None


@dataclass(frozen=True)
class Row:
    name: str
    data: bytes
    ours: Read | No
    says: str = ""
    method: bytes = b"GET"
    asked: tuple[tuple[bytes, bytes], ...] = ()
    closed: bool = False
    #: What the others read, where it is something else, and why we do not.
    h11: tuple[Read | No, str] | None = None
    llhttp: tuple[Read | No, str] | None = None


ROWS: list[Row] = []
PLACES: dict[str, int] = {}
OK = b"HTTP/1.1 200 OK"
REFUSED, CUT, WAITS = No


def row(name: str, data: bytes, ours: Read | No, says: str = "", **more) -> None:
    assert name not in PLACES, name
    PLACES[name] = len(ROWS)
    ROWS.append(Row(name, data, ours, says, **more))


def others(why: str, *names: str, **verdicts: Read | No) -> None:
    """What h11 or llhttp makes of the rows of these names."""
    for name in names:
        place = PLACES[name]
        ROWS[place] = replace(ROWS[place], **{peer: (verdict, why) for peer, verdict in verdicts.items()})


def head(*lines: bytes, start: bytes = OK) -> bytes:
    return b"".join(line + b"\r\n" for line in (start, *lines, b""))


def sized(*lines: bytes, start: bytes = OK, body: bytes = b"abc") -> bytes:
    """A response of three bytes."""
    return head(*lines, b"Content-Length: %d" % len(body), start=start) + body


def chunked(*pieces: bytes, lines: tuple[bytes, ...] = (), start: bytes = OK) -> bytes:
    return head(*lines, b"Transfer-Encoding: chunked", start=start) + b"".join(pieces)


ABC = Read(200, b"abc")
ONCE = Read(200, b"abc", kept=False)
EMPTY = Read(200)
LAST = b"0\r\n\r\n"

# ---------------------------------------------------------------------------------------------- the status line

row("as it should be", sized(), ABC)
row("no reason", sized(start=b"HTTP/1.1 200 "), ABC)
row("no reason, nor the space before it", sized(start=b"HTTP/1.1 200"), ABC)
row("a reason beyond ASCII", sized(start=b"HTTP/1.1 200 \xc3\x9cber\xff"), ABC)
row("a reason with a tab", sized(start=b"HTTP/1.1 200 O\tK"), ABC)
row("a reason with white space around it", sized(start=b"HTTP/1.1 200   O K  "), ABC)
row("a reason of eight KiB", sized(start=OK + b"!" * 8192), ABC)
row("a reason with NUL", sized(start=b"HTTP/1.1 200 O\0K"), REFUSED, "control character")
row("a reason with an escape", sized(start=b"HTTP/1.1 200 \x1b[31mOK"), REFUSED, "control character")
row("a reason with DEL", sized(start=b"HTTP/1.1 200 O\x7fK"), REFUSED, "control character")
row("a reason with a bare CR", sized(start=b"HTTP/1.1 200 O\rK"), REFUSED, "bare CR")
row("a reason with a bare CR and a header", sized(start=b"HTTP/1.1 200 OK\rX: y"), REFUSED, "bare CR")
row("a status line that ends with LF", OK + b"\n" + sized()[len(OK) + 2 :], REFUSED, "bare LF")
row("a status line that ends with CR", OK + b"\r" + sized()[len(OK) + 2 :], REFUSED, "bare CR")
row("a status line that ends with CR CR LF", OK + b"\r" + sized()[len(OK) :], REFUSED, "bare CR")
row("a status line that ends with LF CR", OK + b"\n\r" + sized()[len(OK) + 2 :], REFUSED, "bare LF")
for status in (b"299", b"404", b"599", b"600", b"799", b"999"):
    row(f"status {status.decode()}", sized(start=b"HTTP/1.1 " + status), Read(int(status), b"abc"))
for status in (b"000", b"013", b"099"):
    row(f"status {status.decode()}", sized(start=b"HTTP/1.1 " + status), REFUSED)
    row(f"status {status.decode()} before another", head(start=b"HTTP/1.1 " + status) + sized(), REFUSED)
for status in (
    b"20",
    b"2",
    b"2000",
    b"",
    b"-200",
    b"+200",
    b"0xC8",
    b"2 0",
    b"20O",
    b"2e2",
    b"\xd9\xa2\xd9\xa0\xd9\xa0",
):
    row(f"status {status!r}", sized(start=b"HTTP/1.1 " + status + b" OK"), REFUSED)
row("no space behind the status", sized(start=b"HTTP/1.1 200OK"), REFUSED)
row("a tab behind the status", sized(start=b"HTTP/1.1 200\tOK"), REFUSED)
row("two spaces before the status", sized(start=b"HTTP/1.1  200 OK"), REFUSED)
row("a tab before the status", sized(start=b"HTTP/1.1\t200 OK"), REFUSED, "not the beginning")
row("no status", sized(start=b"HTTP/1.1"), REFUSED, "not the beginning")
row("no space before the status", sized(start=b"HTTP/1.1200 OK"), REFUSED, "not the beginning")

others(
    "llhttp looks at no character of a reason but CR and LF",
    "a reason with NUL",
    "a reason with an escape",
    "a reason with DEL",
    llhttp=ABC,
)
others("h11 looks for NUL and white space only", "a reason with an escape", "a reason with DEL", h11=ABC)
others("h11 takes LF for the end of a line", "a status line that ends with LF", h11=ABC)
DIGITS = "to llhttp any three digits are a status"
for status in ("000", "013", "099"):
    others(DIGITS, f"status {status}", llhttp=Read(int(status), b"abc"))
    others(DIGITS, f"status {status} before another", llhttp=WAITS)

# ---------------------------------------------------------------------------------------------- versions

row("1.0", sized(start=b"HTTP/1.0 200 OK"), ONCE)
row("1.0 and kept alive", sized(b"Connection: Keep-Alive", start=b"HTTP/1.0 200 OK"), ABC)
row("1.0 until the end", head(start=b"HTTP/1.0 200 OK") + b"abc", ONCE, closed=True)
for version in (
    b"HTTP/1.2",
    b"HTTP/1.9",
    b"HTTP/2.0",
    b"HTTP/2",
    b"HTTP/3.0",
    b"HTTP/0.9",
    b"HTTP/0.0",
    b"HTTP/1",
    b"HTTP/1.",
    b"HTTP/.1",
    b"HTTP/1.1.1",
    b"HTTP/01.1",
    b"HTTP/1.01",
    b"HTTP/1.10",
    b"HTTP/11",
    b"HTTP/1,1",
    b"HTTP/+1.1",
    b"HTTP/-1.1",
    b"HTTP/1. 1",
    b"HTTP /1.1",
    b"HTTP/ 1.1",
    b"http/1.1",
    b"Http/1.1",
    b"HTTPS/1.1",
    b"HTTP",
    b"HTTP/\xef\xbc\x91.1",
    b"XHTTP/1.1",
    b"RTSP/1.0",
    b"ICE/1.0",
    b"ICY",
    b"SIP/2.0",
):
    row(f"version {version!r}", sized(start=version + b" 200 OK"), REFUSED, "not the beginning")

others(
    "h11 reads any version of two digits as 1.1",
    *(
        f"version {version!r}"
        for version in (b"HTTP/1.2", b"HTTP/1.9", b"HTTP/2.0", b"HTTP/3.0", b"HTTP/0.9", b"HTTP/0.0")
    ),
    h11=ABC,
)
others(
    "llhttp knows these, whose messages are framed otherwise",
    *(f"version {version!r}" for version in (b"HTTP/2.0", b"HTTP/0.9", b"RTSP/1.0", b"ICE/1.0")),
    llhttp=ABC,
)

# ---------------------------------------------------------------------------------------------- not a response

row("an empty line first", b"\r\n" + sized(), REFUSED, "not the beginning")
row("LF first", b"\n" + sized(), REFUSED, "not the beginning")
row("a space first", b" " + sized(), REFUSED, "not the beginning")
row("NUL first", b"\0" + sized(), REFUSED, "not the beginning")
row("a byte order mark first", b"\xef\xbb\xbf" + sized(), REFUSED, "not the beginning")
row("the rest of another body first", b"abc" + sized(), REFUSED, "not the beginning")
row("HTML, as HTTP/0.9 has it", b"<html>hello</html>", REFUSED, "not the beginning", closed=True)
row("a request", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", REFUSED, "not the beginning")
row("SSH", b"SSH-2.0-OpenSSH_9.6\r\n", REFUSED, "not the beginning")
row("SMTP", b"220 mail ESMTP\r\n", REFUSED, "not the beginning")
row("an alert of TLS", b"\x15\x03\x01\x00\x02\x02\x28", REFUSED, "not the beginning", closed=True)
row("the settings of HTTP/2", b"\0\0\0\x04\0\0\0\0\0", REFUSED, "not the beginning")
row("a greeting that begins as a response does", b"HTTP server ready\r\n", REFUSED, "not the beginning")
row("headers without a status line", b"Content-Length: 3\r\n\r\nabc", REFUSED, "not the beginning")

others(
    "llhttp passes over ends of lines before a status line: what they belong to is not known",
    "an empty line first",
    "LF first",
    llhttp=ABC,
)
others(
    "h11 waits for the end of the head before it looks",
    "SSH",
    "SMTP",
    "a greeting that begins as a response does",
    h11=WAITS,
)
others("h11 waits for the end of the head before it looks", "HTML, as HTTP/0.9 has it", h11=CUT)

# ---------------------------------------------------------------------------------------------- the ends of lines

row("a header that ends with LF", OK + b"\r\nX: y\nContent-Length: 3\r\n\r\nabc", REFUSED, "bare LF")
row("a length that ends with LF", OK + b"\r\nContent-Length: 3\n\r\nabc", REFUSED, "bare LF")
row("a header that ends with CR", OK + b"\r\nX: y\rContent-Length: 3\r\n\r\nabc", REFUSED, "bare CR")
row("a header that ends with CR CR LF", sized(b"X: y\r"), REFUSED, "bare CR")
row("a header that ends with LF CR", OK + b"\r\nX: y\n\rContent-Length: 3\r\n\r\nabc", REFUSED, "bare LF")
row("a head with LF only", sized().replace(b"\r\n", b"\n"), REFUSED, "bare LF")
row("a head with CR only", sized().replace(b"\r\n", b"\r"), REFUSED, "bare CR")
row("an empty line of LF", OK + b"\r\nContent-Length: 3\r\n\nabc", REFUSED, "bare LF")
row("an empty line of CR", OK + b"\r\nContent-Length: 3\r\n\rabc", REFUSED, "bare CR")
row("an empty line of CR CR LF", OK + b"\r\nContent-Length: 3\r\n\r\r\nabc", REFUSED, "bare CR")
row("CR within a value", sized(b"X: a\rb"), REFUSED, "bare CR")
row("CR before a value", sized(b"X:\ra"), REFUSED, "bare CR")
row("CR within a name", sized(b"X\rY: a"), REFUSED, "bare CR")
row("a length behind CR", sized(b"X: y\rContent-Length: 0"), REFUSED, "bare CR")
row("LF within a value, a length behind it", sized(b"X: y\nContent-Length: 0"), REFUSED, "bare LF")
row("a CR and an LF, apart", OK + b"\r\nX: a\rb\nContent-Length: 3\r\n\r\nabc", REFUSED, "bare CR")

others(
    "h11 takes LF for the end of a line",
    "a header that ends with LF",
    "a length that ends with LF",
    "a head with LF only",
    "an empty line of LF",
    h11=ABC,
)
others(
    "h11 waits for an LF",
    "a head with CR only",
    "an empty line of CR",
    "an empty line of CR CR LF",
    h11=WAITS,
)

# ---------------------------------------------------------------------------------------------- folded lines

row("folded by a space", sized(b"X: a", b" b"), REFUSED, "folded")
row("folded by a tab", sized(b"X: a", b"\tb"), REFUSED, "folded")
row("folded behind an empty value", sized(b"X:", b" a"), REFUSED, "folded")
row("folded to nothing", sized(b"X: a", b" "), REFUSED, "folded")
row("the first line folded", head(b" X: a", b"Content-Length: 3") + b"abc", REFUSED, "folded")
row(
    "a length folded in",
    head(b"X: a", b" Content-Length: 0", b"Content-Length: 3") + b"abc",
    REFUSED,
    "folded",
)
row("a folded length", head(b"Content-Length:", b" 3") + b"abc", REFUSED, "folded")
row("a folded coding", head(b"Transfer-Encoding:", b" chunked") + LAST, REFUSED, "folded")
row("the last line folded", head(b"Content-Length: 3", b" ") + b"abc", REFUSED, "folded")

UNFOLDS = "h11 makes one line of both, others take the second for a header of its own (RFC 9112, 5.2)"
others(
    UNFOLDS,
    "folded by a space",
    "folded by a tab",
    "folded behind an empty value",
    "folded to nothing",
    "a length folded in",
    "a folded length",
    "the last line folded",
    h11=ABC,
)
others(UNFOLDS, "a folded coding", h11=EMPTY)

# ---------------------------------------------------------------------------------------------- header lines

row(
    "spelling and order are kept",
    sized(b"set-COOKIE: a", b"X: b", b"Set-Cookie: c"),
    Read(
        200,
        b"abc",
        lines=((b"set-COOKIE", b"a"), (b"X", b"b"), (b"Set-Cookie", b"c"), (b"Content-Length", b"3")),
    ),
)
row(
    "a value with white space around it",
    sized(b"X: \t a b \t "),
    Read(200, b"abc", lines=((b"X", b"a b"), (b"Content-Length", b"3"))),
)
row(
    "a value without a space before it",
    sized(b"X:a:b"),
    Read(200, b"abc", lines=((b"X", b"a:b"), (b"Content-Length", b"3"))),
)
row(
    "no value",
    sized(b"X:", b"Y: ", b"Z:\t"),
    Read(200, b"abc", lines=((b"X", b""), (b"Y", b""), (b"Z", b""), (b"Content-Length", b"3"))),
)
row(
    "a value beyond ASCII",
    sized(b"X: \xc3\xa9\xff\x80"),
    Read(200, b"abc", lines=((b"X", b"\xc3\xa9\xff\x80"), (b"Content-Length", b"3"))),
)
row(
    "a value with NEL, which some call an end of line",
    sized(b"X: a\x85b"),
    Read(200, b"abc", lines=((b"X", b"a\x85b"), (b"Content-Length", b"3"))),
)
row("every sign that a name may have", sized(b"!#$%&'*+-.^_`|~09azAZ: a"), ABC)
for code in (0x00, 0x01, 0x08, 0x0B, 0x0C, 0x1B, 0x1F, 0x7F):
    row(f"a value with {code:#04x}", sized(b"X: a%cb" % code), REFUSED, "control character")
row("NUL behind a value", sized(b"X: a\0"), REFUSED, "control character")
row("a vertical tab behind a value", sized(b"X: a\x0b"), REFUSED, "control character")
for name in (
    b"X ",
    b"X\t",
    b"X Y",
    b"",
    b" ",
    b"X/",
    b"(X)",
    b'"X"',
    b"X@",
    b"[X]",
    b"{X}",
    b"X,",
    b"X;",
    b"X=",
    b"X\\",
    b"X?",
    b"<X>",
    b"X\xc3\xa9",
    b"\xff",
    b"X\0",
    b"X\x0b",
):
    row(f"name {name!r}", sized(b"X: y", name + b": a"), REFUSED)
row("no colon", sized(b"X"), REFUSED)
row("no colon, and white space", sized(b"X a"), REFUSED)
row("a colon alone", sized(b":"), REFUSED)
row("a status line for a header", sized(OK), REFUSED)
row("a second status line", sized(b"HTTP/1.1: 200"), REFUSED)
row("white space before the colon of a length", sized(b"Content-Length : 0"), REFUSED)
row("white space before the colon of a coding", sized(b"Transfer-Encoding : chunked"), REFUSED)

others(
    "h11 looks for NUL and white space only",
    *(f"a value with {code:#04x}" for code in (0x01, 0x08, 0x1B, 0x1F, 0x7F)),
    h11=ABC,
)
others(UNFOLDS, "name b' '", h11=ABC)

# ---------------------------------------------------------------------------------------------- sizes of heads

row("a hundred lines", head(*[b"X: y"] * 99, b"Content-Length: 0"), EMPTY)
row("a line more than a hundred", head(*[b"X: y"] * 100, b"Content-Length: 0"), REFUSED, "101 header lines")
row("ten thousand lines", head(*[b"X:"] * 10_000, b"Content-Length: 0"), REFUSED, "header lines")
FULL = 60 * 1024 - len(head(b"X: ", b"Content-Length: 0"))
row("a head of 60 KiB", head(b"X: " + b"y" * FULL, b"Content-Length: 0"), EMPTY)
row(
    "a head of a byte more",
    head(b"X: " + b"y" * (FULL + 1), b"Content-Length: 0"),
    REFUSED,
    "more than 61440 bytes",
)
row("a head without an end", OK + b"\r\nX: " + b"y" * 61_500, REFUSED, "more than 61440 bytes")
row("a name without an end", OK + b"\r\n" + b"y" * 61_500, REFUSED, "more than 61440 bytes")
row("a reason without an end", OK + b"y" * 61_500, REFUSED, "more than 61440 bytes")
row("lines without an end", OK + b"\r\nX: y" * 12_000, REFUSED, "more than 61440 bytes")
row("a head that is not whole", OK + b"\r\nX: y\r\n", WAITS)

UNBOUNDED = "the bound is of its caller"
others(
    UNBOUNDED,
    "a line more than a hundred",
    "ten thousand lines",
    "a head of a byte more",
    h11=EMPTY,
    llhttp=EMPTY,
)
others(
    UNBOUNDED,
    "a head without an end",
    "a name without an end",
    "a reason without an end",
    "lines without an end",
    h11=WAITS,
    llhttp=WAITS,
)

# ---------------------------------------------------------------------------------------------- lengths

row("length 0", head(b"Content-Length: 0"), EMPTY)
row("length in other letters", head(b"CONTENT-length:3") + b"abc", ABC)
row("length with white space around it", head(b"Content-Length: \t3 \t") + b"abc", ABC)
row("length with zeros before it", head(b"Content-Length: 003") + b"abc", ABC)
row("length twice, differing", head(b"Content-Length: 3", b"Content-Length: 4") + b"abc", REFUSED)
row("length twice, equal", head(b"Content-Length: 3", b"Content-Length: 3") + b"abc", REFUSED)
row("length twice in other letters", head(b"Content-Length: 3", b"content-length: 3") + b"abc", REFUSED)
row(
    "length twice, once with a zero before it",
    head(b"Content-Length: 3", b"Content-Length: 03") + b"abc",
    REFUSED,
)
row("length twice, 0", head(b"Content-Length: 0", b"Content-Length: 0"), REFUSED)
for value in (
    b"3, 3",
    b"3,3",
    b"3,",
    b",3",
    b"3, 4",
    b"+3",
    b"-3",
    b"-0",
    b"0x3",
    b"3.0",
    b"3e0",
    b"1_0",
    b"3 3",
    b"3\t3",
    b"",
    b" ",
    b"abc",
    b"3a",
    b"3;",
    b'"3"',
    b"\xd9\xa3",
    b"\xef\xbc\x93",
    b"\xb3",
    b"3\0",
    b"3\x0b",
    b"\x0b3",
    b"(3)",
    b"null",
    b"inf",
):
    row(f"length {value!r}", head(b"Content-Length: " + value) + b"abc", REFUSED)
for value in (10**12, 10**18 - 1):
    row(f"length {value}", head(b"Content-Length: %d" % value) + b"abc", WAITS)
for value in (10**18, 2**63, 2**64, 2**64 + 3, 2**128, 10**400):
    row(
        f"length of {len(str(value))} digits, {value % 1000}",
        head(b"Content-Length: %d" % value) + b"abc",
        REFUSED,
    )
row(
    "length with four hundred zeros before it",
    head(b"Content-Length: " + b"0" * 400 + b"3") + b"abc",
    REFUSED,
)
row(
    "length by another name",
    head(b"Content_Length: 4", b"Content-Length: 3", b"Content-Length2: 5") + b"abc",
    ABC,
)

EQUAL = "h11 makes one of equal lengths, where others take the first or refuse (RFC 9110, 8.6 allows both)"
others(
    EQUAL,
    "length twice, equal",
    "length twice in other letters",
    "length b'3, 3'",
    "length b'3,3'",
    h11=ABC,
)
others(EQUAL, "length twice, 0", h11=EMPTY)
FITS = "it counts further than 63 bits, as others do not"
others(
    FITS,
    *(f"length of {digits} digits, {last}" for digits, last in ((19, 0), (19, 808))),
    h11=WAITS,
    llhttp=WAITS,
)
others(FITS, *(f"length of {digits} digits, {last}" for digits, last in ((20, 616), (20, 619))), h11=WAITS)
others("llhttp counts no zeros", "length with four hundred zeros before it", llhttp=ABC)

# ---------------------------------------------------------------------------------------------- codings

row("chunked", chunked(b"3\r\nabc\r\n", LAST), ABC)
row("chunked in other letters", head(b"TRANSFER-encoding:\tChunkeD ") + b"3\r\nabc\r\n" + LAST, ABC)
row(
    "length, then chunked",
    head(b"Content-Length: 3", b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n" + LAST,
    REFUSED,
)
row(
    "chunked, then length",
    head(b"Transfer-Encoding: chunked", b"Content-Length: 3") + b"3\r\nabc\r\n" + LAST,
    REFUSED,
)
row(
    "chunked, and length 0",
    head(b"Transfer-Encoding: chunked", b"Content-Length: 0") + b"3\r\nabc\r\n" + LAST,
    REFUSED,
)
row(
    "a coding that nobody knows, and length",
    head(b"Transfer-Encoding: x", b"Content-Length: 3") + b"abc",
    REFUSED,
)
row(
    "chunked twice",
    head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n" + LAST,
    REFUSED,
)
row(
    "chunked, and identity",
    head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity") + b"3\r\nabc\r\n" + LAST,
    REFUSED,
)
row(
    "identity, and chunked",
    head(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n" + LAST,
    REFUSED,
)
for value in (
    b"identity",
    b"gzip",
    b"gzip, chunked",
    b"chunked, gzip",
    b"chunked, identity",
    b"identity, chunked",
    b"chunked, chunked",
    b"chunked;q=1",
    b"chunked,",
    b",chunked",
    b",",
    b"",
    b'"chunked"',
    b"xchunked",
    b"chunkedx",
    b"chun ked",
    b"x chunked",
    b"chunk",
    b"trailers",
    b"\x0bchunked",
    b"chunked\x0b",
    b"chunked\0",
    b"\xa0chunked",
    b"c\xc4\xa7unked",
):
    row(
        f"coding {value!r}",
        head(b"Transfer-Encoding: " + value) + b"3\r\nabc\r\n" + LAST,
        REFUSED,
        closed=True,
    )
row("chunked in 1.0", chunked(b"3\r\nabc\r\n", LAST, start=b"HTTP/1.0 200 OK"), REFUSED)
row(
    "chunked in 1.0, kept alive",
    chunked(b"3\r\nabc\r\n", LAST, lines=(b"Connection: keep-alive",), start=b"HTTP/1.0 200 OK"),
    REFUSED,
)
row("a coding by another name", head(b"Transfer_Encoding: chunked", b"Content-Length: 3") + b"abc", ABC)

others(
    "h11 passes over the length; who does not reads another body, and that is smuggling (RFC 9112, 6.1 and 11.2)",
    "length, then chunked",
    "chunked, then length",
    "chunked, and length 0",
    h11=ABC,
)
FINAL = "llhttp asks only whether the last coding is chunked, and leaves the others in the body"
others(
    FINAL,
    "chunked twice",
    "identity, and chunked",
    *(
        f"coding {value!r}"
        for value in (b"gzip, chunked", b"identity, chunked", b"chunked, chunked", b",chunked")
    ),
    llhttp=ABC,
)
UNKNOWN = "llhttp takes the body to last until the connection ends, which it may not (RFC 9112, 6.3)"
others(UNKNOWN, "chunked, and identity", llhttp=WAITS)
others(
    UNKNOWN,
    *(
        f"coding {value!r}"
        for value in (
            b"identity",
            b"gzip",
            b"chunked, gzip",
            b"chunked, identity",
            b"chunked;q=1",
            b"chunked,",
            b",",
            b'"chunked"',
            b"xchunked",
            b"chunkedx",
            b"chun ked",
            b"x chunked",
            b"chunk",
            b"trailers",
            b"\xa0chunked",
            b"c\xc4\xa7unked",
        )
    ),
    llhttp=Read(200, b"3\r\nabc\r\n" + LAST),
)
others(
    "it reads chunks; a reader of 1.0 knows none, and the framing is faulty to RFC 9112, 6.1",
    "chunked in 1.0",
    "chunked in 1.0, kept alive",
    h11=ABC,
    llhttp=ABC,
)

# ---------------------------------------------------------------------------------------------- sizes of chunks

row("chunks", chunked(b"1\r\na\r\n", b"2\r\nbc\r\n", LAST), ABC)
row("no chunk but the last", chunked(LAST), EMPTY)
row("a thousand chunks of a byte", chunked(b"1\r\nx\r\n" * 1000, LAST), Read(200, b"x" * 1000))
row("a size in capitals", chunked(b"A\r\n0123456789\r\n", LAST), Read(200, b"0123456789"))
row("a size with zeros before it", chunked(b"0003\r\nabc\r\n", LAST), ABC)
row("a last chunk of many zeros", chunked(b"3\r\nabc\r\n", b"00000\r\n\r\n"), ABC)
row("a size with sixteen zeros before it", chunked(b"0" * 16 + b"3\r\nabc\r\n", LAST), REFUSED)
for size in (
    b"0x3",
    b"+3",
    b"-3",
    b"-0",
    b" 3",
    b"3 ",
    b"3\t",
    b"\t3",
    b"3 \t ",
    b"",
    b" ",
    b"g",
    b"3g",
    b"3.0",
    b"3_0",
    b"3,",
    b"3 3",
    b"3;",
    b"3h",
    b"\xef\xbc\x93",
    b"\0",
    b"3\0",
    b"3\x0b",
    b"abc",
    b'"3"',
):
    row(f"size {size!r}", chunked(size + b"\r\nabc\r\n", LAST), REFUSED) if size != b"abc" else row(
        "a size greater than what follows", chunked(size + b"\r\nabc\r\n", LAST), WAITS
    )
for size in (b"7fffffffffffffff", b"8000000000000000", b"ffffffffffffffff", b"10000000000000003", b"f" * 100):
    row(f"size {size[:20]!r}, of {len(size)} digits", chunked(size + b"\r\nabc\r\n", LAST), REFUSED)
row("size fffffffffffffff", chunked(b"f" * 15 + b"\r\nabc"), WAITS)
row("a size that ends with LF", chunked(b"3\nabc\r\n", LAST), REFUSED)
row("a size that ends with CR", chunked(b"3\rabc\r\n", LAST), REFUSED)
row("a size that ends with CR CR LF", chunked(b"3\r\r\nabc\r\n", LAST), REFUSED)
row("a size that ends with LF CR", chunked(b"3\n\rabc\r\n", LAST), REFUSED)
row("a size without an end", chunked(b"3" * 40_000), REFUSED)
row("an empty line before a size", chunked(b"\r\n3\r\nabc\r\n", LAST), REFUSED)

others("it counts no zeros", "a size with sixteen zeros before it", h11=ABC, llhttp=ABC)
others(
    "h11 allows what some old servers fill a size up with; no grammar does, and no other strict reader",
    *(f"size {size!r}" for size in (b"3 ", b"3\t", b"3 \t ")),
    h11=ABC,
)
others("h11 looks at no extension", "size b'3;'", h11=ABC)
others(
    FITS,
    *(
        f"size {size!r}, of 16 digits"
        for size in (b"7fffffffffffffff", b"8000000000000000", b"ffffffffffffffff")
    ),
    h11=WAITS,
    llhttp=WAITS,
)
others(FITS, "size b'10000000000000003', of 17 digits", h11=WAITS)
others("h11 waits for the end of the line, up to its bound", "a size without an end", h11=WAITS)

# ---------------------------------------------------------------------------------------------- chunk extensions

for extension in (
    b";a",
    b";a=b",
    b";a=b;c=d",
    b";a;b",
    b';a="b c"',
    b';a=""',
    b';a="b\\"c"',
    b';a="b;c=d"',
    b';a="\xc3\xa9"',
):
    row(f"extension {extension!r}", chunked(b"3" + extension + b"\r\nabc\r\n", LAST), ABC)
for extension in (
    b";",
    b";;",
    b";a;",
    b";=b",
    b";a=",
    b" ;a",
    b"; a",
    b";a ",
    b";a =b",
    b";a= b",
    b";a=b c",
    b';a="b',
    b';a=b"',
    b';a="b"c',
    b';a="\\',
    b';a="b\\"',
    b";a=\0",
    b";a\x0b",
    b";a=\xff",
    b";\xff=a",
    b";a/b",
    b" a=b",
    b",a",
    b";a\n",
    b";a\nb",
    b";a\rb",
    b';a="b\nc"',
    b';a="b\rc"',
    b';a="b\0c"',
    b";a=b\n0",
    b";a\r\r",
):
    row(f"extension {extension!r}", chunked(b"3" + extension + b"\r\nabc\r\n", LAST), REFUSED)
row("an extension of the last chunk", chunked(b"3\r\nabc\r\n0;a=b\r\n\r\n"), ABC)
row("an extension of 16 KiB", chunked(b"3;" + b"a" * (16 * 1024 - 1) + b"\r\nabc\r\n", LAST), ABC)
row(
    "an extension of a byte more",
    chunked(b"3;" + b"a" * (16 * 1024) + b"\r\nabc\r\n", LAST),
    REFUSED,
    "extensions",
)
row(
    "extensions of more than 16 KiB in all",
    chunked((b"1;" + b"a" * 99 + b"\r\nx\r\n") * 200, LAST),
    REFUSED,
    "extensions",
)
row("an extension without an end", chunked(b"3;" + b"a" * 40_000), REFUSED)
row("a last chunk within an extension", chunked(b"3;a=b\n0\r\n\r\nabc\r\n", LAST), REFUSED)

others(
    "h11 looks at no extension, but for LF",
    *(
        f"extension {extension!r}"
        for extension in (
            b";",
            b";;",
            b";a;",
            b";=b",
            b";a=",
            b"; a",
            b";a ",
            b";a =b",
            b";a= b",
            b";a=b c",
            b';a="b',
            b';a=b"',
            b';a="b"c',
            b';a="\\',
            b';a="b\\"',
            b";a=\0",
            b";a\x0b",
            b";a=\xff",
            b";\xff=a",
            b";a/b",
            b";a\rb",
            b';a="b\rc"',
            b';a="b\0c"',
            b";a\r\r",
        )
    ),
    h11=ABC,
)
others("llhttp allows an empty name, and an empty value", "extension b';=b'", "extension b';a='", llhttp=ABC)
others(UNBOUNDED, "an extension of a byte more", h11=ABC, llhttp=ABC)
others(
    UNBOUNDED,
    "extensions of more than 16 KiB in all",
    h11=Read(200, b"x" * 200),
    llhttp=Read(200, b"x" * 200),
)
others(UNBOUNDED, "an extension without an end", h11=WAITS, llhttp=WAITS)

# ---------------------------------------------------------------------------------------------- data of chunks

row("data shorter than its size", chunked(b"5\r\nabc\r\n", LAST), REFUSED, "no CR LF")
row("data longer than its size", chunked(b"2\r\nabc\r\n", LAST), REFUSED, "no CR LF")
row("nothing between data and size", chunked(b"3\r\nabc", LAST), REFUSED, "no CR LF")
row("LF behind data", chunked(b"3\r\nabc\n", LAST), REFUSED, "no CR LF")
row("CR behind data", chunked(b"3\r\nabc\r", LAST), REFUSED, "no CR LF")
row("CR CR LF behind data", chunked(b"3\r\nabc\r\r\n", LAST), REFUSED, "no CR LF")
row("LF CR behind data", chunked(b"3\r\nabc\n\r", LAST), REFUSED, "no CR LF")
row("two signs in the place of CR LF", chunked(b"3\r\nabcXX", LAST), REFUSED, "no CR LF")
row("two ends behind data", chunked(b"3\r\nabc\r\n\r\n", LAST), REFUSED)
row("data that looks like the end", chunked(b"5\r\n0\r\n\r\n\r\n", LAST), Read(200, LAST))
row("the last chunk with LF", chunked(b"3\r\nabc\r\n0\n\n"), REFUSED)
row("the last line with LF", chunked(b"3\r\nabc\r\n0\r\n\n"), REFUSED, "bare LF")
row("the last line with CR", chunked(b"3\r\nabc\r\n0\r\n\rX"), REFUSED, "bare CR")
row("no last line", chunked(b"3\r\nabc\r\n0\r\n"), WAITS)
row("another response for the last line", chunked(b"3\r\nabc\r\n0\r\n") + sized(), REFUSED)
row("cut off before a chunk", chunked(b"3\r\nabc\r\n"), CUT, closed=True)
row("cut off within a chunk", chunked(b"5\r\nabc"), CUT, closed=True)
row("cut off behind a chunk", chunked(b"3\r\nabc\r"), CUT, closed=True)
row("cut off within a size", chunked(b"3"), CUT, closed=True)
row("cut off before the last line", chunked(b"3\r\nabc\r\n0\r\n"), CUT, closed=True)
row("cut off within the last line", chunked(b"3\r\nabc\r\n0\r\n\r"), CUT, closed=True)

others("h11 takes LF for the end of a line", "the last line with LF", h11=ABC)
others("h11 waits for CR LF, up to its bound", "the last chunk with LF", "the last line with CR", h11=WAITS)

# ---------------------------------------------------------------------------------------------- trailers


def trailing(*lines: bytes) -> bytes:
    return chunked(b"3\r\nabc\r\n0\r\n", *(line + b"\r\n" for line in lines), b"\r\n")


row("a trailer", trailing(b"X-Sum: \xff 5 "), Read(200, b"abc", trailers=((b"X-Sum", b"\xff 5"),)))
row(
    "trailers",
    trailing(b"A:b", b"C: d", b"A: e"),
    Read(200, b"abc", trailers=((b"A", b"b"), (b"C", b"d"), (b"A", b"e"))),
)
row("a hundred trailers", trailing(*[b"X: y"] * 100), Read(200, b"abc", trailers=((b"X", b"y"),) * 100))
row("a hundred and one trailers", trailing(*[b"X: y"] * 101), REFUSED, "101 header lines")
row("trailers of more than 60 KiB", trailing(b"X: " + b"y" * 61_500), REFUSED, "more than 61440 bytes")
row("trailers without an end", chunked(b"0\r\n" + b"X: y\r\n" * 12_000), REFUSED, "more than 61440 bytes")
row("a folded trailer", trailing(b"X: a", b" b"), REFUSED, "folded")
row("a trailer folded to the size", trailing(b" X: a"), REFUSED, "folded")
row("a trailer that ends with LF", chunked(b"0\r\nX: a\n\r\n"), REFUSED, "bare LF")
row("a trailer with CR", trailing(b"X: a\rb"), REFUSED, "bare CR")
row("a trailer with NUL", trailing(b"X: a\0"), REFUSED, "control character")
row("a trailer without a colon", trailing(b"X"), REFUSED)
row("a trailer without a name", trailing(b": a"), REFUSED)
row("white space before a trailer's colon", trailing(b"X : a"), REFUSED)
row("a length for a trailer", trailing(b"Content-Length: 3"), REFUSED)
row("a coding for a trailer", trailing(b"Transfer-Encoding: chunked"), REFUSED)
row("cut off within a trailer", chunked(b"0\r\nX: y\r\n"), CUT, closed=True)

others(UNBOUNDED, "a hundred and one trailers", "trailers of more than 60 KiB", h11=ABC, llhttp=ABC)
others(UNBOUNDED, "trailers without an end", h11=WAITS, llhttp=WAITS)
others(UNFOLDS, "a folded trailer", h11=ABC)
others("h11 takes LF for the end of a line", "a trailer that ends with LF", h11=EMPTY)
MERGED = "it leaves to its caller that it must not be taken for a header (RFC 9110, 6.5.1)"
others(MERGED, "a length for a trailer", h11=ABC)
others(MERGED, "a coding for a trailer", h11=ABC, llhttp=ABC)

# ---------------------------------------------------------------------------------------------- statuses and methods without a body

NO_CONTENT = b"HTTP/1.1 204 No Content"
NOT_MODIFIED = b"HTTP/1.1 304 Not Modified"
row("204", head(start=NO_CONTENT), Read(204))
row("204 with length 0", head(b"Content-Length: 0", start=NO_CONTENT), Read(204))
row("204 with a length", head(b"Content-Length: 3", start=NO_CONTENT), Read(204, kept=False))
row("204 with a body", sized(start=NO_CONTENT), Read(204, kept=False))
row("204 with chunks", chunked(b"3\r\nabc\r\n", LAST, start=NO_CONTENT), Read(204, kept=False))
row("204 with the last chunk", chunked(LAST, start=NO_CONTENT), Read(204, kept=False))
row("204 with a bad length", head(b"Content-Length: x", start=NO_CONTENT), REFUSED)
row("304", head(b"ETag: a", start=NOT_MODIFIED), Read(304))
row("304 with the length of what it stands for", head(b"Content-Length: 3", start=NOT_MODIFIED), Read(304))
row("304 with its coding", head(b"Transfer-Encoding: chunked", start=NOT_MODIFIED), Read(304))
row("304 with a body", sized(start=NOT_MODIFIED), Read(304, kept=False))
row("205 with length 0", head(b"Content-Length: 0", start=b"HTTP/1.1 205 Reset Content"), Read(205))
row("205 with a body", sized(start=b"HTTP/1.1 205 Reset Content"), Read(205, b"abc"))
row("HEAD with a length", head(b"Content-Length: 3"), EMPTY, method=b"HEAD")
row("HEAD with a coding", head(b"Transfer-Encoding: chunked"), EMPTY, method=b"HEAD")
row("HEAD with neither", head(), EMPTY, method=b"HEAD")
row("HEAD with a body", sized(), Read(200, kept=False), method=b"HEAD")
row("HEAD with two lengths", head(b"Content-Length: 3", b"Content-Length: 4"), REFUSED, method=b"HEAD")
row(
    "HEAD with length and coding",
    head(b"Content-Length: 3", b"Transfer-Encoding: chunked"),
    REFUSED,
    method=b"HEAD",
)
row("HEAD with 404", head(b"Content-Length: 3", start=b"HTTP/1.1 404 No"), Read(404), method=b"HEAD")
row("CONNECT", head(), Read(200, kept=False, leftover=b""), method=b"CONNECT")
row(
    "CONNECT, and bytes behind it",
    head() + b"\x16\x03",
    Read(200, kept=False, leftover=b"\x16\x03"),
    method=b"CONNECT",
)
row("CONNECT with a length", sized(), Read(200, kept=False, leftover=b"abc"), method=b"CONNECT")
row("CONNECT with a coding", chunked(LAST), Read(200, kept=False, leftover=LAST), method=b"CONNECT")
row(
    "CONNECT with both", head(b"Content-Length: 3", b"Transfer-Encoding: chunked"), REFUSED, method=b"CONNECT"
)
row("CONNECT with 204", head(start=NO_CONTENT), Read(204, kept=False, leftover=b""), method=b"CONNECT")
row("CONNECT, refused", sized(start=b"HTTP/1.1 407 No"), Read(407, b"abc"), method=b"CONNECT")
row(
    "CONNECT in 1.0",
    head(start=b"HTTP/1.0 200 Connection established"),
    Read(200, kept=False, leftover=b""),
    method=b"CONNECT",
)

others(
    "h11 does not frame where there is no body; who sends this is not to be trusted with the next response",
    "HEAD with length and coding",
    "CONNECT with both",
    h11=EMPTY,
)

# ---------------------------------------------------------------------------------------------- interim responses

CONTINUE = b"HTTP/1.1 100 Continue"
row("100", head(start=CONTINUE) + sized(), Read(200, b"abc", interim=1))
row("100 without a reason", head(start=b"HTTP/1.1 100") + sized(), Read(200, b"abc", interim=1))
row(
    "103 twice, with lines",
    head(b"Link: </a>", start=b"HTTP/1.1 103 Early Hints") * 2 + sized(),
    Read(200, b"abc", interim=2),
)
row(
    "102 and 199",
    head(start=b"HTTP/1.1 102 P") + head(start=b"HTTP/1.1 199 X") + sized(),
    Read(200, b"abc", interim=2),
)
row("100 in 1.0", head(start=b"HTTP/1.0 100 Continue") + sized(), Read(200, b"abc", interim=1))
row("100 that says close", head(b"Connection: close", start=CONTINUE) + sized(), Read(200, b"abc", interim=1))
row("100 with length 0", head(b"Content-Length: 0", start=CONTINUE) + sized(), Read(200, b"abc", interim=1))
row("100 with a length", sized(start=CONTINUE) + sized(), REFUSED, "interim")
row(
    "100 with a response for its body",
    head(b"Content-Length: 41", start=CONTINUE) + sized(),
    REFUSED,
    "interim",
)
row("100 with chunks", chunked(LAST, start=CONTINUE) + sized(), REFUSED, "interim")
row(
    "103 with two lengths",
    head(b"Content-Length: 0", b"Content-Length: 0", start=b"HTTP/1.1 103 E") + sized(),
    REFUSED,
)
row("100 that ends with LF", CONTINUE + b"\n\n" + sized(), REFUSED, "bare LF")
row("100 without its empty line", CONTINUE + b"\r\n" + sized(), REFUSED)
row("100 alone", head(start=CONTINUE), WAITS)
row("100, and cut off", head(start=CONTINUE), CUT, closed=True)
row("a hundred of 100", head(start=CONTINUE) * 100 + sized(), Read(200, b"abc", interim=100))
row("a hundred and one of 100", head(start=CONTINUE) * 101 + sized(), REFUSED, "interim")
row("a flood of 103", head(b"Link: </a>", start=b"HTTP/1.1 103 E") * 5000, REFUSED, "interim")

others(
    "llhttp takes the connection to be over with that interim head; the final one comes all the same",
    "100 in 1.0",
    "100 that says close",
    llhttp=REFUSED,
)
others(
    "it passes over the length; who does not reads the final head as a body (RFC 9110, 8.6)",
    "100 with a response for its body",
    h11=Read(200, b"abc", interim=1),
    llhttp=Read(200, b"abc", interim=1),
)
others("h11 makes one of equal lengths", "103 with two lengths", h11=Read(200, b"abc", interim=1))
others("h11 takes LF for the end of a line", "100 that ends with LF", h11=Read(200, b"abc", interim=1))
others(
    UNBOUNDED,
    "a hundred and one of 100",
    h11=Read(200, b"abc", interim=101),
    llhttp=Read(200, b"abc", interim=101),
)
others(UNBOUNDED, "a flood of 103", h11=WAITS, llhttp=WAITS)

# ---------------------------------------------------------------------------------------------- other protocols

UPGRADE = ((b"Connection", b"upgrade"), (b"Upgrade", b"websocket"))
SWITCH = head(b"Connection: upgrade", b"Upgrade: websocket", start=b"HTTP/1.1 101 Switching Protocols")
row("101", SWITCH, Read(101, kept=False, leftover=b""), asked=UPGRADE)
row(
    "101, and bytes behind it",
    SWITCH + b"\x81\x00",
    Read(101, kept=False, leftover=b"\x81\x00"),
    asked=UPGRADE,
)
row(
    "101 behind 100",
    head(start=CONTINUE) + SWITCH,
    Read(101, interim=1, kept=False, leftover=b""),
    asked=UPGRADE,
)
row("101 and a response", SWITCH + sized(), Read(101, kept=False, leftover=sized()), asked=UPGRADE)
row("101 for which nobody asked", SWITCH + sized(), REFUSED, "nobody asked")
row("101 without saying to which", head(start=b"HTTP/1.1 101 S"), REFUSED, asked=UPGRADE)
row(
    "101 without Connection",
    head(b"Upgrade: websocket", start=b"HTTP/1.1 101 S"),
    REFUSED,
    asked=UPGRADE,
)
row(
    "101 that keeps the connection",
    head(b"Connection: keep-alive", b"Upgrade: websocket", start=b"HTTP/1.1 101 S"),
    REFUSED,
    asked=UPGRADE,
)
row(
    "101 that says it otherwise",
    head(b"upgrade:WebSocket", b"connection: Keep-Alive, UPGRADE", start=b"HTTP/1.1 101"),
    Read(101, kept=False, leftover=b""),
    asked=UPGRADE,
)
row(
    "101 that names nothing",
    head(b"Connection: upgrade", b"Upgrade:", start=b"HTTP/1.1 101 S"),
    REFUSED,
    asked=UPGRADE,
)
row("101 in 1.0", SWITCH.replace(b"1.1", b"1.0"), REFUSED, "nobody asked", asked=UPGRADE)
row(
    "101 with a length",
    head(b"Connection: upgrade", b"Upgrade: websocket", b"Content-Length: 3", start=b"HTTP/1.1 101 S"),
    REFUSED,
    "interim",
    asked=UPGRADE,
)
row(
    "101 with chunks",
    head(
        b"Connection: upgrade", b"Upgrade: websocket", b"Transfer-Encoding: chunked", start=b"HTTP/1.1 101 S"
    ),
    REFUSED,
    "interim",
    asked=UPGRADE,
)
row("an upgrade that is refused", sized(), ABC, asked=UPGRADE)
row("an upgrade that is spoken of only", sized(b"Connection: upgrade", b"Upgrade: h2c"), ABC)

SWITCHED = Read(101)
others("llhttp does not know what was asked", "101 for which nobody asked", llhttp=SWITCHED)
others(
    "h11 looks at the status alone; llhttp does not take it for a switch, so the bytes behind it are read differently",
    "101 without saying to which",
    "101 without Connection",
    "101 that keeps the connection",
    "101 that names nothing",
    h11=SWITCHED,
)
others(
    "it does not look whether that can be: 1.0 has no Upgrade, and 101 no body",
    "101 in 1.0",
    "101 with a length",
    "101 with chunks",
    h11=SWITCHED,
    llhttp=SWITCHED,
)

# ---------------------------------------------------------------------------------------------- the connection afterwards

row("close", sized(b"Connection: close"), ONCE)
row("close in capitals", sized(b"CONNECTION:CLOSE"), ONCE)
row("close in a list", sized(b"Connection: Keep-Alive , Close"), ONCE)
row("close in a second line", sized(b"Connection: keep-alive", b"Connection: close"), ONCE)
row("close between commas", sized(b"Connection: ,close,"), ONCE)
row("closed is another word", sized(b"Connection: closed, xclose"), ABC)
row("close for a proxy", sized(b"Proxy-Connection: close"), ABC)
row("1.0 kept alive and closed", sized(b"Connection: keep-alive, close", start=b"HTTP/1.0 200 OK"), ONCE)
row("close, in chunks", chunked(b"3\r\nabc\r\n", LAST, lines=(b"Connection: close",)), ONCE)
row("the request said close", sized(), ONCE, asked=((b"Connection", b"close"),))
row("a byte behind a length", sized() + b"d", ONCE)
row("CR LF behind a length", sized() + b"\r\n", ONCE)
row("NUL behind a length", sized() + b"\0", ONCE)
row("a second response behind a length", sized() + sized(), ONCE)
row("a byte behind the last chunk", chunked(b"3\r\nabc\r\n", LAST, b"d"), ONCE)
row("a second response behind the last chunk", chunked(b"3\r\nabc\r\n", LAST) + sized(), ONCE)
row("a byte behind no body", head(b"Content-Length: 0") + b"d", Read(200, kept=False))
row("a second response behind 204", head(start=NO_CONTENT) + sized(), Read(204, kept=False))
row("a byte behind close", sized(b"Connection: close") + b"d", ONCE)

# ---------------------------------------------------------------------------------------------- the end of the connection

row("until the end", head() + b"abc", ONCE, closed=True)
row("until the end, nothing", head(), Read(200, kept=False), closed=True)
row("until the end, which has not come", head() + b"abc", WAITS)
row("until the end, though kept alive", head(b"Connection: keep-alive") + b"abc", ONCE, closed=True)
row("until the end, a response within", head() + sized(), Read(200, sized(), kept=False), closed=True)
row("nothing", b"", CUT, closed=True)
row("nothing yet", b"", WAITS)
row("the end within the status line", b"HTTP/1.", CUT, closed=True)
row("the end within the head", OK + b"\r\nX: y", CUT, closed=True)
row("the end before the empty line", OK + b"\r\nX: y\r\n", CUT, closed=True)
row("the end within the empty line", OK + b"\r\nX: y\r\n\r", CUT, closed=True)
row("the end before the body", head(b"Content-Length: 3"), CUT, closed=True)
row("the end within the body", head(b"Content-Length: 3") + b"ab", CUT, closed=True)
row("the end behind the body", sized(), ONCE, closed=True)
row("the end behind the last chunk", chunked(b"3\r\nabc\r\n", LAST), ONCE, closed=True)
row("the end behind no body", head(start=NO_CONTENT), Read(204, kept=False), closed=True)
row("a length that is not whole", head(b"Content-Length: 3") + b"ab", WAITS)
