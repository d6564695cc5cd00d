"""What went wrong with a check: libcurl's codes put into the kinds and words that people read."""

import errno
import logging
import os
from collections.abc import Sequence
from typing import NamedTuple

import pycurl

from server.features.checks.rules import ErrorKind
from server.probes.hop import MAX_HEADER_BYTES, Hop, Stop
from server.probes.trouble import Trouble, describe_block

logger = logging.getLogger(__name__)

_TOO_LARGE = 100  # CURLE_TOO_LARGE, which pycurl does not name: a header line or their number beyond libcurl's bound

_TLS_CODES = frozenset(
    {
        pycurl.E_SSL_CONNECT_ERROR,
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CIPHER,
        pycurl.E_SSL_ISSUER_ERROR,
        pycurl.E_SSL_INVALIDCERTSTATUS,
    }
)
_PROTOCOL_CODES = frozenset(
    {
        pycurl.E_UNSUPPORTED_PROTOCOL,  # what libcurl answers to a status line that is none
        pycurl.E_URL_MALFORMAT,
        pycurl.E_FTP_WEIRD_SERVER_REPLY,  # the number of CURLE_WEIRD_SERVER_REPLY, used for http too
        pycurl.E_PARTIAL_FILE,
        pycurl.E_GOT_NOTHING,
        pycurl.E_RECV_ERROR,  # malformed chunks; where the connection broke, OS_ERRNO says so
        pycurl.E_SEND_ERROR,
        _TOO_LARGE,
    }
)
_PROTOCOL_WORDS = {
    pycurl.E_GOT_NOTHING: "the server closed the connection without an answer",
    pycurl.E_PARTIAL_FILE: "the server closed the connection in the middle of the body",
    _TOO_LARGE: "the headers are too long, or too many",
}
_BROKEN_CONNECTION = frozenset(
    {errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.ECONNABORTED, errno.EHOSTUNREACH, errno.ENETUNREACH}
)

# OpenSSL's verify results (openssl-verification-options(1)) in words.
_VERIFY_RESULTS = {
    9: "the certificate is not valid yet",
    10: "the certificate has expired",
    18: "the certificate is self-signed",
    19: "the certificate's chain ends in an unknown self-signed root",
    20: "the certificate's issuer is unknown, or the server does not send the whole chain",
    21: "the certificate's issuer is unknown, or the server does not send the whole chain",
}
_HOST_MISMATCH = 1  # libcurl's own initial value: OpenSSL had nothing against the chain


class Fault(NamedTuple):
    """A pycurl.error: libcurl's code, and its message."""

    code: int
    message: str


def find_trouble(hop: Hop, fault: Fault | None, expected_status: Sequence[tuple[int, int]]) -> Trouble | None:
    """Return the first thing that went wrong on the last hop, or None for success.

    An unexpected status comes before whatever happened to the body after it.
    """
    if hop.socket_error is not None:
        return Trouble(ErrorKind.INTERNAL, f"no socket could be opened here: {hop.socket_error.strerror}")
    if hop.stop is Stop.HEADERS_TOO_LARGE:
        return Trouble(ErrorKind.PROTOCOL, f"the headers are larger than {MAX_HEADER_BYTES // 1000} kB")
    if hop.headers_ended:
        status = hop.status_code
        if status is None or not any(low <= status <= high for low, high in expected_status):
            return Trouble(ErrorKind.STATUS, f"{status}, expected {describe_ranges(expected_status)}")
    if fault is None or hop.stop is Stop.BODY_READ:
        return None
    if hop.refused_addresses and not hop.opened_sockets:
        return describe_block(hop.host, hop.refused_addresses)
    return _classify(hop, fault)


def _classify(hop: Hop, fault: Fault) -> Trouble:
    code = fault.code
    os_error = int(hop.curl.getinfo(pycurl.OS_ERRNO))
    reason = os.strerror(os_error).lower() if os_error else "no address answered"
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return Trouble(ErrorKind.TIMEOUT, f"timed out while {hop.phase}")
    if code == pycurl.E_COULDNT_CONNECT:
        return Trouble(ErrorKind.CONNECT, f"could not connect: {reason}")
    if code in (pycurl.E_RECV_ERROR, pycurl.E_SEND_ERROR) and os_error in _BROKEN_CONNECTION:
        return Trouble(ErrorKind.CONNECT, f"{reason} while {hop.phase}")
    if code in _TLS_CODES:
        return Trouble(ErrorKind.TLS, _explain_tls(hop, fault))
    if code in _PROTOCOL_CODES:
        return Trouble(ErrorKind.PROTOCOL, _PROTOCOL_WORDS.get(code) or fault.message or f"libcurl error {code}")
    logger.warning("unforeseen libcurl error %d for %s: %s", code, hop.host, fault.message)
    return Trouble(ErrorKind.INTERNAL, f"libcurl error {code}: {fault.message}")


def _explain_tls(hop: Hop, fault: Fault) -> str:
    if fault.code != pycurl.E_PEER_FAILED_VERIFICATION:
        return fault.message or "the TLS handshake failed"
    result = hop.curl.getinfo(pycurl.SSL_VERIFYRESULT)
    if result in (0, _HOST_MISMATCH):
        return f"the certificate is not for {hop.host}"
    return _VERIFY_RESULTS.get(result) or fault.message or f"the certificate was refused (OpenSSL {result})"


def describe_ranges(ranges: Sequence[tuple[int, int]]) -> str:
    """Return inclusive ranges as people write them: `200-299, 301`."""
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
