"""OpenAI's Videos API (`/v1/videos`), a facade: it translates to `POST /v1/inference` and back, and decides nothing.

routes.py        the five calls
route.py         bodies (JSON and forms) in, errors in OpenAI's shape out
form.py          a multipart form as the JSON that it stands for
translation.py   a VideoRequest as an InferenceRequest, a request's record as a Video
"""
