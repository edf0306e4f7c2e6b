"""What `build` decided once for every part of the service."""

from pydantic import BaseModel, ConfigDict

from serve_app.cards import ModelCard
from serve_app.loras.architecture import WanArchitecture
from serve_app.settings import Profile, Settings


class ServicePlan(BaseModel):
    """Settings with nothing left open: the profile is resolved, the model is found."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    settings: Settings
    card: ModelCard
    profile: Profile  # cpu or gpu
    base_model: str  # hub id or directory
    transformer_model: str
    architecture: WanArchitecture  # of each expert
    max_generators: int
    demo: bool

    @property
    def notice(self) -> str | None:
        """What clients must be told about this service."""
        if not self.demo:
            return None
        return (
            "DEMO: this service runs a tiny checkpoint with random weights on the CPU. Its videos show that "
            "everything works, not what Wan 2.2 looks like. Start it where Ray has a GPU to serve the real model."
        )
