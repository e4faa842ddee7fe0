"""Planted faults, each with the beginning of the first line that `teg check` has to show about it.

`python -m tests.support.planted_faults` plants them one after the other and prints the table.
"""

from tests.support.planted_faults import machine, passage, server
from tests.support.planted_faults.site import FAULTS, Site, site_in

__all__ = ["FAULTS", "Site", "machine", "passage", "server", "site_in"]
