# Images with the program, without root:
#   docker build -t gportuguese .                        for the CPU
#   docker build -t gportuguese:cuda --target cuda .     for NVIDIA GPUs
#   docker run --rm -v "$PWD:/work" gportuguese train
#   docker run --rm -v "$PWD:/work" --gpus all gportuguese:cuda train --config t4
#   docker run --rm -v "$PWD:/work" -p 8000:8000 -e GPT_PT_TOKEN=secret gportuguese serve artifacts --host 0.0.0.0
# Not built with Docker yet: hadolint accepts the file, and the pip steps were run in a fresh environment (there with the
# CUDA build of PyTorch: 6.7 GB), from which a user without rights trained a short demo.

FROM python:3.12-slim AS base
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 1000 user
WORKDIR /work

FROM base AS source
ENV PIP_NO_CACHE_DIR=1
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY src src
RUN python -m venv /opt/venv

FROM source AS build-cpu
# hadolint ignore=DL3013
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu '.[vectors,gguf,export]'

FROM source AS build-cuda
# hadolint ignore=DL3013
RUN pip install '.[vectors,gguf,export]'

FROM base AS cuda
# runtime.compile compiles its kernels' launchers
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends gcc libc6-dev \
  && rm -rf /var/lib/apt/lists/*
COPY --from=build-cuda /opt/venv /opt/venv
USER 1000
ENTRYPOINT ["gpt-pt"]
CMD ["--help"]

FROM base AS cpu
COPY --from=build-cpu /opt/venv /opt/venv
USER 1000
ENTRYPOINT ["gpt-pt"]
CMD ["--help"]
