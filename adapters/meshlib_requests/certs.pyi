# The module is requests' own: see ``__init__.py``.
from requests.certs import *  # noqa: F403
