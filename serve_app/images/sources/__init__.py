"""Where control images come from: the request itself, `image_root`, web servers, the Hub, object stores."""
