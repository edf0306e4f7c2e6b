# syntax=docker/dockerfile:1
# Two images from one file; no weights inside, no root, nothing written outside /data and /tmp:
#   docker build --target cuda -t wan-lora-serve:0.1.0 .        serves Wan 2.2 on NVIDIA GPUs (driver for CUDA 13)
#   docker build --target cpu -t wan-lora-serve:0.1.0-cpu .     Ingress and Dispatcher nodes, and the demo
FROM python:3.12.12-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
# KubeRay's probes call wget; tini reaps what Ray leaves behind.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home --home-dir /home/ray ray \
    && install --directory --owner ray --group ray /data

# Packages first: they change seldom, so that their layer is built seldom.
FROM base AS packages
RUN python -m venv /opt/venv
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./

FROM packages AS packages-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --constraint constraints.txt --index-url "$TORCH_INDEX" torch
COPY . .
RUN pip install --constraint constraints.txt .

FROM packages AS packages-cuda
RUN pip install --constraint constraints.txt torch
COPY . .
# `hopper` is an attention kernel for H100 and H200; other cards do not load it.
RUN pip install --constraint constraints.txt ".[hopper]"

FROM base AS service
WORKDIR /data
COPY serve_config.yaml /data/serve_config.yaml
USER 1000:1000
EXPOSE 8000
ENTRYPOINT ["tini", "--"]
CMD ["wan-lora", "serve", "serve_config.yaml"]

FROM service AS cpu
COPY --from=packages-cpu /opt/venv /opt/venv

FROM service AS cuda
COPY --from=packages-cuda /opt/venv /opt/venv
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
