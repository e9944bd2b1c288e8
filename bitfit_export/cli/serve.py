"""Answer texts over HTTP, for the tasks of a bundle and of a folder of rows.

example: bitfit serve bundles/minilm-l6 --tasks-dir rows/
         curl localhost:8080/predict -H 'Content-Type: application/json' -d '{"task": "sst2", "texts": ["What a day"]}'

http://localhost:8080/docs shows every route; docs/serving.md describes them.
"""

from __future__ import annotations

import argparse
import importlib.util
import ipaddress
import logging
import socket
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfit_export.cli.session_options import add_session_arguments, open_session
from bitfit_export.cli.streams import say
from bitfit_export.errors import MissingExtraError, UsageError
from bitfit_export.runtime import BiasSession
from bitfit_export.runtime.arguments import check_positive

if TYPE_CHECKING:
    from bitfit_export.serving.events import Observer
    from bitfit_export.serving.service import Service

_MEGABYTE = 1 << 20
#: Connections that wait to be accepted.
_BACKLOG = 1024
#: The options that are whole numbers from 1.
_COUNTS = (
    "memory",
    "max_labels",
    "batch_size",
    "batch_tokens",
    "queue_tokens",
    "max_texts",
    "max_body",
    "max_connections",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument(
        "--host", default="127.0.0.1", help="the address to listen at (%(default)s: this machine alone)"
    )
    parser.add_argument("--port", type=int, default=8080, help="the port; 0 takes a free one (%(default)s)")
    parser.add_argument("--tasks-dir", type=Path, metavar="DIR", help="a folder of rows <task>.bias, which may change")
    parser.add_argument(
        "--tokens", type=Path, metavar="FILE", help="who may ask and manage: lines of a role and a token"
    )
    add_session_arguments(parser)
    limits = parser.add_argument_group("limits")
    _add_count(limits, "--memory", 1024, "MB", "memory for rows")
    _add_count(limits, "--max-labels", 8, "N", "labels of a row of --tasks-dir")
    _add_count(limits, "--batch-size", 32, "N", "texts to run at once")
    _add_count(limits, "--batch-tokens", 512, "N", "tokens to run at once, with padding")
    _add_count(limits, "--queue-tokens", 65_536, "N", "tokens that may wait")
    _add_count(limits, "--max-texts", 1024, "N", "texts of a request")
    _add_count(limits, "--max-body", 1024, "KB", "size of a request")
    _add_count(limits, "--max-connections", 512, "N", "connections")
    limits.add_argument(
        "--wait", type=float, default=2.0, metavar="MS", help="how long a text waits for company (%(default)s)"
    )
    limits.add_argument("--timeout", type=float, default=30.0, metavar="S", help="time for a request (%(default)s)")


def _add_count(group: Any, name: str, default: int, unit: str, words: str) -> None:
    group.add_argument(name, type=int, default=default, metavar=unit, help=f"{words}, at most (%(default)s)")


def run(options: argparse.Namespace) -> int:
    _check(options)
    import uvicorn

    from bitfit_export.serving.access import Access, read_tokens
    from bitfit_export.serving.app import make_app
    from bitfit_export.serving.body_guard import BodyLimits
    from bitfit_export.serving.front import Front
    from bitfit_export.serving.metrics import Metrics

    access = Access(None if options.tokens is None else read_tokens(options.tokens))
    with closing(_listen(options.host, options.port)) as listening:
        session = open_session(options)
        _start_log()
        metrics = Metrics()
        service = _open_service(session, options, metrics)
        if access.open and not _is_loopback(options.host):
            say(f"warning: everybody who reaches {options.host} may ask; --tokens names who may")
        app = make_app(Front(service, access, metrics), body=BodyLimits(size=options.max_body * 1024))
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            limit_concurrency=options.max_connections,
            timeout_graceful_shutdown=round(options.timeout),
        )
        address = _address(listening)
        say(f"answering {len(service.rows.states())} tasks at {address}; {address}/docs shows how to ask")
        with suppress(KeyboardInterrupt):  # what was asked before the signal is answered by then
            uvicorn.Server(config).run(sockets=[listening])
    return 0


def _open_service(session: BiasSession, options: argparse.Namespace, observer: Observer) -> Service:
    from bitfit_export.serving.batcher import BatchLimits
    from bitfit_export.serving.service import Service

    limits = BatchLimits(
        batch_size=options.batch_size,
        batch_tokens=options.batch_tokens,
        wait=options.wait / 1000,
        queue_tokens=options.queue_tokens,
        timeout=options.timeout,
    )
    return Service(
        session,
        tasks_dir=options.tasks_dir,
        memory=options.memory * _MEGABYTE,
        labels=options.max_labels,
        limits=limits,
        max_texts=options.max_texts,
        observer=observer,
    )


def _listen(host: str, port: int) -> socket.socket:
    # With its protocol named, asyncio sends small packets at once (TCP_NODELAY); else a reply may take 40 ms longer.
    listening = socket.socket(
        socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
        return listening
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"port {port} of {host} cannot be listened at: {reason}", hint="pass another --port"
        ) from error


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _check(options: argparse.Namespace) -> None:
    for package in ("fastapi", "prometheus_client", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "serve")
    for name in _COUNTS:
        check_positive(f"--{name.replace('_', '-')}", getattr(options, name))
    if not 0 <= options.port <= 65535:
        raise UsageError(f"--port is {options.port}, expected 0 to 65535")
    if not options.wait >= 0 or not options.timeout > 0:
        raise UsageError("--wait is expected to be 0 or more, and --timeout more than 0")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _start_log() -> None:
    """Send what the service and the server log to stderr, a line of JSON for each event."""
    from bitfit_export.serving.events import LOGGER, JsonLines

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for logger in (LOGGER, logging.getLogger("uvicorn")):
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
