"""A tuning in a process of its own: one that can be killed, or one of several that share a batch.

python tune_driver.py FOLDER OUT CONFIG_JSON [STEP_TO_DIE_AFTER]
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from made_pictures import made_pictures, opened, write_clip
from safetensors.torch import save_file

from mvtrain.distributed import join_ranks
from mvtrain.tune import tune
from mvtrain.tune_config import TuneConfig


def main() -> None:
    folder, out, config = Path(sys.argv[1]), Path(sys.argv[2]), TuneConfig(**json.loads(sys.argv[3]))
    dies_after = int(sys.argv[4]) if len(sys.argv) > 4 else None

    def log(entry: dict[str, Any]) -> None:
        if entry["step"] == dies_after:
            os.kill(os.getpid(), signal.SIGKILL)

    with join_ranks("cpu") as ranks:
        ranks.lead(lambda: made_pictures(folder))
        encoder = opened(write_clip(folder))
        tuned = tune(encoder, made_pictures(folder), config, out, log=log, ranks=ranks)
        pooling = {f"pooling.{name}": tensor for name, tensor in tuned.pooling.state_dict().items()}
        tensors = dict(encoder.network.state_dict()) | pooling
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()}, out / f"weights-{ranks.rank}.safetensors"
        )


if __name__ == "__main__":
    main()
