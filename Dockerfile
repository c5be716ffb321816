# babelray with all that it needs and none of what its tests need. One image for a laptop, for Kubernetes and for `ray up`.
#
#   docker build --target cpu -t babelray:0.1.0 .
#   docker build --target gpu -t babelray:0.1.0-gpu .
#   docker run --rm -p 127.0.0.1:8000:8000 -e BABELRAY_API_KEYS=none --shm-size 1g babelray:0.1.0    make the demo, serve it
#
# What is named as torch==… brings CUDA, several GB of it. The cpu image becomes small with an index of torch's CPU
# wheels: --build-arg PIP_EXTRA_INDEX_URL=…
ARG PYTHON=3.11.14

FROM python:${PYTHON}-slim-bookworm AS base
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# wget: KubeRay asks its own probes with it. rsync, ssh: `ray up`. tini: the first process, which hands signals on.
# hadolint ignore=DL3008  # Debian keeps one version of a package in a release; its security updates are wanted
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 openssh-client procps rsync tini wget \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 ray
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 MALLOC_ARENA_MAX=2 OMP_WAIT_POLICY=PASSIVE \
    OPENBLAS_THREAD_TIMEOUT=4 RAY_USAGE_STATS_ENABLED=0 RAY_ENABLE_UV_RUN_RUNTIME_ENV=0 \
    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serving.front:list_middlewares
WORKDIR /srv/babelray

# The lock first: this layer is made anew only when it or pyproject.toml changes. As a constraint it gives the versions,
# while the extras say what is installed: nothing of dev.
FROM base AS dependencies
ARG PIP_EXTRA_INDEX_URL=""
# gcs and azure beside these for roots on gs:// and abfs://
ARG EXTRAS=demo,gates,lora,nmt,datasets,trace
COPY requirements.lock pyproject.toml README.md ./
RUN python -m venv /srv/venv \
    && /srv/venv/bin/pip install --constraint requirements.lock ".[${EXTRAS}]" \
    && /srv/venv/bin/pip uninstall --yes babelray

FROM dependencies AS installed
COPY cluster cluster
COPY pipelines pipelines
COPY serving serving
RUN /srv/venv/bin/pip install --no-deps .

FROM base AS cpu
COPY --from=installed /srv/venv /srv/venv
ENV PATH=/srv/venv/bin:$PATH
WORKDIR /home/ray
USER 1000:1000
# of its user, so that a volume that is mounted here is too
RUN mkdir artifacts .ray
EXPOSE 8000
# Serve's own proxy answers at once, under any load. The page and the API stand behind it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=600s --retries=3 \
    CMD ["wget", "--quiet", "--tries=1", "--timeout=2", "--output-document=-", "http://127.0.0.1:8000/-/healthz"]
ENTRYPOINT ["tini", "--"]
CMD ["bash", "-c", "babelray run atlas && exec babelray serve atlas --host 0.0.0.0"]

# NVIDIA's driver is the host's; CUDA itself comes with torch. A compiler, since Triton compiles its kernels on the way.
FROM cpu AS gpu
USER 0:0
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
