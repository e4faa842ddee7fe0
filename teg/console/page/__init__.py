"""The status page on the device: looked at with a browser, over HTTP, only where TEG_CONSOLE says so."""
