"""A DNS server for tests: UDP on 127.0.0.1, with records that a test changes while it runs."""

from __future__ import annotations

import socket
import threading

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

__all__ = ["DnsServer"]


class DnsServer:
    """`records`: (name, type) → list of texts as in a zone file. A name that has no record of any type is NXDOMAIN.

    `mode` is "answer", "silent" (takes questions, says nothing), "servfail", "refused", or "garbage"; `modes` has
    another one for (name, type), or for a type alone.
    """

    def __init__(self, records=None, ttl=1):
        self.records = dict(records or {})
        self.ttl = ttl
        self.mode = "answer"
        self.modes = {}
        self.questions = []
        self.asked = threading.Condition()  # guards questions
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="test-dns", daemon=True)

    @property
    def settings(self):
        """The `dns` section of a configuration that asks here."""
        return {"nameservers": ["127.0.0.1"], "port": self.port, "min_ttl": 0.05}

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._stopping = True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as knock:
            knock.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(5.0)
        self._socket.close()

    def wait_for_questions(self, count, timeout=10.0):
        with self.asked:
            assert self.asked.wait_for(lambda: len(self.questions) >= count, timeout), self.questions

    def _serve(self):
        while True:
            data, peer = self._socket.recvfrom(65535)
            if self._stopping:
                return
            answer = self._answer(data)
            if answer is not None:
                self._socket.sendto(answer, peer)

    def _answer(self, data):
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = str(question.name).rstrip(".").lower(), dns.rdatatype.to_text(question.rdtype)
        with self.asked:
            self.questions.append((name, kind))
            self.asked.notify_all()
        mode = self.modes.get((name, kind), self.modes.get(kind, self.mode))
        if mode == "silent":
            return None
        if mode == "garbage":
            return data[:2] + b"\xff" * 40
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        texts = self.records.get((name, kind))
        if mode in ("servfail", "refused"):
            response.set_rcode(dns.rcode.from_text(mode))
        elif texts:
            response.answer.append(dns.rrset.from_text_list(question.name, self.ttl, "IN", kind, texts))
        elif not any(known == name for known, _ in self.records):
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response.to_wire()
