# The gateway itself. The controller is another container, which the gateway supervises through the Docker socket:
#   docker run -d --name teg-gateway --restart unless-stopped \
#     -v /var/run/docker.sock:/var/run/docker.sock -v /var/lib/teg:/var/lib/teg --env-file .env teg-gateway
# TEG_DATA_PATH with the controller's directories in it must have the same path inside and outside: Docker resolves the
# controller's mounts on the host.
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}

RUN apt-get update && apt-get install -y --no-install-recommends git ca-certificates && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/teg
COPY constraints.txt pyproject.toml README.md ./
COPY gateway.py ./
COPY controller_client controller_client
COPY producers producers
COPY tasks tasks
COPY teg teg
RUN pip install --no-cache-dir --constraint constraints.txt .

ENV TEG_DATA_PATH=/var/lib/teg TZ=UTC PYTHONUNBUFFERED=1
# SIGTERM is graceful and takes up to 30 s: stop the container with `docker stop --time 40`.
STOPSIGNAL SIGTERM
CMD ["huey_consumer", "gateway.huey"]
