"""The times of a cron line in a time zone, as seconds since the epoch."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from flujo.domain.wording import plural

FIELDS = ("minute", "hour", "day of month", "month", "day of week")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_FIRST_SPAN_S = 3600.0


def cron_problem(line: str) -> tuple[str, str] | None:
    """Return why a cron line has no times, with a hint; None for a line that has some."""
    count = len(line.split())
    if count != len(FIELDS):
        return (
            f"the cron line {line!r} has {plural(count, 'field')}",
            f"write five fields: {', '.join(FIELDS)}",
        )
    try:
        if next(CronSim(line, _EPOCH), None) is not None:
            return None
    except CronSimError as error:
        if "day-of-month" not in str(error) or not _has_days(line):
            field = str(error).removeprefix("Bad ").replace("day-of-", "day of ")
            return (
                f"the cron line {line!r} has a value for {field} that does not exist",
                f"the fields are {', '.join(FIELDS)}: `30 2 * * MON-FRI`",
            )
    return f"the cron line {line!r} never fires: none of its months has such a day", "choose another day"


def _has_days(line: str) -> bool:
    """Return whether the day of month exists in some month."""
    minute, hour, day, _, weekday = line.split()
    try:
        CronSim(f"{minute} {hour} {day} * {weekday}", _EPOCH)
    except CronSimError:
        return False
    return True


def zone_problem(name: str) -> tuple[str, str] | None:
    """Return why a time zone cannot be used, with a hint; None for one that can."""
    try:
        zone(name)
    except (KeyError, ValueError, OSError):  # `ZoneInfo` raises all of them for names of no zone
        return (
            f"there is no time zone {name!r} on this machine",
            "use a name of the IANA database, such as `Europe/Berlin` or `UTC`",
        )
    return None


@lru_cache(maxsize=64)
def zone(name: str) -> tzinfo:
    """Return a time zone of the IANA database.

    Raises:
        KeyError | ValueError | OSError: there is none of this name.
    """
    return UTC if name == "UTC" else ZoneInfo(name)


def times_after(line: str, zone_name: str, at: float) -> Iterator[float]:
    """Yield the times of a cron line after a moment, in strictly increasing order.

    A time of day that a change of clocks skips is the moment after the gap, and one that it repeats is the
    first of the two. A line whose minute or hour begins with `*` follows the elapsed time instead: it fires
    in both of two repeated hours, and not in a skipped one.

    Args:
        line: a line that `cron_problem` accepts.
        zone_name: a time zone that `zone_problem` accepts.
        at: seconds since the epoch.
    """
    last = at
    for each in CronSim(line, datetime.fromtimestamp(at, zone(zone_name))):
        found = each.timestamp()
        # In a repeated hour the library begins at its first pass, also for a moment in the second one.
        if found > last:
            yield found
            last = found


def newest_times(line: str, zone_name: str, since: float, until: float, most: int) -> list[float]:
    """Return the last `most` times from `since` to `until`, both included, in order.

    The work depends on `most`, not on the length of the period.
    """
    span = _FIRST_SPAN_S
    while True:
        begin = max(since, until - span)
        found = []
        for each in times_after(line, zone_name, begin - 1e-3):
            if each > until:
                break
            found.append(each)
        if len(found) >= most or begin <= since:
            return found[-most:]
        span *= 2
