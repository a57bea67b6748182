"""What nobody else may read, taken out of what an author's code says: that is kept, for all who use the store.

Drydock is given no secrets, but a hook finds some in its environment, and what fails there likes to quote them.
"""

import os
import re
from collections.abc import Mapping

MASK = "***"
#: what is shorter stands in too many words, and is no secret
SHORTEST_SECRET = 6

_SECRET_NAME = re.compile(r"(?:PASSWORD|PASSWD|SECRET|TOKEN|KEY)$", re.IGNORECASE)
_IN_A_URL = re.compile(r"(://[^\s/@:]*):[^\s/]*@")
_IN_A_QUERY = re.compile(r"(password=)[^\s&'\"]+", re.IGNORECASE)


def masked(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """`text` without passwords in URLs, and without the values of variables whose names end in PASSWORD, PASSWD, SECRET,
    TOKEN or KEY."""
    for name, value in environment.items():
        if len(value) >= SHORTEST_SECRET and _SECRET_NAME.search(name):
            text = text.replace(value, MASK)
    return _IN_A_QUERY.sub(rf"\1{MASK}", _IN_A_URL.sub(rf"\1:{MASK}@", text))
