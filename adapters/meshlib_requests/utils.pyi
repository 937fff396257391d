# The module is requests' own: see ``__init__.py``.
from requests.utils import *  # noqa: F403
