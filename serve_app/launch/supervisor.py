"""Supervisor of `serve run`: say when the service is ready, end it if it cannot start, explain Ctrl-C.

Example:
    status = serve(Path("serve_config.yaml"))  # returns once the service has ended
"""

import asyncio
import os
import re
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType

import click
import ray
from ray import serve as ray_serve
from ray.exceptions import RayError
from ray.serve.scripts import cli

from serve_app.errors import ConfigurationInvalid, ServiceError
from serve_app.jobs.store import JobStore
from serve_app.launch.connections import ENVIRONMENT
from serve_app.launch.console import keep_quiet, ray_log_level, say, say_ready, without_chatter
from serve_app.launch.preflight import ServeConfig, check, read_config
from serve_app.launch.ray_processes import RayProcesses, adopt_orphans
from serve_app.launch.secrets import MaskedConfig, without_secrets

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
_RAY_ADDRESS = "RAY_ADDRESS"  # of a cluster that runs already, as Ray has it
_SERVE_NAMESPACE = "serve"  # in which every client of Serve looks for its controller
_POLL_S = 0.5
_KIND = re.compile(r"^(?:\w+\.)*(\w+(?:Error|Exception))\b(?=:|$)", re.MULTILINE)  # the last line of a traceback
_NO_TRY_MENDS = frozenset(
    {
        "AssertionError",
        "AttributeError",
        "ImportError",
        "IndexError",
        "KeyError",
        "ModuleNotFoundError",
        "NameError",
        "NotImplementedError",
        "SyntaxError",
        "TypeError",
        "ValidationError",
        "ValueError",
    }
)
_REMIND_S = 60.0  # a model of 70 GB loads for minutes; silence would look like a fault


def serve(path: Path, *, dashboard: bool = False) -> int:
    """Check the config, run the service until it is stopped, and return the exit status.

    Blocks. `dashboard` starts Ray's, without which Ray is up seconds earlier. The status is 0 after Ctrl-C or SIGTERM,
    1 where the service could not start; the last line on standard error says why.
    """
    try:
        config = read_config(path)
        check(config)
        with without_secrets(path) as masked:
            supervisor = _Supervisor(config, masked, dashboard=dashboard)
            status = supervisor.run()
    except ConfigurationInvalid as error:
        return _ended(f"the service cannot start: {error}")
    if supervisor.lost_ray:
        sys.stderr.flush()
        os._exit(status)  # what Ray does at the end of a process would wait for what is gone
    return status


class _Supervisor:
    """One `serve run` in this process, watched from a thread."""

    def __init__(self, config: ServeConfig, masked: MaskedConfig, *, dashboard: bool) -> None:
        """Take the config, and `masked`, the config without secrets that Ray gets."""
        self._config = config
        self._masked = masked
        self._dashboard = dashboard
        self._dashboard_url = ""
        self._failure: str | None = None
        self._gone: str | None = None  # the process of Ray that has ended
        self._ray = RayProcesses([])
        self._interrupts = 0
        self._main = threading.get_ident()
        self._over = threading.Event()

    @property
    def lost_ray(self) -> bool:
        """Return whether the cluster has ended by itself."""
        return self._gone is not None

    def run(self) -> int:
        """Run until the service ends; return the exit status."""
        # As `serve run` does, but before it: Ray takes SIGTERM for itself when it starts.
        os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
        keep_quiet()
        adopt_orphans()
        context = ray.init(namespace=_SERVE_NAMESPACE, logging_level=ray_log_level(), include_dashboard=self._dashboard)
        self._dashboard_url = context.dashboard_url or ""
        self._ray = RayProcesses.of_this_process()
        self._masked.check_workers()
        signal.signal(signal.SIGINT, self._interrupted)
        signal.signal(signal.SIGTERM, self._interrupted)
        threading.Thread(target=self._watch, name="start-watch", daemon=True).start()
        try:
            with suppress(SystemExit), without_chatter():
                cli.main(["run", str(self._masked.path)], standalone_mode=False)
        except _ClusterEnds:
            at_once = False
        except (KeyboardInterrupt, click.Abort):
            at_once = True
        else:
            at_once = False
        self._over.set()
        # Ends the cluster if this process has started it, and with it the lines that its workers still have to say.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.lost_ray:
            self._ray.kill()
        else:
            ray.shutdown()
        return self._outcome(at_once=at_once)

    def _outcome(self, *, at_once: bool) -> int:
        if at_once:
            return _ended("stopped at once; what was running starts anew at the next start", INTERRUPTED)
        if self._gone is not None:
            return _ended(
                f"the service has ended: Ray's process {self._gone} is gone. This machine may have been out of memory "
                "or of CPU time. What was accepted is kept, and goes on at the next start"
            )
        if self._failure is not None:
            return _ended(f"the service could not start: {self._failure}")
        if not self._interrupts:
            return _ended("the service ended by itself; the log above says why")
        say("stopped; what was accepted is kept and goes on at the next start")
        return 0

    def _watch(self) -> None:
        """Follow the deployment until it runs, or has failed finally."""
        waited = 0.0
        while not self._over.wait(_POLL_S):
            status = _status(self._config.applications)
            if status is None:
                continue
            state, message = status
            if state == "RUNNING":
                say_ready(self._config, serve_logs(), self._dashboard_url)
                self._watch_ray()
                return
            # Serve tries a constructor three times, and each time PyTorch is imported anew.
            if state == "DEPLOY_FAILED" or is_final(message):
                self._failure = _with_advice(message)
                # Send it to the main thread: it sleeps, and a signal to another thread would not wake it.
                signal.pthread_kill(self._main, signal.SIGINT)
                return
            waited += _POLL_S
            if waited >= _REMIND_S:
                waited = 0.0
                say(f"still starting: {told(message) or state}")

    def _watch_ray(self) -> None:
        """End the service if a process of Ray ends, without which nobody answers."""
        while not self._over.wait(_POLL_S):
            if (gone := self._ray.gone()) is not None and not self._interrupts:
                self._gone = gone
                signal.pthread_kill(self._main, signal.SIGINT)
                return

    def _interrupted(self, _signal: int, _frame: FrameType | None) -> None:
        if self._gone is not None or (self._failure is not None and _RAY_ADDRESS not in os.environ):
            raise _ClusterEnds
        self._interrupts += 1
        if self._failure is None and self._interrupts == 1:
            say(_what_ctrl_c_does(self._config))
        raise KeyboardInterrupt


class _ClusterEnds(BaseException):
    """The start has failed in a cluster of this process' own, which simply ends; or that cluster has ended by itself.

    `serve run` would catch a KeyboardInterrupt or an Exception, and wait for Serve: for half a minute if Serve has
    begun to start a replica again, and in vain if it is gone. On a cluster of others, Serve has to take the
    application away.
    """


def serve_logs() -> Path:
    """Return the folder with the log files of Serve's processes on this node; Ray must run."""
    context = ray.get_runtime_context()
    return Path(context.get_temp_dir(), context.get_session_name(), "logs", "serve")


def told(message: str) -> str:
    """Return the useful part of a message of Serve: our own error if it has one, else its last line."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return _own_error(message) or (lines[-1] if lines else "")


def is_final(message: str) -> bool:
    """Return whether a message of Serve has an error that another try would meet again: a wrong config, or a mistake.

    A GPU, a network or a database that fails may be there at the next try.
    """
    kinds = _KIND.findall(message)
    return _own_error(message) is not None or (bool(kinds) and kinds[-1] in _NO_TRY_MENDS)


def _with_advice(message: str) -> str:
    if own := _own_error(message):  # says itself what to do
        return own
    died = "ActorDiedError" in message
    what = "a replica's process ended by itself, as if killed (for want of memory?)" if died else told(message)
    return f"{what}; the whole error is in the newest replica_*.log of {serve_logs()}"


def _own_error(message: str) -> str | None:
    """Return what the last ConfigurationInvalid of a traceback says; None if there is none."""
    found = [line.partition(f"{ConfigurationInvalid.__name__}: ")[2].strip() for line in message.splitlines()]
    return next((line for line in reversed(found) if line), None)


def _status(applications: tuple[str, ...]) -> tuple[str, str] | None:
    """Return the state of the application that is furthest behind, and Serve's words; None before Serve is up."""
    if not ray.is_initialized():
        return None
    try:
        found = ray_serve.status().applications
    except RayError:  # it is being shut down
        return None
    states = [found[name] for name in applications if name in found]
    if len(states) < len(applications):
        return None
    worst = next((app for app in states if app.status == "DEPLOY_FAILED"), None)
    worst = worst or next((app for app in states if app.status != "RUNNING"), states[0])
    details = [deployment.message for deployment in worst.deployments.values() if deployment.message]
    return str(worst.status.value), "\n".join([worst.message, *details])


def _what_ctrl_c_does(config: ServeConfig) -> str:
    running = [_running(settings.database_url) for settings in config.settings]
    if None in running:
        return "stopping; press Ctrl-C again to stop at once"
    count = sum(number for number in running if number is not None)
    if not count:
        return "stopping"
    longest_s = max(settings.render_timeout_s for settings in config.settings)
    return (
        f"stopping: waiting for {count} running renders to end (up to {longest_s:g} s). Press Ctrl-C again to stop at "
        "once: they are then queued again, and start anew at the next start"
    )


def _running(database_url: str) -> int | None:
    """Count the renders that run; None if the database does not answer."""

    async def count() -> int:
        store = JobStore(database_url)
        try:
            return await store.claims.running()
        finally:
            await store.close()

    try:
        return asyncio.run(count())
    except ServiceError:
        return None


def _ended(text: str, status: int = FAILED) -> int:
    say(text)
    return status
