"""`wan-lora serve` on a real cluster: a fault that only a replica meets."""

import json
from pathlib import Path

from tests.serve_app.loras.files import CONFIG
from tests.service_process import STARTUP_S, ServiceProcess

# Serve tries three times; one replica that cannot be made shows as much.
_ONCE = {"RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT": "1"}


def test_a_fault_that_only_a_replica_meets_ends_the_start(tmp_path: Path) -> None:
    # Whole for whoever looks at its files, and yet no pipeline can be made of it.
    for folder in ("base", "experts/transformer", "experts/transformer_2"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "base" / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    (tmp_path / "experts" / "transformer" / "config.json").write_text(json.dumps(CONFIG))
    service = ServiceProcess(tmp_path, _ONCE, base_model=f"{tmp_path}/base", transformer_model=f"{tmp_path}/experts")
    service.launch()
    try:
        assert service.ended(STARTUP_S) == 1
    finally:
        service.kill()
    assert "could not start" in service.said()[-1], service.said()
    log = service.log.read_text()
    assert log.strip().splitlines()[-1] == service.said()[-1]
    assert "AttributeError" not in log
