"""`minitl serve`: a trained model behind a page in the browser, and an endpoint for programs.

The work is done in `minitl/serve/`; here are its options, and how it is told where the page is.
"""

import argparse
import sys
import webbrowser
from pathlib import Path
from typing import Any

from minitl import serve as serving
from minitl.cli import options
from minitl.cli.options import add_command, flag, option
from minitl.cli.trained import PREPARE, trained_model
from minitl.serve.guard import LOOPBACK


def add_to(commands: Any) -> None:
    parser = add_command(commands, serve)
    parser.add_argument("model", metavar="MODEL", help="a file that `minitl train` wrote")
    where = "the address to listen at; 0.0.0.0 lets other machines in, and everybody on them"
    option(parser, "--host", "ADDRESS", where, "127.0.0.1")
    option(parser, "--port", "N", "0 takes any that is free", 8000, type=options.port)
    limits = serving.Limits()
    most, each = limits.file_bytes // 10**6, limits.pixels // 10**6
    option(parser, "--max-file", "MB", "the most of one picture's file", most, type=options.count)
    option(parser, "--max-pixels", "MILLION", "the most of a picture", each, type=options.count)
    option(parser, "--max-files", "N", "the most in a request", limits.files, type=options.count)
    slow = "how long a client may take to send a request"
    option(parser, "--timeout", "SECONDS", slow, int(limits.seconds), type=options.count)
    flag(parser, "--open", "open the page in this machine's browser")


def serve(arguments: argparse.Namespace) -> None:
    """Let others try a trained model on a page in their browser.

    Drop pictures on the page and see their classes, how sure the model is, and where it looked;
    programs post pictures to /api/predict (/openapi.json describes it). Pictures are classified and
    not kept. Only this machine can reach the page unless --host says otherwise: there is no
    password. Needs `pip install 'minitl[serve]'`. Ctrl-C ends it.

    example: minitl serve model.h5 --open
    """
    model, about = trained_model(arguments.model)
    about["name"] = Path(arguments.model).stem
    limits = serving.Limits(
        file_bytes=arguments.max_file * 10**6,
        request_bytes=max(arguments.max_file * 10**6, serving.Limits.request_bytes),
        pixels=arguments.max_pixels * 10**6,
        files=arguments.max_files,
        seconds=arguments.timeout,
    )
    here = arguments.host in ("127.0.0.1", "::1", "localhost")
    prepare = PREPARE[about["preprocessing"]]
    app = serving.create_app(model, about, prepare, limits, LOOPBACK if here else None)
    if not here:
        text = f"minitl: every machine that reaches {arguments.host} can use this server"
        print(text, file=sys.stderr, flush=True)

    def started(address: str, stop: Any) -> None:
        print(f"The page is at {address} (Ctrl-C ends it)", flush=True)
        if arguments.open:
            webbrowser.open(address)

    serving.run(app, arguments.host, arguments.port, limits, started)
