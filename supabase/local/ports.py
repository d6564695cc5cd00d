"""TCP ports on loopback: free, taken."""

import socket

HOST = "127.0.0.1"


def free_port() -> int:
    """Return a port that the system says is free; whoever binds it next should do so at once."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def is_taken(port: int) -> bool:
    """Tell whether something already listens on `port`, or holds it."""
    with socket.socket() as probe:
        # As servers do: a port that merely lingers in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
        return False
