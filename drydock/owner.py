"""Who asks, when nobody is named."""

import os
import pwd
from functools import cache


def default_owner() -> str:
    """`DRYDOCK_OWNER`, else user@host."""
    return os.environ.get("DRYDOCK_OWNER") or _user_at_host()


@cache
def _user_at_host() -> str:
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return f"{user}@{os.uname().nodename}"
