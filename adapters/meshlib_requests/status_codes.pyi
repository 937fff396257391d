# The module is requests' own: see ``__init__.py``.
from requests.status_codes import codes as codes
