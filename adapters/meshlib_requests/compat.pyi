# The module is requests' own: see ``__init__.py``.
from requests.compat import *  # noqa: F403
