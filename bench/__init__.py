"""What meshlib costs beside the bare libraries and beside a sidecar: ``python -m bench``."""
