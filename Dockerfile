# syntax=docker/dockerfile:1
#
# Two images. Neither needs root, and both run with a read-only root file system: they write to /tmp and to their volume.
#
#   docker build --target workers -t terraslot/workers .
#   docker build --target agent -t terraslot/agent --build-arg TERRAFORM_VERSION=X.Y.Z --build-arg TERRAFORM_SHA256=... .
#
# TERRAFORM_SHA256 stands in the SHA256SUMS file of that release. OpenTofu instead: also TERRAFORM_PROGRAM=tofu and its
# archive's address as TERRAFORM_URL. Further versions: --build-arg MORE_VERSIONS="terraform/1.9.8@sha256:... tofu/..."
# with the checksum of each linux archive.

ARG PYTHON_IMAGE=python:3.11-slim-trixie

# This source tree, and the tools that make its wheels, whose hashes are locked.
FROM ${PYTHON_IMAGE} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /source
# Compiled here: where the images run, nothing can be written beside the sources.
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
COPY constraints.txt ./
RUN sed -n '/^uv==/,/[^\\]$/p' constraints.txt > uv.txt \
    && pip install --no-cache-dir --no-deps --require-hashes -r uv.txt
COPY . .

# What an image installs: a wheel and what it depends on, each with a hash of the lock file.
FROM build AS workers-environment
RUN uv build --wheel --require-hashes --build-constraints constraints.txt --out-dir dist \
    && sha256sum "$PWD"/dist/*.whl > wheel.sum && read -r hash wheel < wheel.sum \
    && uv venv --python python3 /opt/terraslot \
    && echo "terraslot[control,kubernetes,traces] @ file://$wheel#sha256=$hash" > target.txt \
    && uv pip install --python /opt/terraslot/bin/python \
        --require-hashes --constraints constraints.txt --requirements target.txt

# The agent's wheel holds no code of the control plane: an agent runs other people's Terraform.
FROM build AS agent-environment
RUN rm -r beat_schedule.py examples \
    && find workers -mindepth 1 -maxdepth 1 \
        ! -name __init__.py ! -name protocol ! -name slots ! -name logs.py -exec rm -r {} + \
    && sed -i -e '/^\[project.scripts\]/,/^$/d' -e '/^\[tool.hatch.*force-include\]/,/^$/d' pyproject.toml
RUN uv build --wheel --require-hashes --build-constraints constraints.txt --out-dir dist \
    && sha256sum "$PWD"/dist/*.whl > wheel.sum && read -r hash wheel < wheel.sum \
    && uv venv --python python3 /opt/terraslot \
    && echo "terraslot @ file://$wheel#sha256=$hash" > target.txt \
    && uv pip install --python /opt/terraslot/bin/python \
        --require-hashes --constraints constraints.txt --requirements target.txt

# Terraform or OpenTofu, refused unless it is exactly what was asked for. (The linter can't tell that this ADD is an address.)
FROM ${PYTHON_IMAGE} AS terraform
ARG TARGETARCH
ARG TERRAFORM_VERSION
ARG TERRAFORM_SHA256
ARG TERRAFORM_PROGRAM=terraform
ARG TERRAFORM_URL=https://releases.hashicorp.com/terraform/${TERRAFORM_VERSION}/terraform_${TERRAFORM_VERSION}_linux_${TARGETARCH}.zip
# hadolint ignore=DL3020
ADD --checksum=sha256:${TERRAFORM_SHA256} ${TERRAFORM_URL} /terraform.zip
RUN python -m zipfile -e /terraform.zip /unpacked \
    && install -D -m 0755 "/unpacked/${TERRAFORM_PROGRAM}" "/opt/terraform/${TERRAFORM_PROGRAM}"

# Further versions, held to their checksums in the same way: /opt/versions/VERSION/PROGRAM.
FROM ${PYTHON_IMAGE} AS versions
ARG TARGETARCH
ARG MORE_VERSIONS=
ARG TERRAFORM_MIRROR=https://releases.hashicorp.com/terraform
ARG TOFU_MIRROR=https://github.com/opentofu/opentofu/releases/download
COPY docker/fetch_versions.py /
RUN python /fetch_versions.py /opt/versions

# tini passes signals on to the one program, and reaps the processes that have lost their parent. Debian keeps only
# the newest version of a package, so none is pinned. ssh refuses to run for a user without an entry in /etc/passwd.
FROM ${PYTHON_IMAGE} AS runtime
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin terraslot \
    && install -d -o 10001 -g 10001 -m 0700 /var/lib/terraslot
ENV PATH=/opt/terraslot/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TERRASLOT_LOG_FORMAT=json
# Python imports from the working directory first: only root may write to it.
WORKDIR /opt/terraslot
VOLUME /var/lib/terraslot
ENTRYPOINT ["/usr/bin/tini", "--"]

# The control plane. The program is the argument: `celery -A workers beat`, `python -m workers.dashboard`, `terraslot …`.
FROM runtime AS workers
ENV TERRASLOT_HOME=/var/lib/terraslot
COPY --from=workers-environment /opt/terraslot /opt/terraslot
USER 10001:10001
CMD ["celery", "-A", "workers", "worker"]

# What runs in a pool's pods: a supervisor, which starts the agent's worker again where that dies beside its Terraform.
FROM runtime AS agent
ENV TERRASLOT_WORK_DIR=/var/lib/terraslot
ENV TERRASLOT_TERRAFORM_VERSIONS=/opt/versions
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git openssh-client \
    && rm -rf /var/lib/apt/lists/*
COPY --from=terraform /opt/terraform/ /usr/local/bin/
COPY --from=versions /opt/versions/ /opt/versions/
COPY --from=agent-environment /opt/terraslot /opt/terraslot
USER 10001:10001
CMD ["python", "-m", "agent"]
