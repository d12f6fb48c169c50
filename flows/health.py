"""``python -m flows.health``: is the service of this container well? For Docker's health checks.

``SPLATSPACE_HEALTH_URL`` names the page that answers while the service is well, in a container of Prefect's server
``http://127.0.0.1:4200/api/health``. Without it there is no service: a command is healthy while it runs. Nothing but
the standard library is imported, since a check runs every few seconds.
"""

from __future__ import annotations

import http.client
import os
import sys
import urllib.request
from collections.abc import Mapping

VARIABLE = "SPLATSPACE_HEALTH_URL"
SECONDS = 5.0


def complaint(environment: Mapping[str, str]) -> str | None:
    """What is wrong with the service of this container.

    Args:
        environment: where ``SPLATSPACE_HEALTH_URL`` is looked up.

    Returns:
        None where the service is well, or where there is none; else one line.
    """
    url = environment.get(VARIABLE)
    if not url:
        return None
    # Never through a proxy: the service is in this container.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=SECONDS):
            return None  # the opener raises for every answer but a good one
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{url}: {error}"


def main() -> int:
    """Returns 0 where all is well; writes what is wrong to the standard error and returns 1 where it is not."""
    wrong = complaint(os.environ)
    if wrong is None:
        return 0
    sys.stderr.write(wrong + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
