"""Answer texts over HTTP, for the tasks of a bundle and of a folder of rows.

example: bitfit serve bundles/minilm-l6 --tasks-dir rows/
         curl localhost:8080/predict -H 'Content-Type: application/json' -d '{"task": "sst2", "texts": ["What a day"]}'

http://localhost:8080/docs shows every route; docs/serving.md describes them.
"""

from __future__ import annotations

import argparse
import importlib.util
import ipaddress
import socket
import threading
from contextlib import closing, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from bitfit_export.cli.ray_options import add_ray_arguments, runs_on_ray
from bitfit_export.cli.session_options import add_session_arguments, open_session
from bitfit_export.cli.streams import say
from bitfit_export.errors import MissingExtraError, UsageError
from bitfit_export.runtime.arguments import check_positive
from bitfit_export.serving.events import log_to_stderr
from bitfit_export.serving.settings import Settings

#: Connections that wait to be accepted.
_BACKLOG = 1024
#: What --engine ray takes besides.
_ON_RAY = {
    "replicas": "processes that answer, at least (1)",
    "max-replicas": "as many when there is much to do (as many as --replicas)",
}


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
    add_session_arguments(parser, on_ray=True)
    limits = parser.add_argument_group("limits")
    _add_count(limits, "--memory", Settings.memory, "MB", "memory for rows")
    _add_count(limits, "--max-labels", Settings.max_labels, "N", "labels of a row of --tasks-dir")
    _add_count(limits, "--batch-size", Settings.batch_size, "N", "texts to run at once")
    _add_count(limits, "--batch-tokens", Settings.batch_tokens, "N", "tokens to run at once, with padding")
    _add_count(limits, "--queue-tokens", Settings.queue_tokens, "N", "tokens that may wait")
    _add_count(limits, "--max-texts", Settings.max_texts, "N", "texts of a request")
    _add_count(limits, "--max-body", Settings.max_body, "KB", "size of a request")
    _add_count(limits, "--max-connections", 512, "N", "connections")
    limits.add_argument(
        "--wait",
        type=float,
        default=Settings.wait,
        metavar="MS",
        help="how long a text waits for company (%(default)s)",
    )
    limits.add_argument(
        "--timeout", type=float, default=Settings.timeout, metavar="S", help="time for a request (%(default)s)"
    )
    add_ray_arguments(parser, shared="BUNDLE, --tasks-dir and --tokens", counts=_ON_RAY)


def _add_count(group: Any, name: str, default: int, unit: str, words: str) -> None:
    group.add_argument(name, type=int, default=default, metavar=unit, help=f"{words}, at most (%(default)s)")


def run(options: argparse.Namespace) -> int:
    _check(options)
    settings = Settings(**{field.name: getattr(options, field.name) for field in fields(Settings)})
    return _run_on_ray(options, settings) if runs_on_ray(options, _ON_RAY) else _run_here(options, settings)


def _run_here(options: argparse.Namespace, settings: Settings) -> int:
    import uvicorn

    from bitfit_export.serving.app import open_app
    from bitfit_export.serving.metrics import Metrics

    with closing(_listen(options.host, options.port)) as listening:
        session = open_session(options)
        log_to_stderr("uvicorn")
        app = open_app(session, settings, Metrics())
        _warn_of_everybody(options)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            limit_concurrency=options.max_connections,
            timeout_graceful_shutdown=round(options.timeout),
        )
        _say_address(_address(listening), len(app.state.front.service.rows.states()))
        with suppress(KeyboardInterrupt):  # what was asked before the signal is answered by then
            uvicorn.Server(config).run(sockets=[listening])
    return 0


def _run_on_ray(options: argparse.Namespace, settings: Settings) -> int:
    from bitfit_export.serving.on_ray.service import serving

    with closing(_listen(options.host, options.port)) as listening:
        address = _address(listening)
        port = listening.getsockname()[1]
    options.threads = options.threads or 1
    session = open_session(options)
    _warn_of_everybody(options)
    replicas = options.replicas or 1
    with serving(
        session,
        settings,
        cluster=options.address,
        host=options.host,
        port=port,
        replicas=(replicas, options.max_replicas or replicas),
        cpus=options.threads,
    ):
        _say_address(address, len(session.tasks))
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0


def _say_address(address: str, tasks: int) -> None:
    say(f"answering {tasks} tasks at {address}; {address}/docs shows how to ask")


def _warn_of_everybody(options: argparse.Namespace) -> None:
    if options.tokens is None and not _is_loopback(options.host):
        say(f"warning: everybody who reaches {options.host} may ask; --tokens names who may")


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
    check_positive("--max-connections", options.max_connections)
    if not 0 <= options.port <= 65535:
        raise UsageError(f"--port is {options.port}, expected 0 to 65535")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
