"""The command line: parse, call the verb, print. Data to stdout, all else to stderr.

Exit codes: 0 done, 1 nothing feasible, 2 bad input, 70 a fault of Ultratwin itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ultratwin.errors import UltratwinError

if TYPE_CHECKING:
    from cyclopts import App

DONE: Final = 0
NOTHING_FEASIBLE: Final = 1
BAD_INPUT: Final = 2
OWN_FAULT: Final = 70
_INTERRUPTED: Final = 130


def application() -> App:
    """The parser of all verbs: one verb, one file, one line here."""
    from cyclopts import App

    import ultratwin
    from ultratwin.cli.assumptions import HELP
    from ultratwin.cli.catalogue import catalogue
    from ultratwin.cli.claims import claims
    from ultratwin.cli.cluster import cluster
    from ultratwin.cli.collective import collective
    from ultratwin.cli.compare import compare
    from ultratwin.cli.diffuse import diffuse
    from ultratwin.cli.plan import plan
    from ultratwin.cli.power import power
    from ultratwin.cli.serve import serve
    from ultratwin.cli.study import study
    from ultratwin.cli.train import train
    from ultratwin.cli.validate import validate

    app = App(
        help_epilogue=HELP,
        name="ultratwin",
        help="A software twin of AI-accelerator supercomputers: what training and serving take, before you rent.",
        version=ultratwin.__version__,
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
    )
    for verb in (train, serve, diffuse, plan, compare, study, cluster, collective, power, catalogue, claims, validate):
        app.command(verb)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Runs the command line; returns the exit code. Errors are printed, never raised."""
    try:
        code = _answered(list(arguments))
        sys.stdout.flush()
        return code
    except UltratwinError as error:
        return _complain(str(error), BAD_INPUT)
    except KeyboardInterrupt:
        return _complain("interrupted", _INTERRUPTED)
    except BrokenPipeError:
        # the reader has seen enough; keep the interpreter from complaining when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except MemoryError:
        return _complain(
            "out of memory on this machine\nhint: fix more axes of the layout, so that fewer are searched", BAD_INPUT
        )
    except OSError as error:
        return _complain(f"{error.strerror or error} ({error.filename or 'operating system'})", BAD_INPUT)
    except Exception as error:
        if os.environ.get("ULTRATWIN_DEBUG"):
            raise
        what = f"Ultratwin failed: {type(error).__name__}: {error}"
        return _complain(f"{what}\nhint: please report it; ULTRATWIN_DEBUG=1 shows where", OWN_FAULT)


def _answered(arguments: list[str]) -> int:
    from cyclopts import CycloptsError

    from ultratwin.cli.assumptions import under_assumptions, without_assumptions
    from ultratwin.cli.complaints import explained
    from ultratwin.cli.spellings import in_our_words

    app = application()
    words, assumed = without_assumptions(in_our_words(arguments))
    try:
        with under_assumptions(assumed):
            found = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        raise explained(error) from None
    return found if isinstance(found, int) else DONE


def _complain(text: str, code: int) -> int:
    print(f"error: {text}", file=sys.stderr)
    return code
