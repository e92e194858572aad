"""``slm codec``: codecs made, changed and compared."""
