"""botocore's own tests, and calls of real clients, over urllib3 as ``meshlib.auto`` patches it.

``plain``: nothing of meshlib. ``auto``: patched, unconfigured. ``auto-mesh``: the same, with the endpoints substituted. In each,
a server of S3, SQS and DynamoDB (moto's) listens on loopback, and botocore is told so as any program is: by the environment.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from types import SimpleNamespace

from compat_kit import MODE
from moto.server import ThreadedMotoServer

if MODE != "plain":
    from compat_urllib3_kit import count_calls, patch

    count_calls()
    patch()


def serve() -> None:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    atexit.register(server.stop)
    host, port = server.get_host_and_port()
    for service in ("S3", "SQS", "DYNAMODB"):
        os.environ[f"AWS_ENDPOINT_URL_{service}"] = f"http://{host}:{port}"
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-west-2",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def pytest_collection_finish() -> None:
    """The server here is consistent at once, so nothing waits until it is."""
    at_once = SimpleNamespace(**{**vars(time), "sleep": lambda _: None})
    for name in ("tests", "tests.integration.test_s3", "botocore.waiter"):
        if name in sys.modules:
            sys.modules[name].time = at_once  # type: ignore[attr-defined]


serve()
