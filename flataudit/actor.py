"""Who runs this, as it says itself; records name it, nothing trusts it."""

import getpass
import os
import socket

__all__ = ["actor"]


def actor() -> str:
    """What CI says of itself, else the user and the machine."""
    if "GITHUB_ACTOR" in os.environ:
        return f"{os.environ['GITHUB_ACTOR']} in {os.environ.get('GITHUB_WORKFLOW', 'a workflow')}"
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
