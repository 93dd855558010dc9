"""Every error that the live path raises on purpose.

    RealtimeError
      + SourceError          something is wrong with a camera, microphone or file
      |   - SourceNotFound   it was never there
      |   - SourceBusy       another program holds it
      |   - SourceRefused    it is there and this user may not open it
      |   - SourceLost       it was there and stopped delivering
      |   - SourceChanged    it delivers something else than before: size, rate, format
      + SinkError            an output could not be opened or written
      + MissingFile          a file that has to be fetched once is not there
      + MissingLibrary       a system library or an optional package is not installed
      + SettingsError        a setting or a flag makes no sense
      + InputRefused         what a caller of the API brought cannot be analysed; a ValueError, too
      + CalibrationRefused   the evidence does not suffice, or what was measured belongs to something else
    EndOfStream              the natural end of a source; not an error

A message says what happened, to which device, what was tried, and what to do about it.
"""

from __future__ import annotations


class RealtimeError(Exception):
    """Anything the live path refuses or fails at; its text is written for the person at the keyboard."""


class SourceError(RealtimeError):
    """Something is wrong with a camera, a microphone or a file."""


class SourceNotFound(SourceError):
    """It was never there. The message lists what is."""


class SourceBusy(SourceError):
    """Another program holds it."""


class SourceRefused(SourceError):
    """It is there and this user may not open it."""


class SourceLost(SourceError):
    """It was there and stopped delivering."""


class SourceChanged(SourceError):
    """It delivers something else than before: picture size, sample rate, format."""


class SinkError(RealtimeError):
    """An output could not be opened or written."""


class MissingFile(RealtimeError):
    """A file that is fetched once is not there; the message names the command that brings it."""


class MissingLibrary(RealtimeError):
    """A system library or an optional package is missing; the message names the package."""


class SettingsError(RealtimeError):
    """A setting or a flag makes no sense; the message says which and what would."""


class InputRefused(RealtimeError, ValueError):
    """A picture, sound or time that a caller brought makes no sense; the message says what would."""


class CalibrationRefused(RealtimeError):
    """A measurement that would mislead is not made or not used; the message says what was missing."""


class EndOfStream(Exception):
    """A source has delivered everything it had. Not an error, and never confused with a lost device."""
