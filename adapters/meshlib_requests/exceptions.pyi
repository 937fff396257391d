# The module is requests' own: see ``__init__.py``.
from requests.exceptions import *  # noqa: F403
