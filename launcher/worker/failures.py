"""What a failed attempt means for its job: whether another may pass, when, and what the end is called."""

import logging
import random
import sys
from collections.abc import Iterator

from launcher.errors import LauncherError, PathForbidden, StoreUnavailable
from launcher.state.job import Outcome
from predictors.errors import OutOfMemory, PredictorError, Transient
from predictors.recovery import kind_of
from transforms.errors import Cancelled, ConnectionRefused, LedgerError, PipelineError, TooManyRejects

# Characters of an error that are kept; names of columns may be long, and there may be thousands.
_LONGEST_ERROR = 4000
# Exponential backoff between the attempts of a job: from the first wait on, doubled up to the longest.
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
# SQLSTATE classes of what another attempt may not meet again: a connection that failed, a lack of resources, a server
# that goes down or comes up, a transaction that lost to another, a lock that was not to be had.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_PASSING_STATES = ("08", "53", "57P", "40", "55P03", "58")
# How libpq and SQLite say the same where there is no SQLSTATE, as while connecting.
_PASSING_WORDS = (
    "connection refused",
    "connection reset",
    "connection timed out",
    "timeout expired",
    "server closed the connection",
    "connection to server was lost",
    "no connection to the server",
    "terminating connection",
    "the database system is",
    "too many clients",
    "too many connections",
    "remaining connection slots",
    "could not translate host name",
    "ssl connection has been closed",
    "network is unreachable",
    "no route to host",
    "could not receive data from server",
    "could not send data to server",
    "database is locked",
)


# Modules of Beam that are imported along, and say that they lack what nobody here uses.
_NOISE = frozenset({"apache_beam.io.mongodbio"})


def is_passing(error: BaseException) -> bool:
    """Whether another attempt may pass: a connection, a server, a store that was away for a while.

    What the job itself has wrong (its query, columns, model, destination, too many rejects) is no such thing.
    """
    if isinstance(error, TooManyRejects):
        return False
    return any(_is_passing(each) for each in _chain(error))


class Unexpected(logging.Filter):
    """Lets no traceback of Beam's through whose error says all there is to say, as that too many rows were rejected.

    The job's own line says it, and no line of ours or of a library is to blame.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is worth a line. Called where it is made, so that the error is the one being handled."""
        if record.name in _NOISE:
            return False
        error = sys.exc_info()[1]
        has_traceback = bool(record.exc_info) or "Traceback" in record.getMessage()
        if error is None or not record.name.startswith("apache_beam") or not has_traceback:
            return True
        # Not imported for it: what was never imported was not raised.
        answers = sys.modules.get("predictors.answers")
        for each in _chain(error):
            if answers is not None and isinstance(each, answers.Unfit):
                # What the error before it says whole; below it is only how it was found.
                break
            if not isinstance(each, PipelineError | PredictorError | LauncherError):
                return True
        return False


def outcome_of(error: BaseException) -> Outcome:
    """What a job that ends with `error` is said to have come to."""
    if isinstance(error, TooManyRejects):
        return "too_many_rejects"
    if any(isinstance(each, MemoryError | OutOfMemory) for each in _chain(error)):
        return "out_of_memory"
    return "error"


def is_wrong_request(error: BaseException, managed: bool) -> bool:
    """Whether a job that fails with `error` before anything of it was planned was asked for wrongly.

    Its query, columns, model, input or destination are not as the request says, so that another attempt would meet the
    same. A database that lets nobody in counts, too, unless a launcher has tried it several times.
    """
    if isinstance(error, Cancelled | LedgerError) or outcome_of(error) == "out_of_memory":
        return False
    if not isinstance(error, PipelineError | PredictorError | PathForbidden):
        return False
    return not is_passing(error) or (isinstance(error, ConnectionRefused) and not managed)


def brief(text: str) -> str:
    """What an error says, cut in the middle where it is longer than a page, as it is kept with the job and listed.

    What is wrong stands at the beginning, what to do about it at the end.
    """
    if len(text) <= _LONGEST_ERROR:
        return text
    end = _LONGEST_ERROR // 4
    return f"{text[: _LONGEST_ERROR - end]} … {text[-end:]}"


def wait_s(retries: int, first_s: float = FIRST_WAIT_S, random_unit: float | None = None) -> float:
    """How long to wait before the next attempt when `retries` were made already; drawn from the upper half."""
    longest = min(first_s * 2 ** min(retries, 30), max(LONGEST_WAIT_S, first_s))
    unit = random.random() if random_unit is None else random_unit
    return longest * (0.5 + 0.5 * unit)


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, StoreUnavailable | Transient | ConnectionError | TimeoutError):
        return True
    # An error of a driver that was never imported cannot be; to import it here would cost each command half a second.
    driver = sys.modules.get("adbc_driver_manager.dbapi")
    if driver is not None and isinstance(error, driver.Error):
        state = getattr(error, "sqlstate", None)
        if state:
            return str(state).startswith(_PASSING_STATES)
        return _says_passing(error)
    if isinstance(error, ConnectionRefused):
        return _says_passing(error)
    if isinstance(error, PipelineError | PredictorError):
        # What it came of is in the chain.
        return False
    return isinstance(error, Exception) and kind_of(error) == "transient"


def _says_passing(error: BaseException) -> bool:
    # Of a server's addresses some may refuse before one answers; what that one says counts.
    text = str(error).rpartition("FATAL:")[2].lower()
    return any(words in text for words in _PASSING_WORDS)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """`error` and what it came of."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
