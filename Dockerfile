# The service as a container: docker build -t fashion_keras . && docker compose up
FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY fashion_keras fashion_keras
COPY tuning tuning
RUN python -m venv /opt/service && /opt/service/bin/pip install --no-cache-dir ".[serve]"

FROM python:3.11-slim
COPY --from=build /opt/service /opt/service
# Another model can be mounted over this one.
COPY fashion_keras/released/fashion.keras /models/fashion.keras
# Keras and Matplotlib keep settings at home; the root file system may be read-only.
ENV PATH=/opt/service/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /models
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["python", "-c", \
  "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=2)"]
ENTRYPOINT ["python", "-m", "fashion_keras.serve"]
CMD ["/models/fashion.keras", "--host", "0.0.0.0"]
