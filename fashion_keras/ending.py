"""How a command ends that is told to, by Ctrl-C or SIGTERM, from its first moment on."""

import os
import signal
import sys
from collections.abc import Callable

_OURS = ("fashion_keras", "tuning")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class EndedError(KeyboardInterrupt):
    """A signal came; `code` is what the process ends with then."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = _code(number)


def _code(number: int) -> int:
    return 128 + number  # As shells count: 130 for Ctrl-C, 143 for SIGTERM.


def end_at_once() -> None:
    """Let a signal end the process in one line, if it is a command of ours that just starts.

    The imports of Keras and TensorFlow take seconds, in which a signal would end in a traceback.
    Nothing has been begun then that would have to be cleaned up. Programs that import the package
    keep the handlers that they have.
    """
    if not _is_starting():
        return
    shown = os.dup(2)  # What is written to 2 itself may be held back at that moment.

    def end(number: int, _: object) -> None:
        os.write(shown, b"interrupted before anything was done\n")
        os._exit(_code(number))

    _handle(end)


def raise_when_told() -> list[EndedError]:
    """Let the first signal raise `EndedError`, and the next one end the process at once.

    Returns:
        What was raised. Inside of a library's C code it may come out as another error.
    """
    raised: list[EndedError] = []

    def end(number: int, _: object) -> None:
        _handle(lambda again, _: os._exit(_code(again)))
        raised.append(EndedError(number))
        raise raised[0]

    _handle(end)
    return raised


def _is_starting() -> bool:
    """Tell whether Python is on its way to one of our modules that `-m` names."""
    words = sys.orig_argv
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    # Python puts the module's file in place of "-m" when it has found it.
    return sys.argv[:1] == ["-m"] and module.partition(".")[0] in _OURS


def _handle(handler: Callable[[int, object], None]) -> None:
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # `nohup` and shells' `&` stay in force.
            signal.signal(number, handler)
