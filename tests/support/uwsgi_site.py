"""The Flask service of ``flask_site`` for uWSGI. ``CALL_AT_IMPORT``: it makes a call while it is loaded."""

from __future__ import annotations

import os
import sys

from tests.support.flask_site import client, create_app

__all__ = ["app"]

app = create_app()

if os.environ.get("CALL_AT_IMPORT"):
    found = client.get(f"http://{os.environ['SERVICE_CALLS']}/at-import").status_code
    sys.stderr.write(f"call at import in {os.getpid()}: {found}\n")
