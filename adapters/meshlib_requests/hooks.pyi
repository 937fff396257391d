# The module is requests' own: see ``__init__.py``.
from requests.hooks import *  # noqa: F403
