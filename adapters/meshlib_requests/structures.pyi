# The module is requests' own: see ``__init__.py``.
from requests.structures import *  # noqa: F403
