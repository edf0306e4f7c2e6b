"""Constants of Wan 2.2 checkpoints (scheduler, boundary), as in Wan-AI/Wan2.2-T2V-A14B-Diffusers."""

from typing import Any

SCHEDULER_CONFIG: dict[str, Any] = {
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "flow_shift": 3.0,
    "solver_type": "bh2",
    "solver_order": 2,
    "num_train_timesteps": 1000,
}
BOUNDARY_RATIO = 0.875  # of the noise: the high noise expert has what is above
