"""The HTTP service as an application of Ray Serve: replicas that answer for the same tasks, as many as are needed.

Every replica has the bundle, looks at the folder of rows and has a batcher of its own; none knows of the others. So
tasks come and go through the folder alone, which all machines of the cluster see.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError

from bitfit_export.cluster import connected
from bitfit_export.errors import UsageError, first_line, quoted
from bitfit_export.runtime import BiasSession
from bitfit_export.serving.app import open_app
from bitfit_export.serving.events import log_to_stderr
from bitfit_export.serving.failures import ClosedServiceError
from bitfit_export.serving.on_ray.metrics import RayMetrics
from bitfit_export.serving.settings import Settings

__all__ = ["application", "build", "serving"]

#: Of the application and of its deployment.
NAME = "bitfit"
_SESSION_ARGUMENTS = {"bundle", "engine", "engine_options", "threads", "check_hashes", "trusted_keys", "state"}
_PATHS = {"tasks_dir", "tokens"}
#: Seconds between two looks at a replica.
_HEALTH_PERIOD = 5.0
#: Requests of a replica that Ray lets in. The batcher has a limit of its own, which it answers with 429.
_MOST_REQUESTS = 512
#: Seconds for a process of Ray's to start, of which Ray gives it three times as many.
_PATIENCE = 30.0
#: Batches of requests for a replica, above which there should be more replicas: one runs, one gathers.
_BUSY_BATCHES = 2


class Replica:
    """One process of the service. Ray Serve makes a class of this one and of the application."""

    app: FastAPI

    def check_health(self) -> None:
        """Ray replaces the replica when this raises."""
        if not self.app.state.front.service.ready:
            raise ClosedServiceError("the batcher has ended")


def application(
    session: BiasSession, settings: Settings, *, replicas: tuple[int, int] = (1, 1), cpus: int = 1
) -> serve.Application:
    """The application, to be run by Ray Serve.

    Args:
        session: of the bundle. Every replica opens its own, and refuses a bundle that has changed since.
        settings: of each replica.
        replicas: how many there are at least and at most.
        cpus: that a replica takes; give as many as the session has threads.

    Raises:
        UsageError: fewer replicas at most than at least.
    """
    fewest, most = replicas
    if most < fewest:
        raise UsageError(f"--max-replicas is {most}, expected --replicas or more, which is {fewest}")

    def open_replica() -> FastAPI:
        log_to_stderr()
        name = serve.get_replica_context().replica_id.unique_id
        return open_app(session, settings, RayMetrics(name), alone=False)

    scale: dict[str, Any] = {"num_replicas": fewest}
    if most > fewest:
        busy = _BUSY_BATCHES * settings.batch_size
        scale = {
            "autoscaling_config": {
                "min_replicas": fewest,
                "max_replicas": most,
                "target_ongoing_requests": busy,
            }
        }
    settings = _absolute(settings)  # a replica has another working folder
    deployment: Any = serve.deployment(
        serve.ingress(open_replica)(Replica),
        name=NAME,
        ray_actor_options={"num_cpus": cpus},
        max_ongoing_requests=_MOST_REQUESTS,
        health_check_period_s=_HEALTH_PERIOD,
        graceful_shutdown_timeout_s=settings.timeout,
        **scale,
    )
    bound: serve.Application = deployment.bind()
    return bound


def build(arguments: Mapping[str, Any]) -> serve.Application:
    """The application of a configuration file of Ray Serve, whose `import_path` names this function.

    Args:
        arguments: `args` of the file: those of `BiasSession` and the fields of `Settings`; `bundle` must be there.
            The number of replicas and what they take of a machine are in the file's `deployments`.

    Raises:
        BitfitError: as `BiasSession` and `Settings`; UsageError, also for a name that neither has.
    """
    own = {field.name for field in fields(Settings)}
    unknown = arguments.keys() - own - _SESSION_ARGUMENTS
    if unknown or "bundle" not in arguments:
        raise UsageError(
            f"the arguments are {quoted(', '.join(sorted(arguments)))}, expected bundle, and any of "
            f"{', '.join(sorted(own | _SESSION_ARGUMENTS - {'bundle'}))}"
        )
    session = BiasSession(**{"threads": 1} | {name: arguments[name] for name in _SESSION_ARGUMENTS & arguments.keys()})
    chosen = {name: arguments[name] for name in own & arguments.keys()}
    paths = {name: Path(chosen[name]) for name in _PATHS & chosen.keys()}
    return application(session, Settings(**chosen | paths))


def _absolute(settings: Settings) -> Settings:
    paths = {name: getattr(settings, name) for name in _PATHS}
    return replace(settings, **{name: path.absolute() for name, path in paths.items() if path is not None})


@contextmanager
def serving(
    session: BiasSession,
    settings: Settings,
    *,
    cluster: str | None,
    host: str,
    port: int,
    replicas: tuple[int, int] = (1, 1),
    cpus: int = 1,
) -> Iterator[None]:
    """Answer requests while the block runs.

    Args:
        cluster: the address of a running one, which does not serve yet; None starts one on this machine.
        host: the address to listen at, of each machine that has a replica.

    Raises:
        UsageError: the cluster cannot be reached or serves already, or the replicas do not start.
    """
    # What Ray starts takes over this environment. On a busy machine Ray's proxy is not up in the usual 15 seconds; then
    # Ray would kill it and give up.
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", str(_PATIENCE))
    served = application(session, settings, replicas=replicas, cpus=cpus)
    with connected(cluster) as ray:
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        _refuse_other_service(ray)
        with ExitStack() as stack:
            stack.callback(serve.shutdown)
            try:
                serve.start(http_options={"host": host, "port": port})
                serve.run(served, name=NAME, route_prefix="/")
            except (RuntimeError, RayError) as error:
                raise UsageError(
                    f"the replicas do not start: {first_line(error)}",
                    hint="see the logs of the replicas in /tmp/ray/session_latest/logs/serve",
                ) from error
            yield


def _refuse_other_service(ray: Any) -> None:
    """A cluster has one Ray Serve, whose address cannot be changed and which must not end with this one."""
    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return
    raise UsageError(
        "Ray Serve runs on this cluster already",
        hint="serve deploy adds the service to it; docs/serving.md has the file",
    )
