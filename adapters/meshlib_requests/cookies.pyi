# The module is requests' own: see ``__init__.py``.
from requests.cookies import *  # noqa: F403
