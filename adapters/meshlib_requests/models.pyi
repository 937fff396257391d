# The module is requests' own: see ``__init__.py``.
from requests.models import *  # noqa: F403
