"""Train a run folder in the processes that torchrun started; ``--stop-after N`` dies after step N was saved."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tunewright import distributed
from tunewright.recipe import load_recipe
from tunewright.run_folder import RunFolder
from tunewright.training import checkpoint
from tunewright.training.stage import train_adapter

if "--stop-after" in sys.argv:
    last = int(sys.argv[sys.argv.index("--stop-after") + 1])
    original = checkpoint.save

    def save_then_die(folder, model, optimizer, step, *rest):
        original(folder, model, optimizer, step, *rest)
        if step == last:
            os._exit(9)

    checkpoint.save = save_then_die

distributed.processes()
train_adapter(RunFolder(Path(sys.argv[1])), load_recipe(sys.argv[2]))
