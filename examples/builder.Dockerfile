# The builder in a container, on the folder that holds the configuration:
#     make wheel && docker build -f examples/builder.Dockerfile -t polyhead-builder .
#     docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" polyhead-builder build mine.toml
FROM python:3.13-slim
COPY dist/polyhead-*.whl /tmp/
RUN pip install --no-cache-dir "$(echo /tmp/polyhead-*.whl)[builder]" && rm /tmp/polyhead-*.whl
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["builder"]
