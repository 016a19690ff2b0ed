"""Needed: the settings without a default, as an environment gives them, and what comes of them alone."""

from connector.settings import load
from connector.settings.keys import Path, variable

SERVERS, NAME = "broker-1:9092", "fraud-detector"
NEEDED = {"CONNECTOR_KAFKA__BOOTSTRAP_SERVERS": SERVERS, "CONNECTOR_ENDPOINT__NAME": NAME}
BARE = load(None, NEEDED)


def needed_but(path: Path) -> dict[str, str]:
    """What is needed beside a key, or a section, that a test gives in a file, which the environment would override."""
    here = variable(path)
    return {name: value for name, value in NEEDED.items() if name != here and not name.startswith(f"{here}__")}
