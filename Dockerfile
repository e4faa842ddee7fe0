# The gateway itself. The controller is another container, which the gateway supervises through the Docker socket.
# How to run it: deploy/compose.yaml, docs/operations.md.
#   make image                         (wheels of all it needs, then docker build)
#   make image EXTRAS=redis            (extras of pyproject.toml, separated by commas; what has no wheel is fetched)
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}
ARG PACKAGES="git ca-certificates"
ARG EXTRAS=""

RUN if [ -n "${PACKAGES}" ]; then apt-get update && apt-get install -y --no-install-recommends ${PACKAGES} \
    && rm -rf /var/lib/apt/lists/*; fi
RUN useradd --uid 10001 --user-group --home-dir /var/lib/teg --no-create-home --shell /usr/sbin/nologin teg \
    && install -d -m 0700 -o teg -g teg /var/lib/teg

COPY dist/wheels /tmp/wheels
# A Python of its own (--copies), because it alone gets the right to read and empty what the controller's container wrote
# as root; the gateway's user has no other way to it. Without that right (no-new-privileges) all else works.
RUN python3 -m venv --copies --without-pip /opt/teg/current \
    && install="/opt/teg/current/bin/python $(echo /tmp/wheels/pip-*.whl)/pip install --quiet --no-cache-dir \
       --disable-pip-version-check --find-links /tmp/wheels teg-gateway${EXTRAS:+[${EXTRAS}]}" \
    && { ${install} --no-index || { [ -n "${EXTRAS}" ] && ${install}; }; } \
    && rm -rf /tmp/wheels \
    && python3 -c 'import glob, os, struct; \
       [os.setxattr(python, "security.capability", struct.pack("<5I", 0x02000001, 1 << 1, 0, 0, 0)) \
        for python in glob.glob("/opt/teg/current/bin/python*")]'

ENV PATH=/opt/teg/current/bin:$PATH TEG_DATA_PATH=/var/lib/teg TZ=UTC PYTHONUNBUFFERED=1
USER teg
# Archive, queue, token and the controller's directory: everything that has to outlive the container. Mount a directory of
# the host at the same path, because Docker resolves the controller's mounts on the host.
VOLUME /var/lib/teg
# SIGTERM is graceful and takes up to 30 s: docker stop --time 40.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=60s --timeout=20s --start-period=60s CMD ["teg", "status", "--alive"]
ENTRYPOINT ["teg", "run"]
