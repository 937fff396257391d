"""h2 as the machine (:mod:`meshlib.wire.http2`) uses it. All that it is relied upon for stands in that module's theory."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings
from hpack import Decoder
from hpack.exceptions import HPACKError
from hyperframe.exceptions import HyperframeError

from meshlib.wire.http2_frames import Violation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from h2.events import Event

    from meshlib.wire.message import Lines

__all__ = ["CONNECTION_WINDOW", "STREAM_WINDOW", "Library"]

#: Bytes that a peer may send of one response before the application reads. Go's client has 4 MiB, curl 10, Envoy 16.
STREAM_WINDOW = 1 << 20
#: And of all responses of a connection. Envoy's client has 24 MiB.
CONNECTION_WINDOW = 1 << 24


#: Bytes of what comes before a client's first frame, and of a frame's head (RFC 9113, 3.4 and 4.1).
_PREFACE, _FRAME_HEAD = 24, 9


class _Decoder(Decoder):
    """Keeps what a header block says for us, and tells h2 of it only whether it is an interim head."""

    lines: Lines
    interim_allowed = False
    failed = False  # what it was given last could not be read

    def decode(self, data: bytes, raw: bool = False) -> Any:  # noqa: ARG002 -- hpack's signature
        self.failed = True
        lines = self.lines = [(bytes(name), bytes(value)) for name, value in super().decode(data, raw=True)]
        self.failed = False
        interim = self.interim_allowed and lines and lines[0][0] == b":status" and lines[0][1][:1] == b"1"
        return [(b":status", b"100" if interim else b"200")]


def _with(settings: Sequence[tuple[int, int]], greeting: bytes) -> bytes:
    """The greeting with more in its first frame. hyperframe writes the last byte of a setting's number alone."""
    size = int.from_bytes(greeting[_PREFACE : _PREFACE + 3])
    more = b"".join(struct.pack(">HL", number, value) for number, value in settings)
    body = _PREFACE + _FRAME_HEAD
    return b"".join(
        (
            greeting[:_PREFACE],
            (size + len(more)).to_bytes(3),
            greeting[_PREFACE + 3 : body + size],
            more,
            greeting[body + size :],
        )
    )


class Library(H2Connection):
    """One connection's, with the greeting of a client in it. ``header_list``: bytes of the largest header block; ``settings``: what the
    greeting tells beside what h2 knows; ``greeting``: it, where there are any, to be sent before all else.
    """

    decoder: _Decoder

    def __init__(self, header_list: int, settings: Sequence[tuple[int, int]] = ()) -> None:
        # Fields are checked by us, both ways.
        super().__init__(
            H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
            )
        )
        values = {
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            SettingCodes.MAX_HEADER_LIST_SIZE: header_list,
        }
        self.local_settings = Settings(client=True, initial_values=values)
        # Some servers end a connection for a setting that they do not know.
        del self.local_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL]
        self.decoder = _Decoder(header_list)
        self.initiate_connection()
        self.increment_flow_control_window(CONNECTION_WINDOW - self.inbound_flow_control_window)
        self.greeting = _with(settings, self.data_to_send()) if settings else b""

    def take(self, frame: bytes) -> list[Event]:
        """A whole frame of the peer. Raises Violation. What was to be sent before must have been taken."""
        try:
            return self.receive_data(frame)
        except (H2Error, HPACKError, HyperframeError, ValueError, LookupError, AssertionError) as error:
            self.clear_outbound_data_buffer()  # a GOAWAY, to which the machine's is preferred
            code = int(getattr(error, "error_code", ErrorCodes.PROTOCOL_ERROR))
            if code == ErrorCodes.PROTOCOL_ERROR and self.decoder.failed:
                code = ErrorCodes.COMPRESSION_ERROR
            raise Violation(code, str(error) or type(error).__name__) from error
