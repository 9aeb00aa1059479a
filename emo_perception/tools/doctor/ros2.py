"""The same checks for ``ros2 doctor``, which finds these classes through the entry points of setup.py."""

from __future__ import annotations

import functools

from ros2doctor.api import DoctorCheck, DoctorReport, Report, Result
from ros2doctor.api.format import doctor_error, doctor_warn

from emo_perception.tools.doctor.command import examine
from emo_perception.tools.doctor.finding import Context, Level, Told

CATEGORY = "emo_perception"


@functools.cache
def _findings() -> tuple[Told, ...]:
    """Once for check and report of a call."""
    return tuple(examine(Context()))


class EmoCheck(DoctorCheck):
    """Errors and warnings; each is said with the command that mends it."""

    def category(self) -> str:
        return CATEGORY

    def check(self) -> Result:
        """Make all checks of ``emo doctor``."""
        result = Result()
        for told in _findings():
            level, text = told.finding.level, _text(told)
            if level is Level.ERROR:
                doctor_error(f"{told.check}: {text}")
                result.add_error()
            elif level is Level.WARN:
                doctor_warn(f"{told.check}: {text}")
                result.add_warning()
        return result


class EmoReport(DoctorReport):
    """Everything that was looked at."""

    def category(self) -> str:
        return CATEGORY

    def report(self) -> Report:
        """All findings of ``emo doctor``, the good ones too."""
        report = Report("EMO_PERCEPTION")
        for told in _findings():
            report.add_to_report(told.check, f"{told.finding.level.name.lower()}: {_text(told)}")
        return report


def _text(told: Told) -> str:
    command = told.finding.command
    return f"{told.finding.what}; type: {command}" if command else told.finding.what
