"""Other machines: SkyPilot and Slurm files, notebooks."""
