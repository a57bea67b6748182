"""Who asks, when nobody is named."""

import os
import pwd


def default_owner() -> str:
    """`DRYDOCK_OWNER`, else user@host."""
    given = os.environ.get("DRYDOCK_OWNER")
    if given:
        return given
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return f"{user}@{os.uname().nodename}"
