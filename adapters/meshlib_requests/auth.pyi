# The module is requests' own: see ``__init__.py``.
from requests.auth import *  # noqa: F403
