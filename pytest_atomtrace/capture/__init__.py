"""A case becomes files: lease, server, window, export, store. See `session.CaptureSession`."""
