"""The kernel's tables of sockets: what it writes, and what anything else could write."""

from __future__ import annotations

import ipaddress
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.sidecar import sock_diag
from meshlib.sidecar.evidence import Listening
from meshlib.sidecar.proc import interfaces, listening, unix_listening

HEAD = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

FOUR = HEAD + (
    b"   0: 00000000:3A99 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1337        0 24 1 0 100 0 0 10 0\n"
    b"   1: 0100007F:3A98 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 25 1 0 100 0 0 10 0\n"
    b"   2: 0100007F:985C 0100007F:0050 01 00000000:00000000 00:00000000 00000000  1000        0 26 1 0 20 4 30 10 -1\n"
)
SIX = HEAD + (
    b"   0: 00000000000000000000000000000000:1023 00000000000000000000000000000000:0000 0A "
    b"00000000:00000000 00:00000000 00000000  2102        0 24 1 0 100 0 0 10 0\n"
    b"   1: 0000000000000000FFFF00000100007F:1024 00000000000000000000000000000000:0000 0A "
    b"00000000:00000000 00:00000000 00000000  2102        0 24 1 0 100 0 0 10 0\n"
    b"   2: 00000000000000000000000001000000:1025 00000000000000000000000000000000:0000 0A "
    b"00000000:00000000 00:00000000 00000000  2102        0 24 1 0 100 0 0 10 0\n"
)

addresses = st.ip_addresses()
ports = st.integers(0, 0xFFFF)
users = st.integers(0, 0xFFFFFFFF)


def line(address, port, uid, state="0A", order=sys.byteorder):
    """A line as the kernel prints it: each word of the address as a number of the machine."""
    words = [int.from_bytes(address.packed[at : at + 4], order) for at in range(0, len(address.packed), 4)]
    host = "".join(f"{word:08X}" for word in words)
    return f"   0: {host}:{port:04X} {'0' * len(host)}:0000 {state} 0:0 0:0 0 {uid:5d} 0 24\n".encode()


def plain(address):
    return str(getattr(address, "ipv4_mapped", None) or address)


class TestProc:
    def test_those_that_listen_with_their_owners(self):
        assert list(listening(FOUR, "little")) == [
            Listening("0.0.0.0", 15001, 1337),
            Listening("127.0.0.1", 15000, 0),
        ]

    def test_version_six_and_what_is_mapped_into_it(self):
        assert list(listening(SIX, "little")) == [
            Listening("::", 4131, 2102),
            Listening("127.0.0.1", 4132, 2102),
            Listening("::1", 4133, 2102),
        ]

    @given(addresses, ports, users, st.sampled_from(["little", "big"]))
    def test_every_address_port_and_owner(self, address, port, uid, order):
        (one,) = listening(HEAD + line(address, port, uid, order=order), order)
        assert one == Listening(plain(address), port, uid)

    @given(addresses, st.sampled_from(["01", "06", "0B", "0a", "A", "00", ""]))
    def test_no_other_state_listens(self, address, state):
        assert list(listening(HEAD + line(address, 15001, 1337, state or "_"))) == []

    @given(st.binary(max_size=2000))
    def test_anything_at_all_is_passed_over(self, table):
        list(listening(table))
        unix_listening(table)
        interfaces(table)

    @given(st.integers(0, len(FOUR)), st.binary(max_size=8))
    def test_a_table_that_is_damaged_or_cut_off(self, at, junk):
        for one in listening(FOUR[:at] + junk):
            assert 0 <= one.port <= 0xFFFF

    @pytest.mark.parametrize(
        "line",
        [
            b"0: 0100007F:3A99 0:0 0A 0 0 0 -1 0 0",
            b"0: 0100007F:3A99 0:0 0A 0 0 0 4294967296 0 0",
            b"0: 0100007F:3A99 0:0 0A 0 0 0 1_0 0 0",
            b"0: 0100007F:13A99 0:0 0A 0 0 0 0 0 0",
            b"0: 0100007F: 0:0 0A 0 0 0 0 0 0",
            b"0: 0100007F 0:0 0A 0 0 0 0 0 0",
            b"0: 0100007:3A99 0:0 0A 0 0 0 0 0 0",
            b"0: 0100007F00:3A99 0:0 0A 0 0 0 0 0 0",
            b"0: \xff\xff:3A99 0:0 0A 0 0 0 0 0 0",
            b"0: 0100007F:3A99 0:0 0A",
        ],
    )
    def test_a_line_that_is_none_is_passed_over_and_the_next_is_read(self, line):
        (one,) = listening(line + b"\n" + FOUR.splitlines()[1])
        assert one.port == 15001

    def test_unix_sockets(self):
        table = (
            b"Num       RefCount Protocol Flags    Type St Inode Path\n"
            b"0000000000000000: 00000002 00000000 00010000 0001 01 22 /run/envoy sock\n"
            b"0000000000000000: 00000003 00000000 00000000 0001 03 23 /run/connected\n"
            b"0000000000000000: 00000002 00000000 00010000 0002 01 24 /run/datagram\n"
            b"0000000000000000: 00000002 00000000 00010000 0001 01 25 @abstract\n"
            b"0000000000000000: 00000002 00000000 00010000 0001 01 26\n"
            b"0000000000000000: 00000002 00000000 zzz 0001 01 27 /run/odd\n"
        )
        assert unix_listening(table) == {"/run/envoy sock", "@abstract"}

    def test_interfaces(self):
        table = b"Inter-| Receive\n face |bytes\n    lo: 1 2 3\n  eth0:1 2 3\nveth1@if2: 0\n"
        assert interfaces(table) == ("lo", "eth0", "veth1@if2")


def socket_of(address, port, uid, family=None):
    family = family or (2 if address.version == 4 else 10)
    source = address.packed.ljust(16, b"\0")
    body = struct.pack(
        "=BBBB2s2s16s16sI8sIIIII",
        family,
        10,
        0,
        0,
        port.to_bytes(2, "big"),
        b"\0\0",
        source,
        bytes(16),
        0,
        bytes(8),
        0,
        0,
        0,
        uid,
        24,
    )
    return message(20, body)


def message(kind, body=b"", length=None):
    length = 16 + len(body) if length is None else length
    return struct.pack("=IHHII", length, kind, 0, 1, 0) + body


DONE = message(3, bytes(4))


class TestSockDiag:
    @given(st.lists(st.tuples(addresses, ports, users), max_size=5))
    def test_every_address_port_and_owner(self, rows):
        datagram = b"".join(socket_of(*row) for row in rows) + DONE
        assert list(sock_diag.listening(datagram)) == [
            *(Listening(plain(address), port, uid) for address, port, uid in rows),
            None,
        ]

    def test_a_dump_goes_on_over_several_datagrams(self):
        address = ipaddress.ip_address("127.0.0.1")
        assert None not in list(sock_diag.listening(socket_of(address, 1, 2)))
        assert list(sock_diag.listening(DONE)) == [None]

    @pytest.mark.parametrize(
        "datagram",
        [
            b"\0" * 15,
            message(20, b"short"),
            message(2, struct.pack("=i", -2) + bytes(16)),
            message(20, bytes(72), length=15),
            message(20, bytes(72), length=0),
            message(20, bytes(72), length=1000),
            socket_of(ipaddress.ip_address("127.0.0.1"), 1, 2, family=99),
        ],
    )
    def test_what_is_no_answer(self, datagram):
        with pytest.raises(sock_diag.Failed):
            list(sock_diag.listening(datagram))

    @given(st.binary(max_size=500))
    def test_anything_at_all_ends(self, datagram):
        try:
            list(sock_diag.listening(datagram))
        except sock_diag.Failed:
            return

    def test_what_is_asked(self):
        asked = sock_diag.request(10)
        assert len(asked) == struct.unpack_from("=I", asked)[0] == 72
        assert asked[16:18] == bytes([10, 6])
        assert struct.unpack_from("=I", asked, 20) == (1 << 10,)
