# flataudit as one command, in the versions of constraints.txt, as a user without rights.
#
#   docker build -t flataudit:0.1.0 .
#   docker run --rm -v "$PWD:/work" -e MLFLOW_TRACKING_URI flataudit:0.1.0 gate
#
# The torch on PyPI for Linux carries CUDA libraries (several GB). For a smaller image on machines without a GPU,
# give pip the index of the CPU builds: --build-arg TORCH_INDEX=URL; constraints.txt pins the version all the same.
FROM python:3.11-slim

ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 MLFLOW_DISABLE_TELEMETRY=true

RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin flataudit \
    && install -d -o flataudit -g flataudit /work

COPY . /src
RUN if [ -n "$TORCH_INDEX" ]; then pip install -c /src/constraints.txt --index-url "$TORCH_INDEX" torch; fi \
    && pip install -c /src/constraints.txt '/src[all]' \
    && rm -rf /src

USER 10001:10001
WORKDIR /work
ENTRYPOINT ["flataudit"]
CMD ["--help"]
