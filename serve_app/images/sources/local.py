"""Images in `image_root`, per tenant: regular files only, opened without following links or waiting at a FIFO."""

import os
from pathlib import Path

from serve_app.files import NotRegular, open_regular
from serve_app.images.header import ImageLimits, check_size
from serve_app.net import Forbidden
from serve_app.paths import Root, unreadable
from serve_app.tenant_folders import TenantFolders

_OFF = "paths are off here, as no image_root is set; send base64, a data URL or an address"


def read(reference: str, root: Path | None, owner: str | None, limits: ImageLimits) -> bytes:
    """Return the bytes of the file that `reference` names inside `root`, in the folder of its `owner` first.

    Raises:
        Forbidden: there is no root, or the file was swapped for something else.
        PathForbidden, PathMissing: see `TenantFolders.find`.
        ImageUnusable: it has more bytes than `limits` allows.
    """
    if root is None:
        raise Forbidden(_OFF)
    images = Root(root, arg="image_root", wanted="an image file", example="folder/first_frame.png")
    path = TenantFolders(images, owner).find(reference).path
    try:
        with open_regular(path, follow_links=False) as file:  # the path is resolved, so a link in it is an attack
            check_size(os.fstat(file.fileno()).st_size, limits)
            data = file.read(limits.max_bytes + 1)
    except NotRegular as error:
        raise Forbidden(f"{error.strerror}; name an image file") from error
    except OSError as error:
        raise unreadable(error) from error
    check_size(len(data), limits)
    return data
