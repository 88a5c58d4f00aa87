"""How a command ends that is told to, by Ctrl-C or SIGTERM, from its first moment on."""

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

_OURS = ("fashion_keras", "tuning")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PAUSE = 0.05  # Seconds until a signal that got lost comes again.


class EndedError(KeyboardInterrupt):
    """A signal came; `code` is what the process ends with then."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
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

    An error that is raised while the garbage collector calls something back is dropped by Python;
    then the signal comes once more.

    Returns:
        What was raised. Inside of a library's C code it may come out as another error.
    """
    raised: list[EndedError] = []

    def end(number: int, _: object) -> None:
        _handle(lambda again, _: os._exit(_code(again)))
        raised.append(EndedError(number))
        raise raised[-1]

    def unraisable(told: Any) -> None:
        if not isinstance(told.exc_value, EndedError):
            show(told)
            return
        _handle(end)
        threading.Timer(_PAUSE, signal_main_thread, [told.exc_value.number]).start()

    show, sys.unraisablehook = sys.unraisablehook, unraisable
    _handle(end)
    return raised


def signal_main_thread(number: int) -> None:
    """Send a signal to the main thread, from any other."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:  # On Windows, where it waits for the end of a call.
        _thread.interrupt_main(signal.Signals(number))


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
