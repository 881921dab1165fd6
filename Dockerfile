# finemask for prediction on a CPU: exported networks, no torch, no network at run time.
#   docker build -t finemask .
#   docker run --rm --network none -v "$PWD:/data" finemask predict /data/exported /data/in --out /data/masks
FROM python:3.11-slim
WORKDIR /opt/finemask
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
COPY tools tools
RUN sh tools/install_runtime.sh /usr/local/bin/python
ENV OPENVINO_TELEMETRY_OPT_OUT=1 PYTHONDONTWRITEBYTECODE=1 MPLCONFIGDIR=/tmp
RUN useradd --create-home finemask
USER finemask
WORKDIR /data
ENTRYPOINT ["finemask"]
CMD ["--help"]
