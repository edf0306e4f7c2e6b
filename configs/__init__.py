"""Model cards, serve profiles and manifests: data only."""
