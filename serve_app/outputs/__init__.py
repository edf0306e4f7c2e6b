"""Where finished files are kept: a directory, or a bucket for clusters."""
