"""Files that are watched: the configuration file, and a file of services in Envoy's shape.

A file is looked at every ``PERIOD`` seconds by its size and times; one that changed lately is read again, because two
edits within one tick of the file system's clock look alike. Only other bytes count as an edit. An edit that cannot be
read, or says something wrong, changes nothing: what was good stays in force and the status says what is wrong with it.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from meshlib.errors import ConfigError
from meshlib.runtime.files import regular
from meshlib.sources.base import Source, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.model.snapshot import Part
    from meshlib.model.status import Ignored, SourceStatus
    from meshlib.runtime.worker import Timer
    from meshlib.sources.base import Sink

__all__ = ["PERIOD", "FileSource", "Watched"]

#: Seconds between looks. The contract promises that edits take effect within 5.
PERIOD = 1.0

#: Nanoseconds for which a changed file is read again though its times are the same.
_RACY = 2_000_000_000

_LARGEST = 16 * 2**20


class Watched:
    """One file and what was last seen of it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._stat: tuple[int, int, int] | None = None
        self._settled = False
        self._digest = b""

    def edited(self) -> bool:
        """Whether its bytes are others than at the last look. A file that is not there has none of its own."""
        stat = self._look()
        if stat == self._stat and self._settled:
            return False
        self._stat = stat
        digest = self._read()
        changed, self._digest = digest != self._digest, digest
        return changed

    def _look(self) -> tuple[int, int, int] | None:
        try:
            stat = Path(self.path).stat()
        except OSError:
            self._settled = True
            return None
        # The times of files are those of the wall clock.
        self._settled = abs(time.time_ns() - stat.st_mtime_ns) > _RACY
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _read(self) -> bytes:
        """A digest of the bytes; of a file that cannot be read, of the reason."""
        try:
            with open(self.path, "rb", opener=regular) as file:
                return hashlib.blake2b(file.read(_LARGEST + 1), digest_size=16).digest()
        except OSError as problem:
            return str(problem.errno).encode()


class FileSource(Source):
    """Watches both files.

    Args:
        sink: Where the part ``"file"`` goes.
        config_file: The configuration file, ``""`` without one.
        services_file: The file in Envoy's shape, ``""`` without one.
        reload: Reads the configuration anew and puts it into force; raises ConfigError where it is wrong.
    """

    def __init__(
        self,
        sink: Sink,
        config_file: str,
        services_file: str,
        reload: Callable[[], None],
        period: float = PERIOD,
    ) -> None:
        super().__init__("file", "file", sink)
        self._config = Watched(config_file) if config_file else None
        self._services = Watched(services_file) if services_file else None
        self._reload = reload
        self._period = period
        self._timer: Timer | None = None
        self._errors = {"config": "", "services": ""}
        self._part: Part | None = None
        self._ignored: tuple[Ignored, ...] = ()

    def open(self, inherited: Part | None) -> None:
        """Raises ConfigError if the file of services is wrong and nothing good was inherited."""
        # The first look reads the configuration file again: it may have been edited since the mesh was made, or before a fork.
        if self._services is not None:
            self._services.edited()
            if inherited is not None:
                self._part = inherited
                self._was_good = True
                self._look_at_services()
            else:
                self._read_services()
        self._tell()

    def start(self) -> None:
        self._tell()
        self._again()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def services_from(self, path: str) -> None:
        """The edited configuration names another file of services, or none (``""``)."""
        if path == (self._services.path if self._services is not None else ""):
            return
        self._services = Watched(path) if path else None
        self._errors["services"] = ""
        if self._services is None:
            self._part, self._ignored = None, ()
            self.sink.withdraw(self.name)
        else:
            self._services.edited()
            self._look_at_services()

    def look(self) -> None:
        """Take up what was edited."""
        if self._config is not None and self._config.edited():
            self._errors["config"] = _problem(self._config.path, self._reload)
        if self._services is not None and self._services.edited():
            self._look_at_services()
        self._tell()

    @property
    def shown(self) -> bool:
        return self._config is not None or self._services is not None

    def status(self) -> SourceStatus:
        paths = (watched.path for watched in (self._config, self._services) if watched is not None)
        part = self._part
        resources: dict[str, int] = {}
        if part is not None:
            resources = {"listener": len(part.sidecar) + len(part.targets), "cluster": len(part.clusters)}
        return replace(super().status(), server=", ".join(paths), resources=resources, ignored=self._ignored)

    def _again(self) -> None:
        self.stop()
        self._timer = self.sink.worker.later(self._period, self._tick)

    def _tick(self) -> None:
        try:
            self.look()
        finally:
            self._again()

    def _look_at_services(self) -> None:
        assert self._services is not None
        self._errors["services"] = _problem(self._services.path, self._read_services)

    def _read_services(self) -> None:
        from meshlib.config.files import read
        from meshlib.xds.envoy_file import read as understand

        assert self._services is not None
        path = self._services.path
        file = read(path, envoy=True)
        made = understand(file.value, self.name)
        if made.problems:
            raise ConfigError(problems=file.told(made.problems))
        self._ignored = made.ignored
        self._part = made.part
        self.sink.publish(made.part)

    def _tell(self) -> None:
        error = "; ".join(text for text in self._errors.values() if text)
        if error:
            # The configuration file was good once, else there would be no mesh.
            self._was_good = self._was_good or self._config is not None
            self.trouble(error)
        elif self.shown:
            self.good()
        elif self.state is not State.IDLE:
            self.rest()


def _problem(path: str, attempt: Callable[[], object]) -> str:
    """What is wrong, or ``""``. A pipe that took the place of the file is not waited for."""
    if Path(path).is_fifo():
        return f"{path}: cannot be read: it is a pipe"
    try:
        attempt()
    except ConfigError as problem:
        return str(problem)
    return ""
