"""The URL of a store: what may be shown of it, and what cannot be meant."""

import pytest

from drydock.errors import ConfigError
from drydock.store.postgres_address import connection_string, without_password

SECRET = "s3cret"


@pytest.mark.parametrize("character", "@/?#")
@pytest.mark.parametrize("end", [SECRET, f"{SECRET}@{SECRET}"])
def test_a_password_that_would_end_too_early_is_refused_and_no_part_of_it_shown(character: str, end: str) -> None:
    url = f"postgresql://me:{SECRET}{character}{end}@host:5432/base"
    with pytest.raises(ConfigError, match="%40") as refused:
        connection_string(url)
    assert SECRET not in str(refused.value)
    assert SECRET not in without_password(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:s3cret@host/base", "postgresql://me@host/base"),
        ("postgresql://me:s3%40%2Fcret@host:5/base?sslmode=require", "postgresql://me@host:5/base?sslmode=require"),
        ("postgresql://host/base?user=me@corp&password=s3cret", "postgresql://host/base?user=me%40corp"),
        ("postgresql://me@/base?host=/run/pg", "postgresql://me@/base?host=%2Frun%2Fpg"),
        ("postgresql://a,b:6/base", "postgresql://a,b:6/base"),
    ],
)
def test_all_but_the_password_is_shown(url: str, shown: str) -> None:
    connection_string(url)
    assert without_password(url) == shown
