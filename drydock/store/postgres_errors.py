"""What PostgreSQL's errors mean to us. Where nothing was changed and asking again may help, they are `StoreAway`."""

import psycopg
from psycopg import errors as pg

from ..errors import ConfigError, Refused, StoreAway, StoreBusy, StoreDamaged, StoreError, StoreFull, printable

#: said by the library before there is a server that could give a code
_NO_SUCH_USE = (
    "does not exist",
    "could not translate host name",
    "invalid connection option",
    "invalid port",
    "invalid integer",
)
_NOT_LET_IN = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "authentication failed",
)


def translate(error: psycopg.Error, where: str, *, lost: bool, patience_seconds: float) -> Exception:
    """The error to raise for `error` about the store `where`. `lost`: the connection is gone."""
    why = printable(str(error).strip().split("\n")[0])
    if isinstance(error, pg.LockNotAvailable | pg.QueryCanceled):
        return StoreBusy(patience_seconds, f"the store {where}")
    if isinstance(error, pg.DiskFull):
        return StoreFull(where)
    if isinstance(error, pg.UndefinedTable | pg.UndefinedColumn | pg.InvalidSchemaName):
        return StoreDamaged(f"{where} is incomplete ({why}); restore a backup or give another database")
    if isinstance(error, pg.InsufficientPrivilege):
        return Refused(f"{where} may not be used by this user ({why}); see the guide for what it must be granted")
    if isinstance(error, pg.ReadOnlySqlTransaction):
        return StoreError(f"{where} cannot be written ({why}); give the primary server")
    if isinstance(
        error,
        pg.SerializationFailure | pg.DeadlockDetected | pg.InFailedSqlTransaction | psycopg.errors.PipelineAborted,
    ):
        return StoreAway(f"{where} undid a transaction ({why}); nothing was changed")
    if isinstance(error, pg.ProgramLimitExceeded | psycopg.DataError):
        return ConfigError(f"a value cannot be kept in PostgreSQL ({why})")
    if any(words in str(error) for words in _NOT_LET_IN):
        return Refused(f"{where} does not let this user in ({why})")
    if lost and any(words in str(error) for words in _NO_SUCH_USE):
        return StoreError(f"{where} cannot be used ({why})")
    if lost or isinstance(error, psycopg.OperationalError):
        return StoreAway(f"{where} cannot be reached ({why}); nothing was changed")
    return error
