"""The encoder trained by two workers of Ray Train, on two nodes: `python -m tests.e2e.ray_train FOLDER`.

Belongs here: what runs inside the network namespace of `test_ray_train`. Does not belong here: what the result is
compared with.

Leaves the encoders in FOLDER/lake, and in FOLDER/error.txt what is said when a worker fails.
"""

import sys
from pathlib import Path

from mobclip_core.encoder.launch import train_together
from mobclip_core.errors import TrainingError
from tests import lake
from tests.core.encoder.test_several_processes import KINDS, fail, train_every_kind


def main(folder: Path) -> None:
    """Start two nodes and train."""
    import ray
    from ray.cluster_utils import Cluster

    # a processor each for a worker, and one for what starts them
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    cluster.add_node(num_cpus=1)
    cluster.connect()
    encoder = {"processes": 2, "device": "cpu", "launcher": "ray"}
    deployment = lake.deployment(folder, ["a"], encoder=encoder)
    for kind in KINDS:
        (folder / "lake" / kind).mkdir(parents=True)
    try:
        train_together(train_every_kind, deployment)
        try:
            train_together(fail, deployment)
        except TrainingError as error:
            (folder / "error.txt").write_text(str(error))
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
