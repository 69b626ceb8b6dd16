"""Files that run a recipe on another machine: SkyPilot tasks, Slurm scripts, notebooks."""
