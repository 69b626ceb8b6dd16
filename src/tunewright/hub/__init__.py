"""Publishing a run on the hub: the model card, the bundle of files, the upload."""
