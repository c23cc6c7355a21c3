"""The hub: published files, fetched whole into Hugging Face's cache or read in parts.

The only part that uses the network, through ``huggingface_hub``: its addresses, tokens, session,
cache, locks and progress bar. Two things are our own, because no version in use does them:

- The transfer (`download`). Since 1.18 ``hf_hub_download`` starts an interrupted file again from
  nothing (huggingface_hub issue 4196), and it checks neither hash nor content. Here a partial file
  is kept and continued, and a file enters the cache only after its hash and its content were
  checked. The last step, the link from the snapshot, is ``hf_hub_download``'s.
- `RangeFile`. ``HfFileSystem`` asks the hub again for every range, and takes a server's whole
  answer into memory where that ignores the range: 19 GB for a wide SAE.
"""

from __future__ import annotations

from workbench.sae.hub.failures import HubError
from workbench.sae.hub.files import cached, check_access, fetch, fetch_folder, listing
from workbench.sae.hub.ranges import RangeFile

__all__ = [
    "HubError",
    "RangeFile",
    "cached",
    "check_access",
    "fetch",
    "fetch_folder",
    "listing",
]
