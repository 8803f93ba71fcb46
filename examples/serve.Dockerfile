# edge-runtime serve in a container:
#     make wheel && docker build -f examples/serve.Dockerfile --build-arg MODEL=out/mine.tflite -t polyhead-serve .
#     docker run --rm -p 8080:8080 -v polyhead-token:/token polyhead-serve
#     docker exec CONTAINER cat /token/token          # made at the first start
FROM python:3.13-slim
ARG MODEL
COPY dist/polyhead-*.whl /tmp/
RUN pip install --no-cache-dir "$(echo /tmp/polyhead-*.whl)[web]" && rm /tmp/polyhead-*.whl \
    && useradd --system --uid 10001 polyhead && install -d -o polyhead -m 700 /token
COPY ${MODEL} /models/
RUN ln -s /models/* /model.tflite
USER polyhead
VOLUME /token
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=3s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health', timeout=2)"]
ENTRYPOINT ["edge-runtime", "serve", "/model.tflite", "--address", "0.0.0.0:8080", "--token-file", "/token/token"]
