# The container that runs long tasks. It holds a program that was built before, and whatever its functions need to run.
#
#   cargo xtask package --arm64                                  (or --x86-64; for the machines that it is to run on)
#   docker build --platform linux/arm64 -f infra/worker.Dockerfile -t sheaf-worker target/lambda/arm64
#
# That program is linked statically: it runs on any base, also on one that has nothing (--build-arg BASE=scratch).
#
# Functions that are commands, or packages whose bootstrap is not static, find in the image what the base has. To run those,
# give a base with their runtimes, pinned by a tag or digest. The layers above it run nothing, so that the base needs neither
# a shell nor a package manager:
#
#   docker build … --build-arg BASE=python:3.13-slim-trixie
#
# or derive an image from this one:
#
#   FROM sheaf-worker
#   USER root
#   RUN apt-get update && apt-get install --yes --no-install-recommends ffmpeg && rm -rf /var/lib/apt/lists/*
#   USER 10001:10001
#
# Programs are looked for in /usr/local/bin, /usr/bin and /bin unless a function's manifest sets PATH.
#
# How it is to be run, as infra/terraform does: with a read-only root file system, all capabilities dropped, /scratch as a
# volume on a local disk, an init process (docker run --init; initProcessEnabled), for functions may leave children behind, and
# a stop timeout that SHEAF_STOP_S knows of (110 s; docker stop alone waits 10):
#
#   docker run --init --read-only --cap-drop ALL --security-opt no-new-privileges --stop-timeout 110 \
#     -v /scratch -e SHEAF_TABLE=… -e SHEAF_BUCKET=… -e SHEAF_QUEUES=… sheaf-worker
#
# The page of the crate (functions/worker/src/lib.rs) lists its variables, how it stops and its exit codes.

ARG BASE=debian:13-slim

# What the image needs beside its base: the roots that TLS trusts, which slim bases lack, and a folder its user may write to.
FROM debian:13-slim AS files
# Not pinned: the newest roots are the right ones.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir /scratch

FROM ${BASE}

LABEL org.opencontainers.image.title="sheaf-worker" \
      org.opencontainers.image.description="Runs the long tasks of a Sheaf grid" \
      org.opencontainers.image.licenses="Apache-2.0"

COPY --from=files /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# Bind mounts and volumes of ECS take the owner of what they cover, if the image says that it is a volume.
COPY --from=files --chown=10001:10001 /scratch /scratch
COPY --chmod=0755 sheaf-worker-container /usr/local/bin/sheaf-worker-container

VOLUME ["/scratch"]
ENV SHEAF_SCRATCH=/scratch
USER 10001:10001
WORKDIR /scratch

# It has no port, says every 10 s in the grid's state that it is alive, and ends by itself when it cannot go on.
HEALTHCHECK NONE
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/sheaf-worker-container"]
