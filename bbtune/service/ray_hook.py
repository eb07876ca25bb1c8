"""What Ray's command line cannot be told; ``ray start`` calls this because RAY_START_HOOK names it."""

from __future__ import annotations

from typing import Any


def loopback_only(parameters: Any, head: bool) -> None:
    """Let all of Ray listen on the loopback alone, and no Ray Client server at all.

    The command line turns ``--node-ip-address 127.0.0.1`` into the machine's outer address, and refuses port 0 for
    Ray Client, whose server would be one more door.
    """
    parameters.node_ip_address = "127.0.0.1"
    parameters.ray_client_server_port = None
