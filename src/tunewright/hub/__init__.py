"""Publishing a run: the model card, the bundle, the upload."""
