"""The Python client of the service, synchronous and asynchronous, typed by the API's own schemas.

    from serve_app.client import Client, InferenceRequest, LoraItem, PromptItem

Example:
    with Client("http://127.0.0.1:8000") as client:
        result = client.render(InferenceRequest(model=..., loras=[...], prompts=[PromptItem(prompt="a fox")]))
        client.download(result.outputs.videos[0], "fox.mp4")

It imports neither PyTorch nor Ray nor FastAPI.
"""

from serve_app.api.schemas.answers import Accepted, Deleted, RequestResult, RequestStatus, Video
from serve_app.api.schemas.bodies import InferenceRequest, LoraItem, PromptItem, Side
from serve_app.api.schemas.events import Preview, Step
from serve_app.api.schemas.inspection import Inspection, InspectionRequest
from serve_app.api.schemas.listing import RequestDetails, RequestForecast, RequestList
from serve_app.client.asynchronous import AsyncClient
from serve_app.client.blocking import Client
from serve_app.client.calls import Wanted
from serve_app.client.events import Done, Event, OutputReady, StatusChanged, picture_of

__all__ = [
    "Accepted",
    "AsyncClient",
    "Client",
    "Deleted",
    "Done",
    "Event",
    "InferenceRequest",
    "Inspection",
    "InspectionRequest",
    "LoraItem",
    "OutputReady",
    "Preview",
    "PromptItem",
    "RequestDetails",
    "RequestForecast",
    "RequestList",
    "RequestResult",
    "RequestStatus",
    "Side",
    "StatusChanged",
    "Step",
    "Video",
    "Wanted",
    "picture_of",
]
