"""The URL of a PostgreSQL store: what the library is given, and what may be shown of it."""

import re
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ..errors import ConfigError, printable, quoted

_END_OF_HOST = re.compile("[/?#]")

_CONNECTING = {
    "application_name": "drydock",
    "connect_timeout": "3",
    "target_session_attrs": "read-write",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "5000",
}


def connection_string(url: str) -> str:
    """What is given to the library: what the URL says, and our own wishes where it says nothing.

    Raises `ConfigError` for a URL that cannot be meant.
    """
    if _ends_early(url):
        raise ConfigError(
            'the store is a URL whose password ends too early; write "@", "/", "?" and "#" in it as %40, %2F, %3F and %23'
        )
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error as error:
        why = str(error).partition(': "')[0]  # what follows may be the URL, with its password
        raise ConfigError(f"the store {quoted(without_password(url))} cannot be meant ({printable(why)})") from None
    return make_conninfo("", **{**_CONNECTING, **given})


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    if _ends_early(url):
        return "postgresql://"
    try:
        parts = urlsplit(url)
        user, at, hosts = parts.netloc.rpartition("@")
        query = [
            (name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if "password" not in name
        ]
    except ValueError:
        return "postgresql://"
    return urlunsplit(
        parts._replace(netloc=user.partition(":")[0] + at + hosts, query=urlencode(query, quote_via=quote))
    )


def _ends_early(url: str) -> bool:
    """Whether a character that has a meaning in a URL stands in the password, so that its end would be taken for something
    that may be shown."""
    before, at, after = url.partition("://")[2].partition("@")
    host = _END_OF_HOST.split(after, maxsplit=1)[0]
    # With a "=" it is a query whose value holds an "@".
    return bool(at) and ("@" in host or (bool(_END_OF_HOST.search(before)) and "=" not in before))
